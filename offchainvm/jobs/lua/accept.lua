-- Make a job of a task, once for each data_id.
-- ARGV: 1 token, 2 data_id, 3 fixed (JSON), 4 stage, 5 source_key or '', 6 commit or '', 7 deadline or '', 8 request_id, 9 retention seconds, 10 repository or '',
--       11 arguments (base64) or '': a job that ends before it begins has its answer at once; 12 response, 13 report, 14 short report or '',
--       15 sender or '': then the one of the request's event, where the monitor recorded it; 16 '1' when it takes turns with others
-- Returns JSON "new" | "known" | "settled" (the report of a settled one is queued again).
-- Needs: rows finding
local token, id, fixed, stage, source_key, commit, deadline, request_id, keep, repository = unpack(ARGV, 1, 10)
local arguments, response, report, brief, sender, fair = unpack(ARGV, 11, 16)
local before = remembered(token)
if before then return before end

local now = get(id, 'state', 'verdict', 'report', 'error')
if now[1] and now[1] ~= 'settled' then return answer(token, '"known"') end
if not now[1] then
  local tomb = redis.call('HMGET', P .. 'tomb:' .. id, 'verdict', 'verdict', 'report', 'error')
  if tomb[1] then now = tomb end
end
if now[1] then
  local err = (now[4] and now[4] ~= '') and now[4] or now[2]
  if now[3] and now[3] ~= '' then queue_report(id, now[2] == 'accepted' and 'complete' or 'fail', now[3], err) end
  return answer(token, '"settled"')
end

local recorded = redis.call('HMGET', P .. 'input:' .. id, 'height', 'sender')
local height = recorded[1]
if height then deadline = string.format('%.0f', tonumber(height) + DEADLINE) end
local module = source_key ~= '' and redis.call('HGET', P .. 'module:' .. source_key, 'sha256') or ''
redis.call('HSET', job(id), 'fixed', fixed, 'needs', 1, 'attempt', 0, 'deaths', 0, 'fence', 0, 'source_key', source_key, 'commit', commit,
  'module', module, 'deadline', deadline, 'event', height or '', 'request_id', request_id, 'keep', keep, 'accepted', NOW, 'fair', fair,
  'repository', repository)
redis.call('SET', P .. 'request:' .. request_id, id)
if repository ~= '' then list_under(P .. 'repository:' .. repository, id, keep) end
if sender == '' then sender = recorded[2] or '' end
if sender ~= '' then name_sender(id, sender, keep) end
note(id, stage, 'accepted', '')
if arguments and arguments ~= '' then
  note(id, stage, 'refused', '')
  resolve_with(id, arguments, response, report, brief)
else
  enqueue(id, stage, 0)
end
return answer(token, '"new"')
