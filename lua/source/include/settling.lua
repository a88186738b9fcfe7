-- @include reservation_items

for i = 1, n do
  local token = ARGV[1 + i]
  if token ~= '' and not is_text(token) then
    return redis.error_reply('BADARGS token of item ' .. i
      .. ': empty, or 1 to 128 bytes of UTF-8, no control character')
  end
end

-- @include reservation_rights
if not may_all then return redis.error_reply('NOPERM this user may not write what settling writes') end

-- @include reservation_reads

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
-- @include owed

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
-- @include leaving
return replies
