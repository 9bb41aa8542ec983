-- Move the event monitor's cursor, if Redis still has the one that the monitor came from.
-- KEYS: 1 cursor. ARGV: 1 what it must be ('' = absent), 2 what it becomes. Returns 1, or 0: it is another.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
