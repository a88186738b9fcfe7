-- What ended leaves the active set.
local idle = {}
for _, stock in ipairs(stocks) do
  if #stock.ended > 0 then
    write_stock(stock)
    -- The score in due may stay: it is a lower bound. Only a SKU with no hold left has nothing to poll for.
    if call('ZREM', stock.active, unpack(stock.ended)) == stock.live then idle[#idle + 1] = stock.sku end
  end
end
if #idle > 0 then call('ZREM', due, unpack(idle)) end
