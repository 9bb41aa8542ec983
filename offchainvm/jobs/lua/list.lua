-- Records of one state, the newest of its index first.   ARGV: 1 state or '', 2 limit.   Returns JSON [flat record, …].
-- Needs: rows
local INDEX = {
  queued = { 'queued:execute', 'queued:compile' }, running = { 'running' }, parked = { 'parked' },
  resolving = { 'waiting', 'taken' }, settled = { 'settled' },
}
local state, limit = ARGV[1], tonumber(ARGV[2])
local found, seen = {}, {}
local function add(id)
  if #found >= limit or seen[id] then return end
  seen[id] = true
  local flat = redis.call('HGETALL', job(id))
  if #flat > 0 then found[#found + 1] = flat end
end
for _, one in ipairs({ 'running', 'queued', 'parked', 'resolving', 'settled' }) do
  if state == '' or state == one then
    for _, name in ipairs(INDEX[one]) do
      for _, id in ipairs(redis.call('ZREVRANGE', P .. name, 0, limit - 1)) do add(id) end
    end
    if one == 'resolving' then
      for _, public_key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do
        for _, hash in ipairs(redis.call('ZREVRANGE', P .. 'flight:' .. public_key, 0, limit - 1)) do
          for _, id in ipairs(words(redis.call('HGET', P .. 'tx:' .. hash, 'ids'))) do add(id) end
        end
      end
    end
  end
end
return #found > 0 and cjson.encode(found) or '[]'
