-- Put a journalled transaction back as in flight, whatever the records say: its bytes may be on the wire.
-- But never beside another payload of the same job that was signed since: who journalled it may have died before the first byte was sent.
-- No token: a transaction that is in flight is left as it is.
-- ARGV: 1 hash, 2 public key, 3 nonce, 4 height, 5 signed (base64), 6 attempts,
--       7.. for each action: data_id, args (base64), deadline or '', report, fixed (JSON, for a record that is gone), request_id
-- Returns JSON "restored" | "known" (in flight) | "conflict" (another payload was signed) | "over" (every row is settled, or moved on to another transaction since)
-- Needs: rows
local hash, public_key, nonce, height, signed, attempts = unpack(ARGV, 1, 6)
if redis.call('EXISTS', P .. 'tx:' .. hash) == 1 then return '"known"' end
local ids, open = {}, {}
for i = 7, #ARGV, 6 do
  local id = ARGV[i]
  ids[#ids + 1] = id
  local now = get(id, 'state', 'hashes', 'tx', 'row', 'args')
  local ended = now[1] == 'settled' or (not now[1] and redis.call('EXISTS', P .. 'tomb:' .. id) == 1)
  -- Redis remembers that it was in flight, and that this ended: a later transaction, or a later signature, has the row.
  local moved_on = carried_by(now[2], hash) and not (now[4] == 'signed' and now[3] == hash)
  if not ended and not moved_on then
    if (now[2] or '') ~= '' and now[5] and now[5] ~= ARGV[i + 1] then return '"conflict"' end
    open[#open + 1] = i
  end
end
if #open == 0 then return '"over"' end

for _, i in ipairs(open) do
  local id, arguments, deadline, report, fixed, request_id = unpack(ARGV, i, i + 5)
  local now = get(id, 'hashes', 'tx', 'row', 'deadline')
  if redis.call('HSETNX', job(id), 'fixed', fixed) == 1 then
    redis.call('HSET', job(id), 'needs', 1, 'accepted', NOW, 'request_id', request_id)
    if request_id ~= '' then redis.call('SET', P .. 'request:' .. request_id, id) end
  end
  unindex(id)
  if not now[4] or now[4] == '' then redis.call('HSET', job(id), 'deadline', deadline) end
  local hashes = now[1] or ''
  if not carried_by(hashes, hash) then hashes = hashes == '' and hash or hashes .. ' ' .. hash end
  local other = now[3] == 'signed' and now[2] and redis.call('EXISTS', P .. 'tx:' .. now[2]) == 1
  redis.call('HSET', job(id), 'state', 'resolving', 'stage', 'resolve', 'owner', '', 'row', 'signed', 'tx', other and now[2] or hash, 'hashes', hashes,
    'args', arguments, 'report', report, 'brief', '', 'tries', #words(hashes), 'updated', NOW)
  redis.call('HINCRBY', job(id), 'fence', 1)
  note(id, 'resolve', 'restored', hash)
end
redis.call('HSET', P .. 'tx:' .. hash, 'key', public_key, 'nonce', nonce, 'height', height, 'signed', signed, 'ids', table.concat(ids, ' '),
  'attempts', attempts, 'stored', NOW)
redis.call('SET', P .. 'carried:' .. hash, table.concat(ids, ' '), 'EX', LOOKUP_SECONDS)
redis.call('ZADD', P .. 'flight:' .. public_key, nonce, hash)
redis.call('SADD', P .. 'keys', public_key)
return '"restored"'
