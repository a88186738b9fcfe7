-- [{shard}:]inventory:<sku> -> prefix, sku; nil when the name is not one. A SKU is text with none of space : { } and no
-- Unicode white space. inventory:audit is the stream, so audit is reserved; clients that normalize paths cannot ask for
-- . and .. over HTTP. A shard is a number from 0 to 4095.
local function split(name)
  local prefix, sku = match(name, '^(.-)inventory:(.*)$')
  if not prefix or sku == 'audit' or sku == '.' or sku == '..' then return nil end
  if prefix ~= '' and prefix ~= '{0}:'
    and not (find(prefix, '^{[1-9]%d?%d?%d?}:$') and match(prefix, '%d+') + 0 < 4096) then
    return nil
  end
  -- Most names are plain ASCII: one pattern decides.
  if find(sku, '^[!-9;-z|~]+$') and #sku <= 128 then return prefix, sku end
  if find(sku, '[ :{}]') or not is_text(sku) then return nil end
  if find(sku, '[\194\225-\227]') and (find(sku, '\194\160') or find(sku, '\225\154\128')
    or find(sku, '\226\128[\128-\138\168\169\175]') or find(sku, '\226\129\159') or find(sku, '\227\128\128')) then
    return nil
  end
  return prefix, sku
end
