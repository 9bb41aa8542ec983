-- Keep a signed transaction before its first byte is sent: all of its rows, or none.
-- ARGV: 1 token, 2 hash, 3 public key, 4 nonce, 5 height, 6 signed (base64), 7.. pairs of data_id, take in the order of the actions
-- Returns 1 (also when it was restored from the journal meanwhile), or 0: a row is no longer TAKEN by its take, and nothing may be sent.
local token, hash, public_key, nonce, height, signed = unpack(ARGV, 1, 6)
local before = remembered(token)
if before then return tonumber(before) end
if redis.call('EXISTS', P .. 'tx:' .. hash) == 1 then return answer(token, 1) end
local ids = {}
for i = 7, #ARGV, 2 do
  local now = get(ARGV[i], 'row', 'take', 'state')
  if now[1] ~= 'taken' or now[2] ~= ARGV[i + 1] or now[3] ~= 'resolving' then return answer(token, 0) end
  ids[#ids + 1] = ARGV[i]
end
redis.call('HSET', P .. 'tx:' .. hash, 'key', public_key, 'nonce', nonce, 'height', height, 'signed', signed, 'ids', table.concat(ids, ' '),
  'attempts', 0, 'stored', NOW)
redis.call('SET', P .. 'carried:' .. hash, table.concat(ids, ' '), 'EX', LOOKUP_SECONDS)
redis.call('ZADD', P .. 'flight:' .. public_key, nonce, hash)
redis.call('SADD', P .. 'keys', public_key)
for _, id in ipairs(ids) do
  local hashes = get(id, 'hashes')[1] or ''
  redis.call('ZREM', P .. 'taken', id)
  redis.call('HSET', job(id), 'row', 'signed', 'tx', hash, 'hashes', hashes == '' and hash or hashes .. ' ' .. hash, 'updated', NOW)
  redis.call('HINCRBY', job(id), 'tries', 1)
  note(id, 'resolve', 'signed', hash)
end
return answer(token, 1)
