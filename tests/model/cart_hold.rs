//! What the hold of a cart does: all of its lines or none, with one expiry, in the list of the cart.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use crate::request::{CartHold, CartLine, Fault, NamedCart};
use crate::rules::Answer;
use crate::state::{Held, Model, Rules, Stock, Turn, reply};

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
        let ttl_ms = self.lasts_ms(hold);
        let held = hold.lines.iter().map(|CartLine { sku, id, quantity }| {
            let metadata = &hold.metadata;
            let held = Held { sku, id, cart: &hold.cart, quantity: *quantity, ttl_ms, metadata };
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
                ("metadata", record.metadata == hold.metadata),
                ("items", is_repeat),
            ];
            return Some(match same.iter().find(|(_, same)| !same) {
                Some((field, _)) => reply("CONFLICT", [(*field).to_owned()]),
                None => record.shown("REPLAYED"),
            });
        }
        let Some(stock) = self.stocks.get(&line.sku) else { return Some(reply("UNKNOWN_SKU", [])) };
        if let Some(refusal) = stock.rules().too_long(self.lasts_ms(hold)) {
            return Some(refusal);
        }
        if let Some(per_cart) = stock.rules().per_cart {
            let own: Vec<_> = hold.lines.iter().map(|line| &line.id).collect();
            let cart = NamedCart { id: hold.cart.clone(), others: hold.others.clone() };
            match self.units_of_cart(&cart, &line.sku, &own, turn) {
                None => return Some(reply("UNSEEN", [])),
                Some(has) if has + line.quantity > per_cart => {
                    return Some(reply("CART_LIMIT", [per_cart, has].map(|units| units.to_string())));
                }
                Some(_) => {}
            }
        }
        let lapsed = self.lapsed(&line.sku, turn.now);
        let left = stock.left();
        (left < line.quantity as i64).then(|| reply("INSUFFICIENT", [left.max(0).to_string(), lapsed.to_string()]))
    }

    /// How long the whole cart lasts.
    fn lasts_ms(&self, hold: &CartHold) -> u64 {
        let rules = hold.lines.iter().filter_map(|line| self.stocks.get(&line.sku)).map(Stock::rules);
        let times = rules.map(|rules| rules.lasts_ms(hold.ttl_ms));
        times.min().unwrap_or_else(|| Rules::default().lasts_ms(hold.ttl_ms))
    }
}

impl CartHold {
    /// What stands for the lines in any order, their time and their metadata.
    fn fingerprint(&self) -> String {
        let mut lines: Vec<_> =
            self.lines.iter().map(|CartLine { sku, id, quantity }| format!("{id} {sku} {quantity}")).collect();
        lines.sort();
        let ttl = self.ttl_ms.map_or("default".to_owned(), |ms| ms.to_string());
        let mut all = format!("{ttl} {}", lines.join(" "));
        if !self.metadata.is_empty() {
            all = format!("{all} {}", self.metadata);
        }
        let sum = Sha1::digest(all);
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
