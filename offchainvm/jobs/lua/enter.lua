-- Park, or become the builder, or learn that there is nothing to build: one step, so that nobody parks behind a build that just ended.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 source_key
-- Returns JSON ["builder"] | ["parked"] | ["built", sha256, size] | ["failed", code, sentence] | ["lost"]
-- Needs: builds
local token, id, fence, source_key = unpack(ARGV)
local before = remembered(token)
if before then return before end
if not held(id, fence) then return answer(token, '["lost"]') end
redis.call('HSET', job(id), 'source_key', source_key)

local module = redis.call('HMGET', P .. 'module:' .. source_key, 'sha256', 'size')
-- Who had it built anew does not take again what it found bad: another may just have found that in the Coordinator's cache.
if module[1] and module[1] ~= get(id, 'bad')[1] then return answer(token, cjson.encode({ 'built', module[1], module[2] })) end
local failure = redis.call('GET', P .. 'failed:' .. source_key)
if failure then
  local parts = cjson.decode(failure)
  return answer(token, cjson.encode({ 'failed', parts[1], parts[2] }))
end
local builder, kind = live_build(source_key)
if not builder or builder == id or kind == 'promised' then
  redis.call('HSET', P .. 'build:' .. source_key, 'id', id, 'fence', fence)
  note(id, 'compile', 'building', source_key)
  return answer(token, '["builder"]')
end
redis.call('HSET', job(id), 'state', 'parked', 'owner', '', 'updated', NOW)
redis.call('ZREM', P .. 'running', id)
redis.call('ZADD', P .. 'waiters:' .. source_key, 'NX', NOW, id)
redis.call('ZADD', P .. 'parked', NOW, id)
note(id, 'compile', 'parked', builder)
return answer(token, '["parked"]')
