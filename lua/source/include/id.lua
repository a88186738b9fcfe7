-- The key of a reservation, after its prefix: reservation:<uuid>.
local KIND = 'reservation'

-- @include id_of
