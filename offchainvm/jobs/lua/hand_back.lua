-- Publish jobs again that came in a grouped message and were not claimed.
-- ARGV: 1 token, 2 stage, 3.. data_ids.   Returns how many are still queued.
local token, stage = ARGV[1], ARGV[2]
local before = remembered(token)
if before then return tonumber(before) end
local count = 0
for i = 3, #ARGV do
  local now = get(ARGV[i], 'state', 'stage', 'attempt')
  if now[1] == 'queued' and now[2] == stage then
    publish(stage, ARGV[i], now[3] or '0')
    count = count + 1
  end
end
return answer(token, count)
