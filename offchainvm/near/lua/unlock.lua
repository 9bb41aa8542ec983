-- Gives a lock back; one that another took over is left alone.
-- KEYS[1]  hash of the key (lock.lua)
-- ARGV     token
-- returns  1 when it was given back
if redis.call('HGET', KEYS[1], 'lock') ~= ARGV[1] then
  return 0
end
return redis.call('HDEL', KEYS[1], 'lock', 'lock_until') > 0 and 1 or 0
