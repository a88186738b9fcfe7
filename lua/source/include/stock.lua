-- Reads the counts and the last event of a SKU into a stock: true; false when it was never seeded; nil when what is
-- stored cannot be right.
local function read_stock(stock)
  local f = call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  local available, reserved, confirmed, seeded, version, last_event = f[1], f[2], f[3], f[4], f[5], f[6]
  if not (available and reserved and confirmed and seeded and version and last_event) then
    if available or reserved or confirmed or seeded or version or last_event then return nil end
    return false
  end
  -- As whole() would look at them: this is on the path of every hold.
  if not ((available == '0' or find(available, '^[1-9]%d*$')) and (reserved == '0' or find(reserved, '^[1-9]%d*$'))
    and (confirmed == '0' or find(confirmed, '^[1-9]%d*$')) and find(version, '^[1-9]%d*$')) then
    return nil
  end
  local sum = available + reserved + confirmed
  -- A call has room for two events of each item.
  if sum > 1000000000000 or format('%d', sum) ~= seeded or version + 0 > 1000000000000 - 200 then return nil end
  stock.available, stock.reserved, stock.confirmed = available + 0, reserved + 0, confirmed + 0
  stock.version, stock.last_event = version + 0, last_event
  return true
end
