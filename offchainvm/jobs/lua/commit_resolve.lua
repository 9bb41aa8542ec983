-- A stage has the answer of its job.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 arguments (base64), 5 response, 6 report, 7 report without a long output or '', 8 build failure (JSON) or '', 9 SHA-256 of the module that ran or ''
-- Returns 1, or 0: fenced out.
-- Needs: builds rows
local token, id, fence, arguments, response, report, brief, failure, module = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

local now = get(id, 'stage', 'source_key')
redis.call('ZREM', P .. 'running', id)
note(id, now[1], failure ~= '' and 'build_failed' or 'done', '')
if module ~= '' then redis.call('HSET', job(id), 'module', module) end
resolve_with(id, arguments, response, report, brief)

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
return answer(token, 1)
