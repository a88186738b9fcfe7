-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include event
-- @include write_stock
-- @include items
-- @include shown
-- @include default_ttl

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + WIDTH * n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 2, and '
    .. WIDTH .. ' arguments each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
-- Many items of a call want the same: what was found right is not looked at again.
local right_quantity, right_ttl
for i = 1, n do
  local reservation = KEYS[3 * i + 2]
  local stock, id = item_of(i, KEYS[3 * i], KEYS[3 * i + 1], reservation)
  if not stock then return redis.error_reply(id) end
  local cart, quantity, ttl = arguments_of(i)
  if not is_text(cart) then
    return redis.error_reply('BADARGS cartId of item ' .. i .. ': 1 to 128 bytes of UTF-8, no control character')
  end
  if quantity ~= right_quantity and not whole(quantity, 1, 1000000000) then
    return redis.error_reply('BADARGS quantity of item ' .. i .. ': a whole number from 1 to 1000000000')
  end
  if ttl ~= right_ttl and ttl ~= 'default' and not whole(ttl, 1, 2592000000) then
    return redis.error_reply('BADARGS ttlMs of item ' .. i .. ': default, or a whole number from 1 to 2592000000')
  end
  right_quantity, right_ttl = quantity, ttl
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- @include shard_keys
