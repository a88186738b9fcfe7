#!lua
-- hold: move units from available to reserved and leave an active reservation, for one item or up to 100.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   then three for each item:
--   3i    inventory    hash    inventory:<sku>
--   3i+1  active       zset    inventory:<sku>:active
--   3i+2  reservation  hash    reservation:<id>
--
-- ARGV
--   1     mode         each (items are independent) | all (all or nothing)
--   2     auditMax     entries that the audit keeps, about; 0 keeps for ever
--   then three for each item:
--   3i    cartId       1 to 128 bytes of UTF-8, no control character
--   3i+1  quantity     units, 1 to 1000000000
--   3i+2  ttlMs        milliseconds until it lapses, 1 to 2592000000
--
-- REPLIES: one array for each item, in the order in which they are decided
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the id exists with this cart, SKU and quantity: here it is, as it is now.
--                                   The ttl is not compared: the first expiry stands.
--   CONFLICT field                  the id exists with another cartId, sku or quantity (the first that differs)
--   UNKNOWN_SKU                     the SKU was never seeded
--   INSUFFICIENT available lapsed   too few units; so many holds of the SKU are due: sweep them and try again
--   WITHDRAWN                       mode all: this item would have held, another did not
--   HELD expiresAt createdAt        done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply: the same id answers REPLAYED.

local audit, due = KEYS[1], KEYS[2]
local mode, audit_max = ARGV[1], ARGV[2]
local n = (#KEYS - 2) / 3

local MAX_ITEMS = 100
local MAX_QUANTITY = 1000000000
local MAX_TTL_MS = 2592000000
local MAX_COUNT = 1000000000000

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

-- @shared clock
-- One reading of one clock: Redis's. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)
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

if n < 1 or n > MAX_ITEMS or n % 1 ~= 0 or #ARGV ~= 2 + 3 * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys and 3 arguments each after the first 2')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end
if not whole(audit_max, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS auditMax: a whole number from 0 to 1000000000000')
end
-- No stream grows this long: one XADD serves both cases.
if audit_max == '0' then audit_max = '1000000000000000' end

local items, stocks, common_prefix, reservation_prefix = {}, {}, nil, nil
for i = 1, n do
  local inventory, active, reservation = KEYS[3 * i], KEYS[3 * i + 1], KEYS[3 * i + 2]
  local cart, quantity, ttl_ms = ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  local units, ttl = whole(quantity, 1, MAX_QUANTITY), whole(ttl_ms, 1, MAX_TTL_MS)
  local stock = stocks[inventory]
  if not stock then
    local prefix, sku = split(inventory)
    if not prefix then return redis.error_reply('BADKEY inventory of item ' .. i .. ': not inventory:<sku>') end
    if common_prefix and prefix ~= common_prefix then
      return redis.error_reply('BADKEY inventory of item ' .. i .. ': of another shard')
    end
    common_prefix, reservation_prefix = prefix, prefix .. 'reservation:'
    stock = { sku = sku, active = inventory .. ':active' }
    stocks[inventory] = stock
  end
  if active ~= stock.active then
    return redis.error_reply('BADKEY active of item ' .. i .. ': not inventory:<sku>:active')
  end
  local id = reservation:sub(#reservation_prefix + 1)
  if reservation:sub(1, #reservation_prefix) ~= reservation_prefix or not is_id(id) then
    return redis.error_reply('BADKEY reservation of item ' .. i .. ': not reservation:<uuid>')
  end
  if not is_text(cart) then
    return redis.error_reply('BADARGS cartId of item ' .. i .. ': 1 to 128 bytes of UTF-8, no control character')
  end
  if not units then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  if not ttl then return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': a whole number from 1 to 2592000000') end
  items[i] = { inventory = inventory, reservation = reservation, id = id, cart = cart,
    units = units, quantity = quantity, ttl = ttl }
end
if audit ~= common_prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= common_prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit) and may('ZADD', due)
for inventory, stock in pairs(stocks) do
  may_all = may_all and may('HSET', inventory) and may('ZADD', stock.active)
end
for i = 1, n do may_all = may_all and may('HSET', items[i].reservation) end
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here. But for
-- the audit of a single item: the first write goes there, and stops it as well.

if n > 1 and not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
for inventory, named in pairs(stocks) do
  local stock = read_stock(inventory)
  if stock == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
  stock = stock or { missing = true }
  stock.sku, stock.active = named.sku, named.active
  stock.due = tonumber(redis.call('ZSCORE', due, named.sku))
  redis.call('ZCARD', named.active)
  stocks[inventory] = stock
end

local records = {}
for i = 1, n do
  local reservation = items[i].reservation
  if not records[reservation] and redis.call('EXISTS', reservation) == 1 then
    local record = redis.call('HMGET', reservation,
      'cartId', 'sku', 'quantity', 'state', 'reason', 'expiresAt', 'createdAt', 'updatedAt')
    for field = 1, 8 do
      if not record[field] then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    end
    records[reservation] = record
  end
end

-- Decisions: a SKU or an id that is named twice sees what the items before it would leave.

local replies, holds, refused = {}, {}, false
for i = 1, n do
  local item = items[i]
  local stock, record = stocks[item.inventory], records[item.reservation]
  local earlier = holds[item.reservation]
  if earlier then
    item.again = true
    record = { earlier.cart, stocks[earlier.inventory].sku, earlier.quantity, 'active', '',
      earlier.after.expires, now_text, now_text }
  end
  if record then
    local field = record[1] ~= item.cart and 'cartId' or record[2] ~= stock.sku and 'sku'
      or record[3] ~= item.quantity and 'quantity'
    if field then
      replies[i], refused, item.again = { 'CONFLICT', field }, true, nil
    else
      replies[i] = { 'REPLAYED', record[1], record[2], record[3], record[4],
        record[5], record[6], record[7], record[8] }
    end
  elseif stock.missing then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif stock.available < item.units then
    local lapsed = redis.call('ZCOUNT', stock.active, '-inf', now_text)
    replies[i], refused = { 'INSUFFICIENT', decimal(stock.available), decimal(lapsed) }, true
  else
    stock.available = stock.available - item.units
    stock.reserved = stock.reserved + item.units
    stock.version = stock.version + 1
    local expires = decimal(now + item.ttl)
    item.after = { available = decimal(stock.available), reserved = decimal(stock.reserved),
      version = decimal(stock.version), expires = expires }
    holds[item.reservation] = item
    replies[i] = { 'HELD', expires, now_text }
  end
end

if refused and mode == 'all' then
  for i = 1, n do
    if items[i].after or items[i].again then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: once the first is done, none of them can fail.

local last = {}
for i = 1, n do
  local item = items[i]
  if item.after then
    local inventory, after = item.inventory, item.after
    local stock, expires = stocks[inventory], now + item.ttl
    if not stock.due or expires < stock.due then stock.due, stock.lowered = expires, after.expires end
    last[inventory] = after
    stock.last_event = redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*', 'event', 'hold',
      'reservationId', item.id, 'cartId', item.cart, 'sku', stock.sku, 'quantity', item.quantity,
      'state', 'active', 'reason', '', 'happenedAt', now_text,
      'available', after.available, 'reserved', after.reserved, 'confirmed', decimal(stock.confirmed),
      'version', after.version, 'previous', stock.last_event)
    redis.call('HSET', item.reservation, 'cartId', item.cart, 'sku', stock.sku, 'quantity', item.quantity,
      'state', 'active', 'reason', '', 'expiresAt', after.expires, 'createdAt', now_text, 'updatedAt', now_text)
    redis.call('ZADD', stock.active, after.expires, item.id)
  end
end
for inventory, after in pairs(last) do
  local stock = stocks[inventory]
  redis.call('HSET', inventory, 'available', after.available, 'reserved', after.reserved,
    'updatedAt', now_text, 'version', after.version, 'lastEvent', stock.last_event)
  if stock.lowered then redis.call('ZADD', due, stock.lowered, stock.sku) end
end
return replies
