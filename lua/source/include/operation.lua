-- An operation's fields by name: what was ASKED for, and the numbers that it LEFT; false when it was never carried out;
-- nil when what is stored cannot be right, or is of another kind of operation. All kinds have a field in common, and no
-- kind has all fields of another.
local function read_operation(key)
  local names = { unpack(ASKED) }
  for _, name in ipairs(LEFT) do names[#names + 1] = name end
  local values, stored, found = call('HMGET', key, unpack(names)), {}, 0
  for i, name in ipairs(names) do
    stored[name] = values[i]
    if values[i] then found = found + 1 end
  end
  if found == 0 then return false end
  if found < #names then return nil end
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
