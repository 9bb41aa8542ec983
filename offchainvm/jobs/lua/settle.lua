-- End a transaction whose outcome is final: each row by its own, the slot of its key freed.
-- ARGV: 1 token, 2 hash, 3 tokens it burnt (10^12 yoctoNEAR), 4.. pairs of verdict ('' = WAITING again), error, one pair for each action
-- Returns 1; 0: not in flight (settled before); -1: the number of outcomes is not the number of rows.
-- Needs: rows
local DAY_MS = 86400000
local SPENT_SECONDS = 8 * 86400
local token, hash, burnt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local before = remembered(token)
if before then return tonumber(before) end
if redis.call('EXISTS', P .. 'tx:' .. hash) == 0 then return answer(token, 0) end
local ids = words(redis.call('HGET', P .. 'tx:' .. hash, 'ids'))
if #ARGV - 3 ~= 2 * #ids then return -1 end

local failed = false
for i, id in ipairs(ids) do
  local verdict, err = ARGV[2 + 2 * i], ARGV[3 + 2 * i]
  local now = get(id, 'tx', 'row', 'hashes')
  if verdict ~= '' then
    settle_job(id, verdict, hash, err)
  else
    failed = true
    if now[2] == 'signed' and now[1] == hash then
      -- A row that made a batch fail goes alone; one that was only beside it is not blamed.
      if err ~= '' then redis.call('HSET', job(id), 'alone', 1) end
      note(id, 'resolve', 'again', err)
      release(id, hash)
    end
  end
end
local together = tonumber(redis.call('GET', P .. 'batch') or '0')
if failed and #ids > 1 then
  redis.call('SET', P .. 'batch', math.floor(#ids / 2), 'PX', BATCH_MS)
elseif not failed and together > 0 then
  redis.call('SET', P .. 'batch', 2 * together, 'PX', BATCH_MS)
end
land(hash)
if burnt > 0 then
  local today = P .. 'spent:' .. math.floor(NOW / DAY_MS)
  total('spent', burnt)
  redis.call('INCRBY', today, string.format('%.0f', burnt))
  redis.call('EXPIRE', today, SPENT_SECONDS)
end
if redis.call('EXISTS', P .. 'waiting') == 1 then ring(false) end
return answer(token, 1)
