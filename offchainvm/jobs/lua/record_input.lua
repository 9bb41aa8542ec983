-- Keep what the chain said of a request: its input, its sender, and its height, from which the deadline follows.
-- No token: a repeat changes nothing.   ARGV: 1 data_id, 2 input, 3 height, 4 ttl seconds, 5 sender or ''
-- Needs: finding
local id, input, height, ttl, sender = unpack(ARGV)
redis.call('HSET', P .. 'input:' .. id, 'input', input, 'height', height, 'sender', sender)
redis.call('EXPIRE', P .. 'input:' .. id, ttl)
local now = get(id, 'state', 'keep')
local state = now[1]
if state and sender ~= '' then name_sender(id, sender, now[2] or LOOKUP_SECONDS) end
if state and state ~= 'settled' then
  local deadline = string.format('%.0f', tonumber(height) + DEADLINE)
  redis.call('HSET', job(id), 'event', height, 'deadline', deadline)
  redis.call('ZADD', P .. 'waiting', 'XX', deadline, id)
end
return 1
