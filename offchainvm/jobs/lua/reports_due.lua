-- Reports to send now, leased to the caller. No token: a lost answer comes due again when its lease ends.
-- ARGV: 1 limit, 2 lease ms.   Returns JSON [[id, kind, report, error, tries], …].
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'reports', '-inf', NOW, 'LIMIT', 0, ARGV[1])) do
  local body = redis.call('HMGET', P .. 'report:' .. id, 'kind', 'report', 'error', 'tries')
  if body[1] then
    redis.call('ZADD', P .. 'reports', NOW + ARGV[2], id)
    found[#found + 1] = { id, unpack(body) }
  else
    redis.call('ZREM', P .. 'reports', id)
  end
end
return #found > 0 and cjson.encode(found) or '[]'
