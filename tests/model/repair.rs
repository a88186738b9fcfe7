//! What a repair does when nothing is damaged, except that the clock may have been ahead. It moves the counts by the
//! given change, makes records again from their events, and shortens holds that would last too long. It refuses when
//! more has happened than its caller knew.

use std::rc::Rc;

use crate::names::event_id;
use crate::request::{Fault, Repair, RepairItem, Restart, RulesOf};
use crate::sell::LATE_CONFIRM;
use crate::state::{CONFIRM, DRAIN, EXPIRE, Event, Model, RELEASE, Record, Rules, Turn, reply};

const MOST: i64 = 1_000_000_000_000;
const LONGEST_MS: u64 = 2_592_000_000;

impl Model {
    pub fn repair(&mut self, repair: &Repair, keep_ms: u64, turn: &Turn) -> Result<Vec<String>, Fault> {
        let Repair { sku, items, seen, restart, change, rules } = repair;
        let stale = Ok(reply("STALE", []));
        let after = match restart {
            Some(Restart::After(id)) => match self.event_of(sku, *id) {
                Some(event) => Some(event),
                None => return stale,
            },
            _ => None,
        };
        let Some(stock) = self.stocks.get(sku) else { return Ok(reply("UNKNOWN_SKU", [])) };
        let counts = [stock.available, stock.reserved, stock.confirmed];

        let is_bound = restart.is_some()
            || rules.is_some()
            || *change != [0; 3]
            || items.iter().any(|item| !item.events.is_empty());
        if is_bound && *seen != [stock.version.to_string(), stock.last_event.clone()] {
            let since = self.events.iter().rev().filter(|event| event.sku() == sku.as_str());
            let since: Vec<_> = since.take_while(|event| event.id != seen[1]).collect();
            let is_known = stock.last_event == seen[1] || self.events.iter().any(|event| event.id == seen[1]);
            let matters = |event: &&Rc<Event>| {
                ["seed", "repair"].contains(&event.kind())
                    || event.kind() == "rules" && rules.is_some()
                    || items.iter().any(|item| item.id == event.reservation())
            };
            if after.is_some() || !is_known || since.iter().any(matters) {
                return stale;
            }
        }

        let rules = match rules {
            None => None,
            Some(RulesOf::None) => Some(Rules::default()),
            Some(RulesOf::Event(id)) => match self.event_of(sku, *id) {
                None => return stale,
                Some(event) if event.kind() == "rules" => Some(Rules::stored(event.reason())),
                Some(_) => return Err(Fault::BadArgs),
            },
        };

        let mut records = Vec::new();
        for RepairItem { id, events } in items {
            let kept = self.records.get(id);
            let Some((event, returns)) = events.split_first() else {
                let own = kept.filter(|record| record.sku == *sku && record.state == "active");
                let shortened = own.and_then(|record| record.shortened(turn.now));
                records.extend(shortened.map(|record| (id, record, "expiry_restored")));
                continue;
            };
            let Some(event) = self.event_of(sku, *event) else { return stale };
            if event.reservation() != id || ["repair", "return"].contains(&event.kind()) {
                return Err(Fault::BadArgs);
            }
            let is_later = |record: &Record| record.state == "active" || record.created_at >= event.happened_at();
            if event.state() != "active" && kept.is_some_and(|record| record.sku != *sku && is_later(record)) {
                return stale;
            }
            let mut record = self.record_from(&event, turn.now);
            for back in returns {
                let Some(back) = self.event_of(sku, *back) else { return stale };
                if back.reservation() != id || back.kind() != "return" {
                    return Err(Fault::BadArgs);
                }
                record.returned += back.quantity();
                (record.confirmed_at, record.updated_at) = (Some(event.happened_at()), back.happened_at());
            }
            let shortened = if record.state == "active" { record.shortened(turn.now) } else { None };
            records.push((id, shortened.unwrap_or(record), "record_restored"));
        }

        let counts = [0, 1, 2].map(|pool| counts[pool] as i64 + change[pool]);
        if counts.iter().any(|units| *units < 0) {
            return Ok(reply("OVERSOLD", [counts[0].to_string()]));
        }
        if counts.iter().sum::<i64>() > MOST {
            return Err(Fault::BadArgs);
        }

        let already = self.count;
        let stock = self.stock(sku);
        [stock.available, stock.reserved, stock.confirmed] = counts.map(|units| units as u64);
        if let Some(event) = after {
            (stock.version, stock.last_event) = (event.version(), event.id.clone());
        }
        if restart.is_some() || *change != [0; 3] {
            self.log(sku, ["repair", "", "", sku, "0", "repaired", "counts_restored"], turn);
        }
        if rules.is_some() {
            self.stock(sku).rules = rules;
            self.log(sku, ["repair", "", "", sku, "0", "repaired", "rules_restored"], turn);
        }
        let mut is_filed = true;
        for (id, mut record, reason) in records {
            let is_kept_for = record.state != "active" && keep_ms > 0;
            record.dropped_at = is_kept_for.then_some((turn.began + keep_ms, turn.ended + keep_ms));
            let Record { cart, quantity, state, expires_at, .. } = record.clone();
            let before = self.records.insert(id.clone(), record);
            if reason == "expiry_restored" {
                self.due.entry(sku.clone()).and_modify(|due| *due = expires_at.min(*due));
            } else if state == "active" {
                is_filed &= before.is_some_and(|record| record.expires_at == expires_at);
            }
            self.log(sku, ["repair", id, &cart, sku, &quantity.to_string(), state, reason], turn);
        }
        let earliest = self.active(sku).first().map(|(expires, _)| *expires);
        if let (Some(due), Some(earliest)) = (self.due.get_mut(sku), earliest)
            && *due > earliest
        {
            *due = earliest;
            is_filed = false;
        }
        if !is_filed {
            self.log(sku, ["repair", "", "", sku, "0", "repaired", "index_restored"], turn);
        }
        let numbers = [(self.count - already) as u64].into_iter().chain(counts.map(|units| units as u64));
        let version = self.stock(sku).version;
        Ok(reply("REPAIRED", numbers.chain([version]).map(|number| number.to_string())))
    }

    fn event_of(&self, sku: &str, id: (u64, u64)) -> Option<Rc<Event>> {
        self.events.iter().find(|event| event.sku() == sku && event_id(event.id.as_bytes()) == Some(id)).cloned()
    }

    /// What an event says of a reservation; the times come from the record if there still is one.
    fn record_from(&self, event: &Event, now: u64) -> Record {
        let kept = self.records.get(event.reservation());
        let at = event.happened_at();
        let created = kept.filter(|_| event.kind() != "hold").map(|record| record.created_at);
        let created_at = created.filter(|created| *created <= at).unwrap_or(at);
        let expires = kept.map(|record| record.expires_at).filter(|expires| *expires > created_at);
        let state = ["active", CONFIRM.state, RELEASE.state].into_iter().find(|state| *state == event.state());
        let reasons = ["", RELEASE.reason, EXPIRE.reason, DRAIN.reason, LATE_CONFIRM];
        Record {
            cart: event.cart().to_owned(),
            sku: event.sku().to_owned(),
            quantity: event.quantity(),
            state: state.expect("one of three"),
            // The reason of a change is told in the audit alone.
            reason: match event.kind() {
                "change" => "",
                _ => reasons.into_iter().find(|reason| *reason == event.reason()).expect("one of ours"),
            },
            expires_at: expires.unwrap_or(now.max(created_at + 1)),
            created_at,
            updated_at: at,
            is_updated: ["extend", "change"].contains(&event.kind()),
            // Of a hold that was neither extended nor changed nothing is left.
            ttl_ms: kept.filter(|_| event.kind() != "hold").and_then(|record| record.ttl_ms),
            initial_quantity: kept.filter(|_| event.kind() != "hold").and_then(|record| record.initial_quantity),
            token: kept.filter(|_| event.state() != "active").map_or(String::new(), |record| record.token.clone()),
            metadata: if event.kind() == "hold" {
                event.metadata().to_owned()
            } else {
                kept.map_or(String::new(), |record| record.metadata.clone())
            },
            returned: 0,
            confirmed_at: None,
            dropped_at: None,
        }
    }
}

impl Record {
    /// The same record with the latest allowed end, if its own end is later.
    fn shortened(&self, now: u64) -> Option<Self> {
        let ttl = self.expires_at.saturating_sub(self.created_at);
        let ttl = if ttl == 0 { LONGEST_MS } else { ttl.min(LONGEST_MS) };
        let created_at = self.created_at.min(now);
        let expires_at = created_at + ttl;
        // What was not extended was not updated: it has the one time.
        let updated_at = if self.is_updated { self.updated_at } else { created_at };
        let shortened = Self { created_at, expires_at, updated_at, ..self.clone() };
        (expires_at < self.expires_at).then_some(shortened)
    }
}
