#!lua flags=allow-oom
-- release: give active reservations up: their units move from reserved back to available, for one item or up to 100.
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
--   1+i   token        empty, or 1 to 128 bytes of UTF-8, no control character: makes a repeat safe
--
-- REPLIES: one array for each item, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT sku                    the reservation is another SKU's
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   already released, by this same non-empty token
--                                   (mode all: or by an earlier item of this call)
--   EXPIRED                         too late: it has lapsed. This call expires it, in mode all too, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   WITHDRAWN                       mode all: this item would have been released, another could not be
--   RELEASED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply with the same non-empty token: REPLAYED. Runs when memory is full: a sale that
-- was promised must be settled.

local audit, due, settings = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]
local n = (#KEYS - 3) / 3

local EVENT, STATE, REASON, POOL, DONE = 'release', 'released', 'manual_release', 'available', 'RELEASED'

-- @include settling
