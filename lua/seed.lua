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

-- Guards: no key is read before every name and number is right.

if n < 0 or n > 100 or #ARGV ~= 2 then
  return redis.error_reply('BADARGS keys: 7 and then 0 to 100 reservations, with 2 arguments')
end
if quantity ~= 'probe' and not whole(quantity, 0, 1000000000) then
  return redis.error_reply('BADARGS quantity: a whole number from 0 to 1000000000, or probe')
end
if once ~= '' and once ~= 'once' then return redis.error_reply('BADARGS once: empty or once') end
-- The keys of a call about one SKU.
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end

-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end

-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, pattern_of(prefix, 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end

-- The listed reservations, each once: their ids and keys.
local pattern, ids, listed = pattern_of(prefix, KIND), {}, {}
for i = 1, n do
  local key = reservation_key(i)
  local id = id_of(key, pattern)
  if not id then return redis.error_reply(wrong_id(key, prefix, 'reservation ' .. i)) end
  if not listed[id] then
    listed[id] = key
    ids[#ids + 1] = id
  end
end

-- Rights: those of every write, also when nothing will be written: a probe proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('ZREM', active, 'member') and may('ZREM', due, 'member') and may('ZADD', skus, '0', 'member')
  and may('HSET', operation, 'field', '0') and may('PEXPIRE', operation, '1')
for _, id in ipairs(ids) do
  may_all = may_all and may('HSET', listed[id], 'field', '0') and may('PEXPIRE', listed[id], '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a seed writes') end

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
