-- @include holding_rights
if not may_all then return redis.error_reply('NOPERM this user may not write what a hold writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here. But for
-- the audit of a single item: the first write goes there, and stops it as well.

if n > 1 then
  -- @include audit_room
end
-- @include holding_reads

local records
if call('EXISTS', unpack(reservations)) > 0 then
  -- @include record

  records = {}
  for i, reservation in ipairs(reservations) do
    local record = read_record(reservation, ids[i])
    if record == nil then return redis.error_reply('BADKEY reservation: damaged record ' .. reservation) end
    records[reservation] = record
  end
end

-- Decisions: a SKU or an id that is named twice sees what the items before it would leave.

-- @include insufficient

local replies, refused = {}, false
-- By reservation, the item that makes it; and the record that an item makes.
local made = {}
local function record_of(i)
  local cart, quantity = arguments_of(i)
  return { cartId = cart, sku = stock_of[i].sku, quantity = quantity, state = 'active', reason = '',
    expiresAt = replies[i][2], createdAt = now_text, updatedAt = now_text, metadata = metadata[i] }
end
-- The latest reply to a hold, and the ttl that it is for.
local held, held_ttl
for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  local cart, quantity, ttl = arguments_of(i)
  local record, earlier = records and records[reservation], made[reservation]
  if earlier then record = record_of(earlier) end
  if record then
    local field = record.cartId ~= cart and 'cartId' or record.sku ~= stock.sku and 'sku'
    if not field then
      -- It is recognized by what it asked for: its quantity may have been changed since.
      local kept = earlier and { record.metadata } or call('HMGET', reservation, 'metadata', 'initialQuantity')
      field = (kept[2] or record.quantity) ~= quantity and 'quantity'
        or (kept[1] or nil) ~= metadata[i] and 'metadata'
    end
    if field then
      replies[i], refused = { 'CONFLICT', field }, true
    else
      replies[i] = shown('REPLAYED', record)
    end
  elseif not stock.left then
    replies[i], refused = { 'UNKNOWN_SKU' }, true
  elseif stock.per_cart then
    replies[i], refused = { 'BY_CART' }, true
  elseif stock.max_ttl and ttl ~= 'default' and ttl + 0 > stock.max_ttl then
    replies[i], refused = { 'TOO_LONG', format('%d', stock.max_ttl) }, true
  elseif stock.left < quantity + 0 then
    replies[i], refused = insufficient(stock), true
  else
    stock.left = stock.left - quantity
    made[reservation] = i
    if ttl == 'default' then
      ttl = stock.max_ttl and stock.max_ttl < DEFAULT_TTL_MS and stock.max_ttl or DEFAULT_TTL_MS
    end
    if ttl ~= held_ttl then held, held_ttl = { 'HELD', format('%d', now + ttl), now_text }, ttl end
    replies[i] = held
  end
end

if refused and mode == 'all' then
  for i, reservation in ipairs(reservations) do
    local word = replies[i][1]
    if word == 'HELD' or word == 'REPLAYED' and made[reservation] then replies[i] = { 'WITHDRAWN' } end
  end
  return replies
end

-- Writes: once the first is done, none of them can fail.

-- @include reserve

for i = 1, n do
  local stock, reservation = stock_of[i], reservations[i]
  if made[reservation] == i then
    local cart, quantity = arguments_of(i)
    reserve(stock, reservation, ids[i], cart, quantity, replies[i][2], metadata[i])
  end
end
-- @include filing
return replies
