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

-- The key of a reservation, after its prefix: reservation:<uuid>.
local KIND = 'reservation'

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

-- A reservation's fields by name; false when there is none; nil when what is stored cannot be right. What is active
-- has no reason, and was updated only if it was extended: these fields come later.
local function read_record(key, id)
  local f = call('HMGET', key,
    'cartId', 'sku', 'quantity', 'state', 'reason', 'expiresAt', 'createdAt', 'updatedAt', 'token')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6] or f[7] or f[8]) then return false end
  local units, expires = whole(f[3], 1, 1000000000), whole(f[6], 1, 9999999999999)
  if not (f[1] and is_text(f[1]) and f[2] and units and expires and f[7]) then return nil end
  local state, reason, updated = f[4], f[5] or '', f[8]
  if state == 'active' then
    updated = updated or f[7]
  elseif state ~= 'confirmed' and state ~= 'released' or not updated then
    return nil
  end
  return {
    key = key, id = id, cartId = f[1], sku = f[2], quantity = f[3], state = state, reason = reason,
    expiresAt = f[6], createdAt = f[7], updatedAt = updated, token = f[9], units = units, expires = expires,
  }
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

-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end

-- How long a hold lasts that leaves this open, in milliseconds, unless the SKU's longest hold is shorter.
local DEFAULT_TTL_MS = 600000

-- Moves units of a stock from available to a new reservation.
local function reserve(stock, key, id, cart, quantity, expires, noted)
  stock.available, stock.reserved = stock.available - quantity, stock.reserved + quantity
  if noted then
    append_event(stock, 'hold', id, cart, quantity, 'active', '', 'metadata', noted)
    call('HSET', key, 'metadata', noted)
  else
    append_event(stock, 'hold', id, cart, quantity, 'active', '')
  end
  call('HSET', key, 'cartId', cart, 'sku', stock.sku, 'quantity', quantity,
    'state', 'active', 'expiresAt', expires, 'createdAt', now_text)
  local added = stock.added
  if added then
    added[#added + 1], added[#added + 2] = expires, id
  else
    stock.added = { expires, id }
  end
end

-- Whether text is a JSON object of 1 to 8 strings whose names and strings are text.
local function is_metadata(text)
  if #text > 4200 or not find(text, '^{') then return false end
  local is_json, pairs_of = pcall(cjson.decode, text)
  if not is_json then return false end
  local count = 0
  for name, value in pairs(pairs_of) do
    count = count + 1
    if type(name) ~= 'string' or type(value) ~= 'string' or not (is_text(name) and is_text(value)) then return false end
  end
  return count >= 1 and count <= 8
end

-- The refusal for lack of units: how many can be held, and how many holds of the SKU are due.
local function insufficient(stock)
  local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
  return { 'INSUFFICIENT', format('%d', math.max(stock.left, 0)), format('%d', lapsed) }
end

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
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, pattern_of(prefix, 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end

-- The cart of a call that names one, and the others of its reservations that are named, each once: their ids and keys.
local cart_id, other_ids, other_keys = nil, {}, {}
if cart_key then
  cart_id = match(cart_key, '^' .. prefix .. 'cart:(.*)$')
  if not cart_id or not is_text(cart_id) then
    return redis.error_reply('BADKEY cart: not cart:<cartId>, 1 to 128 bytes of UTF-8, no control character')
  end
  for i = 1, others do
    local key = other_key(i)
    local other_id = id_of(key, pattern_of(prefix, KIND))
    if not other_id then return redis.error_reply(wrong_id(key, prefix, 'other ' .. i)) end
    if not is_item[other_id] and not other_keys[other_id] then
      other_keys[other_id], other_ids[#other_ids + 1] = key, other_id
    end
  end
end
if #stocks < n or distinct < n then
  return redis.error_reply('BADARGS items: a SKU or a reservation is named in two of them')
end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', due, '1', 'member')
for i = 1, #stocks do
  local stock = stocks[i]
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZADD', stock.active, '1', 'member')
end
for i = 1, n do may_all = may_all and may('HSET', reservations[i], 'field', '0') end
may_all = may_all and may('HSET', cart_key, 'field', '0') and may('HDEL', cart_key, 'field')
  and may('PEXPIRE', cart_key, '1') and may('PERSIST', cart_key)
  and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold of a cart writes') end

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

call('ZCARD', due)
for i = 1, #stocks do
  local stock = stocks[i]
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.left = found and stock.available - (stock.safety or 0)
  call('ZCARD', stock.active)
end

-- What the cart lists, id -> SKU, and the records of the others that are named: false where there is none.
local listed, index, other_records = cart_key and call('HGETALL', cart_key) or {}, {}, {}
for at = 1, #listed, 2 do index[listed[at]] = listed[at + 1] end
for _, other_id in ipairs(other_ids) do
  local other = read_record(other_keys[other_id], other_id)
  if other == nil then return redis.error_reply('BADKEY other: damaged record ' .. other_keys[other_id]) end
  other_records[other_id] = other
end

-- The units of a SKU that the cart has by its list, but for the items of this call: held and not lapsed, or sold and
-- not returned. nil when it lists a reservation of the SKU that is not named.
local function units_of_cart(sku_of_item)
  local sum = 0
  for listed_id, listed_sku in pairs(index) do
    if listed_sku == sku_of_item and not is_item[listed_id] then
      local other = other_records[listed_id]
      if other == nil then return nil end
      if other and other.cartId == cart_id and other.sku == listed_sku then
        if other.state == 'active' and other.expires > now then
          sum = sum + other.units
        elseif other.state == 'confirmed' then
          local returned = call('HGET', other.key, 'returned') or '0'
          sum = sum + other.units - (whole(returned, 0, other.units) or 0)
        end
      end
    end
  end
  return sum
end

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
-- New reservations come into the active sets, and what is due earlier into due.
local bounds = {}
for i = 1, #stocks do
  local stock = stocks[i]
  local added = stock.added
  if added then
    call('ZADD', stock.active, unpack(added))
    write_stock(stock)
    local earliest = added[1]
    -- Times have 13 digits: as text they are in the same order.
    for at = 3, #added, 2 do if added[at] < earliest then earliest = added[at] end end
    bounds[#bounds + 1], bounds[#bounds + 2] = earliest, stock.sku
  end
end
-- What is due earlier stays so.
if #bounds > 0 then call('ZADD', due, 'LT', unpack(bounds)) end
call('HSET', cart_key, unpack(entries))
if #forgotten > 0 then call('HDEL', cart_key, unpack(forgotten)) end
-- No reservation of now is kept for longer.
if keep_ms == '0' then call('PERSIST', cart_key) else call('PEXPIRE', cart_key, format('%d', LONGEST_MS + keep_ms)) end
if once ~= '' then remember(operation, done, LONGEST_MS) end
return replies
