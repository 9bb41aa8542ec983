-- A block has used this transaction's nonce: the slot of its key's window is free, though it is watched until it is final.
-- No token: a repeat changes nothing.   ARGV: 1 hash.   Returns 1 the first time, else 0.
local public_key = redis.call('HGET', P .. 'tx:' .. ARGV[1], 'key')
if not public_key or redis.call('SADD', P .. 'aboard:' .. public_key, ARGV[1]) == 0 then return 0 end
if redis.call('EXISTS', P .. 'waiting') == 1 then ring(false) end
return 1
