-- Whether the calling user may run a write. Redis itself asks only when the write is run, and undoes none before it. It
-- is asked with a whole command: Redis 8 judges no other.
local SHAPES = {
  XADD = { '*', 'field', '0' }, HSET = { 'field', '0' }, HDEL = { 'field' }, PEXPIRE = { '1' }, PERSIST = {},
  ZADD = { '1', 'member' }, ZREM = { 'member' }, SADD = { 'member' },
}
local function may(command, key) return redis.acl_check_cmd(command, key, unpack(SHAPES[command])) end
