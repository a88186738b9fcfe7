//! Output: snapshots, records and events as JSON, times as RFC 3339.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::engine::{Event, Reservation, Rules, Stock};
use crate::keys::{CartId, Metadata};

/// The snapshot of a SKU.
pub(super) fn stock(stock: &Stock) -> impl Serialize {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Snapshot<'a> {
        sku: &'a str,
        available: u64,
        reserved: u64,
        confirmed: u64,
        active_reservations: &'a [String],
        updated_at: Time,
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        rules: Option<ShownRules>,
    }
    Snapshot {
        sku: stock.sku.as_str(),
        available: stock.available,
        reserved: stock.reserved,
        confirmed: stock.confirmed,
        active_reservations: &stock.active_reservations,
        updated_at: Time(stock.updated_at_ms),
        version: stock.version,
        rules: rules(stock.rules),
    }
}

/// The rules of a SKU, if it has any.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownRules {
    #[serde(skip_serializing_if = "Option::is_none")]
    per_cart: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_stock: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl_seconds: Option<u64>,
}

fn rules(rules: Rules) -> Option<ShownRules> {
    let Rules { per_cart, safety_stock, max_ttl_ms } = rules;
    (rules != Rules::default()).then(|| ShownRules {
        per_cart: per_cart.map(|units| units.get()),
        safety_stock: safety_stock.map(|units| units.get()),
        max_ttl_seconds: max_ttl_ms.map(|ms| ms / 1000),
    })
}

/// The counts of a SKU after an adjustment: its snapshot without a list of reservations.
pub(super) fn counts(stock: &Stock) -> impl Serialize {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Counts<'a> {
        sku: &'a str,
        available: u64,
        reserved: u64,
        confirmed: u64,
        updated_at: Time,
        version: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        rules: Option<ShownRules>,
    }
    Counts {
        sku: stock.sku.as_str(),
        available: stock.available,
        reserved: stock.reserved,
        confirmed: stock.confirmed,
        updated_at: Time(stock.updated_at_ms),
        version: stock.version,
        rules: rules(stock.rules),
    }
}

/// The record of a reservation; what only some have is left out of the others.
pub(super) fn reservation(record: &Reservation) -> impl Serialize + use<'_> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Record<'a> {
        reservation_id: String,
        cart_id: &'a str,
        sku: &'a str,
        quantity: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        initial_quantity: Option<u64>,
        state: &'static str,
        expires_at: Time,
        created_at: Time,
        updated_at: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        confirmed_at: Option<Time>,
        #[serde(skip_serializing_if = "Option::is_none")]
        returned: Option<u64>,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Metadata>,
    }
    Record {
        reservation_id: record.id.to_string(),
        cart_id: record.cart.as_str(),
        sku: record.sku.as_str(),
        quantity: record.quantity.get(),
        initial_quantity: record.initial_quantity.map(|quantity| quantity.get()),
        state: record.state.as_str(),
        expires_at: Time(record.expires_at_ms),
        created_at: Time(record.created_at_ms),
        updated_at: Time(record.updated_at_ms),
        confirmed_at: record.confirmed_at_ms.map(Time),
        returned: Some(record.returned).filter(|returned| *returned > 0),
        reason: &record.reason,
        metadata: record.metadata.as_ref(),
    }
}

/// A cart with its reservations; after a hold, with the time at which the first of them lapses.
pub(super) fn cart<'a>(
    id: &'a CartId,
    expires_at_ms: Option<u64>,
    records: &'a [Reservation],
) -> impl Serialize + use<'a> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cart<'a, T> {
        cart_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Time>,
        reservations: Vec<T>,
    }
    Cart {
        cart_id: id.as_str(),
        expires_at: expires_at_ms.map(Time),
        reservations: records.iter().map(reservation).collect(),
    }
}

/// Events, newest first.
pub(super) fn events(events: &[Event]) -> impl Serialize {
    #[derive(Serialize)]
    struct Page<T> {
        events: Vec<T>,
    }
    Page { events: events.iter().map(event).collect() }
}

/// An event. Missing values (a seed has no cart) are left out.
pub(super) fn event(event: &Event) -> impl Serialize + use<'_> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown<'a> {
        id: &'a str,
        event: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        reservation_id: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        cart_id: &'a str,
        sku: &'a str,
        quantity: u64,
        state: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
        happened_at: Time,
        available: u64,
        reserved: u64,
        confirmed: u64,
        version: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        previous: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a Metadata>,
    }
    Shown {
        id: &event.id,
        event: event.event.as_str(),
        reservation_id: &event.reservation_id,
        cart_id: &event.cart_id,
        sku: &event.sku,
        quantity: event.quantity,
        state: &event.state,
        reason: &event.reason,
        happened_at: Time(event.happened_at_ms),
        available: event.available,
        reserved: event.reserved,
        confirmed: event.confirmed,
        version: event.version,
        previous: &event.previous,
        metadata: event.metadata.as_ref(),
    }
}

/// A page of a list; `next`, which the next request gives as `after`, is there only if more follows.
pub(super) fn page(items: impl Iterator<Item = impl Serialize>, next: Option<impl fmt::Display>) -> impl Serialize {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page<T> {
        items: Vec<T>,
        has_more: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    }
    Page { items: items.collect(), has_more: next.is_some(), next: next.map(|next| next.to_string()) }
}

/// A time on its own.
pub(super) fn time(ms: u64) -> String {
    Time(ms).to_string()
}

/// Epoch milliseconds, shown as RFC 3339 in UTC with milliseconds.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The scripts accept no time that jiff cannot show.
        let ms = i64::try_from(self.0).ok();
        let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        write!(f, "{time:.3}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_a_z() {
        let shown = |ms| serde_json::to_string(&Time(ms)).unwrap();
        assert_eq!(shown(1_773_893_180_496), r#""2026-03-19T04:06:20.496Z""#);
        assert_eq!(shown(1_773_893_180_000), r#""2026-03-19T04:06:20.000Z""#);
    }
}
