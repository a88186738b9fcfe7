-- <prefix>reservation:<uuid> -> the UUID, in its canonical lower-case form; nil when the name is not one.
local function id_of(key, reservation_prefix)
  local id = key:sub(#reservation_prefix + 1)
  if #id == 36 and key:sub(1, #reservation_prefix) == reservation_prefix and id == id:lower()
    and id:find('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$') then
    return id
  end
  return nil
end
