-- The key of a reservation, after its prefix: reservation:<uuid>, the UUID in its canonical lower-case form.
local KEY_OF_ID = 'reservation:()([%da-f]+()%-[%da-f]+()%-[%da-f]+()%-[%da-f]+()%-[%da-f]+)$'

-- @include id_of
