-- Ends a hold, if it is of that kind still.
-- KEYS[1]  hash of the keys that are held (nonce.lua)
-- ARGV     public key, what the reason begins with
-- returns  1 when the key was so held
local reason = redis.call('HGET', KEYS[1], ARGV[1])
if not reason or string.sub(reason, 1, #ARGV[2]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
