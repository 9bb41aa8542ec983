-- The module is known: the job goes on to execute, and so does everyone parked for the same source.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 source_key, 5 commit or '', 6 sha256, 7 size.   Returns 1, or 0: fenced out.
-- Needs: builds
local token, id, fence, source_key, commit, sha256, size = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

redis.call('HSET', P .. 'module:' .. source_key, 'sha256', sha256, 'size', size, 'commit', commit)
redis.call('EXPIRE', P .. 'module:' .. source_key, MODULE_SECONDS)
redis.call('HSET', job(id), 'source_key', source_key, 'commit', commit, 'module', sha256, 'deaths', 0, 'attempt', 0, 'waits', 0)
redis.call('ZREM', P .. 'running', id)
note(id, 'compile', 'done', sha256)
enqueue(id, 'execute', 0)
-- Somebody else may be building it still (a rebuild): then the waiters are his.
local builder, kind = live_build(source_key)
if not builder or kind == 'promised' then
  redis.call('DEL', P .. 'build:' .. source_key, P .. 'failed:' .. source_key, P .. 'poison:' .. source_key)
  drain(source_key, 'execute', DRAIN)
end
return answer(token, 1)
