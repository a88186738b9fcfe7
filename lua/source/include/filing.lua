-- New reservations come into the active sets, and what is due earlier into due.
local bounds = {}
for i = 1, #stocks do
  local stock = stocks[i]
  local added = stock.added
  if added then
    call('ZADD', stock.active, unpack(added))
    write_stock(stock)
    local earliest = added[1]
    -- Times have 13 digits: as text they are in the same order.
    for at = 3, #added, 2 do if added[at] < earliest then earliest = added[at] end end
    bounds[#bounds + 1], bounds[#bounds + 2] = earliest, stock.sku
  end
end
-- What is due earlier stays so.
if #bounds > 0 then call('ZADD', due, 'LT', unpack(bounds)) end
