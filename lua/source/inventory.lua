#!lua flags=no-writes
-- inventory: read the counts of a SKU, and the first of its active reservations.
--
-- KEYS
--   1     inventory    hash    inventory:<sku>
--   2     active       zset    inventory:<sku>:active
--
-- ARGV
--   1     limit        reservations to list, earliest expiry first, 0 to 1000
--
-- REPLIES: one array, then one for each listed reservation
--   UNKNOWN_SKU                     the SKU was never seeded
--   STOCK sku available reserved confirmed seeded updatedAt version active lapsed rules
--                                   active is the number of reservations not yet settled; lapsed, how many of them
--                                   are due: sweep those and read again for the counts without them; rules, the SKU's
--                                   rules as the script rules stores them, and empty if it has none
--   ACTIVE id expiresAt             one not yet settled; the first lapsed of these are the due ones
--
-- ERRORS
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- Writes nothing, so it runs on a replica and when memory is full.

local inventory, active = KEYS[1], KEYS[2]
local limit = ARGV[1]

-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include clock
-- @include stock

if #KEYS ~= 2 or #ARGV ~= 1 then return redis.error_reply('BADARGS keys: 2, with 1 argument') end
if not whole(limit, 0, 1000) then return redis.error_reply('BADARGS limit: a whole number from 0 to 1000') end
-- @include one_sku

local stock = { key = inventory }
local found = read_stock(stock)
if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
local live = call('ZCARD', active)
if not found then return { { 'UNKNOWN_SKU' } } end

local replies = { { 'STOCK', sku,
  format('%d', stock.available), format('%d', stock.reserved), format('%d', stock.confirmed),
  format('%d', stock.available + stock.reserved + stock.confirmed), call('HGET', inventory, 'updatedAt') or '',
  format('%d', stock.version), format('%d', live), format('%d', call('ZCOUNT', active, '-inf', now_text)),
  stock.rules or '' } }
if limit ~= '0' then
  local listed = call('ZRANGE', active, 0, tonumber(limit) - 1, 'WITHSCORES')
  for i = 1, #listed, 2 do replies[#replies + 1] = { 'ACTIVE', listed[i], listed[i + 1] } end
end
return replies
