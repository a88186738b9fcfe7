-- 19 digits: each number must fit 64 bits.
local function is_event_id(s)
  return find(s, '^%d+%-%d+$') and #match(s, '^%d+') <= 19 and #match(s, '%d+$') <= 19
end
