-- An operation's fields by name: what was ASKED for, and the numbers that it LEFT; false when it was never carried out;
-- nil when what is stored cannot be right, or is of another kind of operation. All kinds have a field in common, and no
-- kind has all fields of another.
local function read_operation(key)
  local stored, found = {}, 0
  for _, names in ipairs({ ASKED, LEFT }) do
    local values = call('HMGET', key, unpack(names))
    for i, name in ipairs(names) do
      stored[name] = values[i]
      if values[i] then found = found + 1 end
    end
  end
  if found == 0 then return false end
  if found < #ASKED + #LEFT then return nil end
  for _, name in ipairs(LEFT) do
    if not whole(stored[name], 0, 9999999999999) then return nil end
  end
  return stored
end

-- The first name of what was ASKED in which an operation differs from what is asked now; nil when it is the same.
local function conflict_of(earlier, asked)
  for _, name in ipairs(ASKED) do
    if earlier[name] ~= asked[name] then return name end
  end
end
