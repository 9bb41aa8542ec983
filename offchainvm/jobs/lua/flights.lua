-- Transactions in flight by key and nonce.   ARGV: 1 public key, or '' for all.
-- Returns JSON [[hash, key, nonce, height, signed, ids, attempts, stored], …].
local keys = ARGV[1] ~= '' and { ARGV[1] } or redis.call('SMEMBERS', P .. 'keys')
table.sort(keys)
local found = {}
for _, public_key in ipairs(keys) do
  for _, hash in ipairs(redis.call('ZRANGE', P .. 'flight:' .. public_key, 0, -1)) do
    local tx = redis.call('HMGET', P .. 'tx:' .. hash, 'key', 'nonce', 'height', 'signed', 'ids', 'attempts', 'stored')
    if tx[1] then found[#found + 1] = { hash, unpack(tx) } end
  end
end
return #found > 0 and cjson.encode(found) or '[]'
