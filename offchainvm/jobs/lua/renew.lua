-- Prolong a lease. No token: a repeat changes nothing.
-- ARGV: 1 data_id, 2 fence, 3 lease ms.   Returns 1, or 0: the claim is lost.
local id, fence, lease = unpack(ARGV)
if not held(id, fence) then return 0 end
redis.call('ZADD', P .. 'running', NOW + lease, id)
return 1
