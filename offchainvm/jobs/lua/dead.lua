-- End a transaction that provably cannot land.
-- ARGV: 1 token, 2 hash, 3 attempts seen before the evidence was gathered
-- Returns 1, or 0: not in flight, or sent again since (the evidence is stale).
-- Needs: rows
local token, hash, seen = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
local tx = redis.call('HMGET', P .. 'tx:' .. hash, 'ids', 'attempts')
if not tx[1] or tx[2] ~= seen then return answer(token, 0) end
for _, id in ipairs(words(tx[1])) do
  local now = get(id, 'row', 'tx')
  if now[1] == 'signed' and now[2] == hash then
    note(id, 'resolve', 'dead', hash)
    release(id, hash)
  end
end
land(hash)
if redis.call('EXISTS', P .. 'waiting') == 1 then ring(false) end
return answer(token, 1)
