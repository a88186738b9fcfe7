//! What an extension does: an active reservation lapses later, within the operator's limit.

use crate::request::Extension;
use crate::rules::withdraw;
use crate::state::{EXPIRE, Model, Turn, reply};

const HOUR_MS: u64 = 3_600_000;

impl Model {
    pub fn extend_items(&mut self, all: bool, items: &[Extension], keep_ms: u64, turn: &Turn) -> Vec<Vec<String>> {
        let mut draft = self.clone();
        let mut replies: Vec<_> = items.iter().map(|item| draft.extend(item, keep_ms, turn)).collect();
        if all && replies.iter().any(|reply| reply[0] != "EXTENDED") {
            withdraw(&mut replies, items.iter().map(|_| true));
            // An expiry is not withdrawn.
            for (item, _) in items.iter().zip(&replies).filter(|(_, reply)| reply[0] == EXPIRE.word) {
                if self.records[&item.id].is_due(turn.now) {
                    self.end_and_look(&item.id, &EXPIRE, keep_ms, turn);
                }
            }
        } else {
            *self = draft;
        }
        replies
    }

    fn extend(&mut self, item: &Extension, keep_ms: u64, turn: &Turn) -> Vec<String> {
        let most_ms = self.stocks.get(&item.sku).and_then(|stock| stock.rules().max_ttl_ms);
        let max_ms = self.extend_max_ms.unwrap_or(HOUR_MS);
        let max_ms = max_ms.min(most_ms.unwrap_or(max_ms));
        let Some(record) = self.records.get_mut(&item.id) else { return reply("NOT_FOUND", []) };
        if record.sku != item.sku {
            return reply("CONFLICT", ["sku".to_owned()]);
        }
        if record.is_due(turn.now) {
            self.end_and_look(&item.id, &EXPIRE, keep_ms, turn);
            return reply(EXPIRE.word, []);
        }
        if record.state != "active" {
            return if record.reason == EXPIRE.reason {
                reply(EXPIRE.word, [])
            } else {
                reply("NOT_ACTIVE", [record.state, record.reason].map(str::to_owned))
            };
        }
        let (expires_at, latest) = (turn.now + item.ttl_ms, record.expires_at.max(record.created_at + max_ms));
        if expires_at > latest {
            return reply("LIMITED", [latest.to_string()]);
        }
        if expires_at <= record.expires_at {
            return record.shown("EXTENDED");
        }
        record.ttl_ms = record.ttl_ms.or(Some(record.expires_at - record.created_at));
        (record.expires_at, record.updated_at, record.is_updated) = (expires_at, turn.now, true);
        let shown = record.shown("EXTENDED");
        self.log_of(&item.id, "extend", turn);
        shown
    }
}
