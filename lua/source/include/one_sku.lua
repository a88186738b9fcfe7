-- The keys of a call about one SKU.
-- @include inventory_key
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end
