#!lua flags=allow-oom
-- sweep: expire what is due among the listed reservations of one SKU: their units move back to available.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     settings     hash    stockhold:settings
--   4     inventory    hash    inventory:<sku>
--   5     active       zset    inventory:<sku>:active
--   6...  reservation  hash    reservation:<id>, 0 to 100 of them: the first of the active set are the earliest
--
-- ARGV: none
--
-- REPLIES: one array
--   UNKNOWN_SKU                     the SKU was never seeded: there is nothing to expire
--   SWEPT count nextExpiry          count were expired; epoch ms of the SKU's next expiry, empty when none is active
--
-- ERRORS: nothing has been written
--   BADARGS what                    the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- Always safe to repeat: what is not due, not active or not of this SKU is passed over. Runs when memory is full.

local audit, due, settings, inventory, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local n = #KEYS - 5
local function reservation_key(i) return KEYS[5 + i] end

-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include record
-- @include event
-- @include write_stock

-- Guards: no key is read before every name and number is right.

if n < 0 or n > 100 or #ARGV ~= 0 then
  return redis.error_reply('BADARGS keys: 5 and then 0 to 100 reservations, without arguments')
end
-- @include one_sku
-- @include shard_keys
-- @include listed

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('ZREM', active, 'member') and may('ZREM', due, 'member') and may('ZADD', due, '1', 'member')
for _, id in ipairs(ids) do
  may_all = may_all and may('HSET', listed[id], 'field', '0') and may('PEXPIRE', listed[id], '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a sweep writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include ending
-- @include audit_room
local bound = call('ZSCORE', due, sku)
-- One more than can be taken out: the earliest of those that stay is among them.
local first = call('ZRANGE', active, 0, n, 'WITHSCORES')
local stock = { key = inventory, sku = sku, ended = {} }
local found = read_stock(stock)
if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
if not found then return { { 'UNKNOWN_SKU' } } end

local lapsed, leaving, owed = {}, {}, 0
for _, id in ipairs(ids) do
  local record = read_record(listed[id], id)
  if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. listed[id]) end
  if not record or record.sku ~= sku or record.state ~= 'active' then
    -- A member of the active set that holds no units would be polled for ever.
    leaving[#leaving + 1], leaving[id] = id, true
  elseif record.expires <= now then
    owed = owed + record.units
    lapsed[#lapsed + 1] = record
    leaving[#leaving + 1], leaving[id] = id, true
  end
end
if owed > stock.reserved then
  return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. inventory)
end
local earliest
for i = 1, #first, 2 do
  if not leaving[first[i]] then
    earliest = first[i + 1]
    break
  end
end

-- Writes: none of them can fail.

for _, record in ipairs(lapsed) do
  end_reservation(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
end
if #lapsed > 0 then write_stock(stock) end
if #leaving > 0 then call('ZREM', active, unpack(leaving)) end
if not earliest then
  call('ZREM', due, sku)
elseif earliest ~= bound then
  call('ZADD', due, earliest, sku)
end
return { { 'SWEPT', format('%d', #lapsed), earliest or '' } }
