-- Text with none of space : { } and no Unicode white space. inventory:audit is the stream, so audit is reserved;
-- clients that normalize paths cannot ask for . and .. over HTTP.
local function is_sku(s)
  if s == 'audit' or s == '.' or s == '..' then return false end
  if s:find('^[!-9;-z|~]+$') then return #s <= 128 end
  if s:find('[ :{}]') or not is_text(s) then return false end
  return not (s:find('[\194\225-\227]') and (s:find('\194\160') or s:find('\225\154\128')
    or s:find('\226\128[\128-\138\168\169\175]') or s:find('\226\129\159') or s:find('\227\128\128')))
end

-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one.
local function split(name)
  local prefix, sku = name:match('^(.-)inventory:(.*)$')
  if not prefix or not is_sku(sku) then return nil end
  if prefix ~= '' and not prefix:find('^{%d%d?%d?%d?}:$') then return nil end
  return prefix, sku
end
