-- What is known about a client and its triplet. KEYS: passed, triplets. ARGV: the triplet.
-- Returns {client known until, block_expired, record_expired}, -1 for what is not known.
local answer = { number(redis.pcall('GET', KEYS[1])) or -1, -1, -1 }
local block, record = times(redis.pcall('HGET', KEYS[2], ARGV[1]))
if block then
    answer[2], answer[3] = block, record
end
return answer
