#!lua
-- rules: set the rules by which a SKU is sold; those that are left empty are none.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     inventory    hash    inventory:<sku>
--
-- ARGV
--   1     perCart      units that one cart may have of it at once, held and sold, 1 to 1000000000; or empty
--   2     safetyStock  units that are never held or sold: the last ones available, 1 to 1000000000; or empty
--   3     maxTtlMs     milliseconds that a hold of it lasts at most, extensions included, 1 to 2592000000; or empty
--
-- REPLIES: one array
--   UNKNOWN_SKU                     the SKU was never seeded
--   RULED available reserved confirmed updatedAt version rules
--                                   done; if these were its rules already, nothing was changed. rules is what is stored
--                                   and what the event says: perCart=P safetyStock=S maxTtlMs=M, or empty without any
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- What is held or sold by now stays, whatever the rules say. With perCart, a hold is made by cart_hold, which counts
-- the reservations that the cart lists: those of hold, from before, are not among them. Safe to repeat: the same rules
-- again change nothing.

local audit, inventory = KEYS[1], KEYS[2]
local most, kept_back, longest = ARGV[1], ARGV[2], ARGV[3]

-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include clock
-- @include rights
-- @include stock
-- @include event
-- @include write_stock

-- Guards: no key is read before every name and number is right.

if #KEYS ~= 2 or #ARGV ~= 3 then return redis.error_reply('BADARGS keys: 2, with 3 arguments') end
if most ~= '' and not whole(most, 1, 1000000000) then
  return redis.error_reply('BADARGS perCart: empty, or a whole number from 1 to 1000000000')
end
if kept_back ~= '' and not whole(kept_back, 1, 1000000000) then
  return redis.error_reply('BADARGS safetyStock: empty, or a whole number from 1 to 1000000000')
end
if longest ~= '' and not whole(longest, 1, 2592000000) then
  return redis.error_reply('BADARGS maxTtlMs: empty, or a whole number from 1 to 2592000000')
end
-- @include inventory_key
-- @include audit_key

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

if not (may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')) then
  return redis.error_reply('NOPERM this user may not write what a change of rules writes')
end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include audit_room
local stock = { key = inventory, sku = sku }
local found = read_stock(stock)
if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
if not found then return { { 'UNKNOWN_SKU' } } end
local updated = call('HGET', inventory, 'updatedAt') or ''

-- Decisions.

local rules = ''
if most ~= '' or kept_back ~= '' or longest ~= '' then
  rules = 'perCart=' .. most .. ' safetyStock=' .. kept_back .. ' maxTtlMs=' .. longest
end

-- Writes: none of them can fail.

if rules ~= (stock.rules or '') then
  append_event(stock, 'rules', '', '', '0', 'ruled', rules)
  write_stock(stock)
  call('HSET', inventory, 'rules', rules)
  updated = now_text
end
return { { 'RULED', format('%d', stock.available), format('%d', stock.reserved), format('%d', stock.confirmed),
  updated, format('%d', stock.version), rules } }
