-- Looked up once: a global costs a look-up each time.
local call, find, match = redis.call, string.find, string.match
