//! What a sale with a choice does: a part is sold and the rest goes back, or what has lapsed is sold after all.

use crate::request::Sale;
use crate::state::{CONFIRM, EXPIRE, Model, Turn, reply};

pub const LATE_CONFIRM: &str = "late_confirm";

impl Model {
    pub fn sell(&mut self, sale: &Sale, keep_ms: u64, turn: &Turn) -> Vec<String> {
        let Sale { sku, id, token, quantity, late, cart } = sale;
        let Some(record) = self.records.get(id) else { return reply("NOT_FOUND", []) };
        if record.sku != *sku {
            return reply("CONFLICT", ["sku".to_owned()]);
        }
        let units = record.quantity;
        let sold = quantity.unwrap_or(units);
        if record.state == CONFIRM.state && !token.is_empty() && record.token == *token {
            return if sold == units { record.shown("REPLAYED") } else { reply("CONFLICT", ["quantity".to_owned()]) };
        }
        let is_due = record.is_due(turn.now);
        let was_expired = record.reason == EXPIRE.reason;
        if (is_due || was_expired) && !late {
            if is_due {
                self.end_and_look(id, &EXPIRE, keep_ms, turn);
            }
            return reply(EXPIRE.word, []);
        }
        if record.state != "active" && !was_expired {
            return reply("NOT_ACTIVE", [record.state, record.reason].map(str::to_owned));
        }
        if sold > units {
            return reply("EXCEEDS", [units.to_string()]);
        }
        if is_due || was_expired {
            if let Some(refusal) = self.limit(id, sold, cart.as_ref(), turn) {
                return refusal;
            }
            // As if it had been swept already.
            let left = self.stocks[sku].left() + if is_due { units as i64 } else { 0 };
            if sold as i64 > left {
                return reply("INSUFFICIENT", [left.max(0), self.lapsed(sku, turn.now) as i64].map(|n| n.to_string()));
            }
        }
        if is_due {
            self.end_and_look(id, &EXPIRE, keep_ms, turn);
        }
        let is_late = is_due || was_expired;
        let record = self.records.get_mut(id).expect("it is there");
        if sold < units {
            record.initial_quantity = record.initial_quantity.or(Some(units));
            record.quantity = sold;
            if !is_late {
                let stock = self.stock(sku);
                stock.available += units - sold;
                stock.reserved -= units - sold;
                self.log_for(id, "change", "partial_confirm", turn);
            }
        }
        if is_late {
            let stock = self.stock(sku);
            stock.available -= sold;
            stock.confirmed += sold;
            let record = self.records.get_mut(id).expect("it is there");
            (record.state, record.reason, record.updated_at) = (CONFIRM.state, LATE_CONFIRM, turn.now);
            record.dropped_at = (keep_ms > 0).then_some((turn.began + keep_ms, turn.ended + keep_ms));
            self.log_of(id, CONFIRM.event, turn);
        } else {
            self.end_and_look(id, &CONFIRM, keep_ms, turn);
        }
        let record = self.records.get_mut(id).expect("it is there");
        record.token.clone_from(token);
        record.shown(CONFIRM.word)
    }
}
