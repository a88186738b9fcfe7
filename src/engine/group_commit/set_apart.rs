//! The keys that made shared calls fail. Each is remembered for a while.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a key is kept out of shared calls. After that, one refused call shows whether it is still damaged.
const TIME_APART: Duration = Duration::from_secs(5);

/// The maximum number of remembered keys. Other damaged keys are found again each time.
const MAX_KEYS: usize = 1024;

/// Keys, each with the time at which it may enter shared calls again.
#[derive(Debug, Default)]
pub(super) struct SetApart(HashMap<String, Instant>);

impl SetApart {
    /// Remembers a key from `now` on. When there are too many, the key that expires first is removed.
    pub(super) fn add(&mut self, key: String, now: Instant) {
        if self.0.len() >= MAX_KEYS {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.len() >= MAX_KEYS
            && let Some(first) = self.0.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            self.0.remove(&first);
        }
        self.0.insert(key, now + TIME_APART);
    }

    /// Whether a key must be kept out of a shared call that is made `now`.
    pub(super) fn has(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_forgotten_after_its_time() {
        let mut apart = SetApart::default();
        let now = Instant::now();
        apart.add("inventory:tea".to_owned(), now);
        assert!(apart.has("inventory:tea", now) && !apart.has("inventory:cup", now));
        assert!(!apart.has("inventory:tea", now + TIME_APART));
        apart.add("inventory:tea".to_owned(), now + TIME_APART);
        assert!(apart.has("inventory:tea", now + TIME_APART));
    }

    #[test]
    fn a_limited_number_is_remembered_and_the_newest_always() {
        let mut apart = SetApart::default();
        let now = Instant::now();
        for n in 0..3 * MAX_KEYS {
            let at = now + Duration::from_micros(n as u64);
            apart.add(n.to_string(), at);
            assert!(apart.has(&n.to_string(), at));
            assert!(apart.0.len() <= MAX_KEYS);
        }
        assert!(!apart.has("0", now));
    }
}
