//! What an adjustment does: it changes the units that are available, and remembers that it did.

use std::collections::BTreeSet;

use crate::request::Adjustment;
use crate::rules::withdraw;
use crate::state::{Model, Operation, Stock, Turn, reply};

const MOST: i64 = 1_000_000_000_000;

impl Model {
    pub fn adjust_items(&mut self, all: bool, items: &[Adjustment], keep_ms: u64, turn: &Turn) -> Vec<Vec<String>> {
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
        replies
    }

    fn adjust(&mut self, item: &Adjustment, keep_ms: u64, turn: &Turn) -> Vec<String> {
        if let Some(operation) = self.operations.get(&item.operation) {
            let names = ["how", "units", "ifVersion", "create", "reason"].into_iter();
            let same =
                names.zip(operation.asked.iter().zip(&item.asked)).map(|(name, (then, now))| (name, then == now));
            let mut same = [("sku", operation.sku == item.sku)].into_iter().chain(same);
            return match same.find(|(_, same)| !same) {
                Some((field, _)) => reply("CONFLICT", [field.to_owned()]),
                None => reply("REPLAYED", operation.left.map(|number| number.to_string())),
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
        let [.., reason] = &item.asked;
        let quantity = (after - before).unsigned_abs().to_string();
        self.log(&item.sku, ["adjust", "", "", &item.sku, &quantity, state, reason], turn);
        let Stock { available, reserved, confirmed, version, updated_at, .. } = *self.stock(&item.sku);
        let left = [available, reserved, confirmed, updated_at, version];
        if item.once {
            let dropped_at = (keep_ms > 0).then_some((turn.began + keep_ms, turn.ended + keep_ms));
            let operation = Operation { sku: item.sku.clone(), asked: item.asked.clone(), left, dropped_at };
            self.operations.insert(item.operation.clone(), operation);
        }
        reply("ADJUSTED", left.map(|number| number.to_string()))
    }
}
