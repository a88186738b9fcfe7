-- tostring(1e14) is 1e+14, and a bare number handed to redis.call is worse.
local function decimal(value) return string.format('%d', value) end
