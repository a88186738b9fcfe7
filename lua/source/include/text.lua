-- 1 to 128 bytes of valid UTF-8 with no control character (C0, DEL, C1). Most text is plain ASCII: one pattern decides.
local function is_text(s)
  if find(s, '^[ -~]+$') then return #s <= 128 end
  if #s < 1 or #s > 128 then return false end
  if find(s, '[%z\1-\31\127]') or find(s, '\194[\128-\159]') then return false end
  local rest = s:gsub('[\194-\223][\128-\191]', '-')
    :gsub('\224[\160-\191][\128-\191]', '-')
    :gsub('\237[\128-\159][\128-\191]', '-')
    :gsub('[\225-\236\238\239][\128-\191][\128-\191]', '-')
    :gsub('\240[\144-\191][\128-\191][\128-\191]', '-')
    :gsub('[\241-\243][\128-\191][\128-\191][\128-\191]', '-')
    :gsub('\244[\128-\143][\128-\191][\128-\191]', '-')
  return not find(rest, '[\128-\255]')
end
