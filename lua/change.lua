#!lua flags=allow-oom
-- change: an active reservation holds another number of units from now on, more or fewer; its expiry stays.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     settings     hash    stockhold:settings
--   4     operation    hash    operation:<uuid>
--   5     inventory    hash    inventory:<sku>
--   6     active       zset    inventory:<sku>:active
--   7     reservation  hash    reservation:<id>
--   8     cart         hash    cart:<cartId> of the reservation; only needed when the answer was UNSEEN
--   then up to 100 for other reservations of the cart:
--   8+i   other        hash    reservation:<id>
--
-- ARGV
--   1     how          set (it shall hold this number of units) | release (this number of its units go back)
--   2     quantity     units, 1 to 1000000000
--   3     once         empty | once: remember it under operation, so that a repeat does nothing
--
-- REPLIES: one array, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT field                  sku: the reservation is another SKU's. Or the operation was another change: the
--                                   first of sku, reservationId, how and quantity that differs
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   the operation was carried out before: the reservation as it is now
--   EXPIRED                         too late: it has lapsed. This call expires it, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   EXCEEDS quantity                how is release: it holds only this number of units, and stays as it is
--   UNSEEN cartId                   the SKU's rules limit what one cart has of it: name this cart, and all reservations
--                                   that it lists
--   CART_LIMIT perCart units        the SKU's rules allow one cart perCart units, and this cart has units already, held
--                                   or sold, in other reservations. It stays as it is
--   INSUFFICIENT available lapsed   fewer units are available than it would hold more, but for those that the SKU's
--                                   rules keep back, and this number of holds of the SKU is due: sweep them and try
--                                   again. It stays as it is
--   RELEASED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   how is release, and that was all that it held: it is released, as by release
--   CHANGED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done: it holds quantity units. If it held that number already, nothing was changed
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or there are other counts of keys and arguments
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The record keeps what was held at first in the field initialQuantity. Safe to repeat after a lost reply with set, or
-- with the same operation and once: REPLAYED, for as long as settled reservations are kept. A refusal is not
-- remembered. Without once, each repeat of release gives units back again. Runs when memory is full, as release and
-- extend do: it takes hardly more than an event.

local audit, due, settings, operation = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local inventory, active, reservation_key = KEYS[5], KEYS[6], KEYS[7]
local cart_key = KEYS[8]
local how, quantity, once = ARGV[1], ARGV[2], ARGV[3]
local others = #KEYS - 8
local function other_key(i) return KEYS[8 + i] end

-- What an operation remembers: what was asked, and when it was done.
local ASKED = { 'sku', 'reservationId', 'how', 'quantity' }
local LEFT = { 'updatedAt' }

if #KEYS < 7 or others > 100 or #ARGV ~= 3 then
  return redis.error_reply('BADARGS keys: 7, and then none, or a cart and 0 to 100 more; with 3 arguments')
end

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

-- The keys of a call about one SKU.
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end
local id = id_of(reservation_key, pattern_of(prefix, KIND))
if not id then return redis.error_reply(wrong_id(reservation_key, prefix, 'reservation')) end
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end
-- Lists of one: what serves a call about many reservations serves this one.
local own = { key = inventory, sku = sku, active = active }
local stocks, reservations, ids = { own }, { reservation_key }, { id }

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

-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end

-- The refusal for lack of units: how many can be held, and how many holds of the SKU are due.
local function insufficient(stock)
  local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
  return { 'INSUFFICIENT', format('%d', math.max(stock.left, 0)), format('%d', lapsed) }
end

-- Guards: no key is read before every name and number is right.

-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, pattern_of(prefix, 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end
local is_item = { [id] = true }
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
if how ~= 'set' and how ~= 'release' then return redis.error_reply('BADARGS how: set or release') end
local units = whole(quantity, 1, 1000000000)
if not units then return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000') end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZREM', due, 'member')
for _, stock in ipairs(stocks) do
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZREM', stock.active, 'member')
end
for _, reservation in ipairs(reservations) do
  may_all = may_all and may('HSET', reservation, 'field', '0') and may('PEXPIRE', reservation, '1')
end
may_all = may_all and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
if not may_all then return redis.error_reply('NOPERM this user may not write what a change writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- Milliseconds that a settled reservation is kept, as the operator decided: 0 keeps for ever, nothing set is 30 days.
if settings ~= prefix .. 'stockhold:settings' then
  return redis.error_reply('BADKEY settings: not stockhold:settings')
end
local keep_ms = call('HGET', settings, 'keepMs') or '2592000000'
if not whole(keep_ms, 0, 1000000000000) then
  return redis.error_reply('BADKEY settings: keepMs is not a whole number from 0 to 1000000000000')
end

-- Ends an active reservation: its units leave reserved for a pool (available, confirmed; withdrawn is none of them).
-- What ended leaves the active set later, all at once: a key that one write may have emptied is not touched again.
local function end_reservation(stock, record, event, state, reason, pool)
  stock.reserved = stock.reserved - record.units
  stock[pool] = (stock[pool] or 0) + record.units
  append_event(stock, event, record.id, record.cartId, record.quantity, state, reason)
  if reason == '' then
    call('HSET', record.key, 'state', state, 'updatedAt', now_text)
  else
    call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text)
  end
  if record.token and record.token ~= '' then call('HSET', record.key, 'token', record.token) end
  stock.ended[#stock.ended + 1] = record.id
  -- Last: a record that is kept for a moment only is gone now.
  if keep_ms ~= '0' then call('PEXPIRE', record.key, keep_ms) end
end

-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
if call('XREVRANGE', audit, '+', '1000000000000000', 'COUNT', '1')[1] then
  return redis.error_reply('BADKEY audit: its ids are used up')
end
call('ZCARD', due)
for _, stock in ipairs(stocks) do
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.live, stock.owed, stock.ended = call('ZCARD', stock.active), 0, {}
end

local records = {}
for i, reservation in ipairs(reservations) do
  if records[reservation] == nil then
    local record = read_record(reservation, ids[i])
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    records[reservation] = record
  end
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
local asked = { sku = sku, reservationId = id, how = how, quantity = quantity, updatedAt = now_text }
local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end

-- Decisions.

local record = records[reservation_key]
if not record then return { { 'NOT_FOUND' } } end
if record.sku ~= sku then return { { 'CONFLICT', 'sku' } } end
if earlier then
  local conflict = conflict_of(earlier, asked)
  if conflict then return { { 'CONFLICT', conflict } } end
  return { shown('REPLAYED', record) }
end
if record.state ~= 'active' then
  if record.reason == 'reservation_ttl_elapsed' then return { { 'EXPIRED' } } end
  return { { 'NOT_ACTIVE', record.state, record.reason } }
end
own.owed = record.units
-- The units of the active reservations of a call are among those reserved: they can be moved, and there is a stock.
for _, stock in ipairs(stocks) do
  if stock.owed > (stock.reserved or 0) then
    return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. stock.key)
  end
end
local has_lapsed = record.expires <= now
local held = how == 'set' and units or record.units - units
if not has_lapsed then
  if held < 0 then return { { 'EXCEEDS', record.quantity } } end
  own.more = held - record.units
  if own.more > 0 and own.per_cart then
    local others_have = cart_id == record.cartId and units_of_cart(sku)
    if not others_have then return { { 'UNSEEN', record.cartId } } end
    if others_have + held > own.per_cart then
      return { { 'CART_LIMIT', format('%d', own.per_cart), format('%d', others_have) } }
    end
  end
  own.left = own.available - (own.safety or 0)
  if own.more > 0 and own.more > own.left then return { insufficient(own) } end
end
local is_first = not call('HGET', reservation_key, 'initialQuantity')

-- Writes: none of them can fail.

local reply
if has_lapsed then
  end_reservation(own, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
  reply = { 'EXPIRED' }
elseif held == 0 then
  end_reservation(own, record, 'release', 'released', 'manual_release', 'available')
  record.state, record.reason, record.updatedAt = 'released', 'manual_release', now_text
  reply = shown('RELEASED', record)
else
  if held ~= record.units then
    local before, more = record.quantity, held - record.units
    own.available, own.reserved = own.available - more, own.reserved + more
    record.quantity, record.updatedAt = format('%d', held), now_text
    append_event(own, 'change', id, record.cartId, record.quantity, 'active',
      how == 'release' and 'partial_release' or '')
    call('HSET', reservation_key, 'quantity', record.quantity, 'updatedAt', now_text)
    if is_first then call('HSET', reservation_key, 'initialQuantity', before) end
    write_stock(own)
  end
  reply = shown('CHANGED', record)
end
-- What ended leaves the active set.
local idle = {}
for _, stock in ipairs(stocks) do
  if #stock.ended > 0 then
    write_stock(stock)
    -- The score in due may stay: it is a lower bound. Only a SKU with no hold left has nothing to poll for.
    if call('ZREM', stock.active, unpack(stock.ended)) == stock.live then idle[#idle + 1] = stock.sku end
  end
end
if #idle > 0 then call('ZREM', due, unpack(idle)) end
if once ~= '' and not has_lapsed then remember(operation, asked) end
return { reply }
