-- Whether the calling user may run a write. Redis itself asks only when the write is run, and undoes none before it. It
-- is asked with a whole command: Redis 8 judges no other.
local may = redis.acl_check_cmd
