//! The tables of a shop, with the indexes that it needs, and the statements that change them.

/// A count is stored in place as long as its page has room: `fillfactor` leaves that room. No column of `stock` that
/// changes is in an index, so that its rows are pruned without a vacuum.
pub const TABLES: &str = "
    CREATE TABLE stock (
        sku text PRIMARY KEY,
        available bigint NOT NULL CHECK (available >= 0),
        reserved bigint NOT NULL,
        confirmed bigint NOT NULL,
        updated_at timestamptz NOT NULL
    ) WITH (fillfactor = 50);

    CREATE TABLE reservation (
        id uuid PRIMARY KEY,
        cart_id text NOT NULL,
        sku text NOT NULL,
        quantity bigint NOT NULL,
        state text NOT NULL,
        expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX reservation_active ON reservation (sku, expires_at) WHERE state = 'active';

    CREATE TABLE audit (
        id bigserial PRIMARY KEY,
        event text NOT NULL,
        reservation_id uuid NOT NULL,
        cart_id text NOT NULL,
        sku text NOT NULL,
        quantity bigint NOT NULL,
        state text NOT NULL,
        reason text NOT NULL,
        happened_at timestamptz NOT NULL,
        available bigint NOT NULL,
        reserved bigint NOT NULL,
        confirmed bigint NOT NULL
    );";

pub const EMPTY: &str = "TRUNCATE stock, reservation, audit";

/// Arguments: SKUs, units of each.
pub const STOCK: &str = "
    INSERT INTO stock (sku, available, reserved, confirmed, updated_at)
    SELECT sku, $2::bigint, 0, 0, now() FROM unnest($1::text[]) sku";

/// Arguments: id, SKU, quantity, cart, now, time of expiry. No row is inserted when there are too few units.
pub const HOLD: &str = "
    WITH held AS (
        UPDATE stock SET available = available - $3::bigint, reserved = reserved + $3, updated_at = $5::timestamptz
        WHERE sku = $2::text AND available >= $3
        RETURNING available, reserved, confirmed
    ), made AS (
        INSERT INTO reservation (id, cart_id, sku, quantity, state, expires_at, created_at, updated_at)
        SELECT $1::uuid, $4::text, $2, $3, 'active', $6::timestamptz, $5, $5 FROM held
    )
    INSERT INTO audit
        (event, reservation_id, cart_id, sku, quantity, state, reason, happened_at, available, reserved, confirmed)
    SELECT 'hold', $1, $4, $2, $3, 'active', '', $5, available, reserved, confirmed FROM held";

pub const AVAILABLE: &str = "SELECT available FROM stock WHERE sku = $1";

/// Arguments: id, now. No row is returned when there is no such reservation that is active and has time left.
pub const CONFIRM: &str = "
    WITH settled AS (
        UPDATE reservation SET state = 'confirmed', updated_at = $2::timestamptz
        WHERE id = $1::uuid AND state = 'active' AND expires_at > $2
        RETURNING cart_id, sku, quantity, expires_at, created_at
    ), counted AS (
        UPDATE stock SET reserved = reserved - quantity, confirmed = confirmed + quantity, updated_at = $2
        FROM settled WHERE stock.sku = settled.sku
        RETURNING available, reserved, confirmed
    ), logged AS (
        INSERT INTO audit
            (event, reservation_id, cart_id, sku, quantity, state, reason, happened_at, available, reserved, confirmed)
        SELECT 'confirm', $1, cart_id, sku, quantity, 'confirmed', '', $2, available, reserved, confirmed
        FROM settled, counted
    )
    SELECT cart_id, sku, quantity, expires_at, created_at FROM settled";

pub const STATE: &str = "SELECT state FROM reservation WHERE id = $1";

/// Argument: units of each SKU at the start. Whether the counts are what the reservations and the events come to; how many
/// holds there were, and how many confirms.
pub const BOOKS: &str = "
    WITH sums AS (
        SELECT sku,
            coalesce(sum(quantity) FILTER (WHERE state = 'active'), 0) AS reserved,
            coalesce(sum(quantity) FILTER (WHERE state = 'confirmed'), 0) AS confirmed
        FROM reservation GROUP BY sku
    ), events AS (
        SELECT count(*) FILTER (WHERE event = 'hold') AS holds, count(*) FILTER (WHERE event = 'confirm') AS confirms
        FROM audit
    )
    SELECT
        NOT EXISTS (
            SELECT FROM stock LEFT JOIN sums USING (sku)
            WHERE stock.available + stock.reserved + stock.confirmed <> $1::bigint
                OR stock.reserved <> coalesce(sums.reserved, 0) OR stock.confirmed <> coalesce(sums.confirmed, 0)
        )
        AND holds = (SELECT count(*) FROM reservation)
        AND confirms = (SELECT count(*) FROM reservation WHERE state = 'confirmed'),
        holds, confirms
    FROM events";
