-- The whole fleet's figures in one look, for metrics.   No ARGV.
-- Returns JSON {queues: {stage: [jobs, ms that the oldest waits, rounds until all had their turn]}, running, parked, taken, reports, outbox, flights, totals (flat)}.
local LOOK = 20
-- By the time of the last change, not by the score: that moves on when a job is published again. The oldest is among the first.
local function oldest(name)
  local age = 0
  for _, id in ipairs(redis.call('ZRANGE', P .. name, 0, LOOK - 1)) do
    age = math.max(age, NOW - tonumber(get(id, 'updated')[1] or NOW))
  end
  return { redis.call('ZCARD', P .. name), age }
end
-- As many as the one share has jobs waiting that has most.
local function line(stage)
  local jobs, age = unpack(oldest('queued:' .. stage))
  local turn = redis.call('ZRANGE', P .. 'turns:' .. stage, -1, -1, 'WITHSCORES')[2]
  local served = tonumber(redis.call('GET', P .. 'round:' .. stage) or '0')
  return { jobs, age, turn and math.floor(tonumber(turn) / ROUND_SIZE) - served or 0 }
end
local flights = 0
for _, public_key in ipairs(redis.call('SMEMBERS', P .. 'keys')) do flights = flights + redis.call('ZCARD', P .. 'flight:' .. public_key) end
return cjson.encode({
  queues = { compile = line('compile'), execute = line('execute'), resolve = oldest('waiting') },
  running = redis.call('ZCARD', P .. 'running'), parked = redis.call('ZCARD', P .. 'parked'), taken = redis.call('ZCARD', P .. 'taken'),
  reports = redis.call('ZCARD', P .. 'reports'), outbox = redis.call('XLEN', P .. 'outbox'), flights = flights,
  totals = redis.call('HGETALL', P .. 'totals'),
})
