#!lua flags=allow-oom
-- extend: give active reservations more time, for one item or up to 100.
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
--   1+i   ttlMs        milliseconds from now until it lapses, 1 to 2592000000
--
-- REPLIES: one array for each item, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT sku                    the reservation is another SKU's
--   EXPIRED                         too late: it has lapsed. This call expires it, in mode all too, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   LIMITED maxExpiresAt            the operator allows no time after this one: it stays as it is
--   WITHDRAWN                       mode all: this item would have been extended, another could not be
--   EXTENDED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done. Its expiry is never earlier than it was: then nothing was changed
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- The latest expiry is extendMaxMs of the settings after the hold was made: 0 to 2592000000, 3600000 when nothing is
-- set; or the longest hold of the SKU's rules after it, if that is earlier. With 0 no hold is extended. A hold whose
-- expiry is later than that keeps it. What has lapsed is never revived.
-- Safe to repeat: the time begins again with each call, within the same limit. Runs when memory is full: a sale that
-- was promised must not lapse for that.

local audit, due, settings = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]
local n = (#KEYS - 3) / 3

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

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 3, and 1 argument each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
for i = 1, n do
  local reservation = KEYS[3 * i + 3]
  local stock, id = item_of(i, KEYS[3 * i + 1], KEYS[3 * i + 2], reservation)
  if not stock then return redis.error_reply(id) end
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

for i = 1, n do
  if not whole(ARGV[1 + i], 1, 2592000000) then
    return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': a whole number from 1 to 2592000000')
  end
end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZREM', due, 'member')
for _, stock in ipairs(stocks) do
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZREM', stock.active, 'member')
end
for _, reservation in ipairs(reservations) do
  may_all = may_all and may('HSET', reservation, 'field', '0') and may('PEXPIRE', reservation, '1')
end
for _, stock in ipairs(stocks) do may_all = may_all and may('ZADD', stock.active, '1', 'member') end
if not may_all then return redis.error_reply('NOPERM this user may not write what an extension writes') end

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

local max_ms = whole(call('HGET', settings, 'extendMaxMs') or '3600000', 0, 2592000000)
if not max_ms then
  return redis.error_reply('BADKEY settings: extendMaxMs is not a whole number from 0 to 2592000000')
end

-- Decisions: a reservation that is named twice is in its second place what the first leaves.

-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end

local replies, refused = {}, false
-- By item: whether it expires its reservation, or extends it.
local lapses, extends = {}, {}
for i, reservation in ipairs(reservations) do
  local stock, record = stock_of[i], records[reservation]
  if not record then
    replies[i], refused = { 'NOT_FOUND' }, true
  elseif record.sku ~= stock.sku then
    replies[i], refused = { 'CONFLICT', 'sku' }, true
  elseif record.state == 'active' then
    if not record.is_owed then stock.owed, record.is_owed = stock.owed + record.units, true end
    local created, expires = whole(record.createdAt, 1, 9999999999999), now + ARGV[1 + i]
    local most_ms = math.min(max_ms, stock.max_ttl or max_ms)
    if record.expires <= now then
      record.state, record.reason, lapses[i] = 'released', 'reservation_ttl_elapsed', true
      replies[i], refused = { 'EXPIRED' }, true
    elseif not created then
      return redis.error_reply('BADKEY reservation: damaged record ' .. reservation)
    elseif expires > record.expires and expires > created + most_ms then
      replies[i], refused = { 'LIMITED', format('%d', math.max(record.expires, created + most_ms)) }, true
    else
      if expires > record.expires then
        -- A repeat of the hold is recognized by the time that it asked for.
        record.ttl = record.ttl or call('HGET', reservation, 'ttlMs') or format('%d', record.expires - created)
        record.expires, record.expiresAt, record.updatedAt = expires, format('%d', expires), now_text
        extends[i] = true
      end
      replies[i] = shown('EXTENDED', record)
    end
  elseif record.reason == 'reservation_ttl_elapsed' then
    replies[i], refused = { 'EXPIRED' }, true
  else
    replies[i], refused = { 'NOT_ACTIVE', record.state, record.reason }, true
  end
end
-- The units of the active reservations of a call are among those reserved: they can be moved, and there is a stock.
for _, stock in ipairs(stocks) do
  if stock.owed > (stock.reserved or 0) then
    return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. stock.key)
  end
end

if refused and mode == 'all' then
  extends = {}
  for i, reply in ipairs(replies) do
    if reply[1] == 'EXTENDED' then replies[i] = { 'WITHDRAWN' } end
  end
end

-- Writes: none of them can fail.

for i, reservation in ipairs(reservations) do
  local stock, record = stock_of[i], records[reservation]
  if lapses[i] then
    end_reservation(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
  elseif extends[i] then
    append_event(stock, 'extend', record.id, record.cartId, record.quantity, 'active', '')
    call('HSET', reservation, 'expiresAt', record.expiresAt, 'updatedAt', now_text, 'ttlMs', record.ttl)
    local moved = stock.moved or {}
    moved[#moved + 1], moved[#moved + 2] = record.expiresAt, record.id
    stock.moved = moved
  end
end
for _, stock in ipairs(stocks) do
  if stock.moved then
    -- The score in due may stay, here too. A member that is not in the set is for a repair to add.
    call('ZADD', stock.active, 'XX', unpack(stock.moved))
    if #stock.ended == 0 then write_stock(stock) end
  end
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
return replies
