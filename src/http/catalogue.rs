//! Every problem that the server answers with: its code, status, title and meaning. A test compares README's table
//! with it.

use hyper::StatusCode;

macro_rules! catalogue {
    ($($(#[$note:meta])* $kind:ident = $status:ident, $code:literal, $title:literal, $meaning:literal;)*) => {
        /// What can be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind {
            $($(#[$note])* #[doc = $meaning] $kind,)*
        }

        impl Kind {
            pub(super) fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            /// A code is stable; the wording of titles and details may change.
            pub(super) fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            pub(super) fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }

            /// The codes of all, by their number.
            pub(super) const CODES: &[&str] = &[$($code,)*];

            #[cfg(test)]
            pub(super) const ALL: &[(Self, &str)] = &[$((Self::$kind, $meaning),)*];
        }
    };
}

catalogue! {
    InvalidRequest = BAD_REQUEST, "invalid_request", "Invalid request",
        "fields, the query or a header break their rule; `errors` names each `field` and its rule as `detail`";
    InvalidJson = BAD_REQUEST, "invalid_json", "Invalid JSON", "the body is not one JSON object";
    InvalidHttp = BAD_REQUEST, "invalid_http", "Invalid HTTP", "what was sent is not an HTTP/1.1 request";
    BodyIncomplete = BAD_REQUEST, "body_incomplete", "Body incomplete",
        "the body ended early, or its chunks are malformed";
    Unauthorized = UNAUTHORIZED, "unauthorized", "Unauthorized", "no bearer token, or one that is not known";
    InsufficientScope = FORBIDDEN, "insufficient_scope", "Insufficient scope",
        "the token may read and not write";
    UnknownPath = NOT_FOUND, "unknown_path", "Not found", "no endpoint has this path";
    UnknownSku = NOT_FOUND, "unknown_sku", "Unknown SKU", "a read or an adjustment of a SKU that was never seeded";
    UnknownReservation = NOT_FOUND, "unknown_reservation", "Unknown reservation",
        "no reservation has this id, or its settled record was dropped";
    UnknownCart = NOT_FOUND, "unknown_cart", "Unknown cart",
        "nothing was held for a cart as a whole, or all of it is long over";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed",
        "the path has other methods; `Allow` lists them";
    BodyTimeout = REQUEST_TIMEOUT, "body_timeout", "Body not received in time", "the body took longer than 5 s";
    InsufficientInventory = CONFLICT, "insufficient_inventory", "Insufficient inventory",
        "a hold, a change, a late confirm or an adjustment to more than is there: `requested`, `available`; of a cart, \
         `errors` names these for each `sku`";
    /// The code is that of a read, and the title is that of every hold refused for lack of units.
    UnknownSkuHeld = CONFLICT, "unknown_sku", "Insufficient inventory", "a hold of a SKU that was never seeded";
    ReservationNotActive = CONFLICT, "reservation_not_active", "Reservation is not active",
        "it was settled or has lapsed: `state`, `reason`; of a cart, `errors` names these for each `reservationId`";
    ReservationNotConfirmed = CONFLICT, "reservation_not_confirmed", "Reservation is not confirmed",
        "a return of what was not sold: `state`, `reason`";
    ExceedsSale = CONFLICT, "exceeds_sale", "Return exceeds sale",
        "a return of more units than were sold and not yet returned: `requested`, `returnable`";
    ExtensionLimitReached = CONFLICT, "extension_limit_reached", "Extension limit reached",
        "an extension beyond what the operator allows: `maxExpiresAt`; the reservation stays as it is";
    ExceedsReservation = CONFLICT, "exceeds_reservation", "Quantity exceeds reservation",
        "a release or a confirm of more units than the reservation has: `quantity`; it stays as it is";
    StaleVersion = CONFLICT, "stale_version", "Stale version", "an adjustment of a SKU that has another `version`";
    ExcessiveInventory = CONFLICT, "excessive_inventory", "Excessive inventory",
        "after the adjustment, or the return, the SKU would have more than 1,000,000,000,000 units in all";
    AdjustmentsRefused = CONFLICT, "adjustments_refused", "Adjustments refused",
        "of several adjustments, all or none, some cannot be made: `errors` names each `sku` with its problem";
    CartLimitReached = CONFLICT, "cart_limit_reached", "Cart limit reached",
        "a hold, a change or a late confirm of more than the rules of the SKU allow one cart: `perCart`, `inCart`";
    HoldTooLong = CONFLICT, "hold_too_long", "Hold too long",
        "a hold for longer than the rules of the SKU allow: `maxTtlSeconds`";
    CartLapsesSoon = CONFLICT, "cart_lapses_soon", "Cart lapses soon",
        "a confirm of a cart in several shards, some of which lapses within 2 s: `errors` names it; nothing was done";
    CartPartlySettled = CONFLICT, "cart_partly_settled", "Cart partly settled",
        "of a cart in several shards, some had ended when others were settled: `reservations` were, `errors` were not";
    AcrossShards = CONFLICT, "across_shards", "SKUs of several shards",
        "several adjustments, all or none, of SKUs in several shards; nothing was done";
    CartFull = CONFLICT, "cart_full", "Cart full", "a cart has 100 reservations that are active or sold";
    EventsTrimmed = GONE, "events_trimmed", "Events trimmed",
        "the audit may no longer have all events after `Last-Event-ID`: read the state, and begin without it";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", "the body has more than 16 KiB";
    UriTooLong = URI_TOO_LONG, "uri_too_long", "URI too long", "the request target has more than 4 KiB";
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type",
        "the body is not `application/json`, or has a `Content-Encoding`";
    HostNotAllowed = MISDIRECTED_REQUEST, "host_not_allowed", "Misdirected request",
        "the server is not called by this `Host` (`--allowed-hosts`)";
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency-Key used again",
        "the key came before with another cart, quantity, time or metadata, with other items, or for another change, \
         adjustment, return or seed";
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "Header fields too large",
        "more than 100 header fields, or more than 16 KiB of them";
    Internal = INTERNAL_SERVER_ERROR, "internal", "Internal server error",
        "the request cannot be carried out; the log tells more under its `X-Request-Id`";
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Service unavailable",
        "Redis is away, refuses changes, or has too many reads: `outcome`";
    Draining = SERVICE_UNAVAILABLE, "draining", "Draining",
        "only `/readyz`: the server was told to end, and still serves for `--drain-seconds`";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    /// Rust sources of a folder and the folders in it.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn the_table_of_the_readme_is_this_one() {
        let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
        let table = readme.lines().skip_while(|line| *line != "| code | status | title | when |").skip(2);
        let shown: Vec<_> = table.take_while(|line| line.starts_with('|')).collect();
        let row = |(kind, meaning): &(Kind, &str)| {
            format!("| `{}` | {} | {} | {meaning} |", kind.code(), kind.status().as_u16(), kind.title())
        };
        let rows: Vec<_> = Kind::ALL.iter().map(row).collect();
        assert_eq!(shown, rows, "the table should be:\n{}\n", rows.join("\n"));
    }

    #[test]
    fn a_code_and_a_status_are_one_problem() {
        let pairs: BTreeSet<_> = Kind::ALL.iter().map(|(kind, _)| (kind.code(), kind.status())).collect();
        assert_eq!(pairs.len(), Kind::ALL.len());
        assert!(Kind::ALL.is_sorted_by_key(|(kind, _)| kind.status()), "a reader looks for a status");
    }

    /// The compiler checks that each is constructed; this test checks that each is sent by a server under test.
    #[test]
    fn every_problem_is_provoked_by_a_test_over_http() {
        let tests = ["server", "edge", "operations"].map(|suite| sources(&Path::new(ROOT).join("tests").join(suite)));
        let text: String = tests.iter().flatten().map(|path| fs::read_to_string(path).unwrap()).collect();
        for (kind, _) in Kind::ALL {
            assert!(text.contains(&format!("\"{}", kind.code())), "{kind:?} is answered in no test");
        }
    }
}
