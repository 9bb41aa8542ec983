-- One stage's queue: what was put back and is due now is published; what is queued and has no message any more is published again.
-- No token: a repeat finds the back-off of the first.
-- ARGV: 1 stage, 2 batch, 3 job ids in messages of this stage, 4 re-publish ms, 5 largest back-off ms.   Returns JSON [due, republished].
local stage, batch, messages, patience, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local queued, delayed = P .. 'queued:' .. stage, P .. 'delayed:' .. stage
local due, again = 0, 0

for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', NOW, 'LIMIT', 0, batch)) do
  redis.call('ZREM', delayed, id)
  local now = get(id, 'state', 'stage')
  if now[1] == 'queued' and now[2] == stage then
    call_worker(id, stage)
    due = due + 1
  end
end

-- As many messages as jobs: none is lost, they only wait. The outbox of all stages counts: too few re-published is put right next time.
-- A job at work has a message too, unacknowledged and counted: else a fleet that is never idle would never miss one.
-- (Those of the other stage are counted with them: a few too many, which count as messages the next time.)
local covered = messages + redis.call('XLEN', P .. 'outbox') - redis.call('ZCARD', P .. 'running')
local missing = redis.call('ZCARD', queued) - redis.call('ZCARD', delayed) - covered
if missing > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', queued, '-inf', NOW - patience, 'LIMIT', 0, math.min(missing, batch))) do
    local now = get(id, 'state', 'stage', 'attempt')
    if now[1] == 'queued' and now[2] == stage then
      local nudges = redis.call('HINCRBY', job(id), 'nudges', 1)
      redis.call('ZADD', queued, NOW - patience + math.min(most, patience * 2 ^ nudges), id)
      note(id, stage, 'published_again', '')
      publish(stage, id, now[3] or '0')
      again = again + 1
    else
      redis.call('ZREM', queued, id)
    end
  end
end
return cjson.encode({ due, again })
