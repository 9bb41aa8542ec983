-- Take rows to sign: oldest deadline first, the doorbell cleared before anything is read; rung again where all that was read had to be dropped.
-- ARGV: 1 token (names the take), 2 count, 3 lease ms, 4 final height
-- Returns JSON, as a text, the host whose journal must be replayed first; else [[id, args, deadline, tries, report], …]. The answer to a repeated call has the rows that are still of this take.
-- Needs: rows epochs
local token, count, lease, final_height = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- The head is two heights above the final block; there it is included at the earliest one higher, executed another one higher.
local EXECUTED_AFTER = 4
local function described(ids)
  local rows = {}
  for _, id in ipairs(ids) do
    local now = get(id, 'row', 'take', 'args', 'deadline', 'tries', 'report')
    if now[1] == 'taken' and now[2] == token then
      rows[#rows + 1] = { id, now[3], now[4] or '', now[5] or '0', now[6] or '' }
    end
  end
  return #rows > 0 and cjson.encode(rows) or '[]'
end
local before = remembered(token)
if before then return described(words(before)) end

redis.call('DEL', P .. 'bell')
local host = awaited()
if host then return cjson.encode(host) end
redis.call('SET', P .. 'head', ARGV[4])
-- After a failed batch fewer go together, until batches land again (near.md).
local together = math.min(count, tonumber(redis.call('GET', P .. 'batch') or count))
local taken = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'waiting', 0, 4 * count + 20)) do
  if #taken >= together then break end
  local now = get(id, 'deadline', 'alone', 'state')
  local deadline = tonumber(now[1] or '')
  if not deadline then
    -- Known to nobody, it ends all the same: a row that fails again and again must not be paid for without end.
    deadline = final_height + DEADLINE
    redis.call('HSET', job(id), 'deadline', deadline)
  end
  if now[3] ~= 'resolving' then
    redis.call('ZREM', P .. 'waiting', id)
  elseif final_height + EXECUTED_AFTER >= deadline then
    redis.call('ZREM', P .. 'waiting', id)
    settle_job(id, 'expired', '', 'expired: the deadline of height ' .. deadline .. ' cannot be met any more.')
  elseif now[2] ~= '1' or #taken == 0 then
    redis.call('ZREM', P .. 'waiting', id)
    redis.call('ZADD', P .. 'taken', NOW + lease, id)
    redis.call('HSET', job(id), 'row', 'taken', 'take', token, 'updated', NOW)
    taken[#taken + 1] = id
    if now[2] == '1' then break end
  end
end
-- So many are read at once that Redis is not held up; live ones may stand behind them.
if together > 0 and #taken == 0 and redis.call('EXISTS', P .. 'waiting') == 1 then ring(false) end
answer(token, table.concat(taken, ' '))
return described(taken)
