-- Prolongs a lock that is still held.
-- KEYS[1]  hash of the key (lock.lua)
-- ARGV     token, ttl (ms)
-- returns  1, or 0 = lost
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lock = redis.call('HMGET', KEYS[1], 'lock', 'lock_until')
if lock[1] ~= ARGV[1] or tonumber(lock[2]) <= now then
  return 0
end
redis.call('HSET', KEYS[1], 'lock_until', string.format('%.0f', now + tonumber(ARGV[2])))
return 1
