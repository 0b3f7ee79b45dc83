-- What has been counted on the counters KEYS: of each its init, messages and bytes, -1 for what is none.
local answer = {}
for at, key in ipairs(KEYS) do
    local row = redis.pcall('HMGET', key, 'init', 'msgs', 'quota')
    local init, msgs, quota
    if not row.err then
        init, msgs, quota = number(row[1]), number(row[2]), number(row[3])
    end
    if init and msgs and quota then
        answer[at] = { init, msgs, quota }
    else
        answer[at] = { -1, -1, -1 }
    end
end
return answer
