-- Judge what ran out: claims (a death each), takes of rows, parked jobs whose build is gone.
-- No token: what one run put right the next does not find.
-- ARGV: 1 batch, 2 '1' when leases may be judged.   Returns JSON [deaths, rows returned, promoted].
-- Needs: builds rows
local LOST_SECONDS = 86400
local batch, judge = tonumber(ARGV[1]), ARGV[2] == '1'
local deaths, returned, promoted = 0, 0, 0
local function overdue(name)
  if not judge then return {} end
  return redis.call('ZRANGEBYSCORE', P .. name, '-inf', NOW, 'LIMIT', 0, batch)
end

for _, id in ipairs(overdue('running')) do
  local now = get(id, 'state', 'stage', 'source_key', 'owner')
  redis.call('ZREM', P .. 'running', id)
  if now[1] == 'running' then
    local source_key = now[3] and now[3] ~= '' and now[3]
    if now[2] == 'compile' and source_key then
      redis.call('INCR', P .. 'poison:' .. source_key)
      redis.call('PEXPIRE', P .. 'poison:' .. source_key, POISON_MS)
    end
    redis.call('HINCRBY', job(id), 'deaths', 1)
    note(id, now[2], 'died', now[4])
    local lost = P .. 'lost:' .. string.gsub(now[4] or '', ':%d+$', '')
    redis.call('LPUSH', lost, cjson.encode({ NOW, now[2], id }))
    redis.call('LTRIM', lost, 0, 19)
    redis.call('EXPIRE', lost, LOST_SECONDS)
    enqueue(id, now[2], 0)
    if now[2] == 'compile' and source_key then leave_build(id, source_key) end
    deaths = deaths + 1
  end
end

for _, id in ipairs(overdue('taken')) do
  redis.call('ZREM', P .. 'taken', id)
  if get(id, 'row')[1] == 'taken' then
    wait(id)
    returned = returned + 1
  end
end

-- The score of a parked job is the last look at it, so that the looks go round.
for _, id in ipairs(redis.call('ZRANGE', P .. 'parked', 0, batch - 1)) do
  local now = get(id, 'state', 'source_key')
  if now[1] ~= 'parked' then
    redis.call('ZREM', P .. 'parked', id)
  else
    redis.call('ZADD', P .. 'parked', 'XX', NOW, id)
    local source_key = now[2]
    if redis.call('EXISTS', P .. 'module:' .. source_key) == 1 then
      promoted = promoted + #drain(source_key, 'execute', batch)
    elseif redis.call('EXISTS', P .. 'failed:' .. source_key) == 1 then
      promoted = promoted + #drain(source_key, 'compile', batch)
    elseif not live_build(source_key) then
      promoted = promoted + promote(source_key)
    end
  end
end
if returned > 0 then ring(false) end
return cjson.encode({ deaths, returned, promoted })
