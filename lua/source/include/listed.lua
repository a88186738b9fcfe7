-- The listed reservations, each once: their ids and keys.
local pattern, ids, listed = pattern_of(prefix, KIND), {}, {}
for i = 1, n do
  local key = reservation_key(i)
  local id = id_of(key, pattern)
  if not id then return redis.error_reply(wrong_id(key, prefix, 'reservation ' .. i)) end
  if not listed[id] then
    listed[id] = key
    ids[#ids + 1] = id
  end
end
