-- Raises the floor of one key; never lowers it.
-- KEYS[1]  hash of the key (lock.lua)
-- ARGV     nonce
-- returns  1 when the floor rose
if tonumber(ARGV[1]) <= tonumber(redis.call('HGET', KEYS[1], 'floor') or 0) then
  return 0
end
redis.call('HSET', KEYS[1], 'floor', ARGV[1])
return 1
