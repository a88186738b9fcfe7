#!lua flags=no-writes
-- audit: read the newest events of one SKU, or of all, newest first.
--
-- KEYS
--   1     audit        stream  inventory:audit
--   2     inventory    hash    inventory:<sku>; left out: the events of all SKUs
--
-- ARGV
--   1     limit        events to read, 1 to 100
--   2     before       id of the event before which to start; empty: start with the newest
--
-- REPLIES: one array for each event; none when there are no events, or the SKU was never seeded
--   EVENT id event reservationId cartId sku quantity state reason happenedAt
--         available reserved confirmed version previous metadata
--                                   available, reserved and confirmed are the SKU's counts after the event; version
--                                   counts its events without a gap; previous is the id of its event before, or empty;
--                                   metadata is what a hold says about itself, or empty
--
-- ERRORS
--   BADARGS what                    an argument breaks its rule, or before is another SKU's event
--   BADKEY what                     a key's name or content breaks its rule, or the keys do not fit together
--
-- A SKU's events are a linked list through the stream: the last N cost N look-ups, however long the stream is. It ends
-- where the stream was trimmed. Writes nothing, so it runs on a replica and when memory is full.

local audit, inventory = KEYS[1], KEYS[2]
local limit, before = ARGV[1], ARGV[2]

local MAX_EVENTS = 100
local FIELDS = { 'event', 'reservationId', 'cartId', 'sku', 'quantity', 'state', 'reason', 'happenedAt',
  'available', 'reserved', 'confirmed', 'version', 'previous', 'metadata' }

-- Looked up once: a global costs a look-up each time.
local call, find, match = redis.call, string.find, string.match

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

-- 19 digits: each number must fit 64 bits.
local function is_event_id(s)
  return find(s, '^%d+%-%d+$') and #match(s, '^%d+') <= 19 and #match(s, '%d+$') <= 19
end

if #KEYS < 1 or #KEYS > 2 or #ARGV ~= 2 then return redis.error_reply('BADARGS keys: 1 or 2, with 2 arguments') end
limit = whole(limit, 1, MAX_EVENTS)
if not limit then return redis.error_reply('BADARGS limit: a whole number from 1 to 100') end

if before ~= '' and not is_event_id(before) then
  return redis.error_reply('BADARGS before: empty, or the id of an event')
end
local sku
if inventory then
  local prefix
  prefix, sku = split(inventory)
  if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
  if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
else
  -- Its prefix is right if it would be for a SKU.
  local prefix = match(audit, '^(.*)inventory:audit$')
  if not prefix or not split(prefix .. 'inventory:sku') then
    return redis.error_reply('BADKEY audit: not inventory:audit')
  end
end

-- An entry's fields by name, with its id.
local function named(entry)
  local event = { id = entry[1] }
  for i = 1, #entry[2], 2 do event[entry[2][i]] = entry[2][i + 1] end
  return event
end

local function reply(event)
  local line = { 'EVENT', event.id }
  for i, field in ipairs(FIELDS) do line[i + 2] = event[field] or '' end
  return line
end

local replies = {}
-- Nothing is before the lowest of ids, and Redis refuses to look there.
if find(before, '^0+%-0+$') then return replies end
if not inventory then
  local newest = before == '' and '+' or '(' .. before
  for i, entry in ipairs(call('XREVRANGE', audit, newest, '-', 'COUNT', limit)) do
    replies[i] = reply(named(entry))
  end
  return replies
end

-- The event of that id, or nil when it was trimmed.
local function event_of(id)
  local entry = call('XRANGE', audit, id, id)[1]
  return entry and named(entry)
end

call('XLEN', audit)
local id = call('HGET', inventory, 'lastEvent') or ''
if before ~= '' then
  local event = event_of(before)
  if event and event.sku ~= sku then return redis.error_reply('BADARGS before: the event of another SKU') end
  id = event and event.previous or ''
end
while id ~= '' and #replies < limit do
  if not is_event_id(id) then return redis.error_reply('BADKEY inventory: damaged chain of events in ' .. inventory) end
  local event = event_of(id)
  if not event then break end
  replies[#replies + 1] = reply(event)
  id = event.previous or ''
end
return replies
