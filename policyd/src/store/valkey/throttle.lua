-- Counts a message on all counters KEYS if all of them allow it.
-- ARGV: now, messages, bytes, then for each counter: period, max_msgs, max_quota, time to live of a new period.
-- Returns {1}, or {0, which counter, whether it has a row, whether it is the number of messages}. Where one has too many
-- messages and another too many bytes, it is the one with the messages.
local now, messages, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local moved, refused = {}, nil
for at, key in ipairs(KEYS) do
    local period, max_msgs, max_quota =
        tonumber(ARGV[4 * at]), tonumber(ARGV[4 * at + 1]), tonumber(ARGV[4 * at + 2])
    local row = redis.pcall('HMGET', key, 'init', 'msgs', 'quota')
    local broken = row.err ~= nil
    local init, msgs, quota
    if not broken then
        init, msgs, quota = number(row[1]), number(row[2]), number(row[3])
    end
    local has_row = init ~= nil and msgs ~= nil and quota ~= nil
    local over = not has_row or init + period < now
    if over then
        init, msgs, quota = now, 0, 0
    end
    local too_many = max_msgs > 0 and msgs + messages > max_msgs
    if too_many or (max_quota > 0 and quota > max_quota) then
        -- Without a time to live, which only others can have brought about, it would be full for ever.
        if has_row and redis.call('TTL', key) == -1 then
            redis.call('EXPIRE', key, ARGV[4 * at + 3])
        end
        if too_many or not refused then
            refused = { 0, at, has_row and 1 or 0, too_many and 1 or 0 }
        end
        if too_many then
            break
        end
    end
    local whole = tonumber(ARGV[4 * at + 3])
    -- A period that began in the future, by whatever clock, does not last for ever either.
    local left = math.max(1, math.min(whole - now + init, 2 * whole))
    moved[at] = { broken, init, msgs + messages, quota + bytes, left }
end
if refused then
    return refused
end
local most = 9007199254740992
for at, key in ipairs(KEYS) do
    local broken, init, msgs, quota, left = unpack(moved[at])
    if broken then
        redis.call('DEL', key)
    end
    redis.call('HSET', key,
        'init', string.format('%.0f', init),
        'msgs', string.format('%.0f', math.min(msgs, most)),
        'quota', string.format('%.0f', math.min(quota, most)))
    redis.call('EXPIRE', key, string.format('%.0f', left))
end
return { 1 }
