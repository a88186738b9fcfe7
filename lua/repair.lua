#!lua flags=allow-oom
-- repair: mend what was damaged behind the scripts' back, for one SKU; each thing mended is told in the audit.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     skus         set     stockhold:skus
--   4     inventory    hash    inventory:<sku>
--   5     active       zset    inventory:<sku>:active
--   6...  reservation  hash    reservation:<id>, 0 to 100 of them, each once: those to look at
--
-- ARGV
--   1     auditMax     entries that the audit keeps, about; 0 keeps for ever
--   2     keepMs       milliseconds that a settled reservation is kept; 0 keeps for ever
--   3     version      the field version of inventory when the damage was found; empty if there was none
--   4     lastEvent    the field lastEvent then; empty if there was none
--   5     restart      empty | here (the events before count no more) | id of its newest event, to go on from there
--   6     available    units to add to the count that is stored, which is 0 if it cannot be read; may be negative
--   7     reserved     the same for the units reserved
--   8     confirmed    the same for the units confirmed
--   then one for each reservation:
--   8+i   event        id of its last event, to make its record again from; empty: its record is right
--
-- REPLIES: one array
--   UNKNOWN_SKU                     there is no stock that could be mended
--   STALE                           the SKU was seeded or mended since, or one of the reservations settled or its id is
--                                   another SKU's by now, or more happened than can be looked through: look again
--   OVERSOLD available              a count would be negative: so many units would be available; nothing was written
--   REPAIRED count available reserved confirmed version
--                                   so many things were mended, 0 when all was well, and the counts are these
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- The counts are moved and not set, so buyers need not stop: what a hold or a confirm changed since stays changed. The
-- active set, due and skus are made to fit the records. A hold that would outlive its ttl, or the longest allowed, is
-- shortened to it: the ttl of a hold that was made by a clock that was ahead begins now. An event repair without a
-- reservation states the counts anew: whoever replays the audit starts again there. Not safe to repeat after a lost
-- reply with another version: look again.

local audit, due, skus, inventory, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local audit_max, keep_ms, version_seen, last_seen, restart = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local change = { available = ARGV[6], reserved = ARGV[7], confirmed = ARGV[8] }
local n = #KEYS - 5

local COUNTS = { 'available', 'reserved', 'confirmed' }
local MAX_ITEMS = 100
local MAX_PASSED = 1000
local MAX_QUANTITY = 1000000000
local MAX_TTL_MS = 2592000000
local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999

-- @shared whole
-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or s:find('^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end
-- @end

-- @shared decimal
-- tostring(1e14) is 1e+14, and a bare number handed to redis.call is worse.
local function decimal(value) return string.format('%d', value) end
-- @end

-- @shared is_text
-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most are plain ASCII: one look, and no more.
local function is_text(s)
  if #s < 1 or #s > 128 then return false end
  if s:find('^[ -~]+$') then return true end
  if s:find('[%z\1-\31\127]') or s:find('\194[\128-\159]') then return false end
  local rest = s:gsub('[\194-\223][\128-\191]', '-')
    :gsub('\224[\160-\191][\128-\191]', '-')
    :gsub('\237[\128-\159][\128-\191]', '-')
    :gsub('[\225-\236\238\239][\128-\191][\128-\191]', '-')
    :gsub('\240[\144-\191][\128-\191][\128-\191]', '-')
    :gsub('[\241-\243][\128-\191][\128-\191][\128-\191]', '-')
    :gsub('\244[\128-\143][\128-\191][\128-\191]', '-')
  return not rest:find('[\128-\255]')
end
-- @end

-- @shared is_sku
-- Text with none of space : { } and no Unicode white space; inventory:audit is the stream, so audit is reserved, and
-- . and .. are gone from a path when a client normalises it.
local function is_sku(s)
  if s == 'audit' or s == '.' or s == '..' then return false end
  if s:find('^[!-9;-z|~]+$') then return #s <= 128 end
  if s:find('[ :{}]') or not is_text(s) then return false end
  return not (s:find('[\194\225-\227]') and (s:find('\194\160') or s:find('\225\154\128')
    or s:find('\226\128[\128-\138\168\169\175]') or s:find('\226\129\159') or s:find('\227\128\128')))
end
-- @end

-- @shared is_id
-- A UUID in its canonical lower-case form.
local function is_id(s)
  return #s == 36 and s == s:lower()
    and s:find('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$') ~= nil
end
-- @end

-- @shared split
-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one.
local function split(name)
  local prefix, sku = name:match('^(.-)inventory:(.*)$')
  if not prefix or not is_sku(sku) then return nil end
  if prefix ~= '' and not prefix:find('^{%d%d?%d?%d?}:$') then return nil end
  return prefix, sku
end
-- @end

-- @shared clock
-- One reading of one clock: Redis's. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)
-- @end

-- @shared read_record
-- A reservation's fields by name; false when there is none; nil when what is stored cannot be right.
local function read_record(key)
  local f = redis.call('HMGET', key,
    'cartId', 'sku', 'quantity', 'state', 'reason', 'expiresAt', 'createdAt', 'updatedAt', 'token')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6] or f[7] or f[8]) then return false end
  local units, expires = whole(f[3], 1, MAX_QUANTITY), whole(f[6], 1, MAX_TIME)
  if not (f[1] and f[2] and units and f[5] and expires and f[7] and f[8]) then return nil end
  if f[4] ~= 'active' and f[4] ~= 'confirmed' and f[4] ~= 'released' then return nil end
  return {
    key = key, cartId = f[1], sku = f[2], quantity = f[3], state = f[4], reason = f[5],
    expiresAt = f[6], createdAt = f[7], updatedAt = f[8], token = f[9], units = units, expires = expires,
  }
end
-- @end

-- @shared may
-- Whether the user who calls may run a write. Redis itself asks only when it is run, and takes back none before it.
-- It is asked with as many arguments as the command has to have: Redis 8 refuses to judge any other number.
local SHAPES = {
  XADD = { '*', 'field', '0' }, HSET = { 'field', '0' }, PEXPIRE = { '1' }, ZADD = { '1', 'member' },
  ZREM = { 'member' }, SADD = { 'member' }, DEL = {}, PERSIST = {},
}
local function may(command, key) return redis.acl_check_cmd(command, key, unpack(SHAPES[command])) end
-- @end

-- @shared audit_has_room
-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
local function audit_has_room()
  local newest = redis.call('XREVRANGE', audit, '+', '-', 'COUNT', '1')[1]
  return not newest or #newest[1]:match('^%d+') <= 15
end
-- @end

-- @shared is_event_id
-- 19 digits: each number must fit 64 bits.
local function is_event_id(s)
  return s:find('^%d+%-%d+$') and #s:match('^%d+') <= 19 and #s:match('%d+$') <= 19
end
-- @end

-- Guards: no key is read before every name and number is right.

if n < 0 or n > MAX_ITEMS or #ARGV ~= 8 + n then
  return redis.error_reply('BADARGS keys: 5 and then 0 to 100 reservations, with 8 arguments and one for each')
end
if not whole(audit_max, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS auditMax: a whole number from 0 to 1000000000000')
end
if not whole(keep_ms, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS keepMs: a whole number from 0 to 1000000000000')
end
-- No stream grows this long: one XADD serves both cases.
if audit_max == '0' then audit_max = '1000000000000000' end

if restart ~= '' and restart ~= 'here' and not is_event_id(restart) then
  return redis.error_reply('BADARGS restart: empty, here, or the id of an event')
end
for _, name in ipairs(COUNTS) do
  local units = whole(change[name]:gsub('^%-', ''), 0, MAX_COUNT)
  if not units or change[name] == '-0' then
    return redis.error_reply('BADARGS ' .. name .. ': a whole number from -1000000000000 to 1000000000000')
  end
  change[name] = change[name]:sub(1, 1) == '-' and -units or units
end

local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end
if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end

local reservation_prefix = prefix .. 'reservation:'
local items, by_id = {}, {}
for i = 1, n do
  local reservation, event = KEYS[5 + i], ARGV[8 + i]
  local id = reservation:sub(#reservation_prefix + 1)
  if reservation:sub(1, #reservation_prefix) ~= reservation_prefix or not is_id(id) then
    return redis.error_reply('BADKEY reservation ' .. i .. ': not reservation:<uuid>')
  end
  if by_id[id] then return redis.error_reply('BADKEY reservation ' .. i .. ': named twice') end
  if event ~= '' and not is_event_id(event) then
    return redis.error_reply('BADARGS event ' .. i .. ': empty, or the id of an event')
  end
  items[i] = { id = id, key = reservation, event_id = event }
  by_id[id] = items[i]
end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

if not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
local bound = redis.call('ZSCORE', due, sku)
local is_listed = redis.call('SISMEMBER', skus, sku) == 1
redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')

-- The SKU's event of that id, by field; nil when it was trimmed, or is another SKU's.
local function event_of_sku(id)
  local entry = redis.call('XRANGE', audit, id, id)[1]
  if not entry then return nil end
  local event = {}
  for i = 1, #entry[2], 2 do event[entry[2][i]] = entry[2][i + 1] end
  return event.sku == sku and event or nil
end

local f = redis.call('HMGET', inventory, 'version', 'lastEvent', 'seeded', 'sku', 'updatedAt', unpack(COUNTS))
local stock = { version = whole(f[1], 1, MAX_COUNT - 2 * MAX_ITEMS), last_event = f[2] }
local is_sound = stock.version and stock.last_event and f[4] == sku and whole(f[5], 1, MAX_TIME)
for i, name in ipairs(COUNTS) do
  stock[name] = whole(f[5 + i], 0, MAX_COUNT) or 0
  is_sound = is_sound and f[5 + i] == decimal(stock[name])
end
is_sound = is_sound and f[3] == decimal(stock.available + stock.reserved + stock.confirmed)
local from_event = restart ~= '' and restart ~= 'here'
if from_event then
  local event = event_of_sku(restart)
  if not event then return { { 'STALE' } } end
  stock.version, stock.last_event = whole(event.version, 1, MAX_COUNT - 2 * MAX_ITEMS), restart
end
if not (stock.version and stock.last_event) then return { { 'UNKNOWN_SKU' } } end

-- What was found may not hold any more: every event since is looked at. To file by the records as they are needs none.
local is_bound = restart ~= ''
for _, name in ipairs(COUNTS) do is_bound = is_bound or change[name] ~= 0 end
for _, item in ipairs(items) do is_bound = is_bound or item.event_id ~= '' end
local id = f[2] or ''
if is_bound and ((f[1] or '') ~= version_seen or id ~= last_seen) then
  if not is_sound or from_event then return { { 'STALE' } } end
  for passed = 0, MAX_PASSED do
    if id == last_seen then break end
    local event = passed < MAX_PASSED and is_event_id(id) and event_of_sku(id)
    if not event or event.event == 'seed' or event.event == 'repair' or by_id[event.reservationId] then
      return { { 'STALE' } }
    end
    id = event.previous or ''
  end
end

for _, item in ipairs(items) do
  local record = read_record(item.key)
  item.score = redis.call('ZSCORE', active, item.id)
  item.is_mortal = redis.call('PTTL', item.key) >= 0
  if item.event_id ~= '' then
    local event = event_of_sku(item.event_id)
    if not event then return { { 'STALE' } } end
    if event.reservationId ~= item.id or event.event == 'repair' then
      return redis.error_reply('BADARGS event: ' .. item.event_id .. ' is no event of ' .. item.key)
    end
    local units, at = whole(event.quantity, 1, MAX_QUANTITY), whole(event.happenedAt, 1, MAX_TIME)
    if not (units and at and event.cartId and event.state and event.reason) then
      return redis.error_reply('BADKEY audit: damaged event ' .. item.event_id)
    end
    -- The id may have been used again, elsewhere, when the record was dropped.
    if record and record.sku ~= sku and event.state ~= 'active'
      and (record.state == 'active' or whole(record.createdAt, at, MAX_TIME)) then
      return { { 'STALE' } }
    end
    -- An event tells all but the times of the hold: as stored, or else from the active set, or else it is over now.
    local kept = redis.call('HMGET', item.key, 'createdAt', 'expiresAt', 'token')
    local created = event.event ~= 'hold' and whole(kept[1], 1, at) or at
    local expires = whole(kept[2], created + 1, MAX_TIME) or whole(item.score, created + 1, MAX_TIME)
      or math.max(now, created + 1)
    item.token = event.state ~= 'active' and kept[3]
    record = { cartId = event.cartId, sku = sku, quantity = event.quantity, state = event.state, reason = event.reason,
      expiresAt = decimal(expires), createdAt = decimal(created), updatedAt = event.happenedAt }
  end
  item.record = record
  item.is_active = record and record.sku == sku and record.state == 'active'
  local created = item.is_active and whole(record.createdAt, 1, MAX_TIME)
  if created then
    local from, expires = math.min(created, now), tonumber(record.expiresAt)
    local ttl = expires > created and expires - created or MAX_TTL_MS
    local last = from + math.min(ttl, MAX_TTL_MS)
    if last < expires then
      record.createdAt, record.expiresAt = decimal(from), decimal(last)
      item.is_shortened = item.event_id == ''
    end
  end
end

-- Rights: those of every write, before the first.

local may_all = may('XADD', audit) and may('HSET', inventory)
  and may('ZADD', active) and may('ZREM', active) and may('ZADD', due) and may('ZREM', due) and may('SADD', skus)
for _, item in ipairs(items) do
  may_all = may_all and may('DEL', item.key) and may('PERSIST', item.key)
    and may('HSET', item.key) and may('PEXPIRE', item.key)
end
if not may_all then return redis.error_reply('NOPERM this user may not write what a repair writes') end

for _, name in ipairs(COUNTS) do stock[name] = stock[name] + change[name] end
if stock.available < 0 or stock.reserved < 0 or stock.confirmed < 0 then
  return { { 'OVERSOLD', decimal(stock.available) } }
end
if stock.available + stock.reserved + stock.confirmed > MAX_COUNT then
  return redis.error_reply('BADARGS available: the counts would add up to more than 1000000000000')
end

-- Writes: none of them can fail.

local mended = 0

-- What was mended: the stock itself when no record is named.
local function tell(record_id, record, state, reason)
  mended = mended + 1
  stock.version = stock.version + 1
  stock.last_event = redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*', 'event', 'repair',
    'reservationId', record_id, 'cartId', record.cartId, 'sku', sku, 'quantity', record.quantity,
    'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', decimal(stock.available), 'reserved', decimal(stock.reserved), 'confirmed', decimal(stock.confirmed),
    'version', decimal(stock.version), 'previous', stock.last_event)
end

local NO_RECORD = { cartId = '', quantity = '0' }
if not is_sound or restart ~= '' or change.available ~= 0 or change.reserved ~= 0 or change.confirmed ~= 0 then
  tell('', NO_RECORD, 'repaired', 'counts_restored')
end
local is_filed = is_listed
if not is_listed then redis.call('SADD', skus, sku) end
for _, item in ipairs(items) do
  local record = item.record
  if item.event_id ~= '' then
    redis.call('DEL', item.key)
    redis.call('HSET', item.key, 'cartId', record.cartId, 'sku', sku, 'quantity', record.quantity,
      'state', record.state, 'reason', record.reason, 'expiresAt', record.expiresAt, 'createdAt', record.createdAt,
      'updatedAt', record.updatedAt)
    if item.token then redis.call('HSET', item.key, 'token', item.token) end
    tell(item.id, record, record.state, 'record_restored')
  elseif item.is_active and item.is_mortal then
    redis.call('PERSIST', item.key)
    is_filed = false
  end
  if item.is_shortened then
    redis.call('HSET', item.key, 'expiresAt', record.expiresAt, 'createdAt', record.createdAt)
    redis.call('ZADD', active, record.expiresAt, item.id)
    if bound and tonumber(bound) > tonumber(record.expiresAt) then
      bound = record.expiresAt
      redis.call('ZADD', due, bound, sku)
    end
    tell(item.id, record, record.state, 'expiry_restored')
  elseif item.is_active then
    if item.score ~= record.expiresAt then
      redis.call('ZADD', active, record.expiresAt, item.id)
      is_filed = false
    end
  elseif item.score then
    redis.call('ZREM', active, item.id)
    is_filed = false
  end
end
local earliest = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')[2]
if not earliest then
  if bound then
    redis.call('ZREM', due, sku)
    is_filed = false
  end
elseif not bound or tonumber(bound) > tonumber(earliest) then
  redis.call('ZADD', due, earliest, sku)
  is_filed = false
end
if not is_filed then tell('', NO_RECORD, 'repaired', 'index_restored') end
if mended > 0 then
  redis.call('HSET', inventory, 'sku', sku, 'available', decimal(stock.available), 'reserved', decimal(stock.reserved),
    'confirmed', decimal(stock.confirmed), 'seeded', decimal(stock.available + stock.reserved + stock.confirmed),
    'updatedAt', now_text, 'version', decimal(stock.version), 'lastEvent', stock.last_event)
end
-- Last: a record that is kept for a moment only is gone now.
for _, item in ipairs(items) do
  if item.event_id ~= '' and not item.is_active and keep_ms ~= '0' then redis.call('PEXPIRE', item.key, keep_ms) end
end
return { { 'REPAIRED', decimal(mended), decimal(stock.available), decimal(stock.reserved), decimal(stock.confirmed),
  decimal(stock.version) } }
