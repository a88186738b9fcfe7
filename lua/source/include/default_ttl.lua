-- How long a hold lasts that leaves this open, in milliseconds, unless the SKU's longest hold is shorter.
local DEFAULT_TTL_MS = 600000
