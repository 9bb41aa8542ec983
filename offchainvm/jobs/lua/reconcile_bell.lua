-- Ring again, whatever the flag says, when rows wait and the last ring is long ago. No token: the time of the ring is the memory.
-- ARGV: 1 ring ms.   Returns 1 when it rang.
if redis.call('EXISTS', P .. 'waiting') == 0 then return 0 end
if NOW - tonumber(redis.call('GET', P .. 'bell:last') or '0') < tonumber(ARGV[1]) then return 0 end
ring(true)
return 1
