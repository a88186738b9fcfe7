#!lua flags=allow-oom
-- release: give active reservations up: their units move from reserved back to available, for one item or up to 100.
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
--   2     auditMax     entries that the audit keeps, about; 0 keeps for ever
--   3     keepMs       milliseconds that a settled reservation is kept; 0 keeps for ever
--   then one for each item:
--   3+i   token        empty, or 1 to 128 bytes of UTF-8, no control character: makes a repeat safe
--
-- REPLIES: one array for each item, in the order in which they are decided
--   NOT_FOUND                       no such reservation, or its record was dropped after keepMs
--   CONFLICT sku                    the reservation is another SKU's
--   REPLAYED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   already released, by this same non-empty token
--                                   (mode all: or by an earlier item of this call)
--   NOT_ACTIVE state reason         already confirmed or released
--   EXPIRED                         it was due: the script expired it just now, in mode all too
--   WITHDRAWN                       mode all: this item would have been released, another could not be
--   RELEASED cartId sku quantity state reason expiresAt createdAt updatedAt
--                                   done
--
-- ERRORS: nothing has been written
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or an item's keys do not fit together
--
-- Safe to repeat after a lost reply with the same non-empty token: REPLAYED. Runs when memory is full: a sale that
-- was promised must be settled.

-- What sets confirm and release apart; all below is the same in both.
local EVENT, STATE, REASON, POOL, DONE = 'release', 'released', 'manual_release', 'available', 'RELEASED'

-- @shared settling
local audit, due = KEYS[1], KEYS[2]
local mode, audit_max, keep_ms = ARGV[1], ARGV[2], ARGV[3]
local n = (#KEYS - 2) / 3

local MAX_ITEMS = 100
local MAX_QUANTITY = 1000000000
local MAX_COUNT = 1000000000000
local MAX_TIME = 9999999999999
-- @end

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

-- @shared read_stock
-- Counts and last event of a SKU; false when it was never seeded; nil when what is stored cannot be right.
local function read_stock(key)
  local f = redis.call('HMGET', key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6]) then return false end
  local available, reserved = whole(f[1], 0, MAX_COUNT), whole(f[2], 0, MAX_COUNT)
  local confirmed, seeded = whole(f[3], 0, MAX_COUNT), whole(f[4], 0, MAX_COUNT)
  local version = whole(f[5], 1, MAX_COUNT - 2 * MAX_ITEMS)
  if not (available and reserved and confirmed and seeded and version and f[6]) then return nil end
  if available + reserved + confirmed ~= seeded then return nil end
  return {
    available = available, reserved = reserved, confirmed = confirmed, version = version, last_event = f[6],
  }
end
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

-- @shared settle
-- Ends an active reservation: its units leave reserved for a pool (available, confirmed; withdrawn is none of them).
local function settle(stock, record, event, state, reason, pool)
  stock.reserved = stock.reserved - record.units
  stock[pool] = (stock[pool] or 0) + record.units
  stock.version = stock.version + 1
  stock.last_event = redis.call('XADD', audit, 'MAXLEN', '~', audit_max, '*', 'event', event,
    'reservationId', record.id, 'cartId', record.cartId, 'sku', record.sku, 'quantity', record.quantity,
    'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', decimal(stock.available), 'reserved', decimal(stock.reserved), 'confirmed', decimal(stock.confirmed),
    'version', decimal(stock.version), 'previous', stock.last_event)
  redis.call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text)
  if record.token and record.token ~= '' then redis.call('HSET', record.key, 'token', record.token) end
  redis.call('ZREM', stock.active, record.id)
  -- Last: a record that is kept for a moment only is gone now.
  if keep_ms ~= '0' then redis.call('PEXPIRE', record.key, keep_ms) end
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

-- @shared settling_items
-- Guards: no key is read before every name and number is right.

if n < 1 or n > MAX_ITEMS or n % 1 ~= 0 or #ARGV ~= 3 + n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 2 and a token each after 3')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end
if not whole(audit_max, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS auditMax: a whole number from 0 to 1000000000000')
end
if not whole(keep_ms, 0, MAX_COUNT) then
  return redis.error_reply('BADARGS keepMs: a whole number from 0 to 1000000000000')
end
-- No stream grows this long: one XADD serves both cases.
if audit_max == '0' then audit_max = '1000000000000000' end

local items, stocks, common_prefix, reservation_prefix = {}, {}, nil, nil
for i = 1, n do
  local inventory, active, reservation = KEYS[3 * i], KEYS[3 * i + 1], KEYS[3 * i + 2]
  local token = ARGV[3 + i]
  local stock = stocks[inventory]
  if not stock then
    local prefix, sku = split(inventory)
    if not prefix then return redis.error_reply('BADKEY inventory of item ' .. i .. ': not inventory:<sku>') end
    if common_prefix and prefix ~= common_prefix then
      return redis.error_reply('BADKEY inventory of item ' .. i .. ': of another shard')
    end
    common_prefix, reservation_prefix = prefix, prefix .. 'reservation:'
    stock = { sku = sku, active = inventory .. ':active' }
    stocks[inventory] = stock
  end
  if active ~= stock.active then
    return redis.error_reply('BADKEY active of item ' .. i .. ': not inventory:<sku>:active')
  end
  local id = reservation:sub(#reservation_prefix + 1)
  if reservation:sub(1, #reservation_prefix) ~= reservation_prefix or not is_id(id) then
    return redis.error_reply('BADKEY reservation of item ' .. i .. ': not reservation:<uuid>')
  end
  if token ~= '' and not is_text(token) then
    return redis.error_reply('BADARGS token of item ' .. i
      .. ': empty, or 1 to 128 bytes of UTF-8, no control character')
  end
  items[i] = { inventory = inventory, reservation = reservation, id = id, token = token }
end
if audit ~= common_prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
if due ~= common_prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit) and may('ZREM', due)
for inventory, stock in pairs(stocks) do
  may_all = may_all and may('HSET', inventory) and may('ZREM', stock.active)
end
for i = 1, n do
  local reservation = items[i].reservation
  may_all = may_all and may('HSET', reservation) and may('PEXPIRE', reservation)
end
if not may_all then return redis.error_reply('NOPERM this user may not write what settling writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

if not audit_has_room() then return redis.error_reply('BADKEY audit: its ids are used up') end
for inventory, named in pairs(stocks) do
  local stock = read_stock(inventory)
  if stock == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
  stock = stock or { reserved = 0 }
  stock.sku, stock.active, stock.owed = named.sku, named.active, 0
  redis.call('ZSCORE', due, named.sku)
  redis.call('ZCARD', named.active)
  stocks[inventory] = stock
end

local records = {}
for i = 1, n do
  local item = items[i]
  if records[item.reservation] == nil then
    local record = read_record(item.reservation)
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. item.reservation) end
    if record then record.id = item.id end
    records[item.reservation] = record
  end
end

-- Decisions: a reservation that is named twice is in its second place what the first leaves.

local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end

local replies, tentative, refused = {}, {}, false
for i = 1, n do
  local item = items[i]
  local stock, record = stocks[item.inventory], records[item.reservation]
  if not record then
    replies[i], refused = { 'NOT_FOUND' }, true
  elseif record.sku ~= stock.sku then
    replies[i], refused = { 'CONFLICT', 'sku' }, true
  elseif record.state ~= 'active' then
    local same_token = item.token ~= '' and item.token == record.token
    if record.state == STATE and (same_token or record.settling and mode == 'all') then
      replies[i] = shown('REPLAYED', record)
      tentative[i] = record.settling
    else
      replies[i], refused = { 'NOT_ACTIVE', record.state, record.reason }, true
    end
  else
    stock.owed = stock.owed + record.units
    record.updatedAt = now_text
    if record.expires <= now then
      item.expiring = true
      record.state, record.reason = 'released', 'reservation_ttl_elapsed'
      replies[i], refused = { 'EXPIRED' }, true
    else
      item.settling, record.settling = true, true
      record.state, record.reason, record.token = STATE, REASON, item.token
      replies[i] = shown(DONE, record)
      tentative[i] = true
    end
  end
end
for inventory, stock in pairs(stocks) do
  if stock.owed > stock.reserved then
    return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. inventory)
  end
end

local withdrawn = refused and mode == 'all'
if withdrawn then
  for i in pairs(tentative) do replies[i] = { 'WITHDRAWN' } end
end

-- Writes: none of them can fail.

for i = 1, n do
  local item = items[i]
  local stock, record = stocks[item.inventory], records[item.reservation]
  if item.expiring then
    settle(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
    stock.changed = true
  elseif item.settling and not withdrawn then
    settle(stock, record, EVENT, STATE, REASON, POOL)
    stock.changed = true
  end
end
for inventory, stock in pairs(stocks) do
  if stock.changed then
    redis.call('HSET', inventory, 'available', decimal(stock.available), 'reserved', decimal(stock.reserved),
      'confirmed', decimal(stock.confirmed), 'updatedAt', now_text,
      'version', decimal(stock.version), 'lastEvent', stock.last_event)
    -- The score may stay: it is a lower bound. Only a SKU with no hold left has nothing to poll for.
    if redis.call('ZCARD', stock.active) == 0 then redis.call('ZREM', due, stock.sku) end
  end
end
return replies
-- @end
