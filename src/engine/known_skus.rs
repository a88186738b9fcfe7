//! Which SKU a reservation is of, as far as this process knows: a settlement then needs no look-up of its own.
//!
//! It is a hint. The scripts check it: a reservation of another SKU answers `CONFLICT sku`.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::keys::{ReservationId, Sku};

/// Reservations that are remembered at most: 3 MB, and what SKUs of more than 24 bytes take.
const PLACES: usize = 1 << 16;

/// What all engines of a process remember: a reservation has one place, and takes it from the one before.
pub(super) struct KnownSkus {
    places: Mutex<Vec<Option<(ReservationId, Sku)>>>,
    /// Clients choose ids, by their keys. They cannot choose places.
    hasher: RandomState,
}

impl Default for KnownSkus {
    fn default() -> Self {
        Self { places: Mutex::new(vec![None; PLACES]), hasher: RandomState::new() }
    }
}

impl KnownSkus {
    pub(super) fn remember(&self, id: ReservationId, sku: &Sku) {
        let place = self.place(id);
        self.lock()[place] = Some((id, sku.clone()));
    }

    pub(super) fn of(&self, id: ReservationId) -> Option<Sku> {
        let place = self.place(id);
        self.lock()[place].as_ref().filter(|(known, _)| *known == id).map(|(_, sku)| sku.clone())
    }

    pub(super) fn forget(&self, id: ReservationId) {
        let place = self.place(id);
        self.lock()[place].take_if(|(known, _)| *known == id);
    }

    fn place(&self, id: ReservationId) -> usize {
        self.hasher.hash_one(id) as usize % PLACES
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<(ReservationId, Sku)>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_right_or_forgotten() {
        let skus = KnownSkus::default();
        let many: Vec<_> = (0..2 * PLACES).map(|number| (ReservationId::mint(0), format!("sku-{number}"))).collect();
        for (id, sku) in &many {
            skus.remember(*id, &Sku::parse(sku).unwrap());
        }
        let known = many.iter().filter_map(|(id, sku)| Some((skus.of(*id)?, sku)));
        let known: Vec<_> = known.inspect(|(known, sku)| assert_eq!(known.as_str(), *sku)).collect();
        assert!((PLACES / 2..=PLACES).contains(&known.len()), "{} are known", known.len());
        let (last, sku) = &many[2 * PLACES - 1];
        skus.forget(ReservationId::mint(0));
        assert_eq!(skus.of(*last).unwrap().as_str(), sku);
        skus.forget(*last);
        assert_eq!(skus.of(*last), None);
    }
}
