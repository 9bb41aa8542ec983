-- Rows of a take that were not signed are WAITING again. No token: only rows still of that take move.
-- ARGV: pairs of data_id, take.   Returns how many moved.
-- Needs: rows
local count = 0
for i = 1, #ARGV, 2 do
  local now = get(ARGV[i], 'row', 'take')
  if now[1] == 'taken' and now[2] == ARGV[i + 1] then
    redis.call('ZREM', P .. 'taken', ARGV[i])
    wait(ARGV[i])
    count = count + 1
  end
end
return count
