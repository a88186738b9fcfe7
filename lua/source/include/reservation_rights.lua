-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZREM', due, 'member')
for _, stock in ipairs(stocks) do
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZREM', stock.active, 'member')
end
for _, reservation in ipairs(reservations) do
  may_all = may_all and may('HSET', reservation, 'field', '0') and may('PEXPIRE', reservation, '1')
end
