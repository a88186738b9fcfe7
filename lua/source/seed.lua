#!lua
-- seed: set the stock of a SKU to a quantity, all of it available. Live holds are released first, up to 100 a call.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     skus         zset    stockhold:skus
--   4     settings     hash    stockhold:settings
--   5     operation    hash    operation:<uuid>
--   6     inventory    hash    inventory:<sku>
--   7     active       zset    inventory:<sku>:active
--   8...  reservation  hash    reservation:<id>, 0 to 100 members of the active set: the holds to release
--
-- ARGV
--   1     quantity     units, 0 (off sale) to 1000000000; or probe: check names, rights and stored types, write nothing
--   2     once         empty | once: remember it under operation when it is done, so that a repeat does nothing
--
-- REPLIES: one array
--   PROBED                          quantity is probe: a seed would be carried out
--   CONFLICT field                  the operation was another seed: the first of sku and quantity that differs
--   REPLAYED quantity updatedAt version
--                                   the operation was carried out before: what it left then
--   DRAINING left                   the listed holds are released and nothing is available, so that no new hold comes
--                                   in; this number of holds is still live: list the next ones and call again
--   SEEDED quantity updatedAt version
--                                   done: no hold is live and the counts are quantity, 0, 0
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The rules of the SKU stay, and the audit tells them again. Safe to repeat after a lost reply with the same operation
-- and once: REPLAYED, for as long as settled reservations are kept; a seed that still drains goes on. Without once a
-- repeat seeds again, and releases what was held in between.

local audit, due, skus, settings, operation = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local inventory, active = KEYS[6], KEYS[7]
local quantity, once = ARGV[1], ARGV[2]
local n = #KEYS - 7
local function reservation_key(i) return KEYS[7 + i] end

-- What an operation remembers: what was asked, and what that left.
local ASKED = { 'sku', 'quantity' }
local LEFT = { 'updatedAt', 'version' }

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

-- Guards: no key is read before every name and number is right.

if n < 0 or n > 100 or #ARGV ~= 2 then
  return redis.error_reply('BADARGS keys: 7 and then 0 to 100 reservations, with 2 arguments')
end
if quantity ~= 'probe' and not whole(quantity, 0, 1000000000) then
  return redis.error_reply('BADARGS quantity: a whole number from 0 to 1000000000, or probe')
end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end
-- @include one_sku
-- @include shard_keys
-- @include skus_key
-- @include operation_key
-- @include listed

-- Rights: those of every write, also when nothing will be written: a probe proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('ZREM', active, 'member') and may('ZREM', due, 'member') and may('ZADD', skus, '0', 'member')
  and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
for _, id in ipairs(ids) do
  may_all = may_all and may('HSET', listed[id], 'field', '0') and may('PEXPIRE', listed[id], '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a seed writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include ending
-- @include remember
-- @include audit_room
call('ZSCORE', due, sku)
call('ZSCORE', skus, sku)
local live = call('ZCARD', active)
local stock = { key = inventory, sku = sku, ended = {} }
local found = read_stock(stock)
if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
if not found then
  stock.available, stock.reserved, stock.confirmed, stock.version, stock.last_event = 0, 0, 0, 0, ''
end
local version_before = stock.version

local held, owed = {}, 0
for _, id in ipairs(ids) do
  local record = read_record(listed[id], id)
  if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. listed[id]) end
  if call('ZSCORE', active, id) then live = live - 1 end
  if record and record.sku == sku and record.state == 'active' then
    owed = owed + record.units
    held[#held + 1] = record
  end
end
if owed > stock.reserved then
  return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. inventory)
end
local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end
if quantity == 'probe' then return { { 'PROBED' } } end
local asked = { sku = sku, quantity = quantity }
if earlier then
  local conflict = conflict_of(earlier, asked)
  if conflict then return { { 'CONFLICT', conflict } } end
  return { { 'REPLAYED', quantity, earlier.updatedAt, earlier.version } }
end

-- Writes: none of them can fail.

if stock.available > 0 and (live > 0 or #held > 0) then
  stock.available = 0
  append_event(stock, 'seed', '', '', '0', 'draining', 'inventory_reseeded')
end
for _, record in ipairs(held) do
  end_reservation(stock, record, 'release', 'released', 'inventory_reseeded', 'withdrawn')
end
-- All that are listed: those that hold nothing do not belong there.
if #ids > 0 then call('ZREM', active, unpack(ids)) end
if live == 0 then
  stock.available, stock.reserved, stock.confirmed = tonumber(quantity), 0, 0
  append_event(stock, 'seed', '', '', quantity, 'seeded', '')
  -- What begins here tells the rules, too: whoever reads the audit needs no event from before.
  if stock.rules then append_event(stock, 'rules', '', '', '0', 'ruled', stock.rules) end
  -- What was sold until now is not counted any more: a return asks for this time.
  call('HSET', inventory, 'seededAt', now_text)
  call('ZREM', due, sku)
  call('ZADD', skus, '0', sku)
end
-- No event, no change: a call that found only holds of others to wait for leaves the hash as it is.
if stock.version > version_before then write_stock(stock, true) end
if live > 0 then return { { 'DRAINING', format('%d', live) } } end
if once ~= '' then
  asked.updatedAt, asked.version = now_text, stock.version_text
  remember(operation, asked)
end
return { { 'SEEDED', quantity, now_text, stock.version_text } }
