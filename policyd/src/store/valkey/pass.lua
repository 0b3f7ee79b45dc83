-- A client has come again: it is known, and its triplets are forgotten. KEYS: passed, triplets, order.
-- ARGV: known until, time to live.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
