-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
if call('XREVRANGE', audit, '+', '1000000000000000', 'COUNT', '1')[1] then
  return redis.error_reply('BADKEY audit: its ids are used up')
end
