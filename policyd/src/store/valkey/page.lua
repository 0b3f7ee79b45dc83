-- Some of the triplets of a client. KEYS: triplets. ARGV: cursor, pattern, about how many to look at.
-- Returns the next cursor and of each triplet {name, block_expired, record_expired, blocked_count, init}.
local page = redis.pcall('HSCAN', KEYS[1], ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local found = {}
if page.err then
    if not string.find(page.err, 'WRONGTYPE', 1, true) then
        return page
    end
    return { '0', found }
end
for at = 1, #page[2], 2 do
    local block, record, count, init = times(page[2][at + 1])
    if block then
        table.insert(found, { page[2][at], block, record, count, init })
    end
end
return { page[1], found }
