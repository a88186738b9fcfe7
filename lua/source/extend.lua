#!lua flags=allow-oom
-- extend: give active reservations more time, for one item or up to 100.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     settings     hash    stockhold:settings
--   then three for each item:
--   3i+1  inventory    hash    inventory:<sku>
--   3i+2  active       zset    inventory:<sku>:active
--   3i+3  reservation  hash    reservation:<id>
--
-- ARGV
--   1     mode         each (items are independent) | all (all or nothing)
--   then one for each item:
--   1+i   ttlMs        milliseconds from now until it lapses, 1 to 2592000000
--
-- REPLIES: one array for each item, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT sku                    the reservation is another SKU's
--   EXPIRED                         too late: it has lapsed. This call expires it, in mode all too, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   LIMITED maxExpiresAt            the operator allows no time after this one: it stays as it is
--   WITHDRAWN                       mode all: this item would have been extended, another could not be
--   EXTENDED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done. Its expiry is never earlier than it was: then nothing was changed
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- The latest expiry is extendMaxMs of the settings after the hold was made: 0 to 2592000000, 3600000 when nothing is
-- set; or the longest hold of the SKU's rules after it, if that is earlier. With 0 no hold is extended. A hold whose
-- expiry is later than that keeps it. What has lapsed is never revived.
-- Safe to repeat: the time begins again with each call, within the same limit. Runs when memory is full: a sale that
-- was promised must not lapse for that.

local audit, due, settings = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]
local n = (#KEYS - 3) / 3

-- @include reservation_items

for i = 1, n do
  if not whole(ARGV[1 + i], 1, 2592000000) then
    return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': a whole number from 1 to 2592000000')
  end
end

-- @include reservation_rights
for _, stock in ipairs(stocks) do may_all = may_all and may('ZADD', stock.active, '1', 'member') end
if not may_all then return redis.error_reply('NOPERM this user may not write what an extension writes') end

-- @include reservation_reads

local max_ms = whole(call('HGET', settings, 'extendMaxMs') or '3600000', 0, 2592000000)
if not max_ms then
  return redis.error_reply('BADKEY settings: extendMaxMs is not a whole number from 0 to 2592000000')
end

-- Decisions: a reservation that is named twice is in its second place what the first leaves.

-- @include shown

local replies, refused = {}, false
-- By item: whether it expires its reservation, or extends it.
local lapses, extends = {}, {}
for i, reservation in ipairs(reservations) do
  local stock, record = stock_of[i], records[reservation]
  if not record then
    replies[i], refused = { 'NOT_FOUND' }, true
  elseif record.sku ~= stock.sku then
    replies[i], refused = { 'CONFLICT', 'sku' }, true
  elseif record.state == 'active' then
    if not record.is_owed then stock.owed, record.is_owed = stock.owed + record.units, true end
    local created, expires = whole(record.createdAt, 1, 9999999999999), now + ARGV[1 + i]
    local most_ms = math.min(max_ms, stock.max_ttl or max_ms)
    if record.expires <= now then
      record.state, record.reason, lapses[i] = 'released', 'reservation_ttl_elapsed', true
      replies[i], refused = { 'EXPIRED' }, true
    elseif not created then
      return redis.error_reply('BADKEY reservation: damaged record ' .. reservation)
    elseif expires > record.expires and expires > created + most_ms then
      replies[i], refused = { 'LIMITED', format('%d', math.max(record.expires, created + most_ms)) }, true
    else
      if expires > record.expires then
        -- A repeat of the hold is recognized by the time that it asked for.
        record.ttl = record.ttl or call('HGET', reservation, 'ttlMs') or format('%d', record.expires - created)
        record.expires, record.expiresAt, record.updatedAt = expires, format('%d', expires), now_text
        extends[i] = true
      end
      replies[i] = shown('EXTENDED', record)
    end
  elseif record.reason == 'reservation_ttl_elapsed' then
    replies[i], refused = { 'EXPIRED' }, true
  else
    replies[i], refused = { 'NOT_ACTIVE', record.state, record.reason }, true
  end
end
-- @include owed

if refused and mode == 'all' then
  extends = {}
  for i, reply in ipairs(replies) do
    if reply[1] == 'EXTENDED' then replies[i] = { 'WITHDRAWN' } end
  end
end

-- Writes: none of them can fail.

for i, reservation in ipairs(reservations) do
  local stock, record = stock_of[i], records[reservation]
  if lapses[i] then
    end_reservation(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
  elseif extends[i] then
    append_event(stock, 'extend', record.id, record.cartId, record.quantity, 'active', '')
    call('HSET', reservation, 'expiresAt', record.expiresAt, 'updatedAt', now_text, 'ttlMs', record.ttl)
    local moved = stock.moved or {}
    moved[#moved + 1], moved[#moved + 2] = record.expiresAt, record.id
    stock.moved = moved
  end
end
for _, stock in ipairs(stocks) do
  if stock.moved then
    -- The score in due may stay, here too. A member that is not in the set is for a repair to add.
    call('ZADD', stock.active, 'XX', unpack(stock.moved))
    if #stock.ended == 0 then write_stock(stock) end
  end
end
-- @include leaving
return replies
