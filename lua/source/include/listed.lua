-- The listed reservations, each once: their ids and keys.
local pattern, ids, listed = '^' .. prefix .. KEY_OF_ID, {}, {}
for i = 1, n do
  local key = reservation_key(i)
  local id = id_of(key, pattern)
  if not id then return redis.error_reply('BADKEY reservation ' .. i .. ': not reservation:<uuid>') end
  if not listed[id] then
    listed[id] = key
    ids[#ids + 1] = id
  end
end
