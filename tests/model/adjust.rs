//! What an adjustment does: it changes the units that are available, and remembers that it did.

use std::collections::BTreeSet;

use crate::request::{Adjustment, Fault};
use crate::rules::{Answer, withdraw};
use crate::state::{Model, Stock, Turn, reply};

const MOST: i64 = 1_000_000_000_000;

impl Model {
    pub fn adjust_items(&mut self, all: bool, items: &[Adjustment], keep_ms: u64, turn: &Turn) -> Answer {
        let is_foreign = |item: &Adjustment| {
            self.operations.get(&item.operation).is_some_and(|operation| operation.is_of_another_kind(&item.asked))
        };
        if items.iter().any(is_foreign) {
            return Err(Fault::BadKey);
        }
        let mut draft = self.clone();
        let (mut made, mut refused) = (BTreeSet::new(), false);
        let mut replies = Vec::new();
        for item in items {
            let reply = draft.adjust(item, keep_ms, turn);
            let done = reply[0] == "ADJUSTED";
            if done {
                made.insert((&item.operation, item.once));
            }
            refused |= !done && reply[0] != "REPLAYED";
            replies.push(reply);
        }
        if all && refused {
            let is_made = |item: &Adjustment, reply: &str| {
                reply == "ADJUSTED" || reply == "REPLAYED" && made.contains(&(&item.operation, true))
            };
            let words: Vec<_> = replies.iter().map(|reply| reply[0].clone()).collect();
            withdraw(&mut replies, items.iter().zip(words).map(|(item, word)| is_made(item, &word)));
        } else {
            *self = draft;
        }
        Ok(replies)
    }

    fn adjust(&mut self, item: &Adjustment, keep_ms: u64, turn: &Turn) -> Vec<String> {
        if let Some(operation) = self.operations.get(&item.operation) {
            return match operation.conflict(&item.asked) {
                Some(field) => reply("CONFLICT", [field]),
                None => reply("REPLAYED", operation.left.iter().map(|(_, number)| number.to_string())),
            };
        }
        let stock = match self.stocks.get(&item.sku) {
            Some(stock) => stock.clone(),
            None if item.create => Stock::default(),
            None => return reply("UNKNOWN_SKU", []),
        };
        if item.if_version.is_some_and(|version| version != stock.version) {
            return reply("STALE", [stock.version.to_string()]);
        }
        let before = stock.available as i64;
        let after = if item.sets { item.units } else { before + item.units };
        if after < 0 {
            return reply("INSUFFICIENT", [before.to_string(), self.lapsed(&item.sku, turn.now).to_string()]);
        }
        if after + (stock.reserved + stock.confirmed) as i64 > MOST {
            return reply("EXCESSIVE", []);
        }
        self.stocks.insert(item.sku.clone(), Stock { available: after as u64, ..stock });
        let state = if after < before { "removed" } else { "added" };
        let (_, reason) = item.asked.last().expect("it is the last");
        let quantity = (after - before).unsigned_abs().to_string();
        self.log(&item.sku, ["adjust", "", "", &item.sku, &quantity, state, reason], turn);
        let Stock { available, reserved, confirmed, version, updated_at, .. } = *self.stock(&item.sku);
        let left = [available, reserved, confirmed, updated_at, version];
        if item.once {
            let names = ["available", "reserved", "confirmed", "updatedAt", "version"];
            let left = names.into_iter().zip(left).collect();
            self.remember(&item.operation, item.asked.clone(), left, keep_ms, turn);
        }
        reply("ADJUSTED", left.map(|number| number.to_string()))
    }
}
