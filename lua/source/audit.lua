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

-- @include calls
-- @include whole
-- @include text
-- @include sku
-- @include event_id

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
