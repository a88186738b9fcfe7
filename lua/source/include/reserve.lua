-- Moves units of a stock from available to a new reservation.
local function reserve(stock, key, id, cart, quantity, expires, noted)
  stock.available, stock.reserved = stock.available - quantity, stock.reserved + quantity
  if noted then
    append_event(stock, 'hold', id, cart, quantity, 'active', '', 'metadata', noted)
    call('HSET', key, 'metadata', noted)
  else
    append_event(stock, 'hold', id, cart, quantity, 'active', '')
  end
  call('HSET', key, 'cartId', cart, 'sku', stock.sku, 'quantity', quantity,
    'state', 'active', 'expiresAt', expires, 'createdAt', now_text)
  local added = stock.added
  if added then
    added[#added + 1], added[#added + 2] = expires, id
  else
    stock.added = { expires, id }
  end
end
