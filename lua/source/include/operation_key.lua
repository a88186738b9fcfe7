-- The operation of a call whose other ids are those of reservations.
if not id_of(operation, pattern_of(prefix, 'operation')) then
  return redis.error_reply('BADKEY operation: not operation:<uuid>')
end
