#!lua
-- seed: set the stock of a SKU to a quantity, all of it available. Live holds are released first, up to 100 a call.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     skus         set     stockhold:skus
--   4     inventory    hash    inventory:<sku>
--   5     active       zset    inventory:<sku>:active
--   6...  reservation  hash    reservation:<id>, 0 to 100 members of the active set: the holds to release
--
-- ARGV
--   1     auditMax     entries that the audit keeps, about; 0 keeps for ever
--   2     keepMs       milliseconds that a settled reservation is kept; 0 keeps for ever
--   3     quantity     units, 1 to 1000000000; or probe: check names, rights and what is stored, and write nothing
--
-- REPLIES: one array
--   PROBED                          quantity is probe: a seed would be carried out
--   DRAINING left                   the listed holds are released and nothing is available, so that no new hold comes
--                                   in; so many holds are still live: list the next ones and call again
--   SEEDED quantity updatedAt version
--                                   done: no hold is live and the counts are quantity, 0, 0
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- A repeat after a lost reply seeds again: it releases the holds that were made in between.

local audit, due, skus, inventory, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local audit_max, keep_ms, quantity = ARGV[1], ARGV[2], ARGV[3]
local n = #KEYS - 5

local MAX_ITEMS = 100
local MAX_QUANTITY = 1000000000
local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999

-- @shared whole
-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or s:find('^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end
-- @end

-- @shared decimal
-- tostring(1e14) is 1e+14, and a bare number handed to redis.call is worse.
local function decimal(value) return string.format('%d', value) end
-- @end

-- @shared is_text
-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most are plain ASCII: one look, and no more.
local function is_text(s)
  if #s < 1 or #s > 128 then return false end
  if s:find('^[ -~]+$') then return true end
  if s:find('[%z\1-\31\127]') or s:find('\194[\128-\159]') then return false end
  local rest = s:gsub('[\194-\223][\128-\191]', '-')
    :gsub('\224[\160-\191][\128-\191]', '-')
    :gsub('\237[\128-\159][\128-\191]', '-')
    :gsub('[\225-\236\238\239][\128-\191][\128-\191]', '-')
    :gsub('\240[\144-\191][\128-\191][\128-\191]', '-')
    :gsub('[\241-\243][\128-\191][\128-\191][\128-\191]', '-')
    :gsub('\244[\128-\143][\128-\191][\128-\191]', '-')
  return not rest:find('[\128-\255]')
end
-- @end

-- @shared is_sku
-- Text with none of space : { } and no Unicode white space; inventory:audit is the stream, so audit is reserved, and
-- . and .. are gone from a path when a client normalises it.
local function is_sku(s)
  if s == 'audit' or s == '.' or s == '..' then return false end
  if s:find('^[!-9;-z|~]+$') then return #s <= 128 end
  if s:find('[ :{}]') or not is_text(s) then return false end
  return not (s:find('[\194\225-\227]') and (s:find('\194\160') or s:find('\225\154\128')
    or s:find('\226\128[\128-\138\168\169\175]') or s:find('\226\129\159') or s:find('\227\128\128')))
end
-- @end

-- @shared is_id
-- A UUID in its canonical lower-case form.
local function is_id(s)
  return #s == 36 and s == s:lower()
    and s:find('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$') ~= nil
end
-- @end

-- @shared split
-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one.
local function split(name)
  local prefix, sku = name:match('^(.-)inventory:(.*)$')
  if not prefix or not is_sku(sku) then return nil end
  if prefix ~= '' and not prefix:find('^{%d%d?%d?%d?}:$') then return nil end
  return prefix, sku
end
-- @end

-- @shared clock
-- One reading of one clock: Redis's. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)
-- @end

-- @shared read_stock
-- Counts and last event of a SKU; false when it was never seeded; nil when what is stored cannot be right.
local function read_stock(key)
  local f = redis.call('HMGET', key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6]) then return false end
  local available, reserved = whole(f[1], 0, MAX_COUNT), whole(f[2], 0, MAX_COUNT)
  local confirmed, seeded = whole(f[3], 0, MAX_COUNT), whole(f[4], 0, MAX_COUNT)
  local version = whole(f[5], 1, MAX_COUNT - 2 * MAX_ITEMS)
  if not (available and reserved and confirmed and seeded and version and f[6]) then return nil end
  if available + reserved + confirmed ~= seeded then return nil end
  return {
    available = available, reserved = reserved, confirmed = confirmed, version = version, last_event = f[6],
  }
end
-- @end

-- @shared read_record
-- A reservation's fields by name; false when there is none; nil when what is stored cannot be right.
local function read_record(key)
  local f = redis.call('HMGET', key,
    'cartId', 'sku', 'quantity', 'state', 'reason', 'expiresAt', 'createdAt', 'updatedAt', 'token')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6] or f[7] or f[8]) then return false end
  local units, expires = whole(f[3], 1, MAX_QUANTITY), whole(f[6], 1, MAX_TIME)
  if not (f[1] and f[2] and units and f[5] and expires and f[7] and f[8]) then return nil end
  if f[4] ~= 'active' and f[4] ~= 'confirmed' and f[4] ~= 'released' then return nil end
  return {
    key = key, cartId = f[1], sku = f[2], quantity = f[3], state = f[4], reason = f[5],
    expiresAt = f[6], createdAt = f[7], updatedAt = f[8], token = f[9], units = units, expires = expires,
  }
end
-- @end

-- @shared settle
-- Ends an active reservation: its units leave reserved for a pool (available, confirmed; withdrawn is none of them).
local function settle(stock, record, event, state, reason, pool)
  stock.reserved = stock.reserved - record.units
  stock[pool] = (stock[pool] or 0) + record.units
  stock.version = stock.version + 1
  stock.last_event = redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*', 'event', event,
    'reservationId', record.id, 'cartId', record.cartId, 'sku', record.sku, 'quantity', record.quantity,
    'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', decimal(stock.available), 'reserved', decimal(stock.reserved), 'confirmed', decimal(stock.confirmed),
    'version', decimal(stock.version), 'previous', stock.last_event)
  redis.call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text)
  if record.token and record.token ~= '' then redis.call('HSET', record.key, 'token', record.token) end
  redis.call('ZREM', stock.active, record.id)
  -- Last: a record that is kept for a moment only is gone now.
  if keep_ms ~= '0' then redis.call('PEXPIRE', record.key, keep_ms) end
end
-- @end

-- @shared may
-- Whether the user who calls may run a write. Redis itself asks only when it is run, and takes back none before it.
-- It is asked with as many arguments as the command has to have: Redis 8 refuses to judge any other number.
local SHAPES = {
  XADD = { '*', 'field', '0' }, HSET = { 'field', '0' }, PEXPIRE = { '1' }, ZADD = { '1', 'member' },
  ZREM = { 'member' }, SADD = { 'member' }, DEL = {}, PERSIST = {},
}
local function may(command, key) return redis.acl_check_cmd(command, key, unpack(SHAPES[command])) end
-- @end

-- @shared audit_has_room
-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
local function audit_has_room()
  local newest = redis.call('XREVRANGE', audit, '+', '-', 'COUNT', '1')[1]
  return not newest or #newest[1]:match('^%d+') <= 15
end
-- @end

-- Guards: no key is read before every name and number is right.

if n < 0 or n > MAX_ITEMS or #ARGV ~= 3 then
  return redis.error_reply('BADARGS keys: 5 and then 0 to 100 reservations, with 3 arguments')
end
if not whole(audit_max, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS auditMax: a whole number from 0 to 1000000000000')
end
if not whole(keep_ms, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS keepMs: a whole number from 0 to 1000000000000')
end
if quantity ~= 'probe' and not whole(quantity, 1, MAX_QUANTITY) then
  return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000, or probe')
end
-- No stream grows this long: one XADD serves both cases.
if audit_max == '0' then audit_max = '1000000000000000' end

local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end
if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end

local reservation_prefix = prefix .. 'reservation:'
local ids, listed = {}, {}
for i = 1, n do
  local reservation = KEYS[5 + i]
  local id = reservation:sub(#reservation_prefix + 1)
  if reservation:sub(1, #reservation_prefix) ~= reservation_prefix or not is_id(id) then
    return redis.error_reply('BADKEY reservation ' .. i .. ': not reservation:<uuid>')
  end
  if not listed[id] then
    listed[id] = true
    ids[#ids + 1] = id
  end
end

-- Rights: those of every write, also when nothing will be written: a probe proves them.

local may_all = may('XADD', audit) and may('HSET', inventory)
  and may('ZREM', active) and may('ZREM', due) and may('SADD', skus)
for _, id in ipairs(ids) do
  local key = reservation_prefix .. id
  may_all = may_all and may('HSET', key) and may('PEXPIRE', key)
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a seed writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

if not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
redis.call('ZSCORE', due, sku)
redis.call('SISMEMBER', skus, sku)
local live = redis.call('ZCARD', active)
local stock = read_stock(inventory)
if stock == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
stock = stock or { available = 0, reserved = 0, confirmed = 0, version = 0, last_event = '' }
stock.active = active
local version_before = stock.version

local held, strays, owed = {}, {}, 0
for _, id in ipairs(ids) do
  local key = reservation_prefix .. id
  local record = read_record(key)
  if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. key) end
  if redis.call('ZSCORE', active, id) then live = live - 1 end
  if not record or record.sku ~= sku or record.state ~= 'active' then
    strays[#strays + 1] = id
  else
    record.id = id
    owed = owed + record.units
    held[#held + 1] = record
  end
end
if owed > stock.reserved then
  return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. inventory)
end

if quantity == 'probe' then return { { 'PROBED' } } end

-- Writes: none of them can fail.

-- A stock event concerns no reservation: the counts after it are what the SKU was set to.
local function stock_event(state, reason, units)
  stock.version = stock.version + 1
  stock.last_event = redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*', 'event', 'seed',
    'reservationId', '', 'cartId', '', 'sku', sku, 'quantity', units,
    'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', decimal(stock.available), 'reserved', decimal(stock.reserved), 'confirmed', decimal(stock.confirmed),
    'version', decimal(stock.version), 'previous', stock.last_event)
end

if stock.available > 0 and (live > 0 or #held > 0) then
  stock.available = 0
  stock_event('draining', 'inventory_reseeded', '0')
end
for _, record in ipairs(held) do
  settle(stock, record, 'release', 'released', 'inventory_reseeded', 'withdrawn')
end
for _, id in ipairs(strays) do redis.call('ZREM', active, id) end

if live == 0 then
  stock.available, stock.reserved, stock.confirmed = tonumber(quantity), 0, 0
  stock_event('seeded', '', quantity)
  redis.call('ZREM', due, sku)
  redis.call('SADD', skus, sku)
end
-- No event, no change: a call that found only holds of others to wait for leaves the hash as it is.
if stock.version > version_before then
  redis.call('HSET', inventory, 'sku', sku, 'available', decimal(stock.available), 'reserved', decimal(stock.reserved),
    'confirmed', decimal(stock.confirmed), 'seeded', decimal(stock.available + stock.reserved + stock.confirmed),
    'updatedAt', now_text, 'version', decimal(stock.version), 'lastEvent', stock.last_event)
end
if live > 0 then return { { 'DRAINING', decimal(live) } } end
return { { 'SEEDED', quantity, now_text, decimal(stock.version) } }
