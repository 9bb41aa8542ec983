-- Stands before every script. KEYS is never used: keys are built from ids, so this needs one server (Sentinel included), no Cluster.
-- Times are milliseconds by the server's own clock. ARGV[1] is the call token where a script says so.
--
-- ovm:job:ID          hash    the record: fixed (JSON, written once), state, stage, attempt, deaths, fence, owner, source_key, commit, module,
--                             rebuild, deadline, event, ready (not before), nudges (re-publications), accepted, updated, needs,
--                             keep (seconds of retention);
--                             with a payload: args (base64), response, report, brief (report without a long output),
--                             row (waiting|taken|signed|settled), take, tries, alone, replaces, tx, hashes (space separated), verdict, error
-- ovm:history:ID      list    JSON [at, stage, what, detail], the newest 64
-- ovm:request:RID     string  data_id of a request id
-- ovm:tomb:ID         hash    verdict, tx, report, error: outlives the record
-- ovm:input:ID        hash    input, height: recorded from the chain
-- ovm:queued:STAGE    zset    QUEUED jobs by the time since when they wait (moved on by back-off)
-- ovm:delayed:STAGE   zset    those of them that are not due yet, by due time
-- ovm:running         zset    RUNNING jobs by the end of their lease
-- ovm:parked          zset    PARKED jobs by the time of the last look at them;  ovm:waiters:SK zset: those of one source key
-- ovm:build:SK        hash    id, fence of the builder (fence '': promised to a job on its way);  ovm:lock:SK string
-- ovm:failed:SK       string  JSON [code, sentence] of a build of the last minute;  ovm:poison:SK string: dead builders
-- ovm:module:SK       hash    sha256, size, commit
-- ovm:waiting, taken  zset    rows by deadline height, by end of lease
-- ovm:tx:HASH         hash    transaction in flight: key, nonce, height, signed, ids (space separated), attempts, stored
-- ovm:flight:PK       zset    its hashes by nonce;  ovm:keys set: public keys that have any
-- ovm:head            string  highest final height seen;  ovm:batch string: rows at once after a failed batch
-- ovm:bell            string  a ring is pending;  ovm:bell:last, ovm:bell:seq
-- ovm:outbox          stream  v, stage, ids, attempt;  ovm:outbox:aside stream: not publishable
-- ovm:reports         zset    by due time;  ovm:report:ID hash: kind, report, error, tries
-- ovm:settled         zset    settled jobs by the end of their retention
-- ovm:call:TOKEN      string  the answer given to this call
local P = 'ovm:'
local CLOCK = redis.call('TIME')
local NOW = tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000)
local TOMB_SECONDS = 30 * 86400
local MODULE_SECONDS = 30 * 86400
local KEEP_SECONDS = 259200 -- for a record that came back from a journal
local CALL_MS = 120000
local BELL_MS = 5000
local FAILURE_MS = 60000
local POISON_MS = 3600000
local BATCH_MS = 60000
local DRAIN = 500
local DEADLINE = 200

-- The answer given to this token before, if any. Two minutes outlast every retry of a client.
local function remembered(token) return redis.call('GET', P .. 'call:' .. token) end
local function answer(token, value)
  redis.call('SET', P .. 'call:' .. token, value, 'PX', CALL_MS)
  return value
end

local function job(id) return P .. 'job:' .. id end
local function get(id, ...) return redis.call('HMGET', job(id), ...) end
local function record(id) return cjson.encode(redis.call('HGETALL', job(id))) end

local function note(id, stage, what, detail)
  local key = P .. 'history:' .. id
  if redis.call('RPUSH', key, cjson.encode({ NOW, stage, what, detail or '' })) > 64 then redis.call('LTRIM', key, -64, -1) end
end

local function publish(stage, ids, attempt)
  redis.call('XADD', P .. 'outbox', '*', 'v', '1', 'stage', stage, 'ids', ids, 'attempt', attempt)
end

-- One ring on its way is enough however many rows wait; `always` is for rows that grew old all the same.
local function ring(always)
  if not always and redis.call('EXISTS', P .. 'bell') == 1 then return end
  redis.call('SET', P .. 'bell', '1', 'PX', BELL_MS)
  redis.call('SET', P .. 'bell:last', NOW)
  publish('resolve', '', redis.call('INCR', P .. 'bell:seq'))
end

-- QUEUED, and the message that says so: now, or by the reconciler after the delay.
local function enqueue(id, stage, delay_ms)
  redis.call('HSET', job(id), 'state', 'queued', 'stage', stage, 'owner', '', 'ready', NOW + delay_ms, 'nudges', 0, 'updated', NOW)
  redis.call('ZADD', P .. 'queued:' .. stage, NOW + delay_ms, id)
  if delay_ms > 0 then
    redis.call('ZADD', P .. 'delayed:' .. stage, NOW + delay_ms, id)
  else
    publish(stage, id, get(id, 'attempt')[1] or '0')
  end
end

-- Is this claim still the one that counts? A lease that ran out is no matter until the reconciler judged it:
-- after an outage of Redis a living worker must be able to go on (celery.md, interleaving 3).
local function held(id, fence)
  local now = get(id, 'state', 'fence')
  return now[1] == 'running' and now[2] == fence
end

local function unindex(id)
  for _, name in ipairs({ 'running', 'queued:compile', 'queued:execute', 'delayed:compile', 'delayed:execute', 'parked', 'waiting', 'taken' }) do
    redis.call('ZREM', P .. name, id)
  end
  local source_key = get(id, 'source_key')[1]
  if source_key then redis.call('ZREM', P .. 'waiters:' .. source_key, id) end
end

-- Builds ---------------------------------------------------------------------------------------------------------

-- The job that builds this source (or is promised to), as long as its claim lives.
local function live_build(source_key)
  local build = redis.call('HMGET', P .. 'build:' .. source_key, 'id', 'fence')
  if not build[1] then return nil end
  local now = get(build[1], 'state', 'stage', 'fence')
  if now[2] ~= 'compile' then return nil end
  if build[2] == '' then return (now[1] == 'queued' or now[1] == 'running') and build[1] or nil, 'promised' end
  return now[1] == 'running' and now[3] == build[2] and build[1] or nil, 'building'
end

local function unpark(id, source_key)
  redis.call('ZREM', P .. 'waiters:' .. source_key, id)
  redis.call('ZREM', P .. 'parked', id)
end

-- Waiters go on where the outcome sends them, oldest first; what is more than one script should do is left to the reconciler.
local function drain(source_key, stage, limit)
  local ids = redis.call('ZRANGE', P .. 'waiters:' .. source_key, 0, limit - 1)
  local module = redis.call('HMGET', P .. 'module:' .. source_key, 'sha256', 'commit')
  for _, id in ipairs(ids) do
    unpark(id, source_key)
    if stage == 'execute' then redis.call('HSET', job(id), 'module', module[1], 'commit', module[2] or '', 'deaths', 0, 'attempt', 0) end
    note(id, stage, 'released', '')
    enqueue(id, stage, 0)
  end
  return ids
end

local function promote(source_key)
  local ids = drain(source_key, 'compile', 1)
  if ids[1] then redis.call('HSET', P .. 'build:' .. source_key, 'id', ids[1], 'fence', '') end
  return #ids
end

-- The build of this job is over without an outcome for others: the next waiter takes its place.
local function leave_build(id, source_key)
  if not source_key then return end
  local builder = redis.call('HGET', P .. 'build:' .. source_key, 'id')
  if builder and builder ~= id then return end
  redis.call('DEL', P .. 'build:' .. source_key)
  promote(source_key)
end

local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do list[#list + 1] = word end
  return list
end

-- Rows -----------------------------------------------------------------------------------------------------------

local function queue_report(id, kind, report, err)
  redis.call('HSET', P .. 'report:' .. id, 'kind', kind, 'report', report, 'error', err, 'tries', 0)
  redis.call('ZADD', P .. 'reports', NOW, id)
end

-- An unknown deadline counts as one that begins now: it neither starves nor overtakes.
local function wait(id)
  local deadline = tonumber(get(id, 'deadline')[1] or '') or (tonumber(redis.call('GET', P .. 'head') or '0') + DEADLINE)
  redis.call('HSET', job(id), 'row', 'waiting', 'take', '', 'updated', NOW)
  redis.call('ZADD', P .. 'waiting', deadline, id)
end

-- A row whose transaction ended without a verdict waits again; unless another that carries it is in flight still (after a restore).
local function release(id, hash)
  for _, other in ipairs(words(get(id, 'hashes')[1])) do
    if other ~= hash and redis.call('EXISTS', P .. 'tx:' .. other) == 1 then
      redis.call('HSET', job(id), 'tx', other)
      return
    end
  end
  wait(id)
end

local function settle_job(id, verdict, hash, err)
  local now = get(id, 'fixed', 'report', 'brief', 'state', 'row', 'request_id', 'tx', 'keep')
  if not now[1] or now[4] == 'settled' then return end
  if now[4] ~= 'resolving' or now[5] ~= 'signed' then unindex(id) end
  if hash == '' then hash = now[7] or '' end
  local retention = tonumber(now[8] or KEEP_SECONDS)
  redis.call('HSET', job(id), 'state', 'settled', 'row', 'settled', 'verdict', verdict, 'tx', hash, 'error', err, 'updated', NOW)
  redis.call('HDEL', job(id), 'args', 'take', 'replaces')
  note(id, 'resolve', verdict, err ~= '' and err or hash)
  local brief = (now[3] and now[3] ~= '') and now[3] or now[2] or ''
  redis.call('HSET', P .. 'tomb:' .. id, 'verdict', verdict, 'tx', hash, 'report', brief, 'error', err)
  redis.call('EXPIRE', P .. 'tomb:' .. id, math.max(TOMB_SECONDS, 2 * retention))
  for _, name in ipairs({ 'job:' .. id, 'history:' .. id, 'request:' .. (now[6] or '') }) do redis.call('EXPIRE', P .. name, retention) end
  redis.call('ZADD', P .. 'settled', NOW + retention * 1000, id)
  redis.call('ZREMRANGEBYSCORE', P .. 'settled', '-inf', NOW)
  if now[2] then queue_report(id, verdict == 'accepted' and 'complete' or 'fail', now[2], err ~= '' and err or verdict) end
end

local function land(hash)
  local public_key = redis.call('HGET', P .. 'tx:' .. hash, 'key')
  redis.call('DEL', P .. 'tx:' .. hash)
  redis.call('ZREM', P .. 'flight:' .. public_key, hash)
  if redis.call('EXISTS', P .. 'flight:' .. public_key) == 0 then redis.call('SREM', P .. 'keys', public_key) end
end

local function carried_by(hashes, hash)
  for _, one in ipairs(words(hashes)) do if one == hash then return true end end
  return false
end
