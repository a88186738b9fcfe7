-- The UUID in a key; nil when the key is not of the pattern.
local function id_of(key, pattern)
  local first, id, a, b, c, d = match(key, pattern)
  if id and #id == 36 and a - first == 8 and b - first == 13 and c - first == 18 and d - first == 23 then return id end
  return nil
end
