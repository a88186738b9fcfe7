-- The key of an operation, after its prefix: operation:<uuid>, the UUID in its canonical lower-case form.
local KEY_OF_ID = 'operation:()([%da-f]+()%-[%da-f]+()%-[%da-f]+()%-[%da-f]+()%-[%da-f]+)$'

-- @include id_of
