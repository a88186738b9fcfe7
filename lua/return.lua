#!lua flags=allow-oom
-- return: take back units of a sale, some or all of them: they are on sale again, or leave the books.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     settings     hash    stockhold:settings
--   3     operation    hash    operation:<uuid>
--   4     inventory    hash    inventory:<sku>
--   5     reservation  hash    reservation:<id>
--
-- ARGV
--   1     quantity     units that come back, 1 to 1000000000
--   2     restock      restock (they are available again) | write_off (they are not: broken, or never sent back)
--   3     once         empty | once: remember it under operation, so that a repeat does nothing
--
-- REPLIES: one array, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT field                  sku: the reservation is another SKU's. Or the operation was another return: the
--                                   first of sku, reservationId, confirmedAt, quantity and restock that differs
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt returned
--                                   the operation was carried out before: what it left then
--   NOT_SOLD state reason           the reservation is active or released
--   EXCEEDS left                    more than was sold and not yet returned, which is this number of units
--   EXCESSIVE                       the SKU would have more than 1000000000000 units in all
--   RETURNED cartId sku quantity state reason expiresAt createdAt updatedAt returned
--                                   done: quantity is what was sold, and returned is what came back of it in all
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The units leave confirmed, if the sale is still counted there. A seed counts anew: the units of a sale before the
-- last one come back on sale, or not, and confirmed stays. Then the reason in the audit ends with _after_seed. The time
-- of the sale, which updatedAt was, is kept as confirmedAt. How long the record is kept stays as it was.
-- Safe to repeat after a lost reply with the same operation and once: REPLAYED. Without once every call counts, until
-- all is returned. Runs when memory is full: there is nothing to wait for.

local audit, settings, operation, inventory, reservation = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local quantity, restock, once = ARGV[1], ARGV[2], ARGV[3]

local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999
-- What an operation remembers: what was asked, of which sale, and what that left.
local ASKED = { 'sku', 'reservationId', 'confirmedAt', 'quantity', 'restock' }
local LEFT = { 'returned', 'updatedAt' }

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

-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
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

-- Guards: no key is read before every name and number is right.

if #KEYS ~= 5 or #ARGV ~= 3 then return redis.error_reply('BADARGS keys: 5, with 3 arguments') end
local units = whole(quantity, 1, 1000000000)
if not units then return redis.error_reply('BADARGS quantity: a whole number from 1 to 1000000000') end
if restock ~= 'restock' and restock ~= 'write_off' then
  return redis.error_reply('BADARGS restock: restock or write_off')
end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end

-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end

-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, pattern_of(prefix, 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end
local id = id_of(reservation, pattern_of(prefix, KIND))
if not id then return redis.error_reply(wrong_id(reservation, prefix, 'reservation')) end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

if not (may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('HSET', reservation, 'field', '0') and may('HSET', operation, 'field', '0')
  and may('PEXPIRE', operation, '1')) then
  return redis.error_reply('NOPERM this user may not write what a return writes')
end

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
local stock = { key = inventory, sku = sku }
local found = read_stock(stock)
local seeded_at = whole(call('HGET', inventory, 'seededAt') or '0', 0, MAX_TIME)
if found == nil or not seeded_at then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
local earlier = read_operation(operation)
if earlier == nil then return redis.error_reply('BADKEY operation: damaged record ' .. operation) end
local record = read_record(reservation, id)
local f = call('HMGET', reservation, 'returned', 'confirmedAt')
-- What was sold, and what came back of it.
local sold_at, returned
if record and record.state == 'confirmed' then
  sold_at = whole(f[2] or record.updatedAt, 1, MAX_TIME)
  returned = f[2] and whole(f[1], 1, record.units) or not f[1] and not f[2] and 0
end
if record == nil or record and record.state == 'confirmed' and not (sold_at and returned) then
  return redis.error_reply('BADKEY reservation: damaged record ' .. reservation)
end

-- Decisions.

if not record then return { { 'NOT_FOUND' } } end
if record.sku ~= sku then return { { 'CONFLICT', 'sku' } } end
local asked = { sku = sku, reservationId = id, confirmedAt = sold_at and format('%d', sold_at) or '',
  quantity = quantity, restock = restock }
local function answer(word, left)
  record.updatedAt = left.updatedAt
  local reply = shown(word, record)
  reply[#reply + 1] = left.returned
  return { reply }
end
if earlier then
  local conflict = conflict_of(earlier, asked)
  if conflict then return { { 'CONFLICT', conflict } } end
  return answer('REPLAYED', earlier)
end
if not sold_at then return { { 'NOT_SOLD', record.state, record.reason } } end
if units > record.units - returned then return { { 'EXCEEDS', format('%d', record.units - returned) } } end
if not found then return redis.error_reply('BADKEY inventory: no counts in ' .. inventory) end
-- Of one millisecond, the sale counts as the earlier: the other way round it was held, too, in the same one.
local is_counted = sold_at > seeded_at and stock.confirmed >= units
if restock == 'restock' then
  stock.available = stock.available + units
  if not is_counted and stock.available + stock.reserved + stock.confirmed > MAX_COUNT then
    return { { 'EXCESSIVE' } }
  end
end

-- Writes: none of them can fail.

local reason = restock == 'restock' and 'restocked' or 'written_off'
if is_counted then
  stock.confirmed = stock.confirmed - units
else
  reason = reason .. '_after_seed'
end
append_event(stock, 'return', id, record.cartId, quantity, 'confirmed', reason)
write_stock(stock, true)
asked.returned, asked.updatedAt = format('%d', returned + units), now_text
call('HSET', reservation, 'returned', asked.returned, 'confirmedAt', asked.confirmedAt, 'updatedAt', now_text)
if once ~= '' then remember(operation, asked) end
return answer('RETURNED', asked)
