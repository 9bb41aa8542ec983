-- Publish again what came in a grouped message and was not used: no more messages than jobs that wait, those first that wait themselves.
-- ARGV: 1 token, 2 stage, 3.. data_ids.   Returns how many were published.
local token, stage = ARGV[1], ARGV[2]
local before = remembered(token)
if before then return tonumber(before) end
local called, served = {}, {}
for i = 3, #ARGV do
  local now = get(ARGV[i], 'state', 'stage')
  local list = now[1] == 'queued' and now[2] == stage and called or served
  list[#list + 1] = ARGV[i]
end
local waiting = redis.call('ZCARD', P .. 'queued:' .. stage) - redis.call('ZCARD', P .. 'delayed:' .. stage)
local count = 0
for _, list in ipairs({ called, served }) do
  for _, id in ipairs(list) do
    if count >= waiting then break end
    publish(stage, id, get(id, 'attempt')[1] or '0')
    count = count + 1
  end
end
return answer(token, count)
