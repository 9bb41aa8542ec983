-- Take the right to work on one stage of the job whose turn it is. A message is a call for a worker: who answers it serves the next in turn.
-- ARGV: 1 token, 2 data_id that the message names, 3 stage, 4 owner, 5 lease ms, 6 schema version of the caller
-- Returns the record (JSON, flat), or nil: nobody waits for this stage who is due and not newer than the caller.
-- RUNNING with an expired lease is nobody's to take: the reconciler judges it first, so that deaths are counted, and only real ones.
local LOOK = 100
local token, named, stage, owner, lease, version = unpack(ARGV)
local turns = P .. 'turns:' .. stage

local function waits(id)
  local now = get(id, 'state', 'stage', 'ready', 'needs')
  local due = now[1] == 'queued' and now[2] == stage and tonumber(now[3] or '0') <= NOW
  return due, due and tonumber(now[4] or '1') <= tonumber(version)
end

-- What an earlier release claimed or cancelled still has its turn here, what it queued has none.
local function next_in_turn()
  if not redis.call('ZSCORE', turns, named) and select(2, waits(named)) then return named end
  local too_new = 0
  for _ = 1, LOOK do
    local id, turn = unpack(redis.call('ZRANGE', turns, too_new, too_new, 'WITHSCORES'))
    if not id then return nil end
    local due, ours = waits(id)
    if ours then return id, math.floor(tonumber(turn) / ROUND_SIZE) end
    if due then too_new = too_new + 1 else redis.call('ZREM', turns, id) end
  end
end

local before = remembered(token)
if before then
  local id, fence = string.match(before, '(%S+) (%S+)')
  return held(id, fence) and record(id) or nil
end

local id, round = next_in_turn()
if not id then return nil end
if round then
  round = math.max(round, tonumber(redis.call('GET', P .. 'round:' .. stage) or '0')) -- a newer process serves what an older one left
  redis.call('ZREM', turns, id)
  redis.call('SET', P .. 'round:' .. stage, string.format('%.0f', round))
  redis.call('ZREMRANGEBYSCORE', P .. 'shares:' .. stage, '-inf', round)
end

local fence = redis.call('HINCRBY', job(id), 'fence', 1)
redis.call('HSET', job(id), 'state', 'running', 'owner', owner, 'updated', NOW)
-- A build is poisoned for all who want it, not once for each (celery.md, interleaving 6).
local source_key = get(id, 'source_key')[1]
if stage == 'compile' and source_key and source_key ~= '' then
  redis.call('HSET', job(id), 'deaths', redis.call('GET', P .. 'poison:' .. source_key) or 0)
end
redis.call('ZREM', P .. 'queued:' .. stage, id)
redis.call('ZADD', P .. 'running', NOW + lease, id)
note(id, stage, 'claimed', owner)
answer(token, id .. ' ' .. fence)
return record(id)
