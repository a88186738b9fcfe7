call('ZCARD', due)
for i = 1, #stocks do
  local stock = stocks[i]
  local found = read_stock(stock)
  if found == nil then return redis.error_reply('BADKEY inventory: damaged counts in ' .. stock.key) end
  stock.left = found and stock.available - (stock.safety or 0)
  call('ZCARD', stock.active)
end
