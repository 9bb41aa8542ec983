-- One more sending begins. No token: a count too many only makes `dead` look again.
-- ARGV: 1 hash.   Returns the count, or 0: not in flight.
if redis.call('EXISTS', P .. 'tx:' .. ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', P .. 'tx:' .. ARGV[1], 'attempts', 1)
