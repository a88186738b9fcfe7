#!lua
-- adjust: change what is available of a SKU, for one item or up to 100; what is held and what is sold stays.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     skus         zset    stockhold:skus
--   3     settings     hash    stockhold:settings
--   then three for each item:
--   3i+1  inventory    hash    inventory:<sku>
--   3i+2  active       zset    inventory:<sku>:active
--   3i+3  operation    hash    operation:<uuid>
--
-- ARGV
--   1     mode         each (items are independent) | all (all or nothing)
--   then six for each item:
--   6i-4  how          add (units come or go) | set (units shall be available)
--   6i-3  units        add: -1000000000 to 1000000000, not 0; set: 0 to 1000000000
--   6i-2  ifVersion    empty, or the version that the SKU must have, 0 to 1000000000000; 0: it has no event yet
--   6i-1  create       empty | create: a SKU that was never seeded comes into being, with nothing available
--   6i    reason       empty, or 1 to 128 bytes of UTF-8, no control character: for the audit
--   6i+1  once         empty | once: remember it under operation, so that a repeat does nothing
--
-- REPLIES: one array for each item, in the order in which they are decided
--   CONFLICT field                  the operation was another adjustment: the first of sku, how, units, ifVersion,
--                                   create and reason that differs
--   REPLAYED available reserved confirmed updatedAt version
--                                   the operation was carried out before: what it left then
--   UNKNOWN_SKU                     the SKU was never seeded
--   STALE version                   the SKU has this version, not ifVersion
--   INSUFFICIENT available lapsed   too few units, and this number of holds of the SKU is due: sweep them and try again
--   EXCESSIVE                       the SKU would have more than 1000000000000 units in all
--   WITHDRAWN                       mode all: this item would have been adjusted, another could not be
--   ADJUSTED available reserved confirmed updatedAt version
--                                   done: what is left
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply with the same operation and once: REPLAYED, for as long as settled reservations are
-- kept. A refusal is not remembered. Without once every call counts: read the stock instead.

local audit, skus, settings = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]
local n = (#KEYS - 3) / 3

local MAX_COUNT = 1000000000000
-- What an operation remembers: what was asked, and what that left.
local ASKED = { 'sku', 'how', 'units', 'ifVersion', 'create', 'reason' }
local LEFT = { 'available', 'reserved', 'confirmed', 'updatedAt', 'version' }

-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include operation_id
-- @include clock
-- @include rights
-- @include stock
-- @include operation
-- @include event
-- @include write_stock
-- @include items

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + 6 * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 3, and 6 arguments each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, operations, asked = {}, {}, {}
for i = 1, n do
  local operation = KEYS[3 * i + 3]
  local stock, id = item_of(i, KEYS[3 * i + 1], KEYS[3 * i + 2], operation)
  if not stock then return redis.error_reply(id) end
  local how, units, version = ARGV[6 * i - 4], ARGV[6 * i - 3], ARGV[6 * i - 2]
  local create, reason, once = ARGV[6 * i - 1], ARGV[6 * i], ARGV[6 * i + 1]
  if how ~= 'add' and how ~= 'set' then return redis.error_reply('BADARGS how of item ' .. i .. ': add or set') end
  if how == 'set' and not whole(units, 0, 1000000000) then
    return redis.error_reply('BADARGS units of item ' .. i .. ': to set, a whole number from 0 to 1000000000')
  end
  if how == 'add' and not whole(units:gsub('^%-', ''), 1, 1000000000) then
    return redis.error_reply('BADARGS units of item ' .. i
      .. ': to add, a whole number from -1000000000 to 1000000000, not 0')
  end
  if version ~= '' and not whole(version, 0, MAX_COUNT) then
    return redis.error_reply('BADARGS ifVersion of item ' .. i
      .. ': empty, or a whole number from 0 to 1000000000000')
  end
  if create ~= '' and create ~= 'create' then
    return redis.error_reply('BADARGS create of item ' .. i .. ': empty or create')
  end
  if reason ~= '' and not is_text(reason) then
    return redis.error_reply('BADARGS reason of item ' .. i
      .. ': empty, or 1 to 128 bytes of UTF-8, no control character')
  end
  if once ~= '' and once ~= 'once' then
    return redis.error_reply('BADARGS once of item ' .. i .. ': empty or once')
  end
  stock_of[i], operations[i] = stock, operation
  asked[i] = { sku = stock.sku, how = how, units = units, ifVersion = version, create = create, reason = reason,
    is_once = once ~= '' }
end
-- @include audit_key
-- @include skus_key

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', skus, '0', 'member')
for _, stock in ipairs(stocks) do may_all = may_all and may('HSET', stock.key, 'field', '0') end
for _, operation in ipairs(operations) do
  may_all = may_all and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what an adjustment writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include remember
-- @include audit_room
for _, stock in ipairs(stocks) do
  call('ZSCORE', skus, stock.sku)
  local live, found = call('ZCARD', stock.active), read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  if not found then
    if live > 0 then return redis.error_reply('BADKEY inventory: no counts, and live holds, in ' .. stock.key) end
    stock.available, stock.reserved, stock.confirmed, stock.version, stock.last_event = 0, 0, 0, 0, ''
  end
  stock.is_known, stock.is_listed, stock.left, stock.next_version = found, found, stock.available, stock.version
end

local done = {}
for _, key in ipairs(operations) do
  if done[key] == nil then
    local operation = read_operation(key)
    if operation == nil then return redis.error_reply('BADKEY operation: damaged record ' .. key) end
    done[key] = operation
  end
end

-- Decisions: a SKU or an operation that is named twice is in its second place what the first leaves.

local function outcome(word, left)
  return { word, left.available, left.reserved, left.confirmed, left.updatedAt, left.version }
end

-- By item, the change of the units; by operation, the item of this call that carries it out.
local replies, refused, changes, made = {}, false, {}, {}
for i, key in ipairs(operations) do
  local stock, item, earlier = stock_of[i], asked[i], done[key]
  local after = item.how == 'set' and item.units + 0 or stock.left + item.units
  if earlier then
    local conflict = conflict_of(earlier, item)
    if conflict then
      replies[i], refused = { 'CONFLICT', conflict }, true
    else
      replies[i] = outcome('REPLAYED', earlier)
    end
  elseif not stock.is_known and item.create == '' then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif item.ifVersion ~= '' and item.ifVersion + 0 ~= stock.next_version then
    replies[i], refused = { 'STALE', format('%d', stock.next_version) }, true
  elseif after < 0 then
    local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
    replies[i], refused = { 'INSUFFICIENT', format('%d', stock.left), format('%d', lapsed) }, true
  elseif after + stock.reserved + stock.confirmed > MAX_COUNT then
    replies[i], refused = { 'EXCESSIVE' }, true
  else
    changes[i] = after - stock.left
    stock.is_known, stock.left, stock.next_version = true, after, stock.next_version + 1
    item.available, item.reserved = format('%d', after), format('%d', stock.reserved)
    item.confirmed, item.updatedAt = format('%d', stock.confirmed), now_text
    item.version = format('%d', stock.next_version)
    replies[i] = outcome('ADJUSTED', item)
    if item.is_once then done[key], made[key] = item, i end
  end
end

if refused and mode == 'all' then
  for i, key in ipairs(operations) do
    local word = replies[i][1]
    if word == 'ADJUSTED' or word == 'REPLAYED' and made[key] then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: none of them can fail.

for i, stock in ipairs(stock_of) do
  local change = changes[i]
  if change then
    stock.available, stock.is_changed = stock.available + change, true
    append_event(stock, 'adjust', '', '', format('%d', math.abs(change)), change < 0 and 'removed' or 'added',
      asked[i].reason)
  end
end
for _, stock in ipairs(stocks) do
  if stock.is_changed then
    write_stock(stock, true)
    if not stock.is_listed then call('ZADD', skus, '0', stock.sku) end
  end
end
for i, key in ipairs(operations) do
  if made[key] == i then remember(key, asked[i]) end
end
return replies
