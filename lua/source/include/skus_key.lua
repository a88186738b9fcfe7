if skus ~= prefix .. 'stockhold:skus' then return redis.error_reply('BADKEY skus: not stockhold:skus') end
