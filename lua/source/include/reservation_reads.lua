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
