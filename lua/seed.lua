#!lua
-- seed: set the stock of a SKU to a quantity, all of it available. Live holds are released first, up to 100 a call.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     due          zset    stockhold:due
--   3     skus         set     stockhold:skus
--   4     settings     hash    stockhold:settings
--   5     inventory    hash    inventory:<sku>
--   6     active       zset    inventory:<sku>:active
--   7...  reservation  hash    reservation:<id>, 0 to 100 members of the active set: the holds to release
--
-- ARGV
--   1     quantity     units, 0 (off sale) to 1000000000; or probe: check names, rights and stored types, write nothing
--
-- REPLIES: one array
--   PROBED                          quantity is probe: a seed would be carried out
--   DRAINING left                   the listed holds are released and nothing is available, so that no new hold comes
--                                   in; this number of holds is still live: list the next ones and call again
--   SEEDED quantity updatedAt version
--                                   done: no hold is live and the counts are quantity, 0, 0
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- A repeat after a lost reply seeds again: it releases the holds that were made in between.

local audit, due, skus, settings, inventory, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local quantity = ARGV[1]
local n = #KEYS - 6
local function reservation_key(i) return KEYS[6 + i] end

-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or s:find('^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end

-- tostring(1e14) is 1e+14, and a bare number handed to redis.call is worse.
local function decimal(value) return string.format('%d', value) end

-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most text is plain ASCII: one pattern decides.
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

-- Text with none of space : { } and no Unicode white space. inventory:audit is the stream, so audit is reserved;
-- clients that normalize paths cannot ask for . and .. over HTTP.
local function is_sku(s)
  if s == 'audit' or s == '.' or s == '..' then return false end
  if s:find('^[!-9;-z|~]+$') then return #s <= 128 end
  if s:find('[ :{}]') or not is_text(s) then return false end
  return not (s:find('[\194\225-\227]') and (s:find('\194\160') or s:find('\225\154\128')
    or s:find('\226\128[\128-\138\168\169\175]') or s:find('\226\129\159') or s:find('\227\128\128')))
end

-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one.
local function split(name)
  local prefix, sku = name:match('^(.-)inventory:(.*)$')
  if not prefix or not is_sku(sku) then return nil end
  if prefix ~= '' and not prefix:find('^{%d%d?%d?%d?}:$') then return nil end
  return prefix, sku
end

-- <prefix>reservation:<uuid> -> the UUID, in its canonical lower-case form; nil when the name is not one.
local function id_of(key, reservation_prefix)
  local id = key:sub(#reservation_prefix + 1)
  if #id == 36 and key:sub(1, #reservation_prefix) == reservation_prefix and id == id:lower()
    and id:find('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$') then
    return id
  end
  return nil
end

-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)

-- Whether the calling user may run a write. Redis itself asks only when the write is run, and undoes none before it. It
-- is asked with a whole command: Redis 8 judges no other.
local SHAPES = {
  XADD = { '*', 'field', '0' }, HSET = { 'field', '0' }, HDEL = { 'field' }, PEXPIRE = { '1' }, PERSIST = {},
  ZADD = { '1', 'member' }, ZREM = { 'member' }, SADD = { 'member' },
}
local function may(command, key) return redis.acl_check_cmd(command, key, unpack(SHAPES[command])) end

-- Reads the counts and the last event of a SKU into a stock: true; false when it was never seeded; nil when what is
-- stored cannot be right.
local function read_stock(stock)
  local f = redis.call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6]) then return false end
  local available, reserved = whole(f[1], 0, 1000000000000), whole(f[2], 0, 1000000000000)
  local confirmed, seeded = whole(f[3], 0, 1000000000000), whole(f[4], 0, 1000000000000)
  -- A call has room for two events of each item.
  local version = whole(f[5], 1, 1000000000000 - 200)
  if not (available and reserved and confirmed and seeded and version and f[6]) then return nil end
  if available + reserved + confirmed ~= seeded then return nil end
  stock.available, stock.reserved, stock.confirmed = available, reserved, confirmed
  stock.version, stock.last_event = version, f[6]
  return true
end

-- A reservation's fields by name; false when there is none; nil when what is stored cannot be right.
local function read_record(key, id)
  local f = redis.call('HMGET', key,
    'cartId', 'sku', 'quantity', 'state', 'reason', 'expiresAt', 'createdAt', 'updatedAt', 'token')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6] or f[7] or f[8]) then return false end
  local units, expires = whole(f[3], 1, 1000000000), whole(f[6], 1, 9999999999999)
  if not (f[1] and is_text(f[1]) and f[2] and units and f[5] and expires and f[7] and f[8]) then return nil end
  if f[4] ~= 'active' and f[4] ~= 'confirmed' and f[4] ~= 'released' then return nil end
  return {
    key = key, id = id, cartId = f[1], sku = f[2], quantity = f[3], state = f[4], reason = f[5],
    expiresAt = f[6], createdAt = f[7], updatedAt = f[8], token = f[9], units = units, expires = expires,
  }
end

-- Appends what happened to a SKU to the audit. An event that concerns no reservation has an empty id and cart. The
-- counts are those after it; version has no gap, and previous is the SKU's event before.
local function append_event(stock, event, id, cart, units, state, reason)
  stock.version = stock.version + 1
  stock.available_text, stock.reserved_text = decimal(stock.available), decimal(stock.reserved)
  stock.confirmed_text, stock.version_text = decimal(stock.confirmed), decimal(stock.version)
  stock.last_event = redis.call('XADD', audit, '*', 'event', event, 'reservationId', id, 'cartId', cart,
    'sku', stock.sku, 'quantity', units, 'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', stock.available_text, 'reserved', stock.reserved_text, 'confirmed', stock.confirmed_text,
    'version', stock.version_text, 'previous', stock.last_event)
end

-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
local function audit_has_room()
  local newest = redis.call('XREVRANGE', audit, '+', '-', 'COUNT', '1')[1]
  return not newest or #newest[1]:match('^%d+') <= 15
end

-- Stores what the latest event of a stock has left; what it adds up to, too, when that is set anew.
local function write_stock(stock, is_set)
  redis.call('HSET', stock.key, 'available', stock.available_text, 'reserved', stock.reserved_text,
    'confirmed', stock.confirmed_text, 'updatedAt', now_text, 'version', stock.version_text,
    'lastEvent', stock.last_event)
  if is_set then
    local seeded = decimal(stock.available + stock.reserved + stock.confirmed)
    redis.call('HSET', stock.key, 'sku', stock.sku, 'seeded', seeded)
  end
end

-- Guards: no key is read before every name and number is right.

if n < 0 or n > 100 or #ARGV ~= 1 then
  return redis.error_reply('BADARGS keys: 6 and then 0 to 100 reservations, with 1 argument')
end
if quantity ~= 'probe' and not whole(quantity, 0, 1000000000) then
  return redis.error_reply('BADARGS quantity: a whole number from 0 to 1000000000, or probe')
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
local reservation_prefix = prefix .. 'reservation:'
local ids, listed = {}, {}
for i = 1, n do
  local key = reservation_key(i)
  local id = id_of(key, reservation_prefix)
  if not id then return redis.error_reply('BADKEY reservation ' .. i .. ': not reservation:<uuid>') end
  if not listed[id] then
    listed[id] = key
    ids[#ids + 1] = id
  end
end

-- Rights: those of every write, also when nothing will be written: a probe proves them.

local may_all = may('XADD', audit) and may('HSET', inventory)
  and may('ZREM', active) and may('ZREM', due) and may('SADD', skus)
for _, id in ipairs(ids) do may_all = may_all and may('HSET', listed[id]) and may('PEXPIRE', listed[id]) end
if not may_all then return redis.error_reply('NOPERM this user may not write what a seed writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- Milliseconds that a settled reservation is kept, as the operator decided: 0 keeps for ever, nothing set is 30 days.
if settings ~= prefix .. 'stockhold:settings' then
  return redis.error_reply('BADKEY settings: not stockhold:settings')
end
local keep_ms = redis.call('HGET', settings, 'keepMs') or '2592000000'
if not whole(keep_ms, 0, 1000000000000) then
  return redis.error_reply('BADKEY settings: keepMs is not a whole number from 0 to 1000000000000')
end

-- Ends an active reservation: its units leave reserved for a pool (available, confirmed; withdrawn is none of them).
-- What ended leaves the active set later, all at once: a key that one write may have emptied is not touched again.
local function end_reservation(stock, record, event, state, reason, pool)
  stock.reserved = stock.reserved - record.units
  stock[pool] = (stock[pool] or 0) + record.units
  append_event(stock, event, record.id, record.cartId, record.quantity, state, reason)
  if record.token and record.token ~= '' then
    redis.call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text, 'token', record.token)
  else
    redis.call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text)
  end
  stock.ended[#stock.ended + 1] = record.id
  -- Last: a record that is kept for a moment only is gone now.
  if keep_ms ~= '0' then redis.call('PEXPIRE', record.key, keep_ms) end
end
if not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
redis.call('ZSCORE', due, sku)
redis.call('SISMEMBER', skus, sku)
local live = redis.call('ZCARD', active)
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
  if redis.call('ZSCORE', active, id) then live = live - 1 end
  if record and record.sku == sku and record.state == 'active' then
    owed = owed + record.units
    held[#held + 1] = record
  end
end
if owed > stock.reserved then
  return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. inventory)
end
if quantity == 'probe' then return { { 'PROBED' } } end

-- Writes: none of them can fail.

if stock.available > 0 and (live > 0 or #held > 0) then
  stock.available = 0
  append_event(stock, 'seed', '', '', '0', 'draining', 'inventory_reseeded')
end
for _, record in ipairs(held) do
  end_reservation(stock, record, 'release', 'released', 'inventory_reseeded', 'withdrawn')
end
-- All that are listed: those that hold nothing do not belong there.
if #ids > 0 then redis.call('ZREM', active, unpack(ids)) end
if live == 0 then
  stock.available, stock.reserved, stock.confirmed = tonumber(quantity), 0, 0
  append_event(stock, 'seed', '', '', quantity, 'seeded', '')
  redis.call('ZREM', due, sku)
  redis.call('SADD', skus, sku)
end
-- No event, no change: a call that found only holds of others to wait for leaves the hash as it is.
if stock.version > version_before then write_stock(stock, true) end
if live > 0 then return { { 'DRAINING', decimal(live) } } end
return { { 'SEEDED', quantity, now_text, stock.version_text } }
