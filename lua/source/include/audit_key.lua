-- The keys that all SKUs of a shard have in common.
if audit ~= prefix .. 'inventory:audit' then return redis.error_reply('BADKEY audit: not inventory:audit') end
