//! Verifies a snapshot: replays the audit, and compares it with what is stored. Reads and writes nothing.

use std::collections::BTreeMap;

use super::findings::{Checked, Damage, Finding, Limits};
use super::life::Life;
use super::snapshot::{Reach, Snapshot, makes_a_sku, starts_anew};
use crate::engine::{Event, EventKind, Reservation, Rules, Ttl};
use crate::keys::{ReservationId, Sku};
use crate::redis::Look;

pub(super) struct Verifier<'a> {
    snapshot: &'a Snapshot,
    limits: Limits,
    /// The last events of each reservation, as far as the history reaches.
    lives: BTreeMap<&'a str, Life<'a>>,
    /// Whether an event has stated the counts anew since then, with everything that was active at that time.
    is_restated: bool,
    /// Whether a reservation may hold an unknown number of units.
    is_incomplete: bool,
    checked: Checked,
}

impl<'a> Verifier<'a> {
    /// Verifies the snapshot: what is wrong with it, and what would repair it.
    pub(super) fn verify(sku: &Sku, snapshot: &'a Snapshot, limits: Limits) -> Checked {
        let (lives, checked) = (BTreeMap::new(), Checked::new(sku));
        let mut verifier = Self { snapshot, limits, lives, is_restated: false, is_incomplete: false, checked };
        let field = |name| snapshot.stock.get(name).cloned().unwrap_or_default();
        verifier.checked.plan.version = field("version");
        verifier.checked.plan.last_event = field("lastEvent");
        verifier.checked.events = snapshot.history.len();
        verifier.checked.reservations = snapshot.looks.len() + snapshot.changed.len();
        let replayed = verifier.replay();
        let reserved = verifier.reservations();
        verifier.index();
        verifier.counts(replayed, reserved);
        verifier.rules();
        verifier.checked
    }

    fn find(&mut self, damage: Damage, reservation: &str, what: impl Into<String>) {
        self.checked.findings.push(Finding { damage, reservation: reservation.to_owned(), what: what.into() });
    }

    /// The counts after all events: available, reserved, confirmed.
    fn replay(&mut self) -> Option<[i64; 3]> {
        if let Reach::Gap(missing) = &self.snapshot.reach {
            self.find(Damage::History, "", format!("event {missing} is missing, and was not trimmed"));
        }
        let mut before: Option<(&Event, [i64; 3])> = None;
        for event in &self.snapshot.history {
            let stated = [event.available, event.reserved, event.confirmed].map(units);
            let after = match before {
                Some((earlier, counts)) => {
                    if event.version != earlier.version + 1 {
                        let (from, to) = (earlier.version, event.version);
                        self.find(Damage::History, "", format!("version {to} follows {from} at event {}", event.id));
                    }
                    after(counts, event, self.lives.get(&*event.reservation_id).and_then(Life::last))
                }
                None if event.state == "seeded" || makes_a_sku(event) => [units(event.quantity), 0, 0],
                None => stated,
            };
            if after != stated {
                self.find(
                    Damage::History,
                    &event.reservation_id,
                    format!("event {} leaves {}, not {}", event.id, shown(stated), shown(after)),
                );
            }
            if starts_anew(event) {
                // Anything that was wrong before was recorded and corrected by that event.
                self.checked.findings.clear();
                self.is_restated |= event.event == EventKind::Repair;
            }
            before = Some((event, after));
            if !event.reservation_id.is_empty() && event.event != EventKind::Repair {
                let life = self.lives.entry(&event.reservation_id).or_default();
                if let Some(earlier) = life.add(event) {
                    let what = format!(
                        "event {} ({}) follows {} ({})",
                        event.id,
                        event.event.as_str(),
                        earlier.id,
                        earlier.event.as_str()
                    );
                    self.find(Damage::History, &event.reservation_id, what);
                }
            }
        }
        before.map(|(_, counts)| counts)
    }

    /// Verifies each reservation, and returns the units of the active ones.
    fn reservations(&mut self) -> i64 {
        let snapshot = self.snapshot;
        let (mut reserved, mut overdue) = (0, 0);
        for (id, look) in &snapshot.looks {
            let life = self.lives.get(id.as_str()).cloned();
            let record = stored(id, look);
            let record = record.filter(|record| record.expires_at_ms > 0 && record.created_at_ms > 0);
            let active = match &life {
                Some(life) => self.audited(id, look, record.as_ref(), life),
                None => self.unaudited(id, look, record.as_ref()),
            };
            reserved += active.unwrap_or(0);
            let expires_at = record.map_or(u64::MAX, |record| record.expires_at_ms);
            overdue +=
                u64::from(active.is_some() && expires_at.saturating_add(self.limits.overdue_ms) < snapshot.now_ms);
        }
        reserved += snapshot
            .changed
            .values()
            .filter(|event| event.state == "active")
            .map(|event| units(event.quantity))
            .sum::<i64>();
        if overdue > 0 {
            self.checked.plan.sweep = true;
            self.find(
                Damage::Overdue,
                "",
                format!("{overdue} reservations are active beyond their time: does a server run?"),
            );
        }
        for member in &snapshot.foreign {
            self.find(Damage::Unreadable, "", format!("the active set has a member that is no id: {member:?}"));
        }
        reserved
    }

    /// A reservation that the audit knows: its record must equal the state after its last event. Returns the units
    /// that it holds.
    fn audited(&mut self, id: &str, look: &Look, record: Option<&Reservation>, life: &Life) -> Option<i64> {
        let last = life.last()?;
        let is_active = last.state == "active";
        if record.is_some_and(|record| self.is_elsewhere(record, last)) {
            self.filed(id, look, None);
            return None;
        }
        let difference = match &look.fields {
            None => Some("its record has what is no text".to_owned()),
            Some(fields) if fields.is_empty() => is_active.then(|| "it is active and its record is gone".to_owned()),
            Some(fields) => {
                life.difference(fields).or_else(|| record.is_none().then(|| "its record is damaged".to_owned()))
            }
        };
        if let Some(difference) = difference {
            match life.source() {
                Some(source) => {
                    self.find(Damage::Record, id, difference);
                    self.checked.plan.restore.push((id.to_owned(), source));
                }
                None => {
                    let what = format!("{difference}; the event of its sale is not among those that were read");
                    self.find(Damage::Unreadable, id, what);
                }
            }
        } else {
            self.filed(id, look, record.filter(|_| is_active));
        }
        is_active.then(|| units(last.quantity))
    }

    /// Whether the id of a settled reservation was used again, after its record was dropped, for another SKU.
    fn is_elsewhere(&self, record: &Reservation, last: &Event) -> bool {
        let is_later = record.is_active() || record.created_at_ms >= last.happened_at_ms;
        last.state != "active" && record.sku != self.checked.sku && is_later
    }

    /// A reservation that the audit does not have, or no longer has: only its record describes it.
    fn unaudited(&mut self, id: &str, look: &Look, record: Option<&Reservation>) -> Option<i64> {
        let is_all_known = self.snapshot.reach == Reach::Seed && !self.is_restated;
        if record.is_none() && look.fields.as_ref().is_none_or(|fields| !fields.is_empty()) {
            self.find(Damage::Unreadable, id, "its record is damaged, and no event is left to make it again from");
            if !is_all_known {
                self.is_incomplete = true;
                return None;
            }
        }
        let active = record.filter(|record| record.is_active() && record.sku == self.checked.sku);
        if active.is_some() && is_all_known {
            self.find(Damage::Record, id, "it is active and was never held");
        }
        self.filed(id, look, active);
        active.map(|record| units(record.quantity.get()))
    }

    /// An active reservation is in the active set at its expiry, has no TTL, and ends in time. Any other is not in the
    /// set.
    fn filed(&mut self, id: &str, look: &Look, active: Option<&Reservation>) {
        let (damage, what) = match (active, &look.score) {
            (None, None) => return,
            (None, Some(_)) => (Damage::Index, "it is in the active set and not active".to_owned()),
            (Some(_), None) => (Damage::Index, "it is active and not in the active set".to_owned()),
            (Some(record), Some(score)) if *score != record.expires_at_ms.to_string() => {
                let what = format!("it lapses at {} and is in the active set at {score}", record.expires_at_ms);
                (Damage::Index, what)
            }
            _ if look.is_mortal => (Damage::Index, "it is active and Redis will drop it".to_owned()),
            (Some(record), _) => {
                let (end, last) = (record.expires_at_ms, latest_end(record, self.snapshot.now_ms));
                if end <= last.saturating_add(self.limits.overdue_ms) {
                    return;
                }
                (Damage::Expiry, format!("it lapses at {end} and should do so by {last}: was the clock ahead?"))
            }
        };
        self.find(damage, id, what);
        self.checked.plan.file.push(id.to_owned());
    }

    fn index(&mut self) {
        let index = &self.snapshot.index;
        match (index.bound, index.lowest) {
            (None, Some(_)) => self.find(Damage::Index, "", "the sweeper does not look for it: it is not in due"),
            (Some(bound), Some(lowest)) if bound > lowest => {
                self.find(Damage::Index, "", "the sweeper looks for it too late: due is after its first expiry");
            }
            (Some(_), None) => self.find(Damage::Index, "", "it is in due and nothing is active"),
            _ => {}
        }
        if !index.listed {
            self.find(Damage::Index, "", "it is not listed in skus");
        }
    }

    /// The rules are those that the audit told last. A seed tells them again.
    fn rules(&mut self) {
        let snapshot = self.snapshot;
        let stored = snapshot.stock.get("rules").map_or("", String::as_str);
        match snapshot.history.iter().rfind(|event| event.event == EventKind::Rules) {
            Some(told) if told.reason == stored => {}
            Some(told) => {
                self.checked.plan.rules.clone_from(&told.id);
                self.find(Damage::Rules, "", format!("its rules are {stored:?}, and were set to {:?}", told.reason));
            }
            None if stored.is_empty() || snapshot.reach != Reach::Seed && Rules::stored(stored).is_ok() => {}
            None => {
                self.checked.plan.rules = "none".to_owned();
                self.find(Damage::Rules, "", format!("its rules are {stored:?}, and the audit tells of none"));
            }
        }
    }

    fn counts(&mut self, replayed: Option<[i64; 3]>, reserved: i64) {
        // Its units must not be given to others.
        if self.is_incomplete {
            return;
        }
        let stock = &self.snapshot.stock;
        let count = |name: &str| stock.get(name).and_then(|text| text.parse::<u64>().ok()).map(units);
        let stored = ["available", "reserved", "confirmed"].map(|name| count(name).unwrap_or(0));
        let complete = ["available", "reserved", "confirmed", "seeded", "version", "updatedAt"];
        let is_sound = complete.iter().all(|name| count(name).is_some())
            && stock.get("sku").map(String::as_str) == Some(self.checked.sku.as_str())
            && count("seeded") == Some(stored.iter().sum());
        let Some([available, held, confirmed]) = replayed.or(is_sound.then_some(stored)) else {
            let what = if stock.is_empty() { "it has no stock" } else { "its counts are damaged" };
            return self.find(Damage::Unreadable, "", format!("{what}, and no event is left to make them again from"));
        };
        let right = [available + held - reserved, reserved, confirmed];
        if stored != right {
            let what = if is_sound { "" } else { "damaged: " };
            self.find(Damage::Counts, "", format!("{what}they are {}, not {}", shown(stored), shown(right)));
        } else if !is_sound {
            self.find(Damage::Counts, "", "its counts are damaged");
        }
        let newest = self.snapshot.history.last().map(|event| event.id.clone());
        let plan = &mut self.checked.plan;
        plan.change = [0, 1, 2].map(|count| right[count] - stored[count]);
        match newest {
            Some(newest) if !self.snapshot.is_linked => {
                plan.restart.clone_from(&newest);
                self.find(
                    Damage::Counts,
                    "",
                    format!("its last event is {newest}, and it names another or another version"),
                );
            }
            _ if self.checked.findings.iter().any(|finding| finding.damage == Damage::History) => {
                plan.restart = "here".to_owned();
            }
            _ => {}
        }
    }
}

/// The record that was read, if it can be parsed.
fn stored(id: &str, look: &Look) -> Option<Reservation> {
    Reservation::stored(ReservationId::parse(id).ok()?, look.fields.as_ref()?).ok()?
}

/// The latest time at which an active reservation may lapse: after the time that it is held for with its extensions, and
/// no later than the longest hold allows, which is the highest limit of extensions too. For a hold that was made while
/// the clock was ahead, the time begins now.
fn latest_end(record: &Reservation, now_ms: u64) -> u64 {
    let longest = Ttl::MAX.as_ms();
    let ttl_ms = Some(record.ttl_ms()).filter(|ttl_ms| (1..longest).contains(ttl_ms)).unwrap_or(longest);
    record.created_at_ms.min(now_ms).saturating_add(ttl_ms)
}

/// The counts after an event, by what it does; `earlier` is the last event of its reservation before, if that is known.
fn after([available, reserved, confirmed]: [i64; 3], event: &Event, earlier: Option<&Event>) -> [i64; 3] {
    let count = units(event.quantity);
    match (event.event, &*event.reason) {
        (EventKind::Hold, _) => [available - count, reserved + count, confirmed],
        (EventKind::Change, _) => {
            // What it held before is in its event before. Without that, the event itself tells what it moved.
            let more = match earlier {
                Some(earlier) => count - units(earlier.quantity),
                None => units(event.reserved) - reserved,
            };
            [available - more, reserved + more, confirmed]
        }
        (EventKind::Confirm, "late_confirm") => [available - count, reserved, confirmed + count],
        (EventKind::Confirm, _) => [available, reserved - count, confirmed + count],
        // This hold was released for a new count, and its units are not given back.
        (EventKind::Release, "inventory_reseeded") => [available, reserved - count, confirmed],
        (EventKind::Release | EventKind::Expired, _) => [available + count, reserved - count, confirmed],
        (EventKind::Seed, "inventory_reseeded") => [0, reserved, confirmed],
        (EventKind::Return, "restocked") => [available + count, reserved, confirmed - count],
        (EventKind::Return, "written_off") => [available, reserved, confirmed - count],
        // A seed did not count what was sold before.
        (EventKind::Return, "restocked_after_seed") => [available + count, reserved, confirmed],
        (EventKind::Adjust, _) if event.state == "removed" => [available - count, reserved, confirmed],
        (EventKind::Adjust, _) => [available + count, reserved, confirmed],
        _ if starts_anew(event) => [event.available, event.reserved, event.confirmed].map(units),
        _ => [available, reserved, confirmed],
    }
}

fn shown([available, reserved, confirmed]: [i64; 3]) -> String {
    format!("{available} available, {reserved} reserved, {confirmed} confirmed")
}

/// Counts stay far below the limit of either type.
fn units(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX / 4)
}
