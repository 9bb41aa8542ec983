-- Stands before every script; builds.lua and rows.lua follow where a script says `-- Needs:`. KEYS is never used: keys are built from ids, so this needs one server (Sentinel included), no Cluster.
-- Times are milliseconds by the server's own clock. ARGV[1] is the call token where a script says so.
--
-- ovm:job:ID          hash    the record: fixed (JSON, written once), state, stage, attempt, deaths, fence, owner, source_key, commit, module,
--                             rebuild, bad (SHA-256 of the module that it is built anew for), source (JSON, found on chain), sender (account, once known), deadline, event, ready (not before), nudges (re-publications), waits (uncounted repeats), accepted, updated, needs,
--                             keep (seconds of retention), cancelled (1: by hand), fair (1: it takes turns), repository;
--                             with a payload: args (base64), response, report, brief (report without a long output),
--                             row (waiting|taken|signed|settled), take, tries, alone, tx, hashes (space separated), verdict, error
-- ovm:history:ID      list    JSON [at, stage, what, detail], the newest 64
-- ovm:request:RID     string  data_id of a request id
-- ovm:carried:HASH    string  data_ids of the jobs that this transaction carries, or carried (space separated)
-- ovm:repository:NAME zset    the newest jobs of a repository (owner/name in lower case) by the time of their acceptance
-- ovm:sender:ACCOUNT  zset    the newest jobs of a sender, by the time since when they are known to be
-- ovm:tomb:ID         hash    verdict, tx, report, error: outlives the record
-- ovm:input:ID        hash    input, height, sender: recorded from the chain
-- ovm:queued:STAGE    zset    QUEUED jobs by the time since when they wait (moved on by back-off)
-- ovm:delayed:STAGE   zset    those of them that are not due yet, by due time
-- ovm:turns:STAGE     zset    those that are due, by round and place in it;  ovm:round:STAGE string: the round that is served
-- ovm:shares:STAGE    zset    senders and repositories by the last round in which each has a job
-- ovm:running         zset    RUNNING jobs by the end of their lease
-- ovm:parked          zset    PARKED jobs by the time of the last look at them;  ovm:waiters:SK zset: those of one source key
-- ovm:build:SK        hash    id, fence of the builder (fence '': promised to a job on its way);  ovm:lock:SK string
-- ovm:failed:SK       string  JSON [code, sentence] of a build of the last minute;  ovm:poison:SK string: dead builders
-- ovm:module:SK       hash    sha256, size, commit
-- ovm:waiting, taken  zset    rows by deadline height, by end of lease
-- ovm:tx:HASH         hash    transaction in flight: key, nonce, height, signed, ids (space separated), attempts, stored
-- ovm:flight:PK       zset    its hashes by nonce;  ovm:keys set: public keys that have any
-- ovm:aboard:PK       set     those of them whose nonce a block has used: no slot of the window is theirs
-- ovm:epoch           hash    run (id of the last start of Redis), since;  ovm:journals hash: host that signs -> 'run seen', its last replay
-- ovm:sent            list    one entry when something was sent that no settler has heard of
-- ovm:head            string  final height of the last take;  ovm:batch string: rows at once after a failed batch
-- ovm:bell            string  a ring is pending;  ovm:bell:last, ovm:bell:seq
-- ovm:outbox          stream  v, stage, ids, attempt;  ovm:outbox:aside stream: not publishable
-- ovm:reports         zset    by due time;  ovm:report:ID hash: kind, report, error, tries
-- ovm:paused          hash    WORKER_ID or * : JSON since, reason;  ovm:polls zset: polls on their way by the time when they are over at the latest
-- ovm:journalled      hash    place and bridge: JSON tasks, at: what the journals of bridges hold that is no job (journals.py)
-- ovm:settled         zset    settled jobs by the end of their retention
-- ovm:totals          hash    since ever: jobs by verdict; spent (10^12 yoctoNEAR); charged: answers, millions (of instructions), mib, seconds
-- ovm:spent:DAY       string  the same `spent` of one day since 1970
-- ovm:lost:NODE       list    JSON [at, stage, id]: claims of that node that ended in nothing, the newest 20
-- ovm:call:TOKEN      string  the answer given to this call
local P = 'ovm:'
local CLOCK = redis.call('TIME')
local NOW = tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000)
local MODULE_SECONDS = 30 * 86400
local CALL_MS = 120000
local BELL_MS = 5000
local DEADLINE = 200
local ROUND_SIZE = 2 ^ 20 -- places in a round: rounds and places together stay exact in a double
local LOOKUP_SECONDS = 30 * 86400 -- of an index, where no settling of a job says better

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

-- To whom a job is accounted. A build to both: neither a sender's flood nor a repository's slow builds take more than their turn.
local function shares_of(id, stage)
  local now = get(id, 'fair', 'sender', 'repository')
  local names = {}
  for i = 2, 3 do
    if now[1] == '1' and now[i] and now[i] ~= '' then names[#names + 1] = now[i] end
  end
  if stage == 'execute' or #names == 0 then return { names[1] or '' } end
  return names
end

-- Fair queuing by rounds: in each round of a stage every share has one job, and a round that has begun takes no more.
local function line_up(id, stage)
  local turns, shares, names = P .. 'turns:' .. stage, P .. 'shares:' .. stage, shares_of(id, stage)
  local round = tonumber(redis.call('GET', P .. 'round:' .. stage) or '0')
  for _, name in ipairs(names) do round = math.max(round, tonumber(redis.call('ZSCORE', shares, name) or '0')) end
  round = round + 1
  for _, name in ipairs(names) do redis.call('ZADD', shares, round, name) end
  local first = round * ROUND_SIZE
  local place = redis.call('ZCOUNT', turns, first, first + ROUND_SIZE - 1)
  redis.call('ZADD', turns, first + math.min(place, ROUND_SIZE - 1), id)
end

-- One more message that says: a job of this stage waits. Whose turn it is, the claim knows.
local function call_worker(id, stage)
  line_up(id, stage)
  publish(stage, id, get(id, 'attempt')[1] or '0')
end

-- QUEUED, and the message that says so: now, or by the reconciler after the delay.
local function enqueue(id, stage, delay_ms)
  redis.call('HSET', job(id), 'state', 'queued', 'stage', stage, 'owner', '', 'ready', NOW + delay_ms, 'nudges', 0, 'updated', NOW)
  redis.call('ZADD', P .. 'queued:' .. stage, NOW + delay_ms, id)
  if delay_ms > 0 then
    redis.call('ZADD', P .. 'delayed:' .. stage, NOW + delay_ms, id)
  else
    call_worker(id, stage)
  end
end

-- Is this claim still the one that counts? A lease that ran out is no matter until the reconciler judged it:
-- after an outage of Redis a living worker must be able to go on (celery.md, interleaving 3).
local function held(id, fence)
  local now = get(id, 'state', 'fence')
  return now[1] == 'running' and now[2] == fence
end

local function unindex(id)
  for _, name in ipairs({ 'running', 'queued:compile', 'queued:execute', 'delayed:compile', 'delayed:execute', 'turns:compile', 'turns:execute',
    'parked', 'waiting', 'taken' }) do
    redis.call('ZREM', P .. name, id)
  end
  local source_key = get(id, 'source_key')[1]
  if source_key then redis.call('ZREM', P .. 'waiters:' .. source_key, id) end
end
