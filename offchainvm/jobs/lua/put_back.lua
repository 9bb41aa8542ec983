-- End a claim without an outcome: the job is QUEUED again, now or later.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 delay ms, 5 note, 6 '1' when the try counts.   Returns 1, or 0: fenced out.
-- Needs: builds
local token, id, fence, delay, why, counted = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

local now = get(id, 'stage', 'source_key')
if counted == '1' then redis.call('HINCRBY', job(id), 'attempt', 1) end
redis.call('ZREM', P .. 'running', id)
note(id, now[1], 'put_back', why)
enqueue(id, now[1], tonumber(delay))
if now[1] == 'compile' and now[2] and now[2] ~= '' then leave_build(id, now[2]) end
return answer(token, 1)
