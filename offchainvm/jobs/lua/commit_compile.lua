-- An execution found no module, or a bad one: build it anew.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 reason, 5 sha256 of what was found or '',
--       6 source as JSON or '': for a job whose task named none.   Returns 1, or 0: fenced out.
local token, id, fence, reason, bad, source = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

-- A record of other bytes is newer than what this job saw: another job had it rebuilt already.
local source_key = get(id, 'source_key')[1]
if source_key and source_key ~= '' then
  local known = redis.call('HGET', P .. 'module:' .. source_key, 'sha256')
  if bad == '' or known == bad then redis.call('DEL', P .. 'module:' .. source_key) end
end
if source ~= '' then redis.call('HSET', job(id), 'source', source) end
redis.call('HSET', job(id), 'rebuild', 1, 'bad', bad, 'module', '', 'deaths', 0, 'attempt', 0, 'waits', 0)
redis.call('ZREM', P .. 'running', id)
note(id, 'execute', 'rebuild', reason)
enqueue(id, 'compile', 0)
return answer(token, 1)
