//! What the audit says of a reservation: how its last life ended, and what came back after its sale.

use std::collections::HashMap;

use crate::engine::{Event, EventKind};

/// The last events of a reservation, as far as the history reaches.
#[derive(Default, Clone)]
pub(super) struct Life<'a> {
    /// The last one that is no return.
    state: Option<&'a Event>,
    /// Those after it.
    returns: Vec<&'a Event>,
}

impl<'a> Life<'a> {
    /// Adds the next event. Returns the one before it if this one cannot follow it.
    pub(super) fn add(&mut self, event: &'a Event) -> Option<&'a Event> {
        let earlier = self.last();
        let follows = |earlier: &&Event| match event.event {
            // When the record of a settled reservation was dropped, its id may be used again: by a hold.
            EventKind::Hold => earlier.state != "active",
            EventKind::Return => earlier.state == "confirmed",
            // What has lapsed may be sold after all.
            EventKind::Confirm if event.reason == "late_confirm" => earlier.event == EventKind::Expired,
            _ => earlier.state == "active",
        };
        let wrong = earlier.filter(|earlier| !follows(earlier));
        if event.event == EventKind::Return {
            self.returns.push(event);
        } else {
            (self.state, self.returns) = (Some(event), Vec::new());
        }
        wrong
    }

    /// The last event of all.
    pub(super) fn last(&self) -> Option<&'a Event> {
        self.returns.last().copied().or(self.state)
    }

    /// The ids of the events from which its record can be made again, as the script `repair` takes them; `None` when the
    /// history does not reach back to its sale.
    pub(super) fn source(&self) -> Option<String> {
        let ids = [self.state?].into_iter().chain(self.returns.iter().copied()).map(|event| event.id.as_str());
        Some(ids.collect::<Vec<_>>().join(","))
    }

    /// The first field in which a record differs from what its events left.
    pub(super) fn difference(&self, record: &HashMap<String, String>) -> Option<String> {
        let last = self.last()?;
        let sum: u64 = self.returns.iter().map(|event| event.quantity).sum();
        let mut expected = vec![
            ("state", last.state.clone()),
            ("cartId", last.cart_id.clone()),
            ("sku", last.sku.clone()),
            ("updatedAt", last.happened_at_ms.to_string()),
        ];
        if let Some(event) = self.state {
            expected.push(("quantity", event.quantity.to_string()));
            // The reason of a change is told in the audit alone.
            let is_change = event.event == EventKind::Change;
            expected.push(("reason", if is_change { String::new() } else { event.reason.clone() }));
            let is_returned = !self.returns.is_empty();
            let returned = |value: u64| if is_returned { value.to_string() } else { String::new() };
            expected.push(("returned", returned(sum)));
            expected.push(("confirmedAt", returned(event.happened_at_ms)));
        } else {
            // There may be earlier returns that were not read.
            let quantity = number(record, "quantity").unwrap_or(0);
            if !number(record, "returned").is_some_and(|returned| (sum..=quantity).contains(&returned)) {
                return Some(format!("returned is {:?}; its last returns are {sum} units", record.get("returned")));
            }
            if number(record, "confirmedAt").is_none() {
                return Some("confirmedAt is missing".to_owned());
            }
        }
        // Nothing is stored that is empty, and what was only held was not updated yet.
        let is_stored = |(name, right): &(&str, String)| {
            record.contains_key(*name) || !(right.is_empty() || *name == "updatedAt" && last.event == EventKind::Hold)
        };
        expected.into_iter().filter(is_stored).find_map(|(name, right)| match record.get(name) {
            Some(stored) if *stored == right => None,
            Some(stored) => Some(format!("{name} is {stored:?}; its last event left {right:?}")),
            None => Some(format!("{name} is missing")),
        })
    }
}

fn number(record: &HashMap<String, String>, name: &str) -> Option<u64> {
    record.get(name)?.parse().ok()
}
