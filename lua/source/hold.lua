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

-- @include whole
-- @include decimal
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include event
-- @include write_stock
-- @include items

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
-- @include shard_keys

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
