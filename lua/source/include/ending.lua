-- Ends an active reservation: its units leave reserved for a pool (available, confirmed; withdrawn is none of them).
-- What ended leaves the active set later, all at once: a key that one write may have emptied is not touched again.
local function end_reservation(stock, record, event, state, reason, pool)
  stock.reserved = stock.reserved - record.units
  stock[pool] = (stock[pool] or 0) + record.units
  append_event(stock, event, record.id, record.cartId, record.quantity, state, reason)
  if reason == '' then
    call('HSET', record.key, 'state', state, 'updatedAt', now_text)
  else
    call('HSET', record.key, 'state', state, 'reason', reason, 'updatedAt', now_text)
  end
  if record.token and record.token ~= '' then call('HSET', record.key, 'token', record.token) end
  stock.ended[#stock.ended + 1] = record.id
  -- Last: a record that is kept for a moment only is gone now.
  if keep_ms ~= '0' then call('PEXPIRE', record.key, keep_ms) end
end
