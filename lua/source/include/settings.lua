-- Milliseconds that a settled reservation is kept, as the operator decided: 0 keeps for ever, nothing set is 30 days.
if settings ~= prefix .. 'stockhold:settings' then
  return redis.error_reply('BADKEY settings: not stockhold:settings')
end
local keep_ms = call('HGET', settings, 'keepMs') or '2592000000'
if not whole(keep_ms, 0, 1000000000000) then
  return redis.error_reply('BADKEY settings: keepMs is not a whole number from 0 to 1000000000000')
end
