-- Stores an operation that was carried out: what was ASKED, and what that LEFT. It is kept as long as settled
-- reservations are, and more_ms.
local function remember(key, done, more_ms)
  local fields = {}
  for _, names in ipairs({ ASKED, LEFT }) do
    for _, name in ipairs(names) do fields[#fields + 1], fields[#fields + 2] = name, done[name] end
  end
  call('HSET', key, unpack(fields))
  -- Last: an operation that is remembered for a moment only is gone now.
  if keep_ms ~= '0' then call('PEXPIRE', key, format('%d', keep_ms + (more_ms or 0))) end
end
