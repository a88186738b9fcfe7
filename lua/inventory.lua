#!lua flags=no-writes
-- inventory: read the counts of a SKU, and the first of its active reservations.
--
-- KEYS
--   1     inventory    hash    inventory:<sku>
--   2     active       zset    inventory:<sku>:active
--
-- ARGV
--   1     limit        reservations to list, earliest expiry first, 0 to 1000
--
-- REPLIES: one array, then one for each listed reservation
--   UNKNOWN_SKU                     the SKU was never seeded
--   STOCK sku available reserved confirmed seeded updatedAt version active lapsed
--                                   active is the number of reservations not yet settled; lapsed, how many of them
--                                   are due: sweep those and read again for the counts without them
--   ACTIVE id expiresAt             one not yet settled; the first lapsed of these are the due ones
--
-- ERRORS
--   BADARGS what                    an argument breaks its rule, or the counts of keys and arguments do not fit
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- Writes nothing, so it runs on a replica and when memory is full.

local inventory, active = KEYS[1], KEYS[2]
local limit = ARGV[1]

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

-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)

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

if #KEYS ~= 2 or #ARGV ~= 1 then return redis.error_reply('BADARGS keys: 2, with 1 argument') end
if not whole(limit, 0, 1000) then return redis.error_reply('BADARGS limit: a whole number from 0 to 1000') end
-- The keys of a call about one SKU.
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end

local stock = { key = inventory }
local found = read_stock(stock)
if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. inventory) end
local live = redis.call('ZCARD', active)
if not found then return { { 'UNKNOWN_SKU' } } end

local replies = { { 'STOCK', sku, decimal(stock.available), decimal(stock.reserved), decimal(stock.confirmed),
  decimal(stock.available + stock.reserved + stock.confirmed), redis.call('HGET', inventory, 'updatedAt') or '',
  decimal(stock.version), decimal(live), decimal(redis.call('ZCOUNT', active, '-inf', now_text)) } }
if limit ~= '0' then
  local listed = redis.call('ZRANGE', active, 0, tonumber(limit) - 1, 'WITHSCORES')
  for i = 1, #listed, 2 do replies[#replies + 1] = { 'ACTIVE', listed[i], listed[i + 1] } end
end
return replies
