#!lua
-- cart_hold: hold all items of a cart or none, one SKU each, and list their reservations under the cart.
--
-- KEYS
--   1       audit        stream  inventory:audit
--   2       due          zset    stockhold:due
--   3       settings     hash    stockhold:settings
--   4       cart         hash    cart:<cartId>
--   5       operation    hash    operation:<uuid>
--   then three for each item:
--   3i+3    inventory    hash    inventory:<sku>
--   3i+4    active       zset    inventory:<sku>:active
--   3i+5    reservation  hash    reservation:<id>
--   then up to 100 for other reservations of the cart, after the keys of all n items:
--   3n+5+i  other        hash    reservation:<id>
--
-- ARGV
--   1       once         empty | once: remember it under operation, so that a repeat does nothing
--   2       ttlMs        milliseconds until all of it lapses, 1 to 2592000000; or default: 600000, or the shortest of
--                        the longest holds of its SKUs if that is shorter
--   3       metadata     empty, or a JSON object of 1 to 8 strings, for each of the reservations; names and strings are
--                        text as a cartId is
--   then one for each item:
--   3+i     quantity     units, 1 to 1000000000
--
-- REPLIES: one array for each item, in the order in which they are decided
--   CONFLICT field                  the operation was another hold: its cartId, or its items, its ttlMs or its metadata
--                                   (items); or the id exists with another cartId, sku, quantity or metadata (the
--                                   first that differs), or was not held together with the other items (items)
--   NOT_FOUND                       the operation was carried out before, and this record was dropped since
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the operation was carried out before, or all ids exist with this cart, these SKUs
--                                   and these quantities: here it is, as it is now. Look at its state: once released,
--                                   it holds nothing
--   UNKNOWN_SKU                     the SKU was never seeded
--   TOO_LONG maxTtlMs               the SKU's rules allow no hold of this length
--   UNSEEN                          the SKU's rules limit what one cart has of it, and the cart lists reservations of
--                                   the SKU that are not named as other: name all that it lists
--   CART_LIMIT perCart units        the SKU's rules allow one cart perCart units, and this cart has units already, held
--                                   or sold
--   INSUFFICIENT available lapsed   too few units, but for those that the SKU's rules keep back, and this number of
--                                   holds of the SKU is due: sweep them and try again
--   WITHDRAWN                       this item would have been held, another was not
--   FULL                            the cart would list more than 100 reservations: name those that have ended as
--                                   other, and they are forgotten
--   HELD expiresAt createdAt        done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, a SKU or a reservation is named in two items, or the
--                                   counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply: the same operation and once answer REPLAYED, with the items in any order, for as
-- long as their records are kept; so do the same ids. A refusal is not remembered. The cart lists what cart_hold has
-- held for it, reservation id -> SKU, and nothing else. Only when it is full it forgets, and only what was released or
-- has no record any more. It is an index: no units are lost with it. It is dropped when no record of its items can be
-- left.

local audit, due, settings, cart_key, operation = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local once, ttl, metadata = ARGV[1], ARGV[2], ARGV[3]
local n = #ARGV - 3
local others = #KEYS - 5 - 3 * n
local function other_key(i) return KEYS[3 * n + 5 + i] end

-- The longest that a hold lasts, also when it is extended.
local LONGEST_MS = 2592000000
local MOST_LISTED = 100
-- What an operation remembers: what was asked, and when it was carried out.
local ASKED = { 'cartId', 'items' }
local LEFT = { 'updatedAt' }

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
-- @include operation
-- @include event
-- @include write_stock
-- @include items
-- @include shown
-- @include default_ttl
-- @include reserve
-- @include metadata
-- @include insufficient

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or others < 0 or others > 100 then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 5, and 1 argument each after the '
    .. 'first 3; and 0 to 100 keys more')
end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end
if ttl ~= 'default' and not whole(ttl, 1, LONGEST_MS) then
  return redis.error_reply('BADARGS ttlMs: default, or a whole number from 1 to 2592000000')
end
if metadata ~= '' and not is_metadata(metadata) then
  return redis.error_reply('BADARGS metadata: empty, or a JSON object of 1 to 8 strings, names and strings as a '
    .. 'cartId, 4200 bytes at most')
end

-- Many items of a cart want the same quantity: what was found right is not looked at again.
local right_quantity
local stock_of, reservations, ids, quantities, is_item, distinct = {}, {}, {}, {}, {}, 0
for i = 1, n do
  local reservation, quantity = KEYS[3 * i + 5], ARGV[3 + i]
  local stock, id = item_of(i, KEYS[3 * i + 3], KEYS[3 * i + 4], reservation)
  if not stock then return redis.error_reply(id) end
  if quantity ~= right_quantity and not whole(quantity, 1, 1000000000) then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  right_quantity = quantity
  if not is_item[id] then is_item[id], distinct = true, distinct + 1 end
  stock_of[i], reservations[i], ids[i], quantities[i] = stock, reservation, id, quantity
end
-- @include shard_keys
-- @include operation_key
-- @include cart
if #stocks < n or distinct < n then
  return redis.error_reply('BADARGS items: a SKU or a reservation is named in two of them')
end

-- @include holding_rights
may_all = may_all and may('HSET', cart_key, 'field', '0') and may('HDEL', cart_key, 'field')
  and may('PEXPIRE', cart_key, '1') and may('PERSIST', cart_key)
  and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold of a cart writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include remember
-- @include audit_room
-- @include holding_reads

-- @include cart_reads

local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end

-- By id, the records of the items: false where there is none.
local records = {}
local known = call('EXISTS', unpack(reservations))
for i, id in ipairs(ids) do
  local record = known > 0 and read_record(reservations[i], id)
  if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservations[i]) end
  records[id] = record
end

-- Decisions.

-- What an operation remembers of this call.
local done
if earlier or once ~= '' then
  local asked = {}
  for i, id in ipairs(ids) do asked[i] = id .. ' ' .. stock_of[i].sku .. ' ' .. quantities[i] end
  table.sort(asked)
  local items = ttl .. ' ' .. table.concat(asked, ' ')
  if metadata ~= '' then items = items .. ' ' .. metadata end
  done = { cartId = cart_id, items = redis.sha1hex(items), updatedAt = now_text }
end
-- How long all of it lasts.
local lasts = ttl == 'default' and DEFAULT_TTL_MS or ttl + 0

local replies, refused = {}, false
if earlier then
  local conflict = conflict_of(earlier, done)
  for i, id in ipairs(ids) do
    local record = records[id]
    if conflict then
      replies[i] = { 'CONFLICT', conflict }
    elseif not record or record.cartId ~= cart_id or record.sku ~= stock_of[i].sku then
      -- An id whose record was dropped may have been used again, for something else.
      replies[i] = { 'NOT_FOUND' }
    else
      replies[i] = shown('REPLAYED', record)
    end
  end
  return replies
end

for i, id in ipairs(ids) do
  local stock, record = stock_of[i], records[id]
  if record then
    local field = record.cartId ~= cart_id and 'cartId' or record.sku ~= stock.sku and 'sku'
    if not field then
      -- It is recognized by what it asked for: its quantity may have been changed since.
      local kept = call('HMGET', reservations[i], 'metadata', 'initialQuantity')
      field = (kept[2] or record.quantity) ~= quantities[i] and 'quantity' or (kept[1] or '') ~= metadata and 'metadata'
        or known < n and 'items'
    end
    if field then
      replies[i], refused = { 'CONFLICT', field }, true
    else
      replies[i] = shown('REPLAYED', record)
    end
  elseif not stock.left then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  else
    if stock.max_ttl and ttl == 'default' then lasts = math.min(lasts, stock.max_ttl) end
    local units = stock.per_cart and units_of_cart(stock.sku)
    if stock.max_ttl and lasts > stock.max_ttl then
      replies[i], refused = { 'TOO_LONG', format('%d', stock.max_ttl) }, true
    elseif stock.per_cart and not units then
      replies[i], refused = { 'UNSEEN' }, true
    elseif stock.per_cart and units + quantities[i] > stock.per_cart then
      replies[i], refused = { 'CART_LIMIT', format('%d', stock.per_cart), format('%d', units) }, true
    elseif stock.left < quantities[i] + 0 then
      replies[i], refused = insufficient(stock), true
    end
  end
end
if refused or known == n then
  for i = 1, n do replies[i] = replies[i] or { 'WITHDRAWN' } end
  return replies
end

-- How many reservations the cart would list, and those of them that have ended.
local most, forgotten = #listed / 2, {}
for _, id in ipairs(ids) do if not index[id] then most = most + 1 end end
if most > MOST_LISTED then
  for _, id in ipairs(other_ids) do
    local other = other_records[id]
    if index[id] and (not other or other.state == 'released') then forgotten[#forgotten + 1] = id end
  end
  if most - #forgotten > MOST_LISTED then
    for i = 1, n do replies[i] = { 'FULL' } end
    return replies
  end
end

-- Writes: none of them can fail.

local expires, entries = format('%d', now + lasts), {}
local held = { 'HELD', expires, now_text }
for i, id in ipairs(ids) do
  local stock = stock_of[i]
  reserve(stock, reservations[i], id, cart_id, quantities[i], expires, metadata ~= '' and metadata)
  entries[2 * i - 1], entries[2 * i] = id, stock.sku
  replies[i] = held
end
-- @include filing
call('HSET', cart_key, unpack(entries))
if #forgotten > 0 then call('HDEL', cart_key, unpack(forgotten)) end
-- No reservation of now is kept for longer.
if keep_ms == '0' then call('PERSIST', cart_key) else call('PEXPIRE', cart_key, format('%d', LONGEST_MS + keep_ms)) end
if once ~= '' then remember(operation, done, LONGEST_MS) end
return replies
