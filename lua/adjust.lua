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

-- Looked up once: a global costs a look-up each time.
local call, find, match = redis.call, string.find, string.match

-- Numbers are written with %d: tostring(1e14) is 1e+14, and a bare number handed to Redis may be, too.
local format = string.format

-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or find(s, '^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end

-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most text is plain ASCII: one pattern decides.
local function is_text(s)
  if find(s, '^[ -~]+$') then return #s <= 128 end
  if #s < 1 or #s > 128 then return false end
  if find(s, '[%z\1-\31\127]') or find(s, '\194[\128-\159]') then return false end
  local rest = s:gsub('[\194-\223][\128-\191]', '-')
    :gsub('\224[\160-\191][\128-\191]', '-')
    :gsub('\237[\128-\159][\128-\191]', '-')
    :gsub('[\225-\236\238\239][\128-\191][\128-\191]', '-')
    :gsub('\240[\144-\191][\128-\191][\128-\191]', '-')
    :gsub('[\241-\243][\128-\191][\128-\191][\128-\191]', '-')
    :gsub('\244[\128-\143][\128-\191][\128-\191]', '-')
  return not find(rest, '[\128-\255]')
end

-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one. A SKU is text with none of space : { } and no
-- Unicode white space. inventory:audit is the stream, so audit is reserved; clients that normalize paths cannot ask for
-- . and .. over HTTP. A shard is a number from 0 to 4095.
local function split(name)
  local prefix, sku = match(name, '^(.-)inventory:(.*)$')
  if not prefix or sku == 'audit' or sku == '.' or sku == '..' then return nil end
  if prefix ~= '' and prefix ~= '{0}:'
    and not (find(prefix, '^{[1-9]%d?%d?%d?}:$') and match(prefix, '%d+') + 0 < 4096) then
    return nil
  end
  -- Most names are plain ASCII: one pattern decides.
  if find(sku, '^[!-9;-z|~]+$') and #sku <= 128 then return prefix, sku end
  if find(sku, '[ :{}]') or not is_text(sku) then return nil end
  if find(sku, '[\194\225-\227]') and (find(sku, '\194\160') or find(sku, '\225\154\128')
    or find(sku, '\226\128[\128-\138\168\169\175]') or find(sku, '\226\129\159') or find(sku, '\227\128\128')) then
    return nil
  end
  return prefix, sku
end

-- The key of an operation, after its prefix: operation:<uuid>.
local KIND = 'operation'

-- The pattern of the key of an id, a UUID in its canonical lower-case form. On a shard, the third group of a
-- reservation's id ends in the shard's number, in three digits. Otherwise any UUID will do.
local function pattern_of(prefix, kind, is_any)
  local last = '+'
  if prefix ~= '' and kind == 'reservation' and not is_any then last = format('%03x', match(prefix, '%d+')) end
  return '^' .. prefix .. kind .. ':()([%da-f]+()%-[%da-f]+()%-[%da-f]' .. last .. '()%-[%da-f]+()%-[%da-f]+)$'
end

-- The UUID in a key; nil when the key is not of the pattern.
local function id_of(key, pattern)
  local first, id, a, b, c, d = match(key, pattern)
  if id and #id == 36 and a - first == 8 and b - first == 13 and c - first == 18 and d - first == 23 then return id end
  return nil
end

-- What is wrong with a key that is not of the pattern of its kind.
local function wrong_id(key, prefix, name)
  local is_elsewhere = prefix ~= '' and id_of(key, pattern_of(prefix, KIND, true))
  return 'BADKEY ' .. name .. (is_elsewhere and ': its id is of another shard' or ': not ' .. KIND .. ':<uuid>')
end

-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = format('%d', now)

-- Whether the calling user may run a write. Redis itself asks only when the write is run, and undoes none before it. It
-- is asked with a whole command: Redis 8 judges no other.
local may = redis.acl_check_cmd

-- Reads the counts, the last event and the rules of a SKU into a stock: true; false when it was never seeded; nil when
-- what is stored cannot be right.
local function read_stock(stock)
  local f = call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent', 'rules')
  local available, reserved, confirmed, seeded, version, last_event = f[1], f[2], f[3], f[4], f[5], f[6]
  if not (available and reserved and confirmed and seeded and version and last_event) then
    if available or reserved or confirmed or seeded or version or last_event then return nil end
    return false
  end
  -- As whole() would look at them: this is on the path of every hold.
  if not ((available == '0' or find(available, '^[1-9]%d*$')) and (reserved == '0' or find(reserved, '^[1-9]%d*$'))
    and (confirmed == '0' or find(confirmed, '^[1-9]%d*$')) and find(version, '^[1-9]%d*$')) then
    return nil
  end
  local sum = available + reserved + confirmed
  -- A call has room for two events of each item.
  if sum > 1000000000000 or format('%d', sum) ~= seeded or version + 0 > 1000000000000 - 200 then return nil end
  stock.available, stock.reserved, stock.confirmed = available + 0, reserved + 0, confirmed + 0
  stock.version, stock.last_event = version + 0, last_event
  local rules = f[7]
  if rules and rules ~= '' then
    -- Most SKUs have none.
    local per_cart, safety, max_ttl = match(rules, '^perCart=(%d*) safetyStock=(%d*) maxTtlMs=(%d*)$')
    if not per_cart then return nil end
    if per_cart ~= '' then stock.per_cart = whole(per_cart, 1, 1000000000) end
    if safety ~= '' then stock.safety = whole(safety, 1, 1000000000) end
    if max_ttl ~= '' then stock.max_ttl = whole(max_ttl, 1, 2592000000) end
    if per_cart ~= '' and not stock.per_cart or safety ~= '' and not stock.safety
      or max_ttl ~= '' and not stock.max_ttl then
      return nil
    end
    stock.rules = rules
  end
  return true
end

-- An operation's fields by name: what was ASKED for, and the numbers that it LEFT; false when it was never carried out;
-- nil when what is stored cannot be right, or is of another kind of operation. All kinds have a field in common, and no
-- kind has all fields of another.
local function read_operation(key)
  local names = { unpack(ASKED) }
  for _, name in ipairs(LEFT) do names[#names + 1] = name end
  local values, stored, found = call('HMGET', key, unpack(names)), {}, 0
  for i, name in ipairs(names) do
    stored[name] = values[i]
    if values[i] then found = found + 1 end
  end
  if found == 0 then return false end
  if found < #names then return nil end
  for _, name in ipairs(LEFT) do
    if not whole(stored[name], 0, 9999999999999) then return nil end
  end
  return stored
end

-- The first name of what was ASKED in which an operation differs from what is asked now; nil when it is the same.
local function conflict_of(earlier, asked)
  for _, name in ipairs(ASKED) do
    if earlier[name] ~= asked[name] then return name end
  end
end

-- Appends what happened to a SKU to the audit. An event that concerns no reservation has an empty id and cart. The
-- counts are those after it; version has no gap, and previous is the SKU's event before. More fields may follow.
local function append_event(stock, event, id, cart, units, state, reason, ...)
  stock.version = stock.version + 1
  stock.available_text, stock.reserved_text = format('%d', stock.available), format('%d', stock.reserved)
  stock.confirmed_text, stock.version_text = format('%d', stock.confirmed), format('%d', stock.version)
  stock.last_event = call('XADD', audit, '*', 'event', event, 'reservationId', id, 'cartId', cart,
    'sku', stock.sku, 'quantity', units, 'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', stock.available_text, 'reserved', stock.reserved_text, 'confirmed', stock.confirmed_text,
    'version', stock.version_text, 'previous', stock.last_event, ...)
end

-- Stores what the latest event of a stock has left; what it adds up to, too, when that is set anew.
local function write_stock(stock, is_set)
  call('HSET', stock.key, 'available', stock.available_text, 'reserved', stock.reserved_text,
    'confirmed', stock.confirmed_text, 'updatedAt', now_text, 'version', stock.version_text,
    'lastEvent', stock.last_event)
  if is_set then
    local seeded = format('%d', stock.available + stock.reserved + stock.confirmed)
    call('HSET', stock.key, 'sku', stock.sku, 'seeded', seeded)
  end
end

-- The SKUs of a call, in the order in which they are first named and by their inventory keys; all are of one shard.
local stocks, by_key, prefix, pattern = {}, {}, nil, nil

-- The stock of item i by its keys, and the id in the last one, of a reservation or an operation; or nil, and what is
-- wrong.
local function item_of(i, inventory, active, owner)
  local stock = by_key[inventory]
  if not stock then
    local own_prefix, sku = split(inventory)
    if not own_prefix then return nil, 'BADKEY inventory of item ' .. i .. ': not inventory:<sku>' end
    if own_prefix ~= prefix then
      if prefix then return nil, 'BADKEY inventory of item ' .. i .. ': of another shard' end
      prefix, pattern = own_prefix, pattern_of(own_prefix, KIND)
    end
    -- All fields at once: a table that grows costs more.
    stock = { key = inventory, sku = sku, active = inventory .. ':active', available = false, reserved = false,
      confirmed = false, version = false, last_event = false, left = false }
    by_key[inventory] = stock
    stocks[#stocks + 1] = stock
  end
  if active ~= stock.active then return nil, 'BADKEY active of item ' .. i .. ': not inventory:<sku>:active' end
  local id = id_of(owner, pattern)
  if not id then return nil, wrong_id(owner, prefix, KIND .. ' of item ' .. i) end
  return stock, id
end

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
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end

if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', skus, '0', 'member')
for _, stock in ipairs(stocks) do may_all = may_all and may('HSET', stock.key, 'field', '0') end
for _, operation in ipairs(operations) do
  may_all = may_all and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what an adjustment writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- Milliseconds that a settled reservation is kept, as the operator decided: 0 keeps for ever, nothing set is 30 days.
if settings ~= prefix .. 'stockhold:settings' then
  return redis.error_reply('BADKEY settings: not stockhold:settings')
end
local keep_ms = call('HGET', settings, 'keepMs') or '2592000000'
if not whole(keep_ms, 0, 1000000000000) then
  return redis.error_reply('BADKEY settings: keepMs is not a whole number from 0 to 1000000000000')
end

-- Stores an operation that was carried out: what was ASKED, and what that LEFT. It is kept as long as settled
-- reservations are, and more_ms.
local function remember(key, done, more_ms)
  local fields = {}
  for _, names in ipairs({ ASKED, LEFT }) do
    for _, name in ipairs(names) do fields[#fields + 1], fields[#fields + 2] = name, done[name] end
  end
  call('HSET', key, unpack(fields))
  -- Last: an operation that is remembered for a moment only is gone now.
  if keep_ms ~= '0' then call('PEXPIRE', key, format('%d', keep_ms + (more_ms or 0))) end
end

-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
if call('XREVRANGE', audit, '+', '1000000000000000', 'COUNT', '1')[1] then
  return redis.error_reply('BADKEY audit: its ids are used up')
end
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
