//! Seeding: puts a SKU on sale, after its earlier holds are released. Script `seed`.

use super::record::{malformed, number};
use super::{Engine, Error, SeedQuantity, Stock, only};
use crate::keys::{IdempotencyKey, OperationId, Sku, StockKeys};

/// Attempts of a drain without progress, after which it is damage and not a race.
const MAX_STALLS: u32 = 3;

/// The maximum number of holds that one call of `seed` releases: the script takes no more.
const DRAINED_PER_CALL: usize = 100;

/// The outcome of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// Done now.
    Seeded(Stock),
    /// Done before, with the same idempotency key: what it left then.
    Replayed(Stock),
    /// The same idempotency key was used for another seed.
    Conflict {
        /// The first field that differs.
        field: String,
    },
}

/// What one call of `seed` did.
enum Step {
    Draining { left: u64 },
    Done(Seed),
}

impl Engine {
    /// Sets a SKU's stock to `quantity`, all available, and releases every live hold; 0 takes it off sale. Script `seed`.
    /// A key makes the request safe to repeat.
    ///
    /// # Errors
    /// See [`Error`]. After the first of several calls any failure is [`Error::Unknown`]: seed again to finish.
    pub async fn seed(&self, sku: &Sku, quantity: SeedQuantity, key: Option<&IdempotencyKey>) -> Result<Seed, Error> {
        let keys = self.layout.stock(sku);
        let operation = key.map_or_else(OperationId::mint, |key| OperationId::of_seed(key, sku));
        let operation = keys.shard.operation(&operation);
        let arguments = [&*quantity.to_string(), if key.is_some() { "once" } else { "" }];
        let (mut least_left, mut stalled) = (u64::MAX, 0);
        loop {
            match self.seed_once(sku, &keys, &operation, arguments).await {
                Ok(Step::Draining { left }) if left < least_left => (least_left, stalled) = (left, 0),
                Ok(Step::Draining { .. }) if stalled < MAX_STALLS => stalled += 1,
                Ok(Step::Draining { .. }) => return Err(Error::Broken(format!("the holds of {sku} do not drain"))),
                Ok(Step::Done(seed)) => return Ok(seed),
                Err(Error::Unavailable(why)) if least_left < u64::MAX => return Err(Error::Unknown(why)),
                Err(error) => return Err(error),
            }
        }
    }

    /// One call of `seed`, which releases the earliest holds first.
    async fn seed_once(
        &self,
        sku: &Sku,
        keys: &StockKeys,
        operation: &str,
        arguments: [&str; 2],
    ) -> Result<Step, Error> {
        let holds = self.earliest_holds(keys, DRAINED_PER_CALL).await?;
        let shard = &keys.shard;
        let mut names = vec![&*shard.audit, &*shard.due, &*shard.skus, &*shard.settings];
        names.extend([operation, &*keys.inventory, &*keys.active]);
        names.extend(holds.iter().map(String::as_str));
        let replies = self.scripts.call("seed", &names, &arguments).await?;
        match &*only(&replies)?.parts() {
            ["DRAINING", left] => Ok(Step::Draining { left: number(left)? }),
            ["SEEDED", quantity, updated_at, version] => {
                Ok(Step::Done(Seed::Seeded(Stock::seeded(sku, quantity, updated_at, version)?)))
            }
            ["REPLAYED", quantity, updated_at, version] => {
                Ok(Step::Done(Seed::Replayed(Stock::seeded(sku, quantity, updated_at, version)?)))
            }
            ["CONFLICT", field] => Ok(Step::Done(Seed::Conflict { field: (*field).to_owned() })),
            _ => Err(malformed("seed")),
        }
    }
}
