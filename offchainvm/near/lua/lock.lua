-- Takes the lock of one key; a repeat with the same token prolongs it and answers the same.
-- KEYS[1]  hash of the key: lock, lock_until (ms), last, floor, call, call_nonce
-- KEYS[2]  set of the names of such hashes, for who only looks
-- ARGV     token, ttl (ms)
-- returns  1, or 0 = another holds it
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lock = redis.call('HMGET', KEYS[1], 'lock', 'lock_until')
if lock[1] and lock[1] ~= ARGV[1] and tonumber(lock[2]) > now then
  return 0
end
redis.call('HSET', KEYS[1], 'lock', ARGV[1], 'lock_until', string.format('%.0f', now + tonumber(ARGV[2])))
redis.call('SADD', KEYS[2], KEYS[1])
return 1
