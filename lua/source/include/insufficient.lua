-- The refusal for lack of units: how many can be held, and how many holds of the SKU are due.
local function insufficient(stock)
  local lapsed = call('ZCOUNT', stock.active, '-inf', now_text)
  return { 'INSUFFICIENT', format('%d', math.max(stock.left, 0)), format('%d', lapsed) }
end
