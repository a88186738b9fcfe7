#!lua flags=allow-oom
-- repair: put right what was damaged behind the scripts' back, for one SKU; each thing repaired is told in the audit.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     skus         zset    stockhold:skus
--   4     settings     hash    stockhold:settings
--   5     inventory    hash    inventory:<sku>
--   6     active       zset    inventory:<sku>:active
--   7...  reservation  hash    reservation:<id>, 0 to 100 of them, each once: those to look at
--
-- ARGV
--   1     version      the field version of inventory when the damage was found; empty if there was none
--   2     lastEvent    the field lastEvent then; empty if there was none
--   3     restart      empty | here (the events before count no more) | id of its newest event, to go on from there
--   4     available    units to add to the count that is stored, which is 0 if it cannot be read; may be negative
--   5     reserved     the same for the units reserved
--   6     confirmed    the same for the units confirmed
--   7     rules        empty: the SKU's rules are right | id of the event that told them last | none: it has none
--   then one for each reservation:
--   7+i   event        id of its last event, and after commas of its returns, to make it again; empty: it is right
--
-- REPLIES: one array
--   UNKNOWN_SKU                     there is no stock that could be repaired
--   STALE                           the SKU was seeded or repaired since, or a reservation settled or extended, or its
--                                   id is by now another SKU's, or more happened than can be looked through: look again
--   OVERSOLD available              a count would be negative, and available would be this; nothing was written
--   REPAIRED count available reserved confirmed version
--                                   count things were repaired, 0 when all was well, and the counts are these
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The counts are moved and not set, so buyers need not stop: what a hold or a confirm changed since stays changed. The
-- record of a sale is made again from its event, and from those of all its returns, in their order: id,id,... The
-- active set, due and skus are made to fit the records. A hold that would outlive its ttl, or the longest allowed, is
-- shortened to it: the ttl of a hold that was made while the clock was ahead begins now. An event repair without a
-- reservation states the counts anew: a replay of the audit starts again there. Not safe to repeat after a lost reply
-- with another version: look again.

local audit, due, skus, settings, inventory, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local version_seen, last_seen, restart = ARGV[1], ARGV[2], ARGV[3]
local change = { available = ARGV[4], reserved = ARGV[5], confirmed = ARGV[6] }
local rules = ARGV[7]
local n = #KEYS - 6
local function reservation_key(i) return KEYS[6 + i] end

local COUNTS = { 'available', 'reserved', 'confirmed' }
local MAX_PASSED = 1000
local MAX_TTL_MS = 2592000000
local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999

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

-- 19 digits: each number must fit 64 bits.
local function is_event_id(s)
  return find(s, '^%d+%-%d+$') and #match(s, '^%d+') <= 19 and #match(s, '%d+$') <= 19
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

-- Guards: no key is read before every name and number is right.

if n < 0 or n > 100 or #ARGV ~= 7 + n then
  return redis.error_reply('BADARGS keys: 6 and then 0 to 100 reservations, with 7 arguments and one for each')
end
if restart ~= '' and restart ~= 'here' and not is_event_id(restart) then
  return redis.error_reply('BADARGS restart: empty, here, or the id of an event')
end
if rules ~= '' and rules ~= 'none' and not is_event_id(rules) then
  return redis.error_reply('BADARGS rules: empty, none, or the id of an event')
end
for _, name in ipairs(COUNTS) do
  local units = whole(change[name]:gsub('^%-', ''), 0, MAX_COUNT)
  if not units or change[name] == '-0' then
    return redis.error_reply('BADARGS ' .. name .. ': a whole number from -1000000000000 to 1000000000000')
  end
  change[name] = change[name]:sub(1, 1) == '-' and -units or units
end

-- The keys of a call about one SKU.
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end

-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end

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
if #ids < n then return redis.error_reply('BADKEY reservation: one is named twice') end
local items, by_id = {}, {}
for i = 1, n do
  local event = ARGV[7 + i]
  local event_ids = {}
  if event ~= '' then
    for event_id in (event .. ','):gmatch('(.-),') do
      if not is_event_id(event_id) then
        return redis.error_reply('BADARGS event ' .. i .. ': empty, or ids of events with commas between them')
      end
      event_ids[#event_ids + 1] = event_id
    end
  end
  items[i] = { id = ids[i], key = listed[ids[i]], event_id = event_ids[1] or '', return_ids = event_ids }
  table.remove(event_ids, 1)
  by_id[ids[i]] = items[i]
end

-- Rights: those of every write, before the first.

local may_all = may('XADD', audit, '*', 'field', '0') and may('HSET', inventory, 'field', '0')
  and may('ZADD', active, '1', 'member') and may('ZREM', active, 'member')
  and may('ZADD', due, '1', 'member') and may('ZREM', due, 'member') and may('ZADD', skus, '0', 'member')
for _, item in ipairs(items) do
  may_all = may_all and may('HSET', item.key, 'field', '0') and may('HDEL', item.key, 'field')
    and may('PERSIST', item.key) and may('PEXPIRE', item.key, '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a repair writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- Milliseconds that a settled reservation is kept, as the operator decided: 0 keeps for ever, nothing set is 30 days.
if settings ~= prefix .. 'stockhold:settings' then
  return redis.error_reply('BADKEY settings: not stockhold:settings')
end
local keep_ms = call('HGET', settings, 'keepMs') or '2592000000'
if not whole(keep_ms, 0, 1000000000000) then
  return redis.error_reply('BADKEY settings: keepMs is not a whole number from 0 to 1000000000000')
end

-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
if call('XREVRANGE', audit, '+', '1000000000000000', 'COUNT', '1')[1] then
  return redis.error_reply('BADKEY audit: its ids are used up')
end
local bound = call('ZSCORE', due, sku)
local is_listed = call('ZSCORE', skus, sku) == '0'
-- One more than can change: the earliest of those that stay as they are is among them.
local first = call('ZRANGE', active, 0, n, 'WITHSCORES')

-- The SKU's event of that id, by field; nil when it was trimmed, or is another SKU's.
local function event_of_sku(id)
  local entry = call('XRANGE', audit, id, id)[1]
  if not entry then return nil end
  local event = {}
  for i = 1, #entry[2], 2 do event[entry[2][i]] = entry[2][i + 1] end
  return event.sku == sku and event or nil
end

local f = call('HMGET', inventory, 'version', 'lastEvent', 'seeded', 'sku', 'updatedAt', unpack(COUNTS))
local stock = { version = whole(f[1], 1, MAX_COUNT - 200), last_event = f[2], key = inventory, sku = sku }
local is_sound = stock.version and stock.last_event and f[4] == sku and whole(f[5], 1, MAX_TIME)
for i, name in ipairs(COUNTS) do
  stock[name] = whole(f[5 + i], 0, MAX_COUNT) or 0
  is_sound = is_sound and f[5 + i] == format('%d', stock[name])
end
is_sound = is_sound and f[3] == format('%d', stock.available + stock.reserved + stock.confirmed)
local from_event = restart ~= '' and restart ~= 'here'
if from_event then
  local event = event_of_sku(restart)
  if not event then return { { 'STALE' } } end
  stock.version, stock.last_event = whole(event.version, 1, MAX_COUNT - 200), restart
end
if not (stock.version and stock.last_event) then return { { 'UNKNOWN_SKU' } } end

-- What was found may not hold any more: every event since is looked at. To file by the records as they are needs none.
local is_bound = restart ~= '' or rules ~= ''
for _, name in ipairs(COUNTS) do is_bound = is_bound or change[name] ~= 0 end
for _, item in ipairs(items) do is_bound = is_bound or item.event_id ~= '' end
local id = f[2] or ''
if is_bound and ((f[1] or '') ~= version_seen or id ~= last_seen) then
  -- Where there was no event, the SKU has come into being since.
  if not is_sound or from_event or last_seen == '' then return { { 'STALE' } } end
  for passed = 0, MAX_PASSED do
    if id == last_seen then break end
    local event = passed < MAX_PASSED and is_event_id(id) and event_of_sku(id)
    if not event or event.event == 'seed' or event.event == 'repair' or by_id[event.reservationId]
      or event.event == 'rules' and rules ~= '' then
      return { { 'STALE' } }
    end
    id = event.previous or ''
  end
end
local rules_text = ''
if rules ~= '' and rules ~= 'none' then
  local event = event_of_sku(rules)
  if not event then return { { 'STALE' } } end
  if event.event ~= 'rules' then return redis.error_reply('BADARGS rules: ' .. rules .. ' is no event of rules') end
  if not event.reason then return redis.error_reply('BADKEY audit: damaged event ' .. rules) end
  rules_text = event.reason
end

for _, item in ipairs(items) do
  local record = read_record(item.key, item.id)
  item.score = call('ZSCORE', active, item.id)
  item.is_mortal = call('PTTL', item.key) >= 0
  if item.event_id ~= '' then
    local event = event_of_sku(item.event_id)
    if not event then return { { 'STALE' } } end
    if event.reservationId ~= item.id or event.event == 'repair' or event.event == 'return' then
      return redis.error_reply('BADARGS event: ' .. item.event_id .. ' is no event of ' .. item.key)
    end
    local units, at = whole(event.quantity, 1, 1000000000), whole(event.happenedAt, 1, MAX_TIME)
    if not (units and at and event.cartId and event.state and event.reason) then
      return redis.error_reply('BADKEY audit: damaged event ' .. item.event_id)
    end
    -- The id may have been used again, elsewhere, when the record was dropped.
    if record and record.sku ~= sku and event.state ~= 'active'
      and (record.state == 'active' or whole(record.createdAt, at, MAX_TIME)) then
      return { { 'STALE' } }
    end
    -- An event tells all but the times of the hold: as stored, or else from the active set, or else it is over now.
    local kept = call('HMGET', item.key, 'createdAt', 'expiresAt', 'initialQuantity', 'metadata')
    local created = event.event ~= 'hold' and whole(kept[1], 1, at) or at
    local expires = whole(kept[2], created + 1, MAX_TIME) or whole(item.score, created + 1, MAX_TIME)
      or math.max(now, created + 1)
    -- An active hold that was extended or changed keeps what it asked for at first.
    item.is_updated, item.metadata = event.event == 'extend' or event.event == 'change', event.metadata
    item.has_no_initial = kept[3] and not whole(kept[3], 1, 1000000000)
    item.has_no_metadata = kept[4] and not is_metadata(kept[4])
    record = { cartId = event.cartId, sku = sku, quantity = event.quantity, state = event.state,
      reason = event.state == 'active' and '' or event.reason, expiresAt = format('%d', expires),
      createdAt = format('%d', created), updatedAt = event.happenedAt }
    for _, return_id in ipairs(item.return_ids) do
      local back = event_of_sku(return_id)
      if not back then return { { 'STALE' } } end
      if back.reservationId ~= item.id or back.event ~= 'return' then
        return redis.error_reply('BADARGS event: ' .. return_id .. ' is no return of ' .. item.key)
      end
      local came = whole(back.quantity, 1, units - (item.returned or 0))
      if not (came and whole(back.happenedAt, 1, MAX_TIME)) then
        return redis.error_reply('BADKEY audit: damaged event ' .. return_id)
      end
      item.returned = (item.returned or 0) + came
      record.confirmedAt, record.updatedAt = event.happenedAt, back.happenedAt
    end
  end
  item.record = record
  item.is_active = record and record.sku == sku and record.state == 'active'
  local created = item.is_active and whole(record.createdAt, 1, MAX_TIME)
  if created then
    local from, expires = math.min(created, now), tonumber(record.expiresAt)
    local ttl = expires > created and expires - created or MAX_TTL_MS
    local last = from + math.min(ttl, MAX_TTL_MS)
    if last < expires then
      record.createdAt, record.expiresAt = format('%d', from), format('%d', last)
      item.is_shortened = item.event_id == ''
    end
  end
end

-- The active set as it will be: what is added to it, what leaves it, and the earliest expiry of all.
local added, leaving, touched, earliest = {}, {}, {}, nil
local is_filed, is_due_late = is_listed, false
for _, item in ipairs(items) do
  if item.is_active and item.score ~= item.record.expiresAt then
    is_filed = is_filed and item.is_shortened
    if item.is_shortened and bound and tonumber(bound) > tonumber(item.record.expiresAt) then
      bound, is_due_late = item.record.expiresAt, true
    end
    added[#added + 1], added[#added + 2], touched[item.id] = item.record.expiresAt, item.id, true
    earliest = math.min(earliest or MAX_TIME, tonumber(item.record.expiresAt))
  elseif item.score and not item.is_active then
    is_filed = false
    leaving[#leaving + 1], touched[item.id] = item.id, true
  end
end
for i = 1, #first, 2 do
  if not touched[first[i]] then
    earliest = math.min(earliest or MAX_TIME, tonumber(first[i + 1]))
    break
  end
end

for _, name in ipairs(COUNTS) do stock[name] = stock[name] + change[name] end
if stock.available < 0 or stock.reserved < 0 or stock.confirmed < 0 then
  return { { 'OVERSOLD', format('%d', stock.available) } }
end
if stock.available + stock.reserved + stock.confirmed > MAX_COUNT then
  return redis.error_reply('BADARGS available: the counts would add up to more than 1000000000000')
end

-- Writes: none of them can fail.

local repaired = 0

-- What was repaired: the stock itself when no record is named.
local function tell(id_or_none, cart, quantity, state, reason)
  repaired = repaired + 1
  append_event(stock, 'repair', id_or_none, cart, quantity, state, reason)
end

if not is_sound or restart ~= '' or change.available ~= 0 or change.reserved ~= 0 or change.confirmed ~= 0 then
  tell('', '', '0', 'repaired', 'counts_restored')
end
if rules ~= '' then
  call('HSET', inventory, 'rules', rules_text)
  tell('', '', '0', 'repaired', 'rules_restored')
end
for _, item in ipairs(items) do
  local record = item.record
  if item.event_id ~= '' then
    call('HSET', item.key, 'cartId', record.cartId, 'sku', sku, 'quantity', record.quantity,
      'state', record.state, 'expiresAt', record.expiresAt, 'createdAt', record.createdAt)
    if item.returned then
      call('HSET', item.key, 'returned', format('%d', item.returned), 'confirmedAt', record.confirmedAt)
    else
      call('HDEL', item.key, 'returned', 'confirmedAt')
    end
    if item.is_active and not item.is_updated then
      call('HDEL', item.key, 'reason', 'updatedAt', 'token', 'ttlMs', 'metadata', 'initialQuantity')
      if item.metadata then call('HSET', item.key, 'metadata', item.metadata) end
    elseif record.reason == '' then
      call('HSET', item.key, 'updatedAt', record.updatedAt)
      call('HDEL', item.key, 'reason')
      if item.is_active then call('HDEL', item.key, 'token') end
    else
      call('HSET', item.key, 'reason', record.reason, 'updatedAt', record.updatedAt)
    end
    if item.has_no_initial then call('HDEL', item.key, 'initialQuantity') end
    if item.has_no_metadata and not item.metadata then call('HDEL', item.key, 'metadata') end
    if item.is_mortal then call('PERSIST', item.key) end
    tell(item.id, record.cartId, record.quantity, record.state, 'record_restored')
  elseif item.is_active and item.is_mortal then
    call('PERSIST', item.key)
    is_filed = false
  end
  if item.is_shortened then
    call('HSET', item.key, 'expiresAt', record.expiresAt, 'createdAt', record.createdAt)
    tell(item.id, record.cartId, record.quantity, record.state, 'expiry_restored')
  end
end
if not is_listed then call('ZADD', skus, '0', sku) end
if #added > 0 then call('ZADD', active, unpack(added)) end
if #leaving > 0 then call('ZREM', active, unpack(leaving)) end
if earliest and not (bound and tonumber(bound) <= earliest) then
  call('ZADD', due, format('%d', earliest), sku)
  is_filed = false
elseif is_due_late then
  call('ZADD', due, bound, sku)
elseif bound and not earliest then
  call('ZREM', due, sku)
  is_filed = false
end
if not is_filed then tell('', '', '0', 'repaired', 'index_restored') end
if repaired > 0 then write_stock(stock, true) end
-- Last: a record that is kept for a moment only is gone now.
for _, item in ipairs(items) do
  if item.event_id ~= '' and not item.is_active and keep_ms ~= '0' then call('PEXPIRE', item.key, keep_ms) end
end
return { { 'REPAIRED', format('%d', repaired), format('%d', stock.available), format('%d', stock.reserved),
  format('%d', stock.confirmed), format('%d', stock.version) } }
