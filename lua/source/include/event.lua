-- Appends what happened to a SKU to the audit. An event that concerns no reservation has an empty id and cart. The
-- counts are those after it; version has no gap, and previous is the SKU's event before. More fields may follow.
local function append_event(stock, event, id, cart, units, state, reason, ...)
  stock.version = stock.version + 1
  stock.available_text, stock.reserved_text = format('%d', stock.available), format('%d', stock.reserved)
  stock.confirmed_text, stock.version_text = format('%d', stock.confirmed), format('%d', stock.version)
  stock.last_event = call('XADD', audit, '*', 'event', event, 'reservationId', id, 'cartId', cart,
    'sku', stock.sku, 'quantity', units, 'state', state, 'reason', reason, 'happenedAt', now_text,
    'available', stock.available_text, 'reserved', stock.reserved_text, 'confirmed', stock.confirmed_text,
    'version', stock.version_text, 'previous', stock.last_event, ...)
end
