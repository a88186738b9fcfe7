local prefix, sku = split(inventory)
if not prefix then return redis.error_reply('BADKEY inventory: not inventory:<sku>') end
