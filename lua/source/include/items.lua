-- The SKUs of a call, in the order in which they are first named and by their inventory keys; all are of one shard.
local stocks, by_key, prefix, pattern = {}, {}, nil, nil

-- The stock of item i by its keys, and the id in the last one, of a reservation or an operation; or nil, and what is
-- wrong.
local function item_of(i, inventory, active, owner)
  local stock = by_key[inventory]
  if not stock then
    local own_prefix, sku = split(inventory)
    if not own_prefix then return nil, 'BADKEY inventory of item ' .. i .. ': not inventory:<sku>' end
    if own_prefix ~= prefix then
      if prefix then return nil, 'BADKEY inventory of item ' .. i .. ': of another shard' end
      prefix, pattern = own_prefix, pattern_of(own_prefix, KIND)
    end
    -- All fields at once: a table that grows costs more.
    stock = { key = inventory, sku = sku, active = inventory .. ':active', available = false, reserved = false,
      confirmed = false, version = false, last_event = false, left = false }
    by_key[inventory] = stock
    stocks[#stocks + 1] = stock
  end
  if active ~= stock.active then return nil, 'BADKEY active of item ' .. i .. ': not inventory:<sku>:active' end
  local id = id_of(owner, pattern)
  if not id then return nil, wrong_id(owner, prefix, KIND .. ' of item ' .. i) end
  return stock, id
end
