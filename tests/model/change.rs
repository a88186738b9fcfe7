//! What a change does: an active reservation holds another number of units, or ends with its last ones.

use crate::request::{Change, Fault};
use crate::state::{EXPIRE, Model, RELEASE, Turn, reply};

impl Model {
    pub fn change(&mut self, change: &Change, keep_ms: u64, turn: &Turn) -> Result<Vec<String>, Fault> {
        let Change { sku, id, operation, releases, quantity, once, cart } = change;
        let how = if *releases { "release" } else { "set" };
        let asked = vec![
            ("sku", sku.clone()),
            ("reservationId", id.clone()),
            ("how", how.to_owned()),
            ("quantity", quantity.to_string()),
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
            return Ok(match earlier.conflict(&asked) {
                Some(field) => reply("CONFLICT", [field]),
                None => record.shown("REPLAYED"),
            });
        }
        if record.is_due(turn.now) {
            self.end_and_look(id, &EXPIRE, keep_ms, turn);
            return Ok(reply(EXPIRE.word, []));
        }
        if record.state != "active" {
            let told = || [record.state, record.reason].map(str::to_owned);
            let is_expired = record.reason == EXPIRE.reason;
            return Ok(if is_expired { reply(EXPIRE.word, []) } else { reply("NOT_ACTIVE", told()) });
        }
        let before = record.quantity;
        let after = if *releases { before.checked_sub(*quantity) } else { Some(*quantity) };
        let Some(after) = after else { return Ok(reply("EXCEEDS", [before.to_string()])) };
        if after > before {
            if let Some(refusal) = self.limit(id, after, cart.as_ref(), turn) {
                return Ok(refusal);
            }
            let left = self.stocks[sku].left();
            if (after - before) as i64 > left {
                return Ok(reply(
                    "INSUFFICIENT",
                    [left.max(0), self.lapsed(sku, turn.now) as i64].map(|n| n.to_string()),
                ));
            }
        }
        let word = if after == 0 { RELEASE.word } else { "CHANGED" };
        if after == 0 {
            self.end_and_look(id, &RELEASE, keep_ms, turn);
        } else if after != before {
            let stock = self.stock(sku);
            stock.available = stock.available + before - after;
            stock.reserved = stock.reserved + after - before;
            let record = self.records.get_mut(id).expect("it is there");
            record.initial_quantity = record.initial_quantity.or(Some(before));
            (record.quantity, record.updated_at, record.is_updated) = (after, turn.now, true);
            self.log_for(id, "change", if *releases { "partial_release" } else { "" }, turn);
        }
        let shown = self.records[id].shown(word);
        if *once {
            self.remember(operation, asked, vec![("updatedAt", turn.now)], keep_ms, turn);
        }
        Ok(shown)
    }
}
