-- A known client stays known. KEYS: passed. ARGV: known until, time to live.
if redis.call('SET', KEYS[1], ARGV[1], 'XX', 'EX', ARGV[2]) then
    return 1
end
return 0
