//! The due lists of the shards, each read from its front.

use std::sync::Arc;

use super::Round;
use crate::engine::Error;
use crate::keys::{Shard, Sku};

/// Shards that are asked together whether anything is due.
const SHARDS_TOGETHER: usize = 512;

/// The due list of a shard, as far as it was read.
pub(super) struct Front {
    pub shard: Arc<Shard>,
    /// SKUs at its front that are set aside.
    pub skip: usize,
    /// Whether the last page was its last one, and where that page ended.
    pub is_last: bool,
    pub end: usize,
}

impl Round<'_> {
    /// The shards that have something due.
    pub(super) async fn fronts(&mut self) -> Vec<Front> {
        let front = |shard: &Arc<Shard>| Front { shard: Arc::clone(shard), skip: 0, is_last: false, end: 0 };
        let shards = self.engine.layout.shards();
        if let [only] = shards {
            return vec![front(only)];
        }
        let mut fronts = Vec::new();
        for some in shards.chunks(SHARDS_TOGETHER) {
            let lists: Vec<&str> = some.iter().map(|shard| &*shard.due).collect();
            let scores = match self.engine.redis.lowest_scores(&lists).await {
                Ok(scores) => scores,
                Err(failure) => vec![Err(failure); some.len()],
            };
            for (shard, score) in some.iter().zip(scores) {
                match score {
                    Ok(Some(score)) if score > self.now_ms as f64 => {}
                    Ok(Some(_)) => fronts.push(front(shard)),
                    Ok(None) => {}
                    Err(failure) => self.leave(shard.number, Error::retry_safe(failure)),
                }
            }
        }
        fronts
    }

    /// Takes the SKUs of a page of a due list, but those that are set aside.
    pub(super) fn take(&mut self, front: &mut Front, page: &[(Vec<u8>, f64)], count: usize, skus: &mut Vec<Sku>) {
        (front.is_last, front.end) = (page.len() < count, front.skip + page.len());
        // A damaged bound, which is not a time, tells nothing.
        if let Some((_, due_ms)) = page.first().filter(|(_, due_ms)| *due_ms > 0.0) {
            self.earliest_ms = self.earliest_ms.min(*due_ms as u64);
        }
        let (mut is_first, mut overdue_since) = (true, None);
        for (name, due_ms) in page {
            match self.sku_of(&front.shard, name) {
                Some(sku) => {
                    // The same obstacle would remain with any share.
                    if overdue_since.is_none() && !self.rounds.knows(sku.as_str()) {
                        overdue_since = Some(*due_ms);
                    }
                    skus.push(sku);
                    is_first = false;
                }
                None if is_first => front.skip += 1,
                None => {}
            }
        }
        if let Some(due_ms) = overdue_since {
            self.note_overdue(due_ms);
        }
    }

    /// The SKU of an entry of a due list, unless it is set aside.
    fn sku_of(&mut self, shard: &Shard, name: &[u8]) -> Option<Sku> {
        let Ok(name) = std::str::from_utf8(name) else {
            let name = name.escape_ascii().to_string();
            if !self.rounds.is_aside(&name) {
                self.rounds.put_aside(&name, "its name is no text".to_owned());
            }
            return None;
        };
        let sku = match Sku::parse(name) {
            Ok(sku) if self.engine.layout.shard_of(&sku).number == shard.number => sku,
            // Its name alone would set it aside in its own shard, too.
            Ok(_) => {
                let entry = format!("{name} (in shard {})", shard.number);
                if !self.rounds.is_aside(&entry) {
                    self.rounds.put_aside(&entry, "it is of another shard".to_owned());
                }
                return None;
            }
            Err(_) if self.rounds.is_aside(name) => return None,
            Err(invalid) => {
                self.rounds.put_aside(name, invalid.to_string());
                return None;
            }
        };
        if self.rounds.is_aside(name) { None } else { Some(sku) }
    }
}
