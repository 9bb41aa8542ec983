-- What jobs are found by: the newest of a repository, and of a sender. (Keys: common.lua; no token of its own.)
local FOUND_JOBS = 1000

local function list_under(index, id, keep)
  -- Whoever adds one looks at the two oldest: so those go whose record is gone, and no look is long.
  for _, old in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if redis.call('EXISTS', job(old)) == 0 then redis.call('ZREM', index, old) end
  end
  redis.call('ZADD', index, 'NX', NOW, id)
  redis.call('ZREMRANGEBYRANK', index, 0, -FOUND_JOBS - 1)
  redis.call('EXPIRE', index, LOOKUP_SECONDS + keep)
end

local function name_sender(id, sender, keep)
  redis.call('HSET', job(id), 'sender', sender)
  list_under(P .. 'sender:' .. sender, id, keep)
end
