-- A record as a reply.
local function shown(word, record)
  return { word, record.cartId, record.sku, record.quantity, record.state, record.reason,
    record.expiresAt, record.createdAt, record.updatedAt }
end
