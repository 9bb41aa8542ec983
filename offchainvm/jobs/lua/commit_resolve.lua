-- The answer is known: its payload is fixed, its row waits, and the doorbell rings.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 arguments (base64), 5 response, 6 report, 7 report without a long output or '', 8 build failure (JSON) or ''
-- Returns 1, or 0: fenced out.
-- Needs: builds rows
local token, id, fence, arguments, response, report, brief, failure = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

local now = get(id, 'stage', 'source_key')
-- Two different payloads for one data_id is what must never happen: the first stays.
if redis.call('HSETNX', job(id), 'args', arguments) == 1 then
  redis.call('HSET', job(id), 'response', response, 'report', report, 'brief', brief, 'tries', 0, 'hashes', '')
end
redis.call('HSET', job(id), 'state', 'resolving', 'stage', 'resolve', 'owner', '')
redis.call('ZREM', P .. 'running', id)
note(id, now[1], failure ~= '' and 'build_failed' or 'done', '')
wait(id)

local source_key = now[2]
if now[1] == 'compile' and source_key and source_key ~= '' then
  local builder, kind = live_build(source_key)
  if failure == '' then
    leave_build(id, source_key)
  elseif not builder or kind == 'promised' then
    redis.call('SET', P .. 'failed:' .. source_key, failure, 'PX', FAILURE_MS)
    redis.call('DEL', P .. 'build:' .. source_key)
    drain(source_key, 'compile', DRAIN)
  end
end
ring(false)
return answer(token, 1)
