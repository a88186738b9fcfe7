//! The rules as a state machine: no Redis, no clock, no randomness. What only Redis can choose comes with each
//! [`Turn`].

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::call::Call;
use crate::names::event_id;
use crate::request::{Events, Fault, Item, Line, Request, Seed};
use crate::state::{CONFIRM, DRAIN, EXPIRE, Ending, Event, Held, Model, RELEASE, Record, Rules, Turn, reply};

/// How long settled records are kept by default.
const THIRTY_DAYS_MS: u64 = 2_592_000_000;

/// A line for each item.
pub type Answer = Result<Vec<Vec<String>>, Fault>;

impl Model {
    /// The answer to a call. Applies its changes.
    pub fn step(&mut self, call: &Call, turn: &Turn) -> Answer {
        let is_kept = |dropped_at: Option<(u64, u64)>| dropped_at.is_none_or(|(_, latest)| turn.gone_before <= latest);
        self.records.retain(|_, record| is_kept(record.dropped_at));
        self.operations.retain(|_, operation| is_kept(operation.dropped_at));
        let request = if self.on_shard { Request::read(&call.without_shard()) } else { Request::read(call) }?;
        let keep_ms = self.keep_ms.unwrap_or(THIRTY_DAYS_MS);
        let lines = match &request {
            Request::Seed(request) => vec![self.seed(request, keep_ms, turn)?],
            Request::Hold { all, lines } => self.hold_lines(*all, lines, turn),
            Request::Confirm { all, items } => self.settle_items(&CONFIRM, *all, items, keep_ms, turn),
            Request::Release { all, items } => self.settle_items(&RELEASE, *all, items, keep_ms, turn),
            Request::Extend { all, items } => self.extend_items(*all, items, keep_ms, turn),
            Request::Adjust { all, items } => return self.adjust_items(*all, items, keep_ms, turn),
            Request::Change(change) => vec![self.change(change, keep_ms, turn)?],
            Request::Rules { sku, rules } => vec![self.rule(sku, *rules, turn)],
            Request::Sell(sale) => vec![self.sell(sale, keep_ms, turn)],
            Request::Return(request) => vec![self.take_back(request, keep_ms, turn)?],
            Request::CartHold(hold) => return self.cart_hold(hold, keep_ms, turn),
            Request::Sweep { sku, ids } => vec![self.sweep(sku, ids, keep_ms, turn)],
            Request::Repair(repair) => vec![self.repair(repair, keep_ms, turn)?],
            Request::Inventory { sku, limit } => self.inventory(sku, *limit, turn),
            Request::Audit { of, limit, before } => return self.audit(of, *limit, *before),
        };
        Ok(lines)
    }

    fn seed(&mut self, request: &Seed, keep_ms: u64, turn: &Turn) -> Result<Vec<String>, Fault> {
        let Seed { sku, ids, operation, quantity, once } = request;
        let asked = quantity.map_or(String::new(), |quantity| quantity.to_string());
        let asked = vec![("sku", sku.clone()), ("quantity", asked)];
        let earlier = self.operations.get(operation);
        if earlier.is_some_and(|earlier| earlier.is_of_another_kind(&asked)) {
            return Err(Fault::BadKey);
        }
        let Some(quantity) = quantity else { return Ok(reply("PROBED", [])) };
        if let Some(earlier) = earlier {
            let left = earlier.left.iter().map(|(_, number)| number.to_string());
            return Ok(match earlier.conflict(&asked) {
                Some(field) => reply("CONFLICT", [field]),
                None => reply("REPLAYED", [quantity.to_string()].into_iter().chain(left)),
            });
        }
        let (listed, left): (Vec<_>, Vec<_>) =
            self.active(sku).into_iter().map(|(_, id)| id.clone()).partition(|id| ids.contains(id));
        let stock = self.stocks.entry(sku.to_owned()).or_default();
        if stock.available > 0 && !(listed.is_empty() && left.is_empty()) {
            stock.available = 0;
            self.log(sku, ["seed", "", "", sku, "0", "draining", "inventory_reseeded"], turn);
        }
        for id in ids {
            if listed.contains(id) && self.records[id].state == "active" {
                self.end(id, &DRAIN, keep_ms, turn);
            }
        }
        if !left.is_empty() {
            return Ok(reply("DRAINING", [left.len().to_string()]));
        }
        let quantity = quantity.to_string();
        let stock = self.stock(sku);
        (stock.available, stock.reserved, stock.confirmed) = (quantity.parse().unwrap(), 0, 0);
        stock.seeded_at = Some(turn.now);
        self.log(sku, ["seed", "", "", sku, &quantity, "seeded", ""], turn);
        if self.stocks[sku].rules() != Rules::default() {
            self.tell_rules(sku, turn);
        }
        self.due.remove(sku);
        let version = self.stock(sku).version;
        if *once {
            self.remember(operation, asked, vec![("updatedAt", turn.now), ("version", version)], keep_ms, turn);
        }
        Ok(reply("SEEDED", [quantity, turn.now.to_string(), version.to_string()]))
    }

    fn hold_lines(&mut self, all: bool, lines: &[Line], turn: &Turn) -> Vec<Vec<String>> {
        let mut draft = self.clone();
        let (mut made, mut refused) = (BTreeSet::new(), false);
        let mut replies: Vec<_> = lines.iter().map(|line| draft.hold(line, turn)).collect();
        for (line, reply) in lines.iter().zip(&replies) {
            match &*reply[0] {
                "HELD" => drop(made.insert(&line.id)),
                "REPLAYED" => {}
                _ => refused = true,
            }
        }
        if all && refused {
            withdraw(&mut replies, lines.iter().map(|line| made.contains(&line.id)));
        } else {
            *self = draft;
        }
        replies
    }

    fn hold(&mut self, line: &Line, turn: &Turn) -> Vec<String> {
        let Line { sku, id, cart, quantity, ttl_ms, metadata } = line;
        if let Some(record) = self.records.get(id) {
            let same = [
                ("cartId", record.cart == *cart),
                ("sku", record.sku == *sku),
                ("quantity", record.initial_quantity.unwrap_or(record.quantity) == *quantity),
                ("metadata", record.metadata == *metadata),
            ];
            return match same.iter().find(|(_, same)| !same) {
                Some((field, _)) => reply("CONFLICT", [(*field).to_owned()]),
                None => record.shown("REPLAYED"),
            };
        }
        let lapsed = self.lapsed(sku, turn.now);
        let Some(stock) = self.stocks.get(sku) else { return reply("UNKNOWN_SKU", []) };
        let rules = stock.rules();
        if rules.per_cart.is_some() {
            return reply("BY_CART", []);
        }
        let ttl_ms = rules.lasts_ms(*ttl_ms);
        if let Some(refusal) = rules.too_long(ttl_ms) {
            return refusal;
        }
        if stock.left() < *quantity as i64 {
            return reply("INSUFFICIENT", [stock.left().max(0).to_string(), lapsed.to_string()]);
        }
        let held = Held { sku, id, cart, quantity: *quantity, ttl_ms, metadata };
        self.reserve(&held, turn)
    }

    fn settle_items(
        &mut self,
        ending: &Ending,
        all: bool,
        items: &[Item],
        keep_ms: u64,
        turn: &Turn,
    ) -> Vec<Vec<String>> {
        let mut draft = self.clone();
        let (mut ended, mut expired, mut refused) = (BTreeSet::new(), Vec::new(), false);
        let mut replies = Vec::new();
        for item in items {
            let repeated = all && ended.contains(&item.id);
            let reply = draft.settle(ending, item, repeated, keep_ms, turn);
            match &*reply[0] {
                "EXPIRED" if self.records[&item.id].state == "active" && !expired.contains(&&item.id) => {
                    expired.push(&item.id);
                }
                word if word == ending.word => drop(ended.insert(&item.id)),
                _ => {}
            }
            refused |= reply[0] != ending.word && reply[0] != "REPLAYED";
            replies.push(reply);
        }
        if all && refused {
            withdraw(&mut replies, items.iter().map(|item| ended.contains(&item.id)));
            // An expiry is not withdrawn.
            for id in expired {
                self.end_and_look(id, &EXPIRE, keep_ms, turn);
            }
        } else {
            *self = draft;
        }
        replies
    }

    /// `repeated`: an earlier item of the call has settled it, which counts as a repeat with any token.
    fn settle(&mut self, ending: &Ending, item: &Item, repeated: bool, keep_ms: u64, turn: &Turn) -> Vec<String> {
        let Some(record) = self.records.get(&item.id) else { return reply("NOT_FOUND", []) };
        if record.sku != item.sku {
            return reply("CONFLICT", ["sku".to_owned()]);
        }
        if record.state != "active" {
            let same_token = !item.token.is_empty() && item.token == record.token;
            return if record.state == ending.state && (same_token || repeated) {
                record.shown("REPLAYED")
            } else if record.reason == EXPIRE.reason {
                reply(EXPIRE.word, [])
            } else {
                reply("NOT_ACTIVE", [record.state, record.reason].map(str::to_owned))
            };
        }
        if record.expires_at <= turn.now {
            self.end_and_look(&item.id, &EXPIRE, keep_ms, turn);
            return reply(EXPIRE.word, []);
        }
        self.end_and_look(&item.id, ending, keep_ms, turn);
        let record = self.records.get_mut(&item.id).expect("it was there");
        record.token.clone_from(&item.token);
        record.shown(ending.word)
    }

    fn sweep(&mut self, sku: &str, ids: &[String], keep_ms: u64, turn: &Turn) -> Vec<String> {
        if !self.stocks.contains_key(sku) {
            return reply("UNKNOWN_SKU", []);
        }
        let mut expired = 0;
        for id in ids {
            let due = |record: &Record| record.sku == sku && record.is_due(turn.now);
            if self.records.get(id).is_some_and(due) {
                self.end(id, &EXPIRE, keep_ms, turn);
                expired += 1;
            }
        }
        let earliest = self.active(sku).first().map(|(expires, _)| *expires);
        match earliest {
            Some(expires) => drop(self.due.insert(sku.to_owned(), expires)),
            None => drop(self.due.remove(sku)),
        }
        reply("SWEPT", [expired.to_string(), earliest.map_or(String::new(), |expires| expires.to_string())])
    }

    fn inventory(&self, sku: &str, limit: usize, turn: &Turn) -> Vec<Vec<String>> {
        let Some(stock) = self.stocks.get(sku) else { return vec![reply("UNKNOWN_SKU", [])] };
        let active = self.active(sku);
        let numbers =
            [stock.available, stock.reserved, stock.confirmed, stock.seeded(), stock.updated_at, stock.version];
        let counts = [active.len(), self.lapsed(sku, turn.now)];
        let numbers = numbers.iter().map(u64::to_string).chain(counts.iter().map(usize::to_string));
        let first = reply("STOCK", [sku.to_owned()].into_iter().chain(numbers).chain([stock.rules().text()]));
        let listed = active.iter().take(limit);
        [first]
            .into_iter()
            .chain(listed.map(|(expires, id)| reply("ACTIVE", [(*id).clone(), expires.to_string()])))
            .collect()
    }

    fn audit(&self, of: &Events, limit: usize, before: Option<(u64, u64)>) -> Answer {
        let id_of = |event: &Event| event_id(event.id.as_bytes()).expect("Redis made it");
        let wanted: Vec<&Rc<Event>> = match of {
            Events::Elsewhere => Vec::new(),
            Events::All => self.events.iter().collect(),
            Events::Sku(sku) => {
                if let Some(before) = before {
                    let Some(event) = self.events.iter().find(|event| id_of(event) == before) else {
                        return Ok(Vec::new());
                    };
                    if event.sku() != sku {
                        return Err(Fault::BadArgs);
                    }
                }
                self.events.iter().filter(|event| event.sku() == sku).collect()
            }
        };
        let newest_first = wanted.into_iter().rev().filter(|event| before.is_none_or(|before| id_of(event) < before));
        let line = |event: &Rc<Event>| {
            let metadata = if event.metadata().is_empty() { Some(String::new()) } else { None };
            reply("EVENT", [event.id.clone()].into_iter().chain(event.fields.clone()).chain(metadata))
        };
        Ok(newest_first.take(limit).map(line).collect())
    }
}

/// Items that would have been done are withdrawn.
pub fn withdraw(replies: &mut [Vec<String>], done: impl Iterator<Item = bool>) {
    for (line, done) in replies.iter_mut().zip(done) {
        if done && ["HELD", "CONFIRMED", "RELEASED", "EXTENDED", "ADJUSTED", "REPLAYED"].contains(&&*line[0]) {
            *line = reply("WITHDRAWN", []);
        }
    }
}
