-- An operation's fields by name: what was ASKED for, and the numbers that it LEFT; false when it was never carried out;
-- nil when what is stored cannot be right, or is of another kind of operation.
local function read_operation(key)
  local operation, found = {}, 0
  for _, names in ipairs({ ASKED, LEFT }) do
    local values = call('HMGET', key, unpack(names))
    for i, name in ipairs(names) do
      operation[name] = values[i]
      if values[i] then found = found + 1 end
    end
  end
  if found == 0 then return false end
  if found < #ASKED + #LEFT then return nil end
  for _, name in ipairs(LEFT) do
    if not whole(operation[name], 0, 9999999999999) then return nil end
  end
  return operation
end
