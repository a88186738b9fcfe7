-- The keys of a call about one SKU.
local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
if active ~= inventory .. ':active' then return redis.error_reply('BADKEY active: not inventory:<sku>:active') end
