-- Records of one state, the newest of its index first.   ARGV: 1 state or '', 2 limit, 3 how many to leave out before.   Returns JSON [flat record, …].
-- Needs: rows
local INDEX = {
  queued = { 'queued:execute', 'queued:compile' }, running = { 'running' }, parked = { 'parked' },
  resolving = { 'waiting', 'taken' }, settled = { 'settled' },
}
local state, limit, skip = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found, seen = {}, {}
local function add(id)
  if #found >= limit or seen[id] then return end
  seen[id] = true
  local flat = redis.call('HGETALL', job(id))
  if #flat > 0 then found[#found + 1] = flat end
end
-- An index before the page costs one look at its size, however long it is.
local function page(index)
  local size = redis.call('ZCARD', index)
  if skip >= size then
    skip = skip - size
    return
  end
  local first = skip
  skip = 0
  for _, id in ipairs(redis.call('ZREVRANGE', index, first, first + limit - 1)) do add(id) end
end
local function page_of_flights(index)
  for _, hash in ipairs(redis.call('ZREVRANGE', index, 0, -1)) do
    for _, id in ipairs(words(redis.call('HGET', P .. 'tx:' .. hash, 'ids'))) do
      if skip > 0 then skip = skip - 1 else add(id) end
    end
  end
end
for _, one in ipairs({ 'running', 'queued', 'parked', 'resolving', 'settled' }) do
  if #found < limit and (state == '' or state == one) then
    for _, name in ipairs(INDEX[one]) do page(P .. name) end
    if one == 'resolving' then
      for _, public_key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do page_of_flights(P .. 'flight:' .. public_key) end
    end
  end
end
return #found > 0 and cjson.encode(found) or '[]'
