-- Reads the counts and the last event of a SKU into a stock: true; false when it was never seeded; nil when what is
-- stored cannot be right.
local function read_stock(stock)
  local f = redis.call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent')
  if not (f[1] or f[2] or f[3] or f[4] or f[5] or f[6]) then return false end
  local available, reserved = whole(f[1], 0, 1000000000000), whole(f[2], 0, 1000000000000)
  local confirmed, seeded = whole(f[3], 0, 1000000000000), whole(f[4], 0, 1000000000000)
  -- A call has room for two events of each item.
  local version = whole(f[5], 1, 1000000000000 - 200)
  if not (available and reserved and confirmed and seeded and version and f[6]) then return nil end
  if available + reserved + confirmed ~= seeded then return nil end
  stock.available, stock.reserved, stock.confirmed = available, reserved, confirmed
  stock.version, stock.last_event = version, f[6]
  return true
end
