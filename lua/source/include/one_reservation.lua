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

-- @include one_sku
local id = id_of(reservation_key, pattern_of(prefix, KIND))
if not id then return redis.error_reply(wrong_id(reservation_key, prefix, 'reservation')) end
-- @include shard_keys
-- Lists of one: what serves a call about many reservations serves this one.
local own = { key = inventory, sku = sku, active = active }
local stocks, reservations, ids = { own }, { reservation_key }, { id }
