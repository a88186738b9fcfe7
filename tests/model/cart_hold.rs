//! What the hold of a cart does: all of its lines or none, with one expiry, in the list of the cart.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use crate::request::{CartHold, CartLine, Fault};
use crate::rules::Answer;
use crate::state::{Held, Model, Turn, reply};

const LONGEST_MS: u64 = 2_592_000_000;
const MOST_LISTED: usize = 100;

/// What a cart lists: ids with their SKUs.
#[derive(Clone, Default)]
pub struct Cart {
    pub listed: BTreeMap<String, String>,
    /// As that of a record.
    pub dropped_at: Option<(u64, u64)>,
}

impl Model {
    pub fn cart_hold(&mut self, hold: &CartHold, keep_ms: u64, turn: &Turn) -> Answer {
        let asked = vec![("cartId", hold.cart.clone()), ("items", hold.fingerprint())];
        if let Some(earlier) = self.operations.get(&hold.operation) {
            if earlier.is_of_another_kind(&asked) {
                return Err(Fault::BadKey);
            }
            let conflict = earlier.conflict(&asked);
            return Ok(hold.lines.iter().map(|line| self.repeated(hold, line, conflict.as_deref())).collect());
        }
        let known = hold.lines.iter().filter(|line| self.records.contains_key(&line.id)).count();
        let is_repeat = known == hold.lines.len();
        let refusals: Vec<_> = hold.lines.iter().map(|line| self.refusal(hold, line, is_repeat, turn)).collect();
        if is_repeat || refusals.iter().any(Option::is_some) {
            return Ok(refusals.into_iter().map(|refusal| refusal.unwrap_or(reply("WITHDRAWN", []))).collect());
        }
        let mut cart = self.carts.get(&hold.cart).cloned().unwrap_or_default();
        cart.listed.extend(hold.lines.iter().map(|line| (line.id.clone(), line.sku.clone())));
        if cart.listed.len() > MOST_LISTED {
            let has_ended = |id: &String| self.records.get(id).is_none_or(|record| record.state == "released");
            let own: BTreeSet<_> = hold.lines.iter().map(|line| &line.id).collect();
            for id in hold.others.iter().filter(|id| !own.contains(id) && has_ended(id)) {
                cart.listed.remove(id);
            }
            if cart.listed.len() > MOST_LISTED {
                return Ok(hold.lines.iter().map(|_| reply("FULL", [])).collect());
            }
        }
        let lasts_ms = LONGEST_MS + keep_ms;
        let dropped_at = (keep_ms > 0).then_some((turn.began + lasts_ms, turn.ended + lasts_ms));
        self.carts.insert(hold.cart.clone(), Cart { dropped_at, ..cart });
        if hold.once {
            let kept_ms = if keep_ms > 0 { lasts_ms } else { 0 };
            self.remember(&hold.operation, asked, vec![("updatedAt", turn.now)], kept_ms, turn);
        }
        let held = hold.lines.iter().map(|CartLine { sku, id, quantity }| {
            let held = Held { sku, id, cart: &hold.cart, quantity: *quantity, ttl_ms: hold.ttl_ms, metadata: "" };
            self.reserve(&held, turn)
        });
        Ok(held.collect())
    }

    /// A line of an operation that was carried out.
    fn repeated(&self, hold: &CartHold, line: &CartLine, conflict: Option<&str>) -> Vec<String> {
        if let Some(field) = conflict {
            return reply("CONFLICT", [field.to_owned()]);
        }
        let record = self.records.get(&line.id).filter(|record| record.cart == hold.cart && record.sku == line.sku);
        record.map_or(reply("NOT_FOUND", []), |record| record.shown("REPLAYED"))
    }

    /// Why a line is not held; `None` if it can be.
    fn refusal(&self, hold: &CartHold, line: &CartLine, is_repeat: bool, turn: &Turn) -> Option<Vec<String>> {
        if let Some(record) = self.records.get(&line.id) {
            let same = [
                ("cartId", record.cart == hold.cart),
                ("sku", record.sku == line.sku),
                ("quantity", record.initial_quantity.unwrap_or(record.quantity) == line.quantity),
                ("metadata", record.metadata.is_empty()),
                ("items", is_repeat),
            ];
            return Some(match same.iter().find(|(_, same)| !same) {
                Some((field, _)) => reply("CONFLICT", [(*field).to_owned()]),
                None => record.shown("REPLAYED"),
            });
        }
        let Some(stock) = self.stocks.get(&line.sku) else { return Some(reply("UNKNOWN_SKU", [])) };
        let lapsed = self.lapsed(&line.sku, turn.now);
        (stock.available < line.quantity)
            .then(|| reply("INSUFFICIENT", [stock.available.to_string(), lapsed.to_string()]))
    }
}

impl CartHold {
    /// What stands for the lines and their time, in any order.
    fn fingerprint(&self) -> String {
        let mut lines: Vec<_> =
            self.lines.iter().map(|CartLine { sku, id, quantity }| format!("{id} {sku} {quantity}")).collect();
        lines.sort();
        let sum = Sha1::digest(format!("{} {}", self.ttl_ms, lines.join(" ")));
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
