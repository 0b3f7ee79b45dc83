-- Writes down a first contact. KEYS: triplets, order.
-- ARGV: the triplet, init, block_expired, record_expired, time to live, most triplets of a client, whether one that
-- is there already is written over.
local triplets, order = KEYS[1], KEYS[2]
local kinds = { [triplets] = 'hash', [order] = 'zset' }
for key, kind in pairs(kinds) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        redis.call('DEL', triplets, order)
    end
end
-- Without their order, which the server may have evicted, the oldest cannot be found.
if redis.call('HLEN', triplets) > 2 * tonumber(ARGV[6]) then
    redis.call('DEL', triplets, order)
end
-- Those that are over, some at a time.
for _, old in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. ARGV[2], 'LIMIT', 0, 100)) do
    if old ~= ARGV[1] then
        redis.call('HDEL', triplets, old)
        redis.call('ZREM', order, old)
    end
end
if ARGV[7] == '0' and times(redis.call('HGET', triplets, ARGV[1])) then
    return 0
end
redis.call('HSET', triplets, ARGV[1], ARGV[3] .. ' ' .. ARGV[4] .. ' 1 ' .. ARGV[2])
redis.call('ZADD', order, ARGV[4], ARGV[1])
-- One client cannot fill the memory: the oldest give way.
local excess = redis.call('ZCARD', order) - tonumber(ARGV[6])
if excess > 0 then
    for _, old in ipairs(redis.call('ZRANGE', order, 0, excess - 1)) do
        redis.call('HDEL', triplets, old)
    end
    redis.call('ZREMRANGEBYRANK', order, 0, excess - 1)
end
for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) < tonumber(ARGV[5]) then
        redis.call('EXPIRE', key, ARGV[5])
    end
end
return 1
