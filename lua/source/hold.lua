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
--                                   its state: once released, it holds nothing. The ttl is not compared: its expiry
--                                   stands.
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

-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include event
-- @include write_stock
-- @include items
-- @include shown

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + 3 * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 2, and 3 arguments each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
-- Many items of a call want the same: what was found right is not looked at again.
local right_quantity, right_ttl
for i = 1, n do
  local reservation = KEYS[3 * i + 2]
  local stock, id = item_of(i, KEYS[3 * i], KEYS[3 * i + 1], reservation)
  if not stock then return redis.error_reply(id) end
  local cart, quantity, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  if not is_text(cart) then
    return redis.error_reply('BADARGS cartId of item ' .. i .. ': 1 to 128 bytes of UTF-8, no control character')
  end
  if quantity ~= right_quantity and not whole(quantity, 1, 1000000000) then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  if ttl ~= right_ttl and not whole(ttl, 1, 2592000000) then
    return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': a whole number from 1 to 2592000000')
  end
  right_quantity, right_ttl = quantity, ttl
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- @include shard_keys

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', due, '1', 'member')
for i = 1, #stocks do
  local stock = stocks[i]
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZADD', stock.active, '1', 'member')
end
for i = 1, n do may_all = may_all and may('HSET', reservations[i], 'field', '0') end
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here. But for
-- the audit of a single item: the first write goes there, and stops it as well.

if n > 1 then
  -- @include audit_room
end
call('ZCARD', due)
for i = 1, #stocks do
  local stock = stocks[i]
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.left = found and stock.available
  call('ZCARD', stock.active)
end

local records
if call('EXISTS', unpack(reservations)) > 0 then
  -- @include record

  records = {}
  for i, reservation in ipairs(reservations) do
    local record = read_record(reservation, ids[i])
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    records[reservation] = record
  end
end

-- Decisions: a SKU or an id that is named twice sees what the items before it would leave.

local replies, refused = {}, false
-- By reservation, the item that makes it; and the record that an item makes.
local made = {}
local function record_of(i)
  return { cartId = ARGV[3 * i - 1], sku = stock_of[i].sku, quantity = ARGV[3 * i], state = 'active', reason = '',
    expiresAt = replies[i][2], createdAt = now_text, updatedAt = now_text }
end
-- The latest reply to a hold, and the ttl that it is for.
local held, held_ttl
for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  local cart, quantity, ttl = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local record, earlier = records and records[reservation], made[reservation]
  if earlier then record = record_of(earlier) end
  if record then
    local field = record.cartId ~= cart and 'cartId' or record.sku ~= stock.sku and 'sku'
      or record.quantity ~= quantity and 'quantity'
    if field then
      replies[i], refused = { 'CONFLICT', field }, true
    else
      replies[i] = shown('REPLAYED', record)
    end
  elseif not stock.left then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif stock.left < quantity + 0 then
    local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
    replies[i], refused = { 'INSUFFICIENT', format('%d', stock.left), format('%d', lapsed) }, true
  else
    stock.left = stock.left - quantity
    made[reservation] = i
    if ttl ~= held_ttl then held, held_ttl = { 'HELD', format('%d', now + ttl), now_text }, ttl end
    replies[i] = held
  end
end

if refused and mode == 'all' then
  for i, reservation in ipairs(reservations) do
    local word = replies[i][1]
    if word == 'HELD' or word == 'REPLAYED' and made[reservation] then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: once the first is done, none of them can fail.

for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  if made[reservation] == i then
    local cart, quantity, expires = ARGV[3 * i - 1], ARGV[3 * i], replies[i][2]
    stock.available, stock.reserved = stock.available - quantity, stock.reserved + quantity
    append_event(stock, 'hold', ids[i], cart, quantity, 'active', '')
    call('HSET', reservation, 'cartId', cart, 'sku', stock.sku, 'quantity', quantity,
      'state', 'active', 'expiresAt', expires, 'createdAt', now_text)
    local added = stock.added
    if added then
      added[#added + 1], added[#added + 2] = expires, ids[i]
    else
      stock.added = { expires, ids[i] }
    end
  end
end
local bounds = {}
for i = 1, #stocks do
  local stock = stocks[i]
  local added = stock.added
  if added then
    call('ZADD', stock.active, unpack(added))
    write_stock(stock)
    local earliest = added[1]
    -- Times have 13 digits: as text they are in the same order.
    for at = 3, #added, 2 do if added[at] < earliest then earliest = added[at] end end
    bounds[#bounds + 1], bounds[#bounds + 2] = earliest, stock.sku
  end
end
-- What is due earlier stays so.
if #bounds > 0 then call('ZADD', due, 'LT', unpack(bounds)) end
return replies
