//! What is shown: snapshots, records and events as JSON, times as RFC 3339.

use serde_json::{Value, json};

use crate::engine::{Event, Reservation, Stock};

/// The snapshot of a SKU.
pub(super) fn stock(stock: &Stock) -> Value {
    json!({
        "sku": stock.sku.as_str(),
        "available": stock.available,
        "reserved": stock.reserved,
        "confirmed": stock.confirmed,
        "activeReservations": stock.active_reservations,
        "updatedAt": time(stock.updated_at_ms),
    })
}

/// The record of a reservation; `reason` only where there is one.
pub(super) fn reservation(record: &Reservation) -> Value {
    let mut shown = json!({
        "reservationId": record.id.to_string(),
        "cartId": record.cart.as_str(),
        "sku": record.sku.as_str(),
        "quantity": record.quantity.get(),
        "state": record.state.as_str(),
        "expiresAt": time(record.expires_at_ms),
        "createdAt": time(record.created_at_ms),
        "updatedAt": time(record.updated_at_ms),
    });
    if !record.reason.is_empty() {
        shown["reason"] = record.reason.as_str().into();
    }
    shown
}

/// Events, newest first. What an event does not have (a seed has no cart) is left out.
pub(super) fn events(events: &[Event]) -> Value {
    json!({ "events": events.iter().map(event).collect::<Vec<_>>() })
}

fn event(event: &Event) -> Value {
    let mut shown = json!({
        "id": event.id,
        "event": event.event,
        "reservationId": event.reservation_id,
        "cartId": event.cart_id,
        "sku": event.sku,
        "quantity": event.quantity,
        "state": event.state,
        "reason": event.reason,
        "happenedAt": time(event.happened_at_ms),
        "available": event.available,
        "reserved": event.reserved,
        "confirmed": event.confirmed,
        "version": event.version,
        "previous": event.previous,
    });
    if let Value::Object(fields) = &mut shown {
        fields.retain(|_, value| value.as_str() != Some(""));
    }
    shown
}

/// Epoch milliseconds as RFC 3339 in UTC with milliseconds. The scripts let no time in that jiff could not show.
fn time(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_have_milliseconds_and_a_z() {
        assert_eq!(super::time(1_773_893_180_496), "2026-03-19T04:06:20.496Z");
        assert_eq!(super::time(1_773_893_180_000), "2026-03-19T04:06:20.000Z");
    }
}
