#!lua flags=allow-oom
-- sell: confirm a reservation with a choice: a part of its units, or although it has lapsed.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     settings     hash    stockhold:settings
--   4     inventory    hash    inventory:<sku>
--   5     active       zset    inventory:<sku>:active
--   6     reservation  hash    reservation:<id>
--   7     cart         hash    cart:<cartId> of the reservation; only needed when the answer was UNSEEN
--   then up to 100 for other reservations of the cart:
--   7+i   other        hash    reservation:<id>
--
-- ARGV
--   1     token        empty, or 1 to 128 bytes of UTF-8, no control character: makes a repeat safe
--   2     quantity     empty (all its units) | units to sell, 1 to 1000000000: the others go back
--   3     ifExpired    empty | reacquire: sell it although it has lapsed, if its units are available
--
-- REPLIES: one array, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT field                  sku: the reservation is another SKU's. quantity: it was confirmed by this same
--                                   non-empty token, and quantity is not empty and not what was sold
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   already confirmed, by this same non-empty token
--   EXPIRED                         too late: it has lapsed. This call expires it, if nothing did
--   NOT_ACTIVE state reason         already confirmed, or released before it lapsed
--   EXCEEDS quantity                it has only this number of units, and stays as it is
--   UNSEEN cartId                   it has lapsed, and the SKU's rules limit what one cart has of it: name this cart,
--                                   and all reservations that it lists
--   CART_LIMIT perCart units        it has lapsed, the SKU's rules allow one cart perCart units, and this cart has
--                                   units already, held or sold, in other reservations
--   INSUFFICIENT available lapsed   it has lapsed, and fewer units are available than it would sell, but for those that
--                                   the SKU's rules keep back; this number of holds of the SKU is due: sweep them and
--                                   try again
--   CONFIRMED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done: quantity is what was sold, and reason is late_confirm if it had lapsed
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or there are other counts of keys and arguments
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- Of a part the audit has two events: change, with the reason partial_confirm, and confirm. Of what had lapsed it has
-- the event expired, whoever expired it, and then confirm. If fewer units are sold than were held, the record keeps
-- what was held at first in the field initialQuantity. Safe to repeat after a lost reply with the same non-empty token:
-- REPLAYED, of confirm, too. Runs when memory is full: a sale that was promised must be settled.

local audit, due, settings = KEYS[1], KEYS[2], KEYS[3]
local inventory, active, reservation_key = KEYS[4], KEYS[5], KEYS[6]
local cart_key = KEYS[7]
local token, quantity, if_expired = ARGV[1], ARGV[2], ARGV[3]
local others = #KEYS - 7
local function other_key(i) return KEYS[7 + i] end

if #KEYS < 6 or others > 100 or #ARGV ~= 3 then
  return redis.error_reply('BADARGS keys: 6, and then none, or a cart and 0 to 100 more; with 3 arguments')
end

-- @include one_reservation
-- @include shown
-- @include insufficient

-- Guards: no key is read before every name and number is right.

local is_item = { [id] = true }
-- @include cart
if token ~= '' and not is_text(token) then
  return redis.error_reply('BADARGS token: empty, or 1 to 128 bytes of UTF-8, no control character')
end
if quantity ~= '' and not whole(quantity, 1, 1000000000) then
  return redis.error_reply('BADARGS quantity: empty, or a whole number from 1 to 1000000000')
end
if if_expired ~= '' and if_expired ~= 'reacquire' then
  return redis.error_reply('BADARGS ifExpired: empty or reacquire')
end

-- @include reservation_rights
may_all = may_all and may('PERSIST', reservation_key)
if not may_all then return redis.error_reply('NOPERM this user may not write what selling writes') end

-- @include reservation_reads
-- @include cart_reads

-- Decisions.

local record = records[reservation_key]
if not record then return { { 'NOT_FOUND' } } end
if record.sku ~= sku then return { { 'CONFLICT', 'sku' } } end
if record.state == 'confirmed' and token ~= '' and token == record.token then
  if quantity ~= '' and quantity ~= record.quantity then return { { 'CONFLICT', 'quantity' } } end
  return { shown('REPLAYED', record) }
end
local is_active = record.state == 'active'
local has_lapsed = is_active and record.expires <= now
local was_expired = record.state == 'released' and record.reason == 'reservation_ttl_elapsed'
if was_expired and if_expired == '' then return { { 'EXPIRED' } } end
if not is_active and not was_expired then return { { 'NOT_ACTIVE', record.state, record.reason } } end
own.owed = is_active and record.units or 0
-- @include owed
local sold = quantity == '' and record.units or quantity + 0
if (not has_lapsed or if_expired ~= '') and sold > record.units then return { { 'EXCEEDS', record.quantity } } end
if was_expired and not own.available then
  return redis.error_reply('BADKEY inventory: no counts in ' .. inventory)
end
if was_expired or has_lapsed and if_expired ~= '' then
  if own.per_cart then
    local units = cart_id == record.cartId and units_of_cart(sku)
    if not units then return { { 'UNSEEN', record.cartId } } end
    if units + sold > own.per_cart then
      return { { 'CART_LIMIT', format('%d', own.per_cart), format('%d', units) } }
    end
  end
  -- Its own units are there, as long as nothing has swept it.
  own.left = own.available + own.owed - (own.safety or 0)
  if sold > own.left then return { insufficient(own) } end
end
local is_first = sold < record.units and not call('HGET', reservation_key, 'initialQuantity')

-- Writes: none of them can fail.

local before, rest = record.quantity, record.units - sold
if has_lapsed and if_expired == '' then
  end_reservation(own, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
else
  record.token = token
  if has_lapsed then
    own.available, own.reserved = own.available + record.units, own.reserved - record.units
    append_event(own, 'expired', id, record.cartId, before, 'released', 'reservation_ttl_elapsed')
    own.ended[1] = id
  end
  record.units, record.quantity = sold, format('%d', sold)
  if rest > 0 then
    if is_active and not has_lapsed then
      own.available, own.reserved = own.available + rest, own.reserved - rest
      append_event(own, 'change', id, record.cartId, record.quantity, 'active', 'partial_confirm')
    end
    call('HSET', reservation_key, 'quantity', record.quantity)
    if is_first then call('HSET', reservation_key, 'initialQuantity', before) end
  end
  record.state, record.updatedAt = 'confirmed', now_text
  if is_active and not has_lapsed then
    end_reservation(own, record, 'confirm', 'confirmed', '', 'confirmed')
  else
    record.reason = 'late_confirm'
    own.available, own.confirmed = own.available - sold, own.confirmed + sold
    append_event(own, 'confirm', id, record.cartId, record.quantity, 'confirmed', 'late_confirm')
    call('HSET', reservation_key, 'state', 'confirmed', 'reason', 'late_confirm', 'updatedAt', now_text)
    if token ~= '' then call('HSET', reservation_key, 'token', token) end
    if was_expired then write_stock(own) end
    -- Its time to be kept begins again. Last: a record that is kept for a moment only is gone now.
    if keep_ms ~= '0' then call('PEXPIRE', reservation_key, keep_ms) else call('PERSIST', reservation_key) end
  end
end
-- @include leaving
if record.state ~= 'confirmed' then return { { 'EXPIRED' } } end
return { shown('CONFIRMED', record) }
