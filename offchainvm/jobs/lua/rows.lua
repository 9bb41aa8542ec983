-- Rows and transactions: who waits for a signature, what ended how. (Keys: common.lua; no token of its own.)
local TOMB_SECONDS = 30 * 86400
local KEEP_SECONDS = 259200 -- for a record that came back from a journal
local BATCH_MS = 60000
local function total(name, more) redis.call('HINCRBY', P .. 'totals', name, string.format('%.0f', more)) end

-- What the contract charges for, in the units of its prices: an answer it took, and what a successful one used.
local function charge(response)
  total('answers', 1)
  local known, values = pcall(cjson.decode, response or '')
  if not known or type(values) ~= 'table' or not values.success or type(values.resources_used) ~= 'table' then return end
  local used = values.resources_used
  total('millions', math.floor((used.instructions or 0) / 1000000))
  total('mib', math.floor((used.memory_bytes or 0) / 1048576))
  total('seconds', used.time_seconds or 0)
end

local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do list[#list + 1] = word end
  return list
end

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

-- The answer is known: its payload is fixed, its row waits, and the doorbell rings.
local function resolve_with(id, arguments, response, report, brief)
  -- Two different payloads for one data_id is what must never happen: the first stays.
  if redis.call('HSETNX', job(id), 'args', arguments) == 1 then
    redis.call('HSET', job(id), 'response', response, 'report', report, 'brief', brief, 'tries', 0, 'hashes', '')
  end
  redis.call('HSET', job(id), 'state', 'resolving', 'stage', 'resolve', 'owner', '')
  wait(id)
  ring(false)
end

-- Nothing of an answer is left: for a job that gets another, which no transaction may have carried.
local function forget_answer(id)
  redis.call('HDEL', job(id), 'args', 'response', 'report', 'brief', 'row', 'take', 'tries', 'alone', 'tx', 'verdict', 'error', 'hashes')
  redis.call('HINCRBY', job(id), 'fence', 1)
end

local function settle_job(id, verdict, hash, err)
  local now = get(id, 'fixed', 'report', 'brief', 'state', 'row', 'request_id', 'tx', 'keep', 'response', 'hashes')
  if not now[1] or now[4] == 'settled' then return end
  total(verdict, 1)
  if verdict == 'accepted' then charge(now[9]) end
  if now[4] ~= 'resolving' or now[5] ~= 'signed' then unindex(id) end
  if hash == '' then hash = now[7] or '' end
  local retention = tonumber(now[8] or KEEP_SECONDS)
  redis.call('HSET', job(id), 'state', 'settled', 'row', 'settled', 'verdict', verdict, 'tx', hash, 'error', err, 'updated', NOW)
  redis.call('HDEL', job(id), 'args', 'take')
  note(id, 'resolve', verdict, err ~= '' and err or hash)
  local brief = (now[3] and now[3] ~= '') and now[3] or now[2] or ''
  redis.call('HSET', P .. 'tomb:' .. id, 'verdict', verdict, 'tx', hash, 'report', brief, 'error', err)
  redis.call('EXPIRE', P .. 'tomb:' .. id, math.max(TOMB_SECONDS, 2 * retention))
  for _, name in ipairs({ 'job:' .. id, 'history:' .. id, 'request:' .. (now[6] or '') }) do redis.call('EXPIRE', P .. name, retention) end
  for _, one in ipairs(words(now[10])) do redis.call('EXPIRE', P .. 'carried:' .. one, retention) end
  redis.call('ZADD', P .. 'settled', NOW + retention * 1000, id)
  redis.call('ZREMRANGEBYSCORE', P .. 'settled', '-inf', NOW)
  if now[2] and now[2] ~= '' then queue_report(id, verdict == 'accepted' and 'complete' or 'fail', now[2], err ~= '' and err or verdict) end
end

local function land(hash)
  local public_key = redis.call('HGET', P .. 'tx:' .. hash, 'key')
  redis.call('DEL', P .. 'tx:' .. hash)
  redis.call('ZREM', P .. 'flight:' .. public_key, hash)
  redis.call('SREM', P .. 'aboard:' .. public_key, hash)
  if redis.call('EXISTS', P .. 'flight:' .. public_key) == 0 then redis.call('SREM', P .. 'keys', public_key) end
end

local function carried_by(hashes, hash)
  for _, one in ipairs(words(hashes)) do if one == hash then return true end end
  return false
end
