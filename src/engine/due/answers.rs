//! Which of several items gave no reply, and whether that is for want of Redis or because of the item.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use crate::engine::Engine;
use crate::redis::Failure;

impl Engine {
    /// Sends all of `items` together, each about a key of the shard that `shard_of` names. If there is no reply
    /// although Redis is up, one item may be the cause: then sends each one alone.
    pub(super) async fn each_answered<T, F>(
        &self,
        items: Range<usize>,
        shard_of: impl Fn(usize) -> u16,
        send: impl Fn(Range<usize>) -> F,
    ) -> Vec<Result<T, Failure>>
    where
        F: Future<Output = Result<Vec<Result<T, Failure>>, Failure>>,
    {
        let all_alike = |failure: Failure| items.clone().map(|_| Err(failure.clone())).collect();
        let mut outcomes: Vec<Result<T, Failure>> = send(items.clone()).await.unwrap_or_else(all_alike);
        // Whether the Redis of a shard has answered since, or why it has not.
        let mut answers = BTreeMap::new();
        for (item, outcome) in items.zip(&mut outcomes) {
            let shard = shard_of(item);
            if !matches!(outcome, Err(Failure::NoReply(_))) {
                continue;
            }
            let answer = match answers.entry(shard) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.ask_after(shard).await),
            };
            if answer.is_ok() {
                *outcome = match send(item..item + 1).await {
                    Ok(mut alone) => alone.pop().expect("an outcome of each"),
                    Err(failure) => Err(failure),
                };
                if !matches!(outcome, Err(Failure::NoReply(_))) {
                    continue;
                }
                *answer = self.ask_after(shard).await;
            }
            // If it answers, the item is the cause.
            if let Err(failure) = answer {
                *outcome = Err(Failure::Unreachable(failure.to_string()));
            }
        }
        outcomes
    }

    /// Whether the Redis of a shard answers.
    async fn ask_after(&self, shard: u16) -> Result<(), Failure> {
        self.redis.now_ms(&self.layout.shards()[usize::from(shard)].due).await.map(drop)
    }
}
