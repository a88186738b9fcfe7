-- The units of the active reservations of a call are among those reserved: they can be moved, and there is a stock.
for _, stock in ipairs(stocks) do
  if stock.owed > (stock.reserved or 0) then
    return redis.error_reply('BADKEY inventory: fewer units reserved than the reservations hold in ' .. stock.key)
  end
end
