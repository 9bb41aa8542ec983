-- Set a task aside that cannot be read, and have the Coordinator told where there is a request id.
-- ARGV: 1 token, 2 entry (JSON without its time), 3 report id or '', 4 report, 5 error
-- Returns 1, or 0: it was set aside by this call before.
-- Needs: rows
local token, entry, id, report, err = unpack(ARGV)
if remembered(token) then return 0 end
redis.call('LPUSH', P .. 'rejected', cjson.encode({ NOW, entry }))
redis.call('LTRIM', P .. 'rejected', 0, 999)
if id ~= '' then queue_report(id, 'fail', report, err) end
return tonumber(answer(token, 1))
