-- Some of the names of keys. ARGV: cursor, pattern, about how many keys to look at. Returns the next cursor and names.
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
