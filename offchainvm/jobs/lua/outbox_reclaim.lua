-- Entries that a relay took and never finished: the caller's now, or set aside after too many deliveries.
-- No token: what a lost answer took comes back by its idle time.
-- ARGV: 1 group, 2 consumer, 3 min idle ms, 4 count, 5 max deliveries
-- Returns JSON [[entry id, deliveries, flat fields], …].
local group, consumer, idle, count, most = unpack(ARGV)
local stream, found = P .. 'outbox', {}
for _, pending in ipairs(redis.call('XPENDING', stream, group, 'IDLE', idle, '-', '+', count)) do
  local entry, deliveries = pending[1], tonumber(pending[4])
  local body = redis.call('XRANGE', stream, entry, entry)[1]
  if body and deliveries < tonumber(most) then
    redis.call('XCLAIM', stream, group, consumer, 0, entry)
    found[#found + 1] = { entry, deliveries + 1, body[2] }
  else
    if body then redis.call('XADD', stream .. ':aside', 'MAXLEN', '~', 1000, '*', unpack(body[2])) end
    redis.call('XACK', stream, group, entry)
    redis.call('XDEL', stream, entry)
  end
end
return #found > 0 and cjson.encode(found) or '[]'
