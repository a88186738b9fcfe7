#!lua flags=allow-oom
-- confirm: turn active reservations into sales: their units move from reserved to confirmed, for one item or up to 100.
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
--   1+i   token        empty, or 1 to 128 bytes of UTF-8, no control character: makes a repeat safe
--
-- REPLIES: one array for each item, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped: settled ones are kept for a time
--   CONFLICT sku                    the reservation is another SKU's
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   already confirmed, by this same non-empty token
--                                   (mode all: or by an earlier item of this call)
--   EXPIRED                         too late: it has lapsed. This call expires it, in mode all too, if nothing did
--   NOT_ACTIVE state reason         already confirmed or released
--   WITHDRAWN                       mode all: this item would have been confirmed, another could not be
--   CONFIRMED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply with the same non-empty token: REPLAYED. Runs when memory is full: a sale that
-- was promised must be settled.

local audit, due, settings = KEYS[1], KEYS[2], KEYS[3]
local mode = ARGV[1]
local n = (#KEYS - 3) / 3

local EVENT, STATE, REASON, POOL, DONE = 'confirm', 'confirmed', '', 'confirmed', 'CONFIRMED'

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

-- The SKUs of a call, in the order in which they are first named and by their inventory keys; all are of one shard.
local stocks, by_key, prefix, reservation_prefix = {}, {}, nil, nil

-- The stock and the reservation's id of item i by its keys; or nil, and what is wrong.
local function item_of(i, inventory, active, reservation)
  local stock = by_key[inventory]
  if not stock then
    local own_prefix, sku = split(inventory)
    if not own_prefix then return nil, 'BADKEY inventory of item ' .. i .. ': not inventory:<sku>' end
    if prefix and own_prefix ~= prefix then return nil, 'BADKEY inventory of item ' .. i .. ': of another shard' end
    prefix, reservation_prefix = own_prefix, own_prefix .. 'reservation:'
    stock = { key = inventory, sku = sku, active = inventory .. ':active' }
    by_key[inventory] = stock
    stocks[#stocks + 1] = stock
  end
  if active ~= stock.active then return nil, 'BADKEY active of item ' .. i .. ': not inventory:<sku>:active' end
  local id = id_of(reservation, reservation_prefix)
  if not id then return nil, 'BADKEY reservation of item ' .. i .. ': not reservation:<uuid>' end
  return stock, id
end

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 3, and a token each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local items = {}
for i = 1, n do
  local reservation, token = KEYS[3 * i + 3], ARGV[1 + i]
  local stock, id = item_of(i, KEYS[3 * i + 1], KEYS[3 * i + 2], reservation)
  if not stock then return redis.error_reply(id) end
  if token ~= '' and not is_text(token) then
    return redis.error_reply('BADARGS token of item ' .. i
      .. ': empty, or 1 to 128 bytes of UTF-8, no control character')
  end
  items[i] = { stock = stock, reservation = reservation, id = id, token = token }
end
-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit) and may('ZREM', due)
for _, stock in ipairs(stocks) do may_all = may_all and may('HSET', stock.key) and may('ZREM', stock.active) end
for _, item in ipairs(items) do
  may_all = may_all and may('HSET', item.reservation) and may('PEXPIRE', item.reservation)
end
if not may_all then return redis.error_reply('NOPERM this user may not write what settling writes') end

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
for _, stock in ipairs(stocks) do
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  redis.call('ZSCORE', due, stock.sku)
  stock.live, stock.owed, stock.ended = redis.call('ZCARD', stock.active), 0, {}
end

local records = {}
for _, item in ipairs(items) do
  local reservation = item.reservation
  if records[reservation] == nil then
    local record = read_record(reservation, item.id)
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    records[reservation] = record
  end
end

-- Decisions: a reservation that is named twice is in its second place what the first leaves.

-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end

local replies, refused = {}, false
for i, item in ipairs(items) do
  local stock, record = item.stock, records[item.reservation]
  if not record then
    replies[i], refused = { 'NOT_FOUND' }, true
  elseif record.sku ~= stock.sku then
    replies[i], refused = { 'CONFLICT', 'sku' }, true
  elseif record.state == 'active' then
    stock.owed = stock.owed + record.units
    record.updatedAt = now_text
    if record.expires <= now then
      item.is_expiring = true
      record.state, record.reason = 'released', 'reservation_ttl_elapsed'
      replies[i], refused = { 'EXPIRED' }, true
    else
      item.is_settling, item.is_tentative, record.is_settling = true, true, true
      record.state, record.reason, record.token = STATE, REASON, item.token
      replies[i] = shown(DONE, record)
    end
  elseif record.state == STATE and (item.token ~= '' and item.token == record.token
    or record.is_settling and mode == 'all') then
    item.is_tentative = record.is_settling
    replies[i] = shown('REPLAYED', record)
  elseif record.reason == 'reservation_ttl_elapsed' then
    replies[i], refused = { 'EXPIRED' }, true
  else
    replies[i], refused = { 'NOT_ACTIVE', record.state, record.reason }, true
  end
end
for _, stock in ipairs(stocks) do
  if stock.owed > (stock.reserved or 0) then
    return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. stock.key)
  end
end

local is_withdrawn = refused and mode == 'all'
if is_withdrawn then
  for i, item in ipairs(items) do
    if item.is_tentative then replies[i] = { 'WITHDRAWN' } end
  end
end

-- Writes: none of them can fail.

for _, item in ipairs(items) do
  local stock, record = item.stock, records[item.reservation]
  if item.is_expiring then
    end_reservation(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
  elseif item.is_settling and not is_withdrawn then
    end_reservation(stock, record, EVENT, STATE, REASON, POOL)
  end
end
local idle = {}
for _, stock in ipairs(stocks) do
  if #stock.ended > 0 then
    write_stock(stock)
    -- The score in due may stay: it is a lower bound. Only a SKU with no hold left has nothing to poll for.
    if redis.call('ZREM', stock.active, unpack(stock.ended)) == stock.live then idle[#idle + 1] = stock.sku end
  end
end
if #idle > 0 then redis.call('ZREM', due, unpack(idle)) end
return replies
