-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include record
-- @include event
-- @include write_stock
-- @include items

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 3, and a token each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
for i = 1, n do
  local reservation, token = KEYS[3 * i + 3], ARGV[1 + i]
  local stock, id = item_of(i, KEYS[3 * i + 1], KEYS[3 * i + 2], reservation)
  if not stock then return redis.error_reply(id) end
  if token ~= '' and not is_text(token) then
    return redis.error_reply('BADARGS token of item ' .. i
      .. ': empty, or 1 to 128 bytes of UTF-8, no control character')
  end
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- @include shard_keys

-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZREM', due, 'member')
for _, stock in ipairs(stocks) do
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZREM', stock.active, 'member')
end
for _, reservation in ipairs(reservations) do
  may_all = may_all and may('HSET', reservation, 'field', '0') and may('PEXPIRE', reservation, '1')
end
if not may_all then return redis.error_reply('NOPERM this user may not write what settling writes') end

-- Reads: everything that will be written is read first, so that a key of the wrong type stops the script here.

-- @include settings
-- @include ending
-- @include audit_room
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

-- Decisions: a reservation that is named twice is in its second place what the first leaves.

-- @include shown

local replies, refused = {}, false
for i, reservation in ipairs(reservations) do
  local stock, record, token = stock_of[i], records[reservation], ARGV[1 + i]
  if not record then
    replies[i], refused = { 'NOT_FOUND' }, true
  elseif record.sku ~= stock.sku then
    replies[i], refused = { 'CONFLICT', 'sku' }, true
  elseif record.state == 'active' then
    stock.owed = stock.owed + record.units
    record.updatedAt, record.ended_by = now_text, i
    if record.expires <= now then
      record.state, record.reason = 'released', 'reservation_ttl_elapsed'
      replies[i], refused = { 'EXPIRED' }, true
    else
      record.state, record.reason, record.token, record.is_settling = STATE, REASON, token, true
      replies[i] = shown(DONE, record)
    end
  elseif record.state == STATE and (token ~= '' and token == record.token
    or record.is_settling and mode == 'all') then
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
  for i, reservation in ipairs(reservations) do
    local word, record = replies[i][1], records[reservation]
    if word == DONE or word == 'REPLAYED' and record.is_settling then replies[i] = { 'WITHDRAWN' } end
  end
end

-- Writes: none of them can fail.

for i, reservation in ipairs(reservations) do
  local stock, record = stock_of[i], records[reservation]
  if record and record.ended_by == i then
    if not record.is_settling then
      end_reservation(stock, record, 'expired', 'released', 'reservation_ttl_elapsed', 'available')
    elseif not is_withdrawn then
      end_reservation(stock, record, EVENT, STATE, REASON, POOL)
    end
  end
end
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
