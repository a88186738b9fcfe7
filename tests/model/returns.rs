//! What a return does: units of a sale come back on sale, or leave the books.

use crate::request::{Fault, Return};
use crate::state::{CONFIRM, Model, Record, Turn, reply};

const MOST: u64 = 1_000_000_000_000;

impl Model {
    pub fn take_back(&mut self, request: &Return, keep_ms: u64, turn: &Turn) -> Result<Vec<String>, Fault> {
        let Return { sku, id, operation, quantity, restock, once } = request;
        let sale = self.records.get(id).filter(|record| record.state == CONFIRM.state);
        let sold_at = sale.map(|sale| sale.confirmed_at.unwrap_or(sale.updated_at));
        let asked = vec![
            ("sku", sku.clone()),
            ("reservationId", id.clone()),
            ("confirmedAt", sold_at.map_or(String::new(), |at| at.to_string())),
            ("quantity", quantity.to_string()),
            ("restock", restock.clone()),
        ];
        let earlier = self.operations.get(operation);
        if earlier.is_some_and(|earlier| earlier.is_of_another_kind(&asked)) {
            return Err(Fault::BadKey);
        }
        let Some(record) = self.records.get(id) else { return Ok(reply("NOT_FOUND", [])) };
        if record.sku != *sku {
            return Ok(reply("CONFLICT", ["sku".to_owned()]));
        }
        if let Some(earlier) = earlier {
            return Ok(match (earlier.conflict(&asked), &earlier.left[..]) {
                (Some(field), _) => reply("CONFLICT", [field]),
                (None, [(_, returned), (_, updated_at)]) => {
                    let then = Record { returned: *returned, updated_at: *updated_at, ..record.clone() };
                    then.shown_with_returned("REPLAYED")
                }
                (None, left) => panic!("{left:?}"),
            });
        }
        let Some(sold_at) = sold_at else {
            return Ok(reply("NOT_SOLD", [record.state, record.reason].map(str::to_owned)));
        };
        let left = record.quantity - record.returned;
        if *quantity > left {
            return Ok(reply("EXCEEDS", [left.to_string()]));
        }
        let cart = record.cart.clone();
        let stock = self.stock(sku);
        let is_counted = stock.seeded_at.is_none_or(|seeded_at| seeded_at < sold_at) && *quantity <= stock.confirmed;
        let is_restocked = restock == "restock";
        if is_restocked && !is_counted && stock.seeded() + quantity > MOST {
            return Ok(reply("EXCESSIVE", []));
        }
        stock.confirmed -= if is_counted { *quantity } else { 0 };
        stock.available += if is_restocked { *quantity } else { 0 };
        let word = if is_restocked { "restocked" } else { "written_off" };
        let reason = if is_counted { word.to_owned() } else { format!("{word}_after_seed") };
        self.log(sku, ["return", id, &cart, sku, &quantity.to_string(), CONFIRM.state, &reason], turn);
        let record = self.records.get_mut(id).expect("it was there");
        record.returned += quantity;
        (record.confirmed_at, record.updated_at) = (Some(sold_at), turn.now);
        let (done, returned) = (record.shown_with_returned("RETURNED"), record.returned);
        if *once {
            let left = vec![("returned", returned), ("updatedAt", turn.now)];
            self.remember(operation, asked, left, keep_ms, turn);
        }
        Ok(done)
    }
}

impl Record {
    fn shown_with_returned(&self, word: &str) -> Vec<String> {
        let mut shown = self.shown(word);
        shown.push(self.returned.to_string());
        shown
    }
}
