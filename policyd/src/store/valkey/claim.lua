-- Takes the right to notify about the counter KEYS[1]; ARGV: now, period. Returns whether it was free.
local row = redis.pcall('HMGET', KEYS[1], 'init', 'notified')
if row.err then
    return 0
end
local init, notified = number(row[1]), number(row[2]) or 0
if init == nil then
    return 0
end
if notified == 0 or notified <= init or notified > init + tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], 'notified', ARGV[1])
    return 1
end
return 0
