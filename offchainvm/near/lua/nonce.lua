-- The next nonce of one key: max(last + 1, floors + 1, lowest), under the limit; only for who holds its lock.
-- KEYS[1]  hash of the key (lock.lua)      KEYS[2]  hash of the keys that are held: public key -> reason
-- ARGV     lock's token, call token, public key, chain floor, lowest, limit (the nonce stays under it)
-- returns  {'nonce', n}, {'lost', ''}, {'held', reason} or {'ahead', n}; the same call token gets the same nonce
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key = redis.call('HMGET', KEYS[1], 'lock', 'lock_until', 'last', 'floor', 'call', 'call_nonce')
if key[1] ~= ARGV[1] or tonumber(key[2]) <= now then
  return {'lost', ''}
end
local reason = redis.call('HGET', KEYS[2], ARGV[3])
if reason then
  return {'held', reason}
end
if key[5] == ARGV[2] then
  return {'nonce', key[6]}
end
local nonce = math.max(tonumber(key[3] or 0) + 1, tonumber(key[4] or 0) + 1, tonumber(ARGV[4]) + 1, tonumber(ARGV[5]))
-- Lua writes large numbers as 1e+14 by itself.
local text = string.format('%.0f', nonce)
if nonce >= tonumber(ARGV[6]) then
  return {'ahead', text}
end
redis.call('HSET', KEYS[1], 'last', text, 'call', ARGV[2], 'call_nonce', text)
return {'nonce', text}
