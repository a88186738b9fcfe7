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
--   INSUFFICIENT available lapsed   fewer units are available than it would hold more, and this number of holds of the
--                                   SKU is due: sweep them and try again. It stays as it is
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
local how, quantity, once = ARGV[1], ARGV[2], ARGV[3]

-- What an operation remembers: what was asked, and when it was done.
local ASKED = { 'sku', 'reservationId', 'how', 'quantity' }
local LEFT = { 'updatedAt' }

if #KEYS ~= 7 or #ARGV ~= 3 then return redis.error_reply('BADARGS keys: 7, with 3 arguments') end

-- @include one_reservation
-- @include operation
-- @include shown

-- Guards: no key is read before every name and number is right.

-- @include operation_key
if how ~= 'set' and how ~= 'release' then return redis.error_reply('BADARGS how: set or release') end
local units = whole(quantity, 1, 1000000000)
if not units then return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000') end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end

-- @include reservation_rights
may_all = may_all and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
if not may_all then return redis.error_reply('NOPERM this user may not write what a change writes') end

-- @include reservation_reads
-- @include remember
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
  if held - record.units > own.available then
    local lapsed = call('ZCOUNT', active, '-inf', now_text)
    return { { 'INSUFFICIENT', format('%d', own.available), format('%d', lapsed) } }
  end
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
