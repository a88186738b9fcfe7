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
--   then three for each item:
--   3i-1  cartId       1 to 128 bytes of UTF-8, no control character
--   3i    quantity     units, 1 to 1000000000
--   3i+1  ttlMs        milliseconds until it lapses, 1 to 2592000000
--
-- REPLIES: one array for each item, in the order in which they are decided
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the id exists with this cart, SKU and quantity: here it is, as it is now. Look at
--                                   its state: once released, it holds nothing. The ttl is not compared: the first
--                                   expiry stands.
--   CONFLICT field                  the id exists with another cartId, sku or quantity (the first that differs)
--   UNKNOWN_SKU                     the SKU was never seeded
--   INSUFFICIENT available lapsed   too few units, and this number of holds of the SKU is due: sweep them and try again
--   WITHDRAWN                       mode all: this item would have held, another did not
--   HELD expiresAt createdAt        done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply: the same id answers REPLAYED. In mode all, a REPLAYED beside a refusal is a line
-- that an earlier call holds: release it, or leave it to lapse.

local audit, due = KEYS[1], KEYS[2]
local mode = ARGV[1]
local n = (#KEYS - 2) / 3

-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or s:find('^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end

-- tostring(1e14) is 1e+14, and a bare number handed to redis.call is worse.
local function decimal(value) return string.format('%d', value) end

-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most text is plain ASCII: one pattern decides.
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

-- Text with none of space : { } and no Unicode white space. inventory:audit is the stream, so audit is reserved;
-- clients that normalize paths cannot ask for . and .. over HTTP.
local function is_sku(s)
  if s == 'audit' or s == '.' or s == '..' then return false end
  if s:find('^[!-9;-z|~]+$') then return #s <= 128 end
  if s:find('[ :{}]') or not is_text(s) then return false end
  return not (s:find('[\194\225-\227]') and (s:find('\194\160') or s:find('\225\154\128')
    or s:find('\226\128[\128-\138\168\169\175]') or s:find('\226\129\159') or s:find('\227\128\128')))
end

-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one.
local function split(name)
  local prefix, sku = name:match('^(.-)inventory:(.*)$')
  if not prefix or not is_sku(sku) then return nil end
  if prefix ~= '' and not prefix:find('^{%d%d?%d?%d?}:$') then return nil end
  return prefix, sku
end

-- <prefix>reservation:<uuid> -> the UUID, in its canonical lower-case form; nil when the name is not one.
local function id_of(key, reservation_prefix)
  local id = key:sub(#reservation_prefix + 1)
  if #id == 36 and key:sub(1, #reservation_prefix) == reservation_prefix and id == id:lower()
    and id:find('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$') then
    return id
  end
  return nil
end

-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)

-- Whether the calling user may run a write. Redis itself asks only when the write is run, and undoes none before it. It
-- is asked with a whole command: Redis 8 judges no other.
local SHAPES = {
  XADD = { '*', 'field', '0' }, HSET = { 'field', '0' }, HDEL = { 'field' }, PEXPIRE = { '1' }, PERSIST = {},
  ZADD = { '1', 'member' }, ZREM = { 'member' }, SADD = { 'member' },
}
local function may(command, key) return redis.acl_check_cmd(command, key, unpack(SHAPES[command])) end

-- Reads the counts and the last event of a SKU into a stock: true; false when it was never seeded; nil when what is
-- stored cannot be right.
local function read_stock(stock)
  local f = redis.call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6]) then return false end
  local available, reserved = whole(f[1], 0, 1000000000000), whole(f[2], 0, 1000000000000)
  local confirmed, seeded = whole(f[3], 0, 1000000000000), whole(f[4], 0, 1000000000000)
  -- A call has room for two events of each item.
  local version = whole(f[5], 1, 1000000000000 - 200)
  if not (available and reserved and confirmed and seeded and version and f[6]) then return nil end
  if available + reserved + confirmed ~= seeded then return nil end
  stock.available, stock.reserved, stock.confirmed = available, reserved, confirmed
  stock.version, stock.last_event = version, f[6]
  return true
end

-- Appends what happened to a SKU to the audit. An event that concerns no reservation has an empty id and cart. The
-- counts are those after it; version has no gap, and previous is the SKU's event before.
local function append_event(stock, event, id, cart, units, state, reason)
  stock.version = stock.version + 1
  stock.available_text, stock.reserved_text = decimal(stock.available), decimal(stock.reserved)
  stock.confirmed_text, stock.version_text = decimal(stock.confirmed), decimal(stock.version)
  stock.last_event = redis.call('XADD', audit, '*', 'event', event, 'reservationId', id, 'cartId', cart,
    'sku', stock.sku, 'quantity', units, 'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', stock.available_text, 'reserved', stock.reserved_text, 'confirmed', stock.confirmed_text,
    'version', stock.version_text, 'previous', stock.last_event)
end

-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
local function audit_has_room()
  local newest = redis.call('XREVRANGE', audit, '+', '-', 'COUNT', '1')[1]
  return not newest or #newest[1]:match('^%d+') <= 15
end

-- Stores what the latest event of a stock has left; what it adds up to, too, when that is set anew.
local function write_stock(stock, is_set)
  redis.call('HSET', stock.key, 'available', stock.available_text, 'reserved', stock.reserved_text,
    'confirmed', stock.confirmed_text, 'updatedAt', now_text, 'version', stock.version_text,
    'lastEvent', stock.last_event)
  if is_set then
    local seeded = decimal(stock.available + stock.reserved + stock.confirmed)
    redis.call('HSET', stock.key, 'sku', stock.sku, 'seeded', seeded)
  end
end

-- The SKUs of a call, in the order in which they are first named and by their inventory keys; all are of one shard.
local stocks, by_key, prefix, reservation_prefix = {}, {}, nil, nil

-- The stock and the reservation's id of item i by its keys; or nil, and what is wrong.
local function item_of(i, inventory, active, reservation)
  local stock = by_key[inventory]
  if not stock then
    local own_prefix, sku = split(inventory)
    if not own_prefix then return nil, 'BADKEY inventory of item ' .. i .. ': not inventory:<sku>' end
    if prefix and own_prefix ~= prefix then return nil, 'BADKEY inventory of item ' .. i .. ': of another shard' end
    prefix, reservation_prefix = own_prefix, own_prefix .. 'reservation:'
    stock = { key = inventory, sku = sku, active = inventory .. ':active' }
    by_key[inventory] = stock
    stocks[#stocks + 1] = stock
  end
  if active ~= stock.active then return nil, 'BADKEY active of item ' .. i .. ': not inventory:<sku>:active' end
  local id = id_of(reservation, reservation_prefix)
  if not id then return nil, 'BADKEY reservation of item ' .. i .. ': not reservation:<uuid>' end
  return stock, id
end

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + 3 * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 2, and 3 arguments each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local items = {}
for i = 1, n do
  local reservation = KEYS[3 * i + 2]
  local stock, id = item_of(i, KEYS[3 * i], KEYS[3 * i + 1], reservation)
  if not stock then return redis.error_reply(id) end
  local cart, quantity = ARGV[3 * i - 1], ARGV[3 * i]
  local units, ttl = whole(quantity, 1, 1000000000), whole(ARGV[3 * i + 1], 1, 2592000000)
  if not is_text(cart) then
    return redis.error_reply('BADARGS cartId of item ' .. i .. ': 1 to 128 bytes of UTF-8, no control character')
  end
  if not units then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  if not ttl then return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': a whole number from 1 to 2592000000') end
  items[i] = { stock = stock, reservation = reservation, id = id, cart = cart, units = units, quantity = quantity,
    expires = now + ttl }
end
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit) and may('ZADD', due)
for _, stock in ipairs(stocks) do may_all = may_all and may('HSET', stock.key) and may('ZADD', stock.active) end
for _, item in ipairs(items) do may_all = may_all and may('HSET', item.reservation) end
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here. But for
-- the audit of a single item: the first write goes there, and stops it as well.

if n > 1 and not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
for _, stock in ipairs(stocks) do
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.left = found and stock.available
  stock.due = tonumber(redis.call('ZSCORE', due, stock.sku))
  redis.call('ZCARD', stock.active)
end

local records = {}
for _, item in ipairs(items) do
  local reservation = item.reservation
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

local replies, made, refused = {}, {}, false
for i, item in ipairs(items) do
  local stock, record = item.stock, records[item.reservation]
  local earlier = made[item.reservation]
  if earlier then
    record = { earlier.cart, earlier.stock.sku, earlier.quantity, 'active', '',
      earlier.expires_text, now_text, now_text }
  end
  if record then
    local field = record[1] ~= item.cart and 'cartId' or record[2] ~= stock.sku and 'sku'
      or record[3] ~= item.quantity and 'quantity'
    if field then
      replies[i], refused = { 'CONFLICT', field }, true
    else
      item.is_tentative = earlier ~= nil
      replies[i] = { 'REPLAYED', record[1], record[2], record[3], record[4],
        record[5], record[6], record[7], record[8] }
    end
  elseif not stock.left then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif stock.left < item.units then
    local lapsed = redis.call('ZCOUNT', stock.active, '-inf', now_text)
    replies[i], refused = { 'INSUFFICIENT', decimal(stock.left), decimal(lapsed) }, true
  else
    stock.left = stock.left - item.units
    item.is_tentative, item.expires_text = true, decimal(item.expires)
    made[item.reservation] = item
    replies[i] = { 'HELD', item.expires_text, now_text }
  end
end

if refused and mode == 'all' then
  for i, item in ipairs(items) do
    if item.is_tentative then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: once the first is done, none of them can fail.

for _, item in ipairs(items) do
  if made[item.reservation] == item then
    local stock, expires = item.stock, item.expires_text
    stock.available, stock.reserved = stock.available - item.units, stock.reserved + item.units
    append_event(stock, 'hold', item.id, item.cart, item.quantity, 'active', '')
    redis.call('HSET', item.reservation, 'cartId', item.cart, 'sku', stock.sku, 'quantity', item.quantity,
      'state', 'active', 'reason', '', 'expiresAt', expires, 'createdAt', now_text, 'updatedAt', now_text)
    local added = stock.added or {}
    added[#added + 1], added[#added + 2] = expires, item.id
    stock.added = added
    if not stock.due or item.expires < stock.due then stock.due, stock.lowered = item.expires, expires end
  end
end
local lowered = {}
for _, stock in ipairs(stocks) do
  if stock.added then
    redis.call('ZADD', stock.active, unpack(stock.added))
    write_stock(stock)
    if stock.lowered then lowered[#lowered + 1], lowered[#lowered + 2] = stock.lowered, stock.sku end
  end
end
if #lowered > 0 then redis.call('ZADD', due, unpack(lowered)) end
return replies
