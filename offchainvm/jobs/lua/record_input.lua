-- Keep what the chain said of a request: its input, and its height, from which the deadline follows.
-- No token: a repeat changes nothing.   ARGV: 1 data_id, 2 input, 3 height, 4 ttl seconds
local id, input, height, ttl = unpack(ARGV)
redis.call('HSET', P .. 'input:' .. id, 'input', input, 'height', height)
redis.call('EXPIRE', P .. 'input:' .. id, ttl)
local state = get(id, 'state')[1]
if state and state ~= 'settled' then
  local deadline = string.format('%.0f', tonumber(height) + DEADLINE)
  redis.call('HSET', job(id), 'event', height, 'deadline', deadline)
  redis.call('ZADD', P .. 'waiting', 'XX', deadline, id)
end
return 1
