-- Stores what the latest event of a stock has left; what it adds up to, too, when that is set anew.
local function write_stock(stock, is_set)
  call('HSET', stock.key, 'available', stock.available_text, 'reserved', stock.reserved_text,
    'confirmed', stock.confirmed_text, 'updatedAt', now_text, 'version', stock.version_text,
    'lastEvent', stock.last_event)
  if is_set then
    local seeded = format('%d', stock.available + stock.reserved + stock.confirmed)
    call('HSET', stock.key, 'sku', stock.sku, 'seeded', seeded)
  end
end
