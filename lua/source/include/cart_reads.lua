-- What the cart lists, id -> SKU, and the records of the others that are named: false where there is none.
local listed, index, other_records = cart_key and call('HGETALL', cart_key) or {}, {}, {}
for at = 1, #listed, 2 do index[listed[at]] = listed[at + 1] end
for _, other_id in ipairs(other_ids) do
  local other = read_record(other_keys[other_id], other_id)
  if other == nil then return redis.error_reply('BADKEY other: damaged record ' .. other_keys[other_id]) end
  other_records[other_id] = other
end

-- The units of a SKU that the cart has by its list, but for the items of this call: held and not lapsed, or sold and
-- not returned. nil when it lists a reservation of the SKU that is not named.
local function units_of_cart(sku_of_item)
  local sum = 0
  for listed_id, listed_sku in pairs(index) do
    if listed_sku == sku_of_item and not is_item[listed_id] then
      local other = other_records[listed_id]
      if other == nil then return nil end
      if other and other.cartId == cart_id and other.sku == listed_sku then
        if other.state == 'active' and other.expires > now then
          sum = sum + other.units
        elseif other.state == 'confirmed' then
          local returned = call('HGET', other.key, 'returned') or '0'
          sum = sum + other.units - (whole(returned, 0, other.units) or 0)
        end
      end
    end
  end
  return sum
end
