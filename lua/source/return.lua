#!lua flags=allow-oom
-- return: take back units of a sale, some or all of them: they are on sale again, or leave the books.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     settings     hash    stockhold:settings
--   3     operation    hash    operation:<uuid>
--   4     inventory    hash    inventory:<sku>
--   5     reservation  hash    reservation:<id>
--
-- ARGV
--   1     quantity     units that come back, 1 to 1000000000
--   2     restock      restock (they are available again) | write_off (they are not: broken, or never sent back)
--   3     once         empty | once: remember it under operation, so that a repeat does nothing
--
-- REPLIES: one array, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT field                  sku: the reservation is another SKU's. Or the operation was another return: the
--                                   first of sku, reservationId, confirmedAt, quantity and restock that differs
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt returned
--                                   the operation was carried out before: what it left then
--   NOT_SOLD state reason           the reservation is active or released
--   EXCEEDS left                    more than was sold and not yet returned, which is this number of units
--   EXCESSIVE                       the SKU would have more than 1000000000000 units in all
--   RETURNED cartId sku quantity state reason expiresAt createdAt updatedAt returned
--                                   done: quantity is what was sold, and returned is what came back of it in all
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The units leave confirmed, if the sale is still counted there. A seed counts anew: the units of a sale before the
-- last one come back on sale, or not, and confirmed stays. Then the reason in the audit ends with _after_seed. The time
-- of the sale, which updatedAt was, is kept as confirmedAt. How long the record is kept stays as it was.
-- Safe to repeat after a lost reply with the same operation and once: REPLAYED. Without once every call counts, until
-- all is returned. Runs when memory is full: there is nothing to wait for.

local audit, settings, operation, inventory, reservation = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local quantity, restock, once = ARGV[1], ARGV[2], ARGV[3]

local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999
-- What an operation remembers: what was asked, of which sale, and what that left.
local ASKED = { 'sku', 'reservationId', 'confirmedAt', 'quantity', 'restock' }
local LEFT = { 'returned', 'updatedAt' }

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
-- @include shown
-- @include operation
-- @include event
-- @include write_stock

-- Guards: no key is read before every name and number is right.

if #KEYS ~= 5 or #ARGV ~= 3 then return redis.error_reply('BADARGS keys: 5, with 3 arguments') end
local units = whole(quantity, 1, 1000000000)
if not units then return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000') end
if restock ~= 'restock' and restock ~= 'write_off' then
  return redis.error_reply('BADARGS restock: restock or write_off')
end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end
-- @include inventory_key
-- @include audit_key
-- @include operation_key
local id = id_of(reservation, pattern_of(prefix, KIND))
if not id then return redis.error_reply(wrong_id(reservation, prefix, 'reservation')) end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

if not (may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('HSET', reservation, 'field', '0') and may('HSET', operation, 'field', '0')
  and may('PEXPIRE', operation, '1')) then
  return redis.error_reply('NOPERM this user may not write what a return writes')
end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include remember
-- @include audit_room
local stock = { key = inventory, sku = sku }
local found = read_stock(stock)
local seeded_at = whole(call('HGET', inventory, 'seededAt') or '0', 0, MAX_TIME)
if found == nil or not seeded_at then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end
local record = read_record(reservation, id)
local f = call('HMGET', reservation, 'returned', 'confirmedAt')
-- What was sold, and what came back of it.
local sold_at, returned
if record and record.state == 'confirmed' then
  sold_at = whole(f[2] or record.updatedAt, 1, MAX_TIME)
  returned = f[2] and whole(f[1], 1, record.units) or not f[1] and not f[2] and 0
end
if record == nil or record and record.state == 'confirmed' and not (sold_at and returned) then
  return redis.error_reply('BADKEY reservation: damaged record ' .. reservation)
end

-- Decisions.

if not record then return { { 'NOT_FOUND' } } end
if record.sku ~= sku then return { { 'CONFLICT', 'sku' } } end
local asked = { sku = sku, reservationId = id, confirmedAt = sold_at and format('%d', sold_at) or '',
  quantity = quantity, restock = restock }
local function answer(word, left)
  record.updatedAt = left.updatedAt
  local reply = shown(word, record)
  reply[#reply + 1] = left.returned
  return { reply }
end
if earlier then
  local conflict = conflict_of(earlier, asked)
  if conflict then return { { 'CONFLICT', conflict } } end
  return answer('REPLAYED', earlier)
end
if not sold_at then return { { 'NOT_SOLD', record.state, record.reason } } end
if units > record.units - returned then return { { 'EXCEEDS', format('%d', record.units - returned) } } end
if not found then return redis.error_reply('BADKEY inventory: no counts in ' .. inventory) end
-- Of one millisecond, the sale counts as the earlier: the other way round it was held, too, in the same one.
local is_counted = sold_at > seeded_at and stock.confirmed >= units
if restock == 'restock' then
  stock.available = stock.available + units
  if not is_counted and stock.available + stock.reserved + stock.confirmed > MAX_COUNT then
    return { { 'EXCESSIVE' } }
  end
end

-- Writes: none of them can fail.

local reason = restock == 'restock' and 'restocked' or 'written_off'
if is_counted then
  stock.confirmed = stock.confirmed - units
else
  reason = reason .. '_after_seed'
end
append_event(stock, 'return', id, record.cartId, quantity, 'confirmed', reason)
write_stock(stock, true)
asked.returned, asked.updatedAt = format('%d', returned + units), now_text
call('HSET', reservation, 'returned', asked.returned, 'confirmedAt', asked.confirmedAt, 'updatedAt', now_text)
if once ~= '' then remember(operation, asked) end
return answer('RETURNED', asked)
