-- @include calls
-- @include format
-- @include whole
-- @include text
-- @include sku
-- @include id
-- @include clock
-- @include rights
-- @include stock
-- @include record
-- @include event
-- @include write_stock
-- @include items

-- Guards: no key is read before every name and number is right.

if n < 1 or n > 100 or n % 1 ~= 0 or #ARGV ~= 1 + n then
  return redis.error_reply('BADARGS items: 1 to 100, with 3 keys each after the first 3, and 1 argument each')
end
if mode ~= 'each' and mode ~= 'all' then return redis.error_reply('BADARGS mode: each or all') end

local stock_of, reservations, ids = {}, {}, {}
for i = 1, n do
  local reservation = KEYS[3 * i + 3]
  local stock, id = item_of(i, KEYS[3 * i + 1], KEYS[3 * i + 2], reservation)
  if not stock then return redis.error_reply(id) end
  stock_of[i], reservations[i], ids[i] = stock, reservation, id
end
-- @include shard_keys
