-- Stream ids can be used up, by hand; with a few left, a call of several events would stop half way.
local newest = call('XREVRANGE', audit, '+', '-', 'COUNT', '1')[1]
if newest and #match(newest[1], '^%d+') > 15 then return redis.error_reply('BADKEY audit: its ids are used up') end
