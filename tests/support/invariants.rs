//! The books balance: what is stored agrees with the audit, and nothing else is stored.
//!
//! The list is that of the design document. It is checked after every call of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{cmd, pipe};
use stockhold::scripts::Catalogue;

use super::snapshot::{self, typed};

type Fields = BTreeMap<String, String>;

/// A stream entry: its id, and its fields in their order.
type Entry = (String, Vec<(String, String)>);

/// Keys or entries that are read at once.
const PAGE: usize = 5000;

const STOCK_FIELDS: [&str; 8] =
    ["available", "confirmed", "lastEvent", "reserved", "seeded", "sku", "updatedAt", "version"];

/// Those of a return.
const RETURN_FIELDS: [&str; 7] =
    ["confirmedAt", "quantity", "reservationId", "restock", "returned", "sku", "updatedAt"];

/// Those of a change.
const CHANGE_FIELDS: [&str; 5] = ["how", "quantity", "reservationId", "sku", "updatedAt"];

/// Those of a seed.
const SEED_FIELDS: [&str; 4] = ["quantity", "sku", "updatedAt", "version"];

/// Those of an adjustment.
const ADJUST_FIELDS: [&str; 11] = [
    "available",
    "confirmed",
    "create",
    "how",
    "ifVersion",
    "reason",
    "reserved",
    "sku",
    "units",
    "updatedAt",
    "version",
];

/// Those of an operation that held a cart.
const CART_OPERATION_FIELDS: [&str; 3] = ["cartId", "items", "updatedAt"];

/// Reservations that a cart lists at most.
const MOST_LISTED: usize = 100;

/// The fields as the headers list them: those of a record, and those of an event after its id.
static RECORD_FIELDS: LazyLock<Vec<&str>> = LazyLock::new(|| reply_fields("hold", "REPLAYED"));
static EVENT_FIELDS: LazyLock<Vec<&str>> = LazyLock::new(|| reply_fields("audit", "EVENT"));

fn reply_fields(script: &str, word: &str) -> Vec<&'static str> {
    let catalogue = Catalogue::embedded();
    let mut replies = catalogue.get(script).unwrap().contract.replies.iter();
    replies.find(|reply| reply.word == word).unwrap().fields.clone()
}

/// How far back the audit reaches.
#[derive(Clone, Copy, PartialEq)]
pub enum History {
    /// To the first event of every SKU.
    Whole,
    /// To the point where it was trimmed.
    Trimmed,
}

/// Panics with the key that is wrong if one of the invariants does not hold.
pub async fn assert_invariants(redis: &mut MultiplexedConnection, history: History) {
    let books = Books::read(redis).await;
    for (name, stock) in &books.stocks {
        let (prefix, sku) = name.split_once("inventory:").unwrap();
        books.assert_stock(prefix, sku, stock);
        books.assert_history(prefix, sku, stock, history);
    }
    for (name, record) in &books.records {
        let (prefix, _) = name.split_once("reservation:").unwrap();
        assert!(books.stocks.contains_key(&format!("{prefix}inventory:{}", record["sku"])), "{name} is of no stock");
    }
    books.assert_carts();
    let mut operations: BTreeMap<(&str, &str), Vec<(&String, &Fields)>> = BTreeMap::new();
    let is_of_a_cart = |operation: &Fields| operation.contains_key("cartId");
    for (name, operation) in books.operations.iter().filter(|(_, operation)| is_of_a_cart(operation)) {
        assert_eq!(operation.keys().map(String::as_str).collect::<Vec<_>>(), CART_OPERATION_FIELDS, "fields of {name}");
    }
    for (name, operation) in books.operations.iter().filter(|(_, operation)| !is_of_a_cart(operation)) {
        let (prefix, _) = name.split_once("operation:").unwrap();
        operations.entry((prefix, &operation["sku"])).or_default().push((name, operation));
    }
    for ((prefix, sku), operations) in operations {
        books.assert_operations(prefix, sku, &operations, history);
    }
}

/// All that is stored, by key.
#[derive(Default)]
struct Books {
    stocks: BTreeMap<String, Fields>,
    records: BTreeMap<String, Fields>,
    operations: BTreeMap<String, Fields>,
    carts: BTreeMap<String, Fields>,
    scores: BTreeMap<String, BTreeMap<String, u64>>,
    audits: BTreeMap<String, Vec<Entry>>,
    /// The keys that have a TTL.
    mortal: BTreeSet<String>,
}

impl Books {
    async fn read(redis: &mut MultiplexedConnection) -> Self {
        let keys = snapshot::keys(redis).await.into_iter().map(|key| String::from_utf8(key).unwrap());
        let keys: Vec<String> = keys.filter(|key| !is_the_operators(key)).collect();
        let mut books = Self::default();
        for page in keys.chunks(PAGE) {
            books.read_page(redis, page).await;
        }
        books
    }

    async fn read_page(&mut self, redis: &mut MultiplexedConnection, keys: &[String]) {
        let mut reads = pipe();
        for key in keys {
            match shape(key) {
                Shape::Stock | Shape::Record | Shape::Operation | Shape::Cart => reads.cmd("HGETALL").arg(key),
                Shape::Scores => reads.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
                Shape::Audit => reads.cmd("XLEN").arg(key),
            };
            reads.cmd("PTTL").arg(key);
        }
        let mut answers = snapshot::answers(redis, &reads).await.into_iter();
        for key in keys.iter().cloned() {
            let value = answers.next().unwrap();
            if typed::<i64>(answers.next().unwrap()) >= 0 {
                self.mortal.insert(key.clone());
            }
            match shape(&key) {
                Shape::Stock => drop(self.stocks.insert(key, typed(value))),
                Shape::Record => {
                    let record: Fields = typed(value);
                    // A settled one may be dropped after it was listed.
                    if !record.is_empty() {
                        self.records.insert(key, record);
                    }
                }
                Shape::Operation => {
                    let operation: Fields = typed(value);
                    // It may be dropped after it was listed.
                    if !operation.is_empty() {
                        self.operations.insert(key, operation);
                    }
                }
                Shape::Cart => drop(self.carts.insert(key, typed(value))),
                Shape::Scores => drop(self.scores.insert(key, typed(value))),
                Shape::Audit => {
                    let entries = entries(redis, &key).await;
                    self.audits.insert(key, entries);
                }
            }
        }
    }

    /// The counts add up; the active records, the active set and the due list agree with `reserved`.
    fn assert_stock(&self, prefix: &str, sku: &str, stock: &Fields) {
        let name = format!("{prefix}inventory:{sku}");
        let fields = stock.keys().map(String::as_str).filter(|field| !["rules", "seededAt"].contains(field));
        assert_eq!(fields.collect::<Vec<_>>(), STOCK_FIELDS, "fields of {name}");
        assert_eq!(stock["sku"], sku, "sku of {name}");
        let [available, reserved, confirmed, seeded] =
            ["available", "reserved", "confirmed", "seeded"].map(|field| number(&stock[field]));
        assert_eq!(available + reserved + confirmed, seeded, "sum of {name}");

        let mut units = 0;
        let mut active = BTreeMap::new();
        for (key, record) in self.records_of(prefix, sku).filter(|(_, record)| record["state"] == "active") {
            units += number(&record["quantity"]);
            active.insert(key[prefix.len() + "reservation:".len()..].to_owned(), number(&record["expiresAt"]));
            assert!(!self.mortal.contains(key), "{key} holds units and may vanish");
        }
        let none = BTreeMap::new();
        assert_eq!(reserved, units, "reserved of {name} and the units of its active records");
        assert_eq!(self.scores.get(&format!("{name}:active")).unwrap_or(&none), &active, "active set of {name}");
        match (self.scores.get(&format!("{prefix}stockhold:due")).unwrap_or(&none).get(sku), active.values().min()) {
            (None, None) => {}
            (Some(due), Some(earliest)) => assert!(due <= earliest, "{sku} is polled after its earliest expiry"),
            (due, earliest) => panic!("{sku} is due at {due:?} and its earliest hold lapses at {earliest:?}"),
        }
        let is_listed = self.scores[&format!("{prefix}stockhold:skus")].get(sku) == Some(&0);
        assert!(is_listed, "{sku} is not listed as seeded");
    }

    /// The SKU's events are a chain without a gap, and their replay gives what is stored.
    fn assert_history(&self, prefix: &str, sku: &str, stock: &Fields, history: History) {
        let mut replay: Option<Replay> = None;
        let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
        let (mut seeded, mut is_repaired): (Option<&Event>, bool) = (None, false);
        // The rules that were told last; `None` when they are not known.
        let mut rules = (history == History::Whole).then_some("");
        // Whether a reservation was extended, except of a record that was made again from its last event; and its units at
        // first, its units now, and whether these were ever changed.
        let mut was_extended: BTreeMap<&str, bool> = BTreeMap::new();
        let mut was_changed: BTreeMap<&str, (&str, &str, bool)> = BTreeMap::new();
        // What a hold noted, except on a record that was made again from a later event.
        let mut noted: BTreeMap<&str, Option<&String>> = BTreeMap::new();
        let events: Vec<Event> = self.events(prefix, sku);
        for event in &events {
            let after = match replay {
                Some(before) => {
                    assert_eq!(event.version, before.version + 1, "a gap before {event:?}");
                    assert_eq!(event["previous"], before.event_id, "the link of {event:?}");
                    before.counts_after(event, lives.get(&*event["reservationId"]).and_then(|life| life.state))
                }
                None if history == History::Whole => {
                    assert_eq!((event.version, &*event["previous"]), (1, ""), "the first event: {event:?}");
                    let first = (&*event["event"], &*event["state"]);
                    let makes_a_sku = [("seed", "seeded"), ("adjust", "added")].contains(&first);
                    assert!(makes_a_sku, "the first event: {event:?}");
                    [number(&event["quantity"]), 0, 0]
                }
                None => event.counts,
            };
            assert_eq!(event.counts, after, "the counts after {event:?}");
            replay = Some(Replay { event_id: event.id.clone(), version: event.version, counts: after });
            event.assert_words();
            if !["seed", "repair", "adjust", "rules"].contains(&&*event["event"]) {
                let life = lives.entry(&event["reservationId"]).or_default();
                let earlier = life.state;
                let follows = match &*event["event"] {
                    // When the record of a settled reservation was dropped, its id may begin a new life.
                    "hold" => earlier.is_none_or(|earlier| earlier["state"] != "active"),
                    kind => {
                        let state = if kind == "return" { "confirmed" } else { "active" };
                        // What has lapsed may be sold after all.
                        let is_late = event["reason"] == "late_confirm";
                        let fits = |earlier: &Event| {
                            if is_late { earlier["event"] == "expired" } else { earlier["state"] == state }
                        };
                        earlier.is_some_and(fits) || earlier.is_none() && history == History::Trimmed
                    }
                };
                assert!(follows, "{event:?} after {earlier:?}");
                if event["event"] == "return" {
                    life.returns.push(event);
                    life.assert_return(event, seeded, is_repaired);
                } else {
                    *life = Life { state: Some(event), returns: Vec::new() };
                }
            }
            match &*event["event"] {
                "seed" if event["state"] == "seeded" => (seeded, is_repaired) = (Some(event), false),
                "repair" if event["reservationId"].is_empty() => is_repaired = true,
                _ => {}
            }
            match &*event["event"] {
                "rules" => rules = Some(&event["reason"]),
                "repair" if event["reason"] == "rules_restored" => rules = None,
                _ => {}
            }
            match &*event["event"] {
                "hold" | "extend" => drop(was_extended.insert(&event["reservationId"], event["event"] == "extend")),
                "repair" => drop(was_extended.remove(&*event["reservationId"])),
                _ => {}
            }
            match &*event["event"] {
                "hold" => {
                    let units = &*event["quantity"];
                    was_changed.insert(&event["reservationId"], (units, units, false));
                }
                "change" | "confirm" => {
                    let units = &*event["quantity"];
                    let of = was_changed.entry(&event["reservationId"]);
                    of.and_modify(|(_, now, is_changed)| (*now, *is_changed) = (units, *is_changed || *now != units));
                }
                "repair" => drop(was_changed.remove(&*event["reservationId"])),
                _ => {}
            }
            match &*event["event"] {
                "hold" => drop(noted.insert(&event["reservationId"], event.fields.get("metadata"))),
                "repair" => drop(noted.remove(&*event["reservationId"])),
                _ => {}
            }
        }

        let last = events.last().unwrap();
        let stored = ["available", "reserved", "confirmed"].map(|field| number(&stock[field]));
        assert_eq!(stored, last.counts, "stored counts and those after {last:?}");
        assert_eq!(stock["version"], last["version"], "the version after {last:?}");
        assert_eq!(stock["lastEvent"], last.id, "lastEvent after {last:?}");
        assert_eq!(stock["updatedAt"], last["happenedAt"], "updatedAt after {last:?}");
        if let Some(rules) = rules {
            assert_eq!(stock.get("rules").map_or("", String::as_str), rules, "the rules of {sku}");
        }
        if let Some(seeded) = seeded.filter(|_| !is_repaired || stock.contains_key("seededAt")) {
            assert_eq!(stock["seededAt"], seeded["happenedAt"], "seededAt after {seeded:?}");
        }
        for (id, life) in lives {
            self.assert_record(&format!("{prefix}reservation:{id}"), &life);
        }
        if history == History::Whole {
            for (id, was_extended) in was_extended {
                let record = self.records.get(&format!("{prefix}reservation:{id}"));
                let has_ttl = record.filter(|record| record["sku"] == sku).map(|record| record.contains_key("ttlMs"));
                assert!(has_ttl.is_none_or(|has_ttl| has_ttl == was_extended), "ttlMs of {id}: {record:?}");
            }
            for (id, (first, _, is_changed)) in was_changed {
                let record = self.records.get(&format!("{prefix}reservation:{id}"));
                let Some(record) = record.filter(|record| record["sku"] == sku) else { continue };
                let kept = record.get("initialQuantity").map(String::as_str);
                assert_eq!(kept, is_changed.then_some(first), "initialQuantity of {id}: {record:?}");
            }
            for (id, metadata) in noted {
                let record = self.records.get(&format!("{prefix}reservation:{id}"));
                let record = record.filter(|record| record["sku"] == sku);
                assert!(record.is_none_or(|record| record.get("metadata") == metadata), "metadata of {id}: {record:?}");
            }
            let held: BTreeSet<_> =
                events.iter().map(|event| format!("{prefix}reservation:{}", event["reservationId"])).collect();
            for (key, _) in self.records_of(prefix, sku) {
                assert!(held.contains(key), "{key} has no hold event");
            }
        }
    }

    /// A record equals the state after its last event. Only a settled one may be gone.
    fn assert_record(&self, key: &str, life: &Life) {
        // Of a sale whose events were trimmed, only the returns may be left.
        let Some(last) = life.state else { return };
        let Some(record) = self.records.get(key) else {
            assert_ne!(last["state"], "active", "{key} is active and gone");
            return;
        };
        // When the record was dropped, the id may have been used again for another SKU.
        let changed = life.returns.last().copied().unwrap_or(last);
        let is_later = record["state"] == "active" || record["createdAt"] >= last["happenedAt"];
        if last["state"] != "active" && record["sku"] != last["sku"] && is_later {
            return;
        }
        // What is active has no token, and was updated only if it was extended; an empty reason is not stored.
        let is_active = record["state"] == "active";
        let was_updated = last["event"] != "hold";
        // The reason of a change is told in the audit alone.
        let reason = if last["event"] == "change" { "" } else { &last["reason"] };
        let comes_later = |field: &&str| match *field {
            "reason" => reason.is_empty(),
            "updatedAt" => !was_updated,
            _ => false,
        };
        let mut fields: Vec<_> = RECORD_FIELDS.iter().copied().filter(|field| !comes_later(field)).collect();
        fields.sort_unstable();
        let is_returned = !life.returns.is_empty();
        let may_have = |field: &str| {
            !is_active && field == "token"
                || was_updated && ["ttlMs", "initialQuantity"].contains(&field)
                || field == "metadata"
                || is_returned && ["returned", "confirmedAt"].contains(&field)
        };
        let stored: Vec<_> = record.keys().filter(|field| !may_have(field)).cloned().collect();
        assert_eq!(stored, fields, "fields of {key}");
        for field in ["cartId", "sku", "quantity", "state"] {
            assert_eq!(record[field], last[field], "{field} of {key}");
        }
        assert_eq!(record.get("reason").map_or("", String::as_str), reason, "reason of {key}");
        assert!(number(&record["createdAt"]) < number(&record["expiresAt"]), "{key} expired when it was made");
        // Earlier than its event when a hold by a clock that was ahead was shortened, or when it was extended.
        assert!(record["createdAt"] <= last["happenedAt"], "createdAt of {key}");
        if was_updated {
            assert_eq!(record["updatedAt"], changed["happenedAt"], "updatedAt of {key}");
        }
        if is_returned {
            assert_eq!(number(&record["returned"]), life.returned(), "returned of {key}");
            assert_eq!(record["confirmedAt"], last["happenedAt"], "confirmedAt of {key}");
        }
    }

    /// An operation that is remembered was carried out: the audit has its event, with what it left.
    fn assert_operations(&self, prefix: &str, sku: &str, operations: &[(&String, &Fields)], history: History) {
        let all = self.events(prefix, sku);
        let events: BTreeMap<&str, &Event> = all.iter().map(|event| (&*event["version"], event)).collect();
        for (name, operation) in operations {
            let fields: Vec<_> = operation.keys().map(String::as_str).collect();
            if fields == RETURN_FIELDS {
                assert_return(name, operation, &all, history);
                continue;
            }
            if fields == CHANGE_FIELDS {
                assert_change(name, operation, &all, history);
                continue;
            }
            assert!(fields == SEED_FIELDS || fields == ADJUST_FIELDS, "fields of {name}: {fields:?}");
            let Some(event) = events.get(&*operation["version"]) else {
                assert!(history == History::Trimmed, "{name} has no event");
                continue;
            };
            assert_eq!(operation["updatedAt"], event["happenedAt"], "updatedAt of {name}");
            if fields == SEED_FIELDS {
                let told = ["event", "state", "quantity"].map(|field| &*event[field]);
                assert_eq!(told, ["seed", "seeded", &operation["quantity"]], "the event of {name}");
                continue;
            }
            assert_eq!(event["event"], "adjust", "the event of {name}");
            for field in ["available", "reserved", "confirmed", "reason"] {
                assert_eq!(operation[field], event[field], "{field} of {name}");
            }
            if operation["how"] == "set" {
                assert_eq!(operation["units"], operation["available"], "what {name} set");
            } else {
                let sign = if event["state"] == "removed" { "-" } else { "" };
                assert_eq!(operation["units"], format!("{sign}{}", event["quantity"]), "what {name} added");
            }
        }
    }

    /// What a cart lists is its own, as far as it is still there.
    fn assert_carts(&self) {
        for (name, listed) in &self.carts {
            let (prefix, cart) = name.split_once("cart:").unwrap();
            assert!(listed.len() <= MOST_LISTED, "{name} lists {}", listed.len());
            for (id, sku) in listed {
                if let Some(record) = self.records.get(&format!("{prefix}reservation:{id}")) {
                    assert_eq!((&*record["cartId"], &record["sku"]), (cart, sku), "{id} in {name}");
                }
            }
        }
    }

    fn records_of<'a>(&'a self, prefix: &'a str, sku: &'a str) -> impl Iterator<Item = (&'a String, &'a Fields)> {
        self.records
            .iter()
            .filter(move |(key, record)| key.split_once("reservation:").unwrap().0 == prefix && record["sku"] == sku)
    }

    fn events(&self, prefix: &str, sku: &str) -> Vec<Event> {
        let entries = self.audits.get(&format!("{prefix}inventory:audit")).into_iter().flatten();
        entries.map(Event::new).filter(|event| event["sku"] == sku).collect()
    }
}

/// A return that is remembered is in the audit once, and with those before it of the same sale it left what is
/// remembered.
fn assert_return(name: &str, operation: &Fields, events: &[Event], history: History) {
    let of = events.iter().filter(|event| event["reservationId"] == operation["reservationId"]);
    let of = of.skip_while(|event| (&*event["event"], &event["happenedAt"]) != ("confirm", &operation["confirmedAt"]));
    let mut returned = 0;
    let is_it = of.clone().filter(|event| event["event"] == "return").any(|event| {
        returned += number(&event["quantity"]);
        let word = if operation["restock"] == "restock" { "restocked" } else { "written_off" };
        ["quantity", "happenedAt"].map(|field| &event[field]) == [&operation["quantity"], &operation["updatedAt"]]
            && event["reason"].starts_with(word)
            && returned == number(&operation["returned"])
    });
    assert!(is_it || history == History::Trimmed, "{name} has no event: {operation:?}");
}

/// A change that is remembered is in the audit. One that changed nothing has no event, but then the reservation had held
/// that quantity already.
fn assert_change(name: &str, operation: &Fields, events: &[Event], history: History) {
    let of = events.iter().filter(|event| event["reservationId"] == operation["reservationId"]);
    let is_it = of.clone().any(|event| match &*operation["how"] {
        "set" => {
            let told = ["state", "quantity"].map(|field| &*event[field]);
            told == ["active", &operation["quantity"]] && event["happenedAt"] <= operation["updatedAt"]
        }
        _ => {
            let is_end = event["event"] == "release" && event["quantity"] == operation["quantity"];
            let is_part = event["reason"] == "partial_release";
            (is_end || is_part) && event["happenedAt"] == operation["updatedAt"]
        }
    });
    assert!(is_it || history == History::Trimmed, "{name} has no event: {operation:?}");
}

/// The events of a reservation since its last hold: the last one that is no return, and the returns after it.
#[derive(Default)]
struct Life<'a> {
    state: Option<&'a Event>,
    returns: Vec<&'a Event>,
}

impl Life<'_> {
    fn returned(&self) -> u64 {
        self.returns.iter().map(|event| number(&event["quantity"])).sum()
    }

    /// No more came back than was sold. What was sold before the last seed is not counted since, and all else is,
    /// unless a repair has set the counts.
    fn assert_return(&self, event: &Event, seeded: Option<&Event>, is_repaired: bool) {
        let Some(sale) = self.state else { return };
        assert!(self.returned() <= number(&sale["quantity"]), "more than was sold: {event:?} after {sale:?}");
        let is_after_seed = event["reason"].ends_with("_after_seed");
        let was_before = seeded.is_some_and(|seeded| seeded.version > sale.version);
        let at_once = seeded.is_some_and(|seeded| seeded["happenedAt"] == sale["happenedAt"]);
        assert!(is_after_seed == was_before || at_once || is_repaired, "{event:?}, sold by {sale:?}");
    }
}

/// All entries of a stream.
async fn entries(redis: &mut MultiplexedConnection, stream: &str) -> Vec<Entry> {
    let (mut all, mut start) = (Vec::new(), "-".to_owned());
    loop {
        let mut read = cmd("XRANGE");
        let page: Vec<Entry> =
            read.arg(stream).arg(&start).arg("+").arg("COUNT").arg(PAGE).query_async(redis).await.unwrap();
        let Some((last, _)) = page.last() else { return all };
        start = format!("({last}");
        all.extend(page);
    }
}

/// The state after a SKU's events, up to one of them.
struct Replay {
    event_id: String,
    version: u64,
    counts: [u64; 3],
}

impl Replay {
    /// `earlier` is the last event of the same reservation, if it is known.
    fn counts_after(&self, event: &Event, earlier: Option<&Event>) -> [u64; 3] {
        let [available, reserved, confirmed] = self.counts;
        let units = number(&event["quantity"]);
        match (&*event["event"], &*event["state"], &*event["reason"]) {
            ("seed", "seeded", _) => [units, 0, 0],
            ("seed", "draining", _) => [0, reserved, confirmed],
            ("hold", ..) => [available - units, reserved + units, confirmed],
            ("confirm", _, "late_confirm") => [available - units, reserved, confirmed + units],
            ("confirm", ..) => [available, reserved - units, confirmed + units],
            // This hold was released for a new count, and its units are not given back.
            ("release", _, "inventory_reseeded") => [available, reserved - units, confirmed],
            ("release" | "expired", ..) => [available + units, reserved - units, confirmed],
            ("extend" | "rules", ..) => self.counts,
            ("change", ..) => {
                // Without the event before, the event itself tells what it moved.
                let before = earlier.map_or(reserved + units - event.counts[1], |earlier| number(&earlier["quantity"]));
                [available + before - units, reserved + units - before, confirmed]
            }
            ("return", _, "restocked") => [available + units, reserved, confirmed - units],
            ("return", _, "written_off") => [available, reserved, confirmed - units],
            // A seed did not count what was sold before.
            ("return", _, "restocked_after_seed") => [available + units, reserved, confirmed],
            ("return", _, "written_off_after_seed") => self.counts,
            ("adjust", "added", _) => [available + units, reserved, confirmed],
            ("adjust", "removed", _) => [available - units, reserved, confirmed],
            // A repair states the counts, whatever they were before.
            ("repair", ..) => event.counts,
            _ => panic!("no such event: {event:?}"),
        }
    }
}

/// An audit entry.
#[derive(Debug)]
struct Event {
    id: String,
    version: u64,
    counts: [u64; 3],
    fields: Fields,
}

impl Event {
    fn new((id, entry): &Entry) -> Self {
        let names: Vec<_> = entry.iter().map(|(name, _)| name).collect();
        // A hold may have metadata, the last field.
        let usual = EVENT_FIELDS[1..EVENT_FIELDS.len() - 1].iter();
        let expected = usual.copied().chain((names.len() == EVENT_FIELDS.len() - 1).then_some("metadata"));
        assert!(names.iter().copied().eq(expected), "the fields of event {id}: {names:?}");
        let fields: Fields = entry.iter().cloned().collect();
        Self {
            id: id.clone(),
            version: number(&fields["version"]),
            counts: ["available", "reserved", "confirmed"].map(|field| number(&fields[field])),
            fields,
        }
    }

    /// The event, the resulting state and the reason belong together.
    fn assert_words(&self) {
        let words = (&*self["event"], &*self["state"], &*self["reason"]);
        let fits = matches!(
            words,
            ("seed", "seeded", "")
                | ("seed", "draining", "inventory_reseeded")
                | ("hold", "active", "")
                | ("extend", "active", "")
                | ("change", "active", "" | "partial_release" | "partial_confirm")
                | ("confirm", "confirmed", "" | "late_confirm")
                | ("release", "released", "manual_release" | "inventory_reseeded")
                | ("expired", "released", "reservation_ttl_elapsed")
                | (
                    "return",
                    "confirmed",
                    "restocked" | "written_off" | "restocked_after_seed" | "written_off_after_seed"
                )
                | ("adjust", "added" | "removed", _)
                | ("rules", "ruled", _)
                | ("repair", "repaired", "counts_restored" | "index_restored" | "rules_restored")
                | ("repair", "active" | "confirmed" | "released", "record_restored")
                | ("repair", "active", "expiry_restored")
        );
        assert!(fits, "{words:?}");
        let is_of_the_sku = ["seeded", "draining", "repaired", "added", "removed", "ruled"].contains(&&*self["state"]);
        assert_eq!(is_of_the_sku, self["reservationId"].is_empty(), "whom {self:?} concerns");
        assert_eq!(is_of_the_sku, self["cartId"].is_empty(), "whom {self:?} concerns");
    }
}

impl std::ops::Index<&str> for Event {
    type Output = String;

    fn index(&self, field: &str) -> &String {
        &self.fields[field]
    }
}

/// What the scripts read and never write.
fn is_the_operators(key: &str) -> bool {
    [stockhold::keys::SCRIPTS, stockhold::keys::LAYOUT].contains(&key) || key.ends_with("stockhold:settings")
}

enum Shape {
    Stock,
    Record,
    Operation,
    Cart,
    Scores,
    Audit,
}

/// The kind of a key by its name; there are no others.
fn shape(key: &str) -> Shape {
    let bare = match key.split_once(':') {
        Some((shard, bare)) if shard.starts_with('{') => bare,
        _ => key,
    };
    match bare.split(':').collect::<Vec<_>>()[..] {
        ["cart", ..] => Shape::Cart,
        ["inventory", "audit"] => Shape::Audit,
        ["inventory", _] => Shape::Stock,
        ["inventory", _, "active"] | ["stockhold", "due" | "skus"] => Shape::Scores,
        ["reservation", _] => Shape::Record,
        ["operation", _] => Shape::Operation,
        _ => panic!("no script is meant to write {key:?}"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a count: {text:?}"))
}
