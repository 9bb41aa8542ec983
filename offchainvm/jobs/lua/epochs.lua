-- A start of Redis may have lost its last second, and what it lost may stand in the journal of any host that signs: until each
-- of them was replayed, nobody takes a row. (Else another host could compute a lost answer anew and sign it beside the first. No token of its own.)
local GRACE_MS = 20000 -- for a host that does not come back: then the others go on without it
local SILENT_MS = 60000 -- who was not heard of for so long before the start is not waited for

local function run_id() return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') end

-- Since when this start of Redis is known.
local function begun(run)
  local epoch = redis.call('HMGET', P .. 'epoch', 'run', 'since')
  if epoch[1] == run then return tonumber(epoch[2]) end
  redis.call('HSET', P .. 'epoch', 'run', run, 'since', NOW)
  return NOW
end

-- A host whose journal is awaited, or nil.
local function awaited()
  local run = run_id()
  local since, hosts = begun(run), redis.call('HGETALL', P .. 'journals')
  for i = 1, #hosts, 2 do
    -- What does not match is what bridges of an earlier release told of themselves under this key.
    local replayed, seen = string.match(hosts[i + 1], '(%S+) (%d+)$')
    if replayed ~= run then
      if replayed and NOW - since < GRACE_MS and since - tonumber(seen) < SILENT_MS then return hosts[i] end
      redis.call('HDEL', P .. 'journals', hosts[i])
    end
  end
end
