//! Seeding: puts a SKU on sale, after its earlier holds are released. Script `seed`.

use super::record::{malformed, number};
use super::{Engine, Error, SeedQuantity, Stock, only};
use crate::keys::{Sku, StockKeys};

/// Attempts of a drain without progress, after which it is damage and not a race.
const MAX_STALLS: u32 = 3;

/// The maximum number of holds that one call of `seed` releases: the script takes no more.
const DRAINED_PER_CALL: usize = 100;

/// What one call of `seed` did.
enum Seed {
    Draining { left: u64 },
    Seeded(Stock),
}

impl Engine {
    /// Sets a SKU's stock to `quantity`, all available, and releases every live hold; 0 takes it off sale. Script `seed`.
    ///
    /// # Errors
    /// See [`Error`]. After the first of several calls any failure is [`Error::Unknown`]: seed again to finish.
    pub async fn seed(&self, sku: &Sku, quantity: SeedQuantity) -> Result<Stock, Error> {
        let keys = self.layout.stock(sku);
        let quantity = quantity.to_string();
        let (mut least_left, mut stalled) = (u64::MAX, 0);
        loop {
            match self.seed_once(sku, &keys, &quantity).await {
                Ok(Seed::Draining { left }) if left < least_left => (least_left, stalled) = (left, 0),
                Ok(Seed::Draining { .. }) if stalled < MAX_STALLS => stalled += 1,
                Ok(Seed::Draining { .. }) => return Err(Error::Broken(format!("the holds of {sku} do not drain"))),
                Ok(Seed::Seeded(stock)) => return Ok(stock),
                Err(Error::Unavailable(why)) if least_left < u64::MAX => return Err(Error::Unknown(why)),
                Err(error) => return Err(error),
            }
        }
    }

    /// One call of `seed`, which releases the earliest holds first.
    async fn seed_once(&self, sku: &Sku, keys: &StockKeys, quantity: &str) -> Result<Seed, Error> {
        let holds = self.earliest_holds(keys, DRAINED_PER_CALL).await?;
        let shard = &keys.shard;
        let mut names =
            vec![&*shard.audit, &*shard.due, &*shard.skus, &*shard.settings, &*keys.inventory, &*keys.active];
        names.extend(holds.iter().map(String::as_str));
        let replies = self.scripts.call("seed", &names, &[quantity]).await?;
        match &*only(&replies)?.parts() {
            ["DRAINING", left] => Ok(Seed::Draining { left: number(left)? }),
            ["SEEDED", quantity, updated_at, version] => {
                Ok(Seed::Seeded(Stock::seeded(sku, quantity, updated_at, version)?))
            }
            _ => Err(malformed("seed")),
        }
    }
}
