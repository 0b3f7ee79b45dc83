-- Counts one more refusal of a triplet that is there. KEYS: triplets. ARGV: the triplet.
local block, record, count, init = times(redis.pcall('HGET', KEYS[1], ARGV[1]))
if not block then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1],
    string.format('%.0f %.0f %.0f %.0f', block, record, math.min(count + 1, 999999999), init))
return 1
