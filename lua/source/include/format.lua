-- Numbers are written with %d: tostring(1e14) is 1e+14, and a bare number handed to Redis may be, too.
local format = string.format
