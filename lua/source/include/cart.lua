-- The cart of a call that names one, and the others of its reservations that are named, each once: their ids and keys.
local cart_id, other_ids, other_keys = nil, {}, {}
if cart_key then
  cart_id = match(cart_key, '^' .. prefix .. 'cart:(.*)$')
  if not cart_id or not is_text(cart_id) then
    return redis.error_reply('BADKEY cart: not cart:<cartId>, 1 to 128 bytes of UTF-8, no control character')
  end
  for i = 1, others do
    local key = other_key(i)
    local other_id = id_of(key, pattern_of(prefix, KIND))
    if not other_id then return redis.error_reply(wrong_id(key, prefix, 'other ' .. i)) end
    if not is_item[other_id] and not other_keys[other_id] then
      other_keys[other_id], other_ids[#other_ids + 1] = key, other_id
    end
  end
end
