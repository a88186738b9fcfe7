-- One reading of one clock: that of Redis. Two readings in one script can differ.
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = format('%d', now)
