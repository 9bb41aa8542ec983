-- Begin a job anew. Refused while somebody works on it, and for ever once a transaction carried its payload.
-- ARGV: 1 token, 2 data_id, 3 stage to begin at.   Returns JSON "queued" | "unknown" | "busy" | "carried".
-- Needs: rows
local token, id, stage = unpack(ARGV)
local before = remembered(token)
if before then return before end
local now = get(id, 'state', 'row', 'hashes', 'source_key', 'request_id')
if not now[1] then return answer(token, '"unknown"') end
if now[3] and now[3] ~= '' then return answer(token, '"carried"') end
if now[1] == 'running' or now[2] == 'taken' then return answer(token, '"busy"') end

unindex(id)
forget_answer(id)
redis.call('HDEL', job(id), 'rebuild', 'cancelled')
redis.call('HSET', job(id), 'deaths', 0, 'attempt', 0, 'waits', 0)
if now[4] and now[4] ~= '' then redis.call('DEL', P .. 'poison:' .. now[4], P .. 'failed:' .. now[4]) end
redis.call('DEL', P .. 'tomb:' .. id, P .. 'report:' .. id)
redis.call('ZREM', P .. 'reports', id)
redis.call('ZREM', P .. 'settled', id)
for _, name in ipairs({ 'job:' .. id, 'history:' .. id, 'request:' .. (now[5] or '') }) do redis.call('PERSIST', P .. name) end
note(id, stage, 'retried', '')
enqueue(id, stage, 0)
return answer(token, '"queued"')
