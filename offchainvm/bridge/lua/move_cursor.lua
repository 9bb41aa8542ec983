-- Move the event monitor's cursor, if the lease is the monitor's still and Redis has the cursor that it came from; renews the lease.
-- KEYS: 1 cursor, 2 lease, 3 time of its block. ARGV: 1 what the cursor must be ('' = absent), 2 what it becomes, 3 token, 4 lease in ms, 5 that time.
-- Returns 1, or 0: not moved.
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[3], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
