-- End a job with the answer that it was cancelled, wherever it stands: a guest or build at work loses its lease by the fence.
-- Refused once a transaction carried an answer, and while one is signed.
-- ARGV: 1 token, 2 data_id, 3 arguments (base64), 4 response, 5 report, 6 report without a long output or ''
-- Returns JSON "cancelled" (now, or by an earlier call) | "unknown" | "busy" | "carried" | "settled".
-- Needs: builds rows
local token, id, arguments, response, report, brief = unpack(ARGV)
local before = remembered(token)
if before then return before end
local now = get(id, 'state', 'row', 'hashes', 'cancelled', 'stage', 'source_key')
if not now[1] then return answer(token, '"unknown"') end
if now[4] == '1' then return answer(token, '"cancelled"') end
if now[3] and now[3] ~= '' then return answer(token, '"carried"') end
if now[1] == 'settled' then return answer(token, '"settled"') end
if now[2] == 'taken' then return answer(token, '"busy"') end

unindex(id)
forget_answer(id)
redis.call('HSET', job(id), 'cancelled', 1)
note(id, now[5], 'cancelled', '')
resolve_with(id, arguments, response, report, brief)
if now[5] == 'compile' and now[6] and now[6] ~= '' then leave_build(id, now[6]) end
return answer(token, '"cancelled"')
