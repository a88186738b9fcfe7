//! What the model stores, and the two ways in which it changes: an event is recorded, and an active reservation ends.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::cart_hold::Cart;

/// Redis drops audit entries in whole nodes of this size; the server of this test has this setting.
pub const ENTRIES_PER_NODE: usize = 4;

/// What Redis chose for one call.
pub struct Turn<'a> {
    /// Records that were to be dropped before then are gone; epoch ms, like all times here.
    pub gone_before: u64,
    /// When the call began.
    pub began: u64,
    /// The time that the script read.
    pub now: u64,
    /// Epoch ms by which the call had ended.
    pub ended: u64,
    /// The ids of all events, including those of this call.
    pub ids: &'a [String],
}

#[derive(Clone, Default)]
pub struct Model {
    /// Whether all of it is on the shard of these tests.
    pub on_shard: bool,
    pub stocks: BTreeMap<String, Stock>,
    pub records: BTreeMap<String, Record>,
    /// The adjustments, changes, returns and seeds that are remembered.
    pub operations: BTreeMap<String, Operation>,
    /// What each cart lists.
    pub carts: BTreeMap<String, Cart>,
    pub due: BTreeMap<String, u64>,
    /// The part of the audit that was not trimmed. Shared, because a call that may have no effect works on a copy of
    /// the whole model.
    pub events: Vec<Rc<Event>>,
    /// The number of events that there ever were.
    pub count: usize,
    /// What the operator has set: how long settled records are kept; 0 keeps them forever.
    pub keep_ms: Option<u64>,
    /// The same: how long after a hold was made an extension may end; 0 allows none.
    pub extend_max_ms: Option<u64>,
}

#[derive(Clone, Default)]
pub struct Stock {
    pub available: u64,
    pub reserved: u64,
    pub confirmed: u64,
    pub version: u64,
    pub last_event: String,
    pub updated_at: u64,
    /// When it was last seeded.
    pub seeded_at: Option<u64>,
    /// `None` until any are set.
    pub rules: Option<Rules>,
}

/// The rules by which a SKU is sold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    pub per_cart: Option<u64>,
    pub safety_stock: Option<u64>,
    pub max_ttl_ms: Option<u64>,
}

#[derive(Clone)]
pub struct Record {
    pub cart: String,
    pub sku: String,
    pub quantity: u64,
    pub state: &'static str,
    pub reason: &'static str,
    pub expires_at: u64,
    pub created_at: u64,
    pub updated_at: u64,
    /// Whether it was extended or changed.
    pub is_updated: bool,
    /// The time that the hold asked for; known once it was extended.
    pub ttl_ms: Option<u64>,
    /// The units that it held at first; known once they were changed.
    pub initial_quantity: Option<u64>,
    pub token: String,
    /// Empty if there is none.
    pub metadata: String,
    /// The units that came back after the sale, and when that was; known once units came back.
    pub returned: u64,
    pub confirmed_at: Option<u64>,
    /// When Redis drops it: the earliest and the latest moment, until the exact moment is known.
    pub dropped_at: Option<(u64, u64)>,
}

#[derive(Clone)]
pub struct Operation {
    pub asked: Asked,
    pub left: Left,
    /// As [`Record::dropped_at`].
    pub dropped_at: Option<(u64, u64)>,
}

/// What a hold asks for.
pub struct Held<'a> {
    pub sku: &'a str,
    pub id: &'a str,
    pub cart: &'a str,
    pub quantity: u64,
    pub ttl_ms: u64,
    pub metadata: &'a str,
}
/// What was asked for, by its names.
pub type Asked = Vec<(&'static str, String)>;

/// What that left.
pub type Left = Vec<(&'static str, u64)>;

pub struct Event {
    pub id: String,
    /// In the order of the header, beginning with `event`; metadata only if there is any.
    pub fields: Vec<String>,
}

/// A way in which an active reservation ends.
pub struct Ending {
    pub word: &'static str,
    pub event: &'static str,
    pub state: &'static str,
    pub reason: &'static str,
    pub units_to: Pool,
}

pub enum Pool {
    Available,
    Confirmed,
    Discarded,
}

pub const CONFIRM: Ending =
    Ending { word: "CONFIRMED", event: "confirm", state: "confirmed", reason: "", units_to: Pool::Confirmed };
pub const RELEASE: Ending = Ending {
    word: "RELEASED",
    event: "release",
    state: "released",
    reason: "manual_release",
    units_to: Pool::Available,
};
pub const EXPIRE: Ending = Ending {
    word: "EXPIRED",
    event: "expired",
    state: "released",
    reason: "reservation_ttl_elapsed",
    units_to: Pool::Available,
};
pub const DRAIN: Ending = Ending {
    word: "DRAINING",
    event: "release",
    state: "released",
    reason: "inventory_reseeded",
    units_to: Pool::Discarded,
};

impl Model {
    /// The SKU's active reservations, earliest expiry first.
    pub fn active(&self, sku: &str) -> Vec<(u64, &String)> {
        let active = self.records.iter().filter(|(_, record)| record.sku == sku && record.state == "active");
        let mut active: Vec<_> = active.map(|(id, record)| (record.expires_at, id)).collect();
        active.sort();
        active
    }

    pub fn lapsed(&self, sku: &str, now: u64) -> usize {
        self.active(sku).iter().filter(|(expires, _)| *expires <= now).count()
    }

    /// Takes the moments at which Redis drops records, if they are within the limits. Forgets a record that is gone and
    /// may be gone. Redis drops a key when its time is over. If the time is already over when it is set, Redis drops
    /// the key at once.
    pub fn see_dropped<T>(&mut self, keys: &BTreeMap<String, T>, moments: &BTreeMap<String, u64>, read: u64) {
        let is_kept = |key: String, dropped_at: &mut Option<(u64, u64)>| {
            let Some((earliest, latest)) = dropped_at else { return true };
            if let Some(at) = moments.get(&key).filter(|at| (*earliest..=*latest).contains(at)) {
                (*earliest, *latest) = (*at, *at);
            }
            keys.contains_key(&key) || *earliest > read
        };
        self.records.retain(|id, record| is_kept(format!("reservation:{id}"), &mut record.dropped_at));
        self.operations.retain(|id, operation| is_kept(format!("operation:{id}"), &mut operation.dropped_at));
        self.carts.retain(|id, cart| is_kept(format!("cart:{id}"), &mut cart.dropped_at));
    }

    /// Reserves units that are available, and answers so.
    pub fn reserve(&mut self, held: &Held, turn: &Turn) -> Vec<String> {
        let Held { sku, id, cart, quantity, ttl_ms, metadata } = *held;
        let stock = self.stock(sku);
        stock.available -= quantity;
        stock.reserved += quantity;
        let record = Record {
            cart: cart.to_owned(),
            sku: sku.to_owned(),
            quantity,
            state: "active",
            reason: "",
            expires_at: turn.now + ttl_ms,
            created_at: turn.now,
            updated_at: turn.now,
            is_updated: false,
            initial_quantity: None,
            ttl_ms: None,
            token: String::new(),
            metadata: metadata.to_owned(),
            returned: 0,
            confirmed_at: None,
            dropped_at: None,
        };
        let done = reply("HELD", [record.expires_at, record.created_at].map(|at| at.to_string()));
        let due = self.due.entry(sku.to_owned()).or_insert(record.expires_at);
        *due = record.expires_at.min(*due);
        self.records.insert(id.to_owned(), record);
        self.log_of(id, "hold", turn);
        done
    }

    /// Ends a reservation. Removes its SKU from the due list if it was the last one.
    pub fn end_and_look(&mut self, id: &str, ending: &Ending, keep_ms: u64, turn: &Turn) {
        self.end(id, ending, keep_ms, turn);
        let sku = &self.records[id].sku;
        if self.active(sku).is_empty() {
            self.due.remove(&sku.clone());
        }
    }

    /// Ends an active reservation, and moves its units.
    pub fn end(&mut self, id: &str, ending: &Ending, keep_ms: u64, turn: &Turn) {
        let record = self.records.get_mut(id).expect("it is active");
        (record.state, record.reason, record.updated_at) = (ending.state, ending.reason, turn.now);
        record.dropped_at = (keep_ms > 0).then_some((turn.began + keep_ms, turn.ended + keep_ms));
        let (sku, units) = (record.sku.clone(), record.quantity);
        let stock = self.stock(&sku);
        stock.reserved -= units;
        match ending.units_to {
            Pool::Available => stock.available += units,
            Pool::Confirmed => stock.confirmed += units,
            Pool::Discarded => {}
        }
        self.log_of(id, ending.event, turn);
    }

    /// Records what happened to a reservation.
    pub fn log_of(&mut self, id: &str, event: &str, turn: &Turn) {
        self.log_for(id, event, self.records[id].reason, turn);
    }

    /// The same with a reason that its record does not keep.
    pub fn log_for(&mut self, id: &str, event: &str, reason: &str, turn: &Turn) {
        let Record { cart, sku, quantity, state, metadata, .. } = self.records[id].clone();
        self.log(&sku, [event, id, &cart, &sku, &quantity.to_string(), state, reason], turn);
        if event == "hold" && !metadata.is_empty() {
            let held = Rc::get_mut(self.events.last_mut().expect("it was just logged")).expect("it is not shared yet");
            held.fields.push(metadata);
        }
    }

    /// Records an event; the counts are already those after the event.
    pub fn log(&mut self, sku: &str, what: [&str; 7], turn: &Turn) {
        let id = turn.ids.get(self.count).cloned().unwrap_or_default();
        self.count += 1;
        let stock = self.stocks.get_mut(sku).expect("it has stock");
        stock.version += 1;
        stock.updated_at = turn.now;
        let previous = std::mem::replace(&mut stock.last_event, id.clone());
        let numbers = [turn.now, stock.available, stock.reserved, stock.confirmed, stock.version];
        let fields = what.iter().map(|text| (*text).to_owned()).chain(numbers.iter().map(u64::to_string));
        self.events.push(Rc::new(Event { id, fields: fields.chain([previous]).collect() }));
    }

    /// The ids of the last event about the state of a reservation and of the returns after it; empty if none is known.
    pub fn last_events_of(&self, id: &str) -> String {
        let tells = |event: &&Rc<Event>| event.reservation() == id && event.kind() != "repair";
        let mut ids = Vec::new();
        for event in self.events.iter().rev().filter(tells) {
            ids.insert(0, event.id.clone());
            if event.kind() != "return" {
                break;
            }
        }
        ids.join(",")
    }

    /// Remembers what was done once.
    pub fn remember(&mut self, operation: &str, asked: Asked, left: Left, keep_ms: u64, turn: &Turn) {
        let dropped_at = (keep_ms > 0).then_some((turn.began + keep_ms, turn.ended + keep_ms));
        self.operations.insert(operation.to_owned(), Operation { asked, left, dropped_at });
    }

    /// Redis keeps at least `most` entries, and at most one node more.
    pub fn trim(&mut self, most: usize, kept: usize) {
        let kept = kept.clamp(most, most + ENTRIES_PER_NODE);
        self.events.drain(..self.events.len().saturating_sub(kept));
    }

    pub fn stock(&mut self, sku: &str) -> &mut Stock {
        self.stocks.get_mut(sku).expect("it was seeded")
    }
}

impl Operation {
    /// Whether it is another kind of operation than what is asked now.
    pub fn is_of_another_kind(&self, asked: &Asked) -> bool {
        !self.asked.iter().map(|(name, _)| name).eq(asked.iter().map(|(name, _)| name))
    }

    /// The first name in which it differs from what is asked now.
    pub fn conflict(&self, asked: &Asked) -> Option<String> {
        let differs = |((_, then), (_, now)): &(&(&str, String), &(&str, String))| then != now;
        self.asked.iter().zip(asked).find(differs).map(|((name, _), _)| (*name).to_owned())
    }
}

impl Stock {
    pub fn seeded(&self) -> u64 {
        self.available + self.reserved + self.confirmed
    }

    pub fn rules(&self) -> Rules {
        self.rules.unwrap_or_default()
    }

    /// The units that can be held; less than 0 if fewer are available than are kept back.
    pub fn left(&self) -> i64 {
        self.available as i64 - self.rules().safety_stock.unwrap_or(0) as i64
    }
}

impl Record {
    /// Active after its expiry.
    pub fn is_due(&self, now: u64) -> bool {
        self.state == "active" && self.expires_at <= now
    }

    pub fn shown(&self, word: &str) -> Vec<String> {
        let times = [self.expires_at, self.created_at, self.updated_at];
        let texts = [&self.cart, &self.sku, &self.quantity.to_string(), self.state, self.reason];
        reply(word, texts.map(str::to_owned).into_iter().chain(times.iter().map(u64::to_string)))
    }
}

impl Event {
    pub fn kind(&self) -> &str {
        &self.fields[0]
    }

    pub fn reservation(&self) -> &str {
        &self.fields[1]
    }

    pub fn cart(&self) -> &str {
        &self.fields[2]
    }

    pub fn sku(&self) -> &str {
        &self.fields[3]
    }

    pub fn quantity(&self) -> u64 {
        self.number(4)
    }

    pub fn state(&self) -> &str {
        &self.fields[5]
    }

    pub fn reason(&self) -> &str {
        &self.fields[6]
    }

    pub fn happened_at(&self) -> u64 {
        self.number(7)
    }

    pub fn version(&self) -> u64 {
        self.number(11)
    }

    /// Empty if there is none.
    pub fn metadata(&self) -> &str {
        self.fields.get(13).map_or("", String::as_str)
    }

    fn number(&self, place: usize) -> u64 {
        self.fields[place].parse().expect("a number")
    }
}

/// A line of an answer.
pub fn reply(word: &str, rest: impl IntoIterator<Item = String>) -> Vec<String> {
    [word.to_owned()].into_iter().chain(rest).collect()
}
