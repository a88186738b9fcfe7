-- Reads the counts, the last event and the rules of a SKU into a stock: true; false when it was never seeded; nil when
-- what is stored cannot be right.
local function read_stock(stock)
  local f = call('HMGET', stock.key, 'available', 'reserved', 'confirmed', 'seeded', 'version', 'lastEvent', 'rules')
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
  local rules = f[7]
  if rules and rules ~= '' then
    -- Most SKUs have none.
    local per_cart, safety, max_ttl = match(rules, '^perCart=(%d*) safetyStock=(%d*) maxTtlMs=(%d*)$')
    if not per_cart then return nil end
    if per_cart ~= '' then stock.per_cart = whole(per_cart, 1, 1000000000) end
    if safety ~= '' then stock.safety = whole(safety, 1, 1000000000) end
    if max_ttl ~= '' then stock.max_ttl = whole(max_ttl, 1, 2592000000) end
    if per_cart ~= '' and not stock.per_cart or safety ~= '' and not stock.safety
      or max_ttl ~= '' and not stock.max_ttl then
      return nil
    end
    stock.rules = rules
  end
  return true
end
