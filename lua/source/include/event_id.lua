-- 19 digits: each number must fit 64 bits.
local function is_event_id(s)
  return s:find('^%d+%-%d+$') and #s:match('^%d+') <= 19 and #s:match('%d+$') <= 19
end
