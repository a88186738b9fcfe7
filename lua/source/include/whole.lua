-- A whole number in plain decimal from low to high, or nil: tonumber alone lets nan, inf, 0x10 and 1e3 in.
local function whole(s, low, high)
  if not s or #s > 13 or not (s == '0' or find(s, '^[1-9]%d*$')) then return nil end
  local value = tonumber(s)
  if value < low or value > high then return nil end
  return value
end
