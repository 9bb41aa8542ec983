-- A report was taken, or failed. No token: a repeat changes nothing that matters (one try more is counted).
-- ARGV: 1 id, 2 delay ms, or '' when it was taken
local id, delay = ARGV[1], ARGV[2]
if delay == '' then
  redis.call('ZREM', P .. 'reports', id)
  redis.call('DEL', P .. 'report:' .. id)
elseif redis.call('EXISTS', P .. 'report:' .. id) == 1 then
  redis.call('HINCRBY', P .. 'report:' .. id, 'tries', 1)
  redis.call('ZADD', P .. 'reports', NOW + delay, id)
end
return 1
