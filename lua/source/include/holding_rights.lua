-- Rights: those of every write, also when nothing will be written: a call that is refused proves them.

local may_all = may('XADD', audit, '*', 'field', '0') and may('ZADD', due, '1', 'member')
for i = 1, #stocks do
  local stock = stocks[i]
  may_all = may_all and may('HSET', stock.key, 'field', '0') and may('ZADD', stock.active, '1', 'member')
end
for i = 1, n do may_all = may_all and may('HSET', reservations[i], 'field', '0') end
