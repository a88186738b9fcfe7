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

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + WIDTH * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 2, and '
    .. WIDTH .. ' arguments each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
-- Many items of a call want the same: what was found right is not looked at again.
local right_quantity, right_ttl
for i = 1, n do
  local reservation = KEYS[3 * i + 2]
  local stock, id = item_of(i, KEYS[3 * i], KEYS[3 * i + 1], reservation)
  if not stock then return redis.error_reply(id) end
  local cart, quantity, ttl = arguments_of(i)
  if not is_text(cart) then
    return redis.error_reply('BADARGS cartId of item ' .. i .. ': 1 to 128 bytes of UTF-8, no control character')
  end
  if quantity ~= right_quantity and not whole(quantity, 1, 1000000000) then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  if ttl ~= right_ttl and ttl ~= 'default' and not whole(ttl, 1, 2592000000) then
    return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': default, or a whole number from 1 to 2592000000')
  end
  right_quantity, right_ttl = quantity, ttl
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

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

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', due, '1', 'member')
for i = 1, #stocks do
  local stock = stocks[i]
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZADD', stock.active, '1', 'member')
end
for i = 1, n do may_all = may_all and may('HSET', reservations[i], 'field', '0') end
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here. But for
-- the audit of a single item: the first write goes there, and stops it as well.

if n > 1 then
  -- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
  if call('XREVRANGE', audit, '+', '1000000000000000', 'COUNT', '1')[1] then
    return redis.error_reply('BADKEY audit: its ids are used up')
  end
end
call('ZCARD', due)
for i = 1, #stocks do
  local stock = stocks[i]
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.left = found and stock.available - (stock.safety or 0)
  call('ZCARD', stock.active)
end

local records
if call('EXISTS', unpack(reservations)) > 0 then
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

  records = {}
  for i, reservation in ipairs(reservations) do
    local record = read_record(reservation, ids[i])
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    records[reservation] = record
  end
end

-- Decisions: a SKU or an id that is named twice sees what the items before it would leave.

-- The refusal for lack of units: how many can be held, and how many holds of the SKU are due.
local function insufficient(stock)
  local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
  return { 'INSUFFICIENT', format('%d', math.max(stock.left, 0)), format('%d', lapsed) }
end

local replies, refused = {}, false
-- By reservation, the item that makes it; and the record that an item makes.
local made = {}
local function record_of(i)
  local cart, quantity = arguments_of(i)
  return { cartId = cart, sku = stock_of[i].sku, quantity = quantity, state = 'active', reason = '',
    expiresAt = replies[i][2], createdAt = now_text, updatedAt = now_text, metadata = metadata[i] }
end
-- The latest reply to a hold, and the ttl that it is for.
local held, held_ttl
for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  local cart, quantity, ttl = arguments_of(i)
  local record, earlier = records and records[reservation], made[reservation]
  if earlier then record = record_of(earlier) end
  if record then
    local field = record.cartId ~= cart and 'cartId' or record.sku ~= stock.sku and 'sku'
    if not field then
      -- It is recognized by what it asked for: its quantity may have been changed since.
      local kept = earlier and { record.metadata } or call('HMGET', reservation, 'metadata', 'initialQuantity')
      field = (kept[2] or record.quantity) ~= quantity and 'quantity'
        or (kept[1] or nil) ~= metadata[i] and 'metadata'
    end
    if field then
      replies[i], refused = { 'CONFLICT', field }, true
    else
      replies[i] = shown('REPLAYED', record)
    end
  elseif not stock.left then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif stock.per_cart then
    replies[i], refused = { 'BY_CART' }, true
  elseif stock.max_ttl and ttl ~= 'default' and ttl + 0 > stock.max_ttl then
    replies[i], refused = { 'TOO_LONG', format('%d', stock.max_ttl) }, true
  elseif stock.left < quantity + 0 then
    replies[i], refused = insufficient(stock), true
  else
    stock.left = stock.left - quantity
    made[reservation] = i
    if ttl == 'default' then
      ttl = stock.max_ttl and stock.max_ttl < DEFAULT_TTL_MS and stock.max_ttl or DEFAULT_TTL_MS
    end
    if ttl ~= held_ttl then held, held_ttl = { 'HELD', format('%d', now + ttl), now_text }, ttl end
    replies[i] = held
  end
end

if refused and mode == 'all' then
  for i, reservation in ipairs(reservations) do
    local word = replies[i][1]
    if word == 'HELD' or word == 'REPLAYED' and made[reservation] then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: once the first is done, none of them can fail.

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

for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  if made[reservation] == i then
    local cart, quantity = arguments_of(i)
    reserve(stock, reservation, ids[i], cart, quantity, replies[i][2], metadata[i])
  end
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
return replies
