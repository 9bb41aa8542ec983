-- Builds: who makes a module, who waits for it. (Keys: common.lua; no token of its own.)
local DRAIN = 500
local FAILURE_MS = 60000
local POISON_MS = 3600000

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
    if stage == 'execute' then redis.call('HSET', job(id), 'module', module[1], 'commit', module[2] or '', 'deaths', 0, 'attempt', 0, 'waits', 0) end
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
