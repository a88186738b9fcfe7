-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, '^' .. prefix .. KEY_OF_ID:gsub('^reservation', 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end
