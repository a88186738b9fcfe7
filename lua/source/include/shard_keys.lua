-- @include audit_key
if due ~= prefix .. 'stockhold:due' then return redis.error_reply('BADKEY due: not stockhold:due') end
