-- End a claim without an outcome: the job is QUEUED again, now or later.
-- ARGV: 1 token, 2 data_id, 3 fence, 4 delay ms (twice as long with each uncounted one of this stage), 5 note, 6 '1' when the try counts.   Returns 1, or 0: fenced out.
-- Needs: builds
local LONGEST_PAUSE_MS = 30000
local token, id, fence, delay, why, counted = unpack(ARGV)
local before = remembered(token)
if before then return tonumber(before) end
if not held(id, fence) then return answer(token, 0) end

local now = get(id, 'stage', 'source_key')
delay = tonumber(delay)
if counted == '1' then
  redis.call('HINCRBY', job(id), 'attempt', 1)
else
  -- A service that is away for hours is not to be asked for each job every second or two.
  local waits = redis.call('HINCRBY', job(id), 'waits', 1)
  delay = math.min(delay * 2 ^ math.min(waits - 1, 10), math.max(delay, LONGEST_PAUSE_MS))
end
redis.call('ZREM', P .. 'running', id)
note(id, now[1], 'put_back', why)
enqueue(id, now[1], math.floor(delay))
if now[1] == 'compile' and now[2] and now[2] ~= '' then leave_build(id, now[2]) end
return answer(token, 1)
