#!lua
-- hold_with_metadata: as hold, and each reservation keeps text of its caller, such as the number of an order.
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
--   then four for each item:
--   4i-2  cartId       1 to 128 bytes of UTF-8, no control character
--   4i-1  quantity     units, 1 to 1000000000
--   4i    ttlMs        milliseconds until it lapses, 1 to 2592000000; or default: 600000, or the SKU's longest hold if
--                      that is shorter
--   4i+1  metadata     empty, or a JSON object of 1 to 8 strings; names and strings are text as cartId is
--
-- REPLIES: one array for each item, in the order in which they are decided
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the id exists with this cart, SKU and quantity: here it is, as it is now. Look at
--                                   its state: once released, it holds nothing. The quantity compared is that of the
--                                   hold, whatever it was changed to. The ttl is not compared: its expiry stands.
--   CONFLICT field                  the id exists with another cartId, sku, quantity or metadata (the first that
--                                   differs): metadata is compared byte by byte
--   UNKNOWN_SKU                     the SKU was never seeded
--   BY_CART                         the SKU's rules limit what one cart has of it: hold it by cart_hold
--   TOO_LONG maxTtlMs               the SKU's rules allow no hold of this length
--   INSUFFICIENT available lapsed   too few units, but for those that the SKU's rules keep back, and this number of
--                                   holds of the SKU is due: sweep them and try again
--   WITHDRAWN                       mode all: this item would have held, another did not
--   HELD expiresAt createdAt        done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- The record and the event hold have the field metadata, unless it is empty: 4200 bytes of JSON at most. Safe to repeat
-- after a lost reply: the same id answers REPLAYED. In mode all, a REPLAYED beside a refusal is a line that an earlier
-- call holds: release it, or leave it to lapse.

local audit, due = KEYS[1], KEYS[2]
local mode = ARGV[1]
local n = (#KEYS - 2) / 3
-- An item's arguments.
local WIDTH = 4
local arguments_of = function(i) return ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1] end

-- @include holding_items
-- @include metadata

-- By item, the text that its reservation keeps.
local metadata = {}
for i = 1, n do
  local _, _, _, text = arguments_of(i)
  if text ~= '' then
    if not is_metadata(text) then
      return redis.error_reply('BADARGS metadata of item ' .. i
        .. ': empty, or a JSON object of 1 to 8 strings, names and strings as cartId, 4200 bytes at most')
    end
    metadata[i] = text
  end
end

-- @include holding
