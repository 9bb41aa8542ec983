-- Take the right to work on one stage of a job.
-- ARGV: 1 token, 2 data_id, 3 stage, 4 owner, 5 lease ms, 6 schema version of the caller
-- Returns the record (JSON, flat), or nil: not queued for this stage, not due yet, or newer than the caller.
-- RUNNING with an expired lease is nobody's to take: the reconciler judges it first, so that deaths are counted, and only real ones.
local token, id, stage, owner, lease, version = unpack(ARGV)
local before = remembered(token)
if before then return held(id, before) and record(id) or nil end

local now = get(id, 'state', 'stage', 'ready', 'needs', 'source_key')
if now[1] ~= 'queued' or now[2] ~= stage then return nil end
if tonumber(now[3] or '0') > NOW or tonumber(now[4] or '1') > tonumber(version) then return nil end

local fence = redis.call('HINCRBY', job(id), 'fence', 1)
redis.call('HSET', job(id), 'state', 'running', 'owner', owner, 'updated', NOW)
-- A build is poisoned for all who want it, not once for each (celery.md, interleaving 6).
if stage == 'compile' and now[5] and now[5] ~= '' then
  redis.call('HSET', job(id), 'deaths', redis.call('GET', P .. 'poison:' .. now[5]) or 0)
end
redis.call('ZREM', P .. 'queued:' .. stage, id)
redis.call('ZADD', P .. 'running', NOW + lease, id)
note(id, stage, 'claimed', owner)
answer(token, fence)
return record(id)
