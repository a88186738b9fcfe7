#!lua flags=allow-oom
-- change: an active reservation holds another number of units from now on, more or fewer; its expiry stays.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     settings     hash    stockhold:settings
--   4     operation    hash    operation:<uuid>
--   5     inventory    hash    inventory:<sku>
--   6     active       zset    inventory:<sku>:active
--   7     reservation  hash    reservation:<id>
--   8     cart         hash    cart:<cartId> of the reservation; only needed when the answer was UNSEEN
--   then up to 100 for other reservations of the cart:
--   8+i   other        hash    reservation:<id>
--
-- ARGV
--   1     how          set (it shall hold this number of units) | release (this number of its units go back)
--   2     quantity     units, 1 to 1000000000
--   3     once         empty | once: remember it under operation, so that a repeat does nothing
--
-- REPLIES: one array, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT field                  sku: the reservation is another SKU's. Or the operation was another change: the
--                                   first of sku, reservationId, how and quantity that differs
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the operation was carried out before: the reservation as it is now
--   EXPIRED                         too late: it has lapsed. This call expires it, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   EXCEEDS quantity                how is release: it holds only this number of units, and stays as it is
--   UNSEEN cartId                   the SKU's rules limit what one cart has of it: name this cart, and all reservations
--                                   that it lists
--   CART_LIMIT perCart units        the SKU's rules allow one cart perCart units, and this cart has units already, held
--                                   or sold, in other reservations. It stays as it is
--   INSUFFICIENT available lapsed   fewer units are available than it would hold more, but for those that the SKU's
--                                   rules keep back, and this number of holds of the SKU is due: sweep them and try
--                                   again. It stays as it is
--   RELEASED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   how is release, and that was all that it held: it is released, as by release
--   CHANGED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done: it holds quantity units. If it held that number already, nothing was changed
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or there are other counts of keys and arguments
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The record keeps what was held at first in the field initialQuantity. Safe to repeat after a lost reply with set, or
-- with the same operation and once: REPLAYED, for as long as settled reservations are kept. A refusal is not
-- remembered. Without once, each repeat of release gives units back again. Runs when memory is full, as release and
-- extend do: it takes hardly more than an event.

local audit, due, settings, operation = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local inventory, active, reservation_key = KEYS[5], KEYS[6], KEYS[7]
local cart_key = KEYS[8]
local how, quantity, once = ARGV[1], ARGV[2], ARGV[3]
local others = #KEYS - 8
local function other_key(i) return KEYS[8 + i] end

-- What an operation remembers: what was asked, and when it was done.
local ASKED = { 'sku', 'reservationId', 'how', 'quantity' }
local LEFT = { 'updatedAt' }

if #KEYS < 7 or others > 100 or #ARGV ~= 3 then
  return redis.error_reply('BADARGS keys: 7, and then none, or a cart and 0 to 100 more; with 3 arguments')
end

-- @include one_reservation
-- @include operation
-- @include shown
-- @include insufficient

-- Guards: no key is read before every name and number is right.

-- @include operation_key
local is_item = { [id] = true }
-- @include cart
if how ~= 'set' and how ~= 'release' then return redis.error_reply('BADARGS how: set or release') end
local units = whole(quantity, 1, 1000000000)
if not units then return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000') end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end

-- @include reservation_rights
may_all = may_all and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
if not may_all then return redis.error_reply('NOPERM this user may not write what a change writes') end

-- @include reservation_reads
-- @include remember
-- @include cart_reads
local asked = { sku = sku, reservationId = id, how = how, quantity = quantity, updatedAt = now_text }
local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end

-- Decisions.

local record = records[reservation_key]
if not record then return { { 'NOT_FOUND' } } end
if record.sku ~= sku then return { { 'CONFLICT', 'sku' } } end
if earlier then
  local conflict = conflict_of(earlier, asked)
  if conflict then return { { 'CONFLICT', conflict } } end
  return { shown('REPLAYED', record) }
end
if record.state ~= 'active' then
  if record.reason == 'reservation_ttl_elapsed' then return { { 'EXPIRED' } } end
  return { { 'NOT_ACTIVE', record.state, record.reason } }
end
own.owed = record.units
-- @include owed
local has_lapsed = record.expires <= now
local held = how == 'set' and units or record.units - units
if not has_lapsed then
  if held < 0 then return { { 'EXCEEDS', record.quantity } } end
  own.more = held - record.units
  if own.more > 0 and own.per_cart then
    local others_have = cart_id == record.cartId and units_of_cart(sku)
    if not others_have then return { { 'UNSEEN', record.cartId } } end
    if others_have + held > own.per_cart then
      return { { 'CART_LIMIT', format('%d', own.per_cart), format('%d', others_have) } }
    end
  end
  own.left = own.available - (own.safety or 0)
  if own.more > 0 and own.more > own.left then return { insufficient(own) } end
end
local is_first = not call('HGET', reservation_key, 'initialQuantity')

-- Writes: none of them can fail.

local reply
if has_lapsed then
  end_reservation(own, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
  reply = { 'EXPIRED' }
elseif held == 0 then
  end_reservation(own, record, 'release', 'released', 'manual_release', 'available')
  record.state, record.reason, record.updatedAt = 'released', 'manual_release', now_text
  reply = shown('RELEASED', record)
else
  if held ~= record.units then
    local before, more = record.quantity, held - record.units
    own.available, own.reserved = own.available - more, own.reserved + more
    record.quantity, record.updatedAt = format('%d', held), now_text
    append_event(own, 'change', id, record.cartId, record.quantity, 'active',
      how == 'release' and 'partial_release' or '')
    call('HSET', reservation_key, 'quantity', record.quantity, 'updatedAt', now_text)
    if is_first then call('HSET', reservation_key, 'initialQuantity', before) end
    write_stock(own)
  end
  reply = shown('CHANGED', record)
end
-- @include leaving
if once ~= '' and not has_lapsed then remember(operation, asked) end
return { reply }
