-- A host that signs is alive, and has replayed its journal since one start of Redis. No token: a repeat says the same.
-- ARGV: 1 host, 2 run id of that start, or '' = of none so far.   Returns JSON: the run id of the present start.
-- Needs: epochs
local run = run_id()
begun(run)
redis.call('HSET', P .. 'journals', ARGV[1], (ARGV[2] == '' and 'none' or ARGV[2]) .. ' ' .. NOW)
return cjson.encode(run)
