-- May this poll begin? In one step with its registration, so that a drain sees every poll that was allowed.
-- No token: a repeat registers the same poll again.
-- ARGV: 1 worker, 2 poll, 3 ms after which it is over whatever happened.   Returns 1, or 0: paused.
local worker, poll, longest = unpack(ARGV)
redis.call('ZREMRANGEBYSCORE', P .. 'polls', '-inf', NOW)
if redis.call('HEXISTS', P .. 'paused', '*') == 1 or redis.call('HEXISTS', P .. 'paused', worker) == 1 then
  redis.call('ZREM', P .. 'polls', poll)
  return 0
end
redis.call('ZADD', P .. 'polls', NOW + longest, poll)
return 1
