-- The key of an operation, after its prefix: operation:<uuid>.
local KIND = 'operation'

-- @include id_of
