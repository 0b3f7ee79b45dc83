-- What is read is checked: text that is none of our numbers is as good as none. In front of every script that reads.
local function number(text)
    if type(text) == 'string' and #text <= 16 and string.match(text, '^%d+$') then
        return tonumber(text)
    end
end

-- block_expired, record_expired, blocked_count and init of a triplet; nothing unless all four make sense.
local function times(text)
    if type(text) ~= 'string' or #text > 70 then
        return
    end
    local block, record, count, init = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
    block, record, count, init = number(block), number(record), number(count), number(init)
    if block and record and count and init and block <= record then
        return block, record, count, init
    end
end

