-- Whether text is a JSON object of 1 to 8 strings whose names and strings are text.
local function is_metadata(text)
  if #text > 4200 or not find(text, '^{') then return false end
  local is_json, pairs_of = pcall(cjson.decode, text)
  if not is_json then return false end
  local count = 0
  for name, value in pairs(pairs_of) do
    count = count + 1
    if type(name) ~= 'string' or type(value) ~= 'string' or not (is_text(name) and is_text(value)) then return false end
  end
  return count >= 1 and count <= 8
end
