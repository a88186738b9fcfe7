-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local now_text = decimal(now)
