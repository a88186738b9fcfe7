//! Which SKU a reservation is of, as far as this process knows: a settlement then needs no look-up of its own.
//!
//! It is a hint. The scripts check it: a reservation of another SKU answers `CONFLICT sku`.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::keys::{ReservationId, Sku};

/// Reservations that are remembered: 8 MB with SKUs of 20 bytes. The least recently used are forgotten first.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What all engines of a process remember.
pub(super) struct KnownSkus(Mutex<LruCache<ReservationId, Sku>>);

impl Default for KnownSkus {
    fn default() -> Self {
        // It grows as it fills: a server that is idle needs none of it.
        let mut cache = LruCache::unbounded();
        cache.resize(CAPACITY);
        Self(Mutex::new(cache))
    }
}

impl KnownSkus {
    pub(super) fn remember(&self, id: ReservationId, sku: &Sku) {
        self.lock().put(id, sku.clone());
    }

    pub(super) fn of(&self, id: ReservationId) -> Option<Sku> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn forget(&self, id: ReservationId) {
        self.lock().pop(&id);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<ReservationId, Sku>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
