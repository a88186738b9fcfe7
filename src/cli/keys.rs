//! `stockhold keys`: where a SKU or a reservation is.

use clap::Args;

use super::output::print;
use super::runtime;
use super::target::Target;
use crate::engine::standing_layout;
use crate::keys::{Layout, ReservationId, Sku, StockKeys};
use crate::redis::{Redis, slot};

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// A SKU, or the id of a reservation
    #[arg(value_name = "SKU|ID")]
    subject: String,

    #[command(flatten)]
    target: Target,
}

/// # Errors
/// When Redis cannot be asked for the number of its shards, or nothing can have this name.
pub(super) fn run(args: &KeysArgs) -> anyhow::Result<()> {
    let redis = args.target.redis()?;
    runtime()?.block_on(async {
        let layout = standing_layout(&redis).await?.unwrap_or_else(Layout::unsharded);
        let (shard, keys) = match ReservationId::parse(&args.subject) {
            Ok(id) => {
                let reservation = layout.reservation(&id);
                let reservation = reservation.ok_or_else(|| {
                    let (number, shards) = (id.shard(), layout.shards().len());
                    anyhow::anyhow!("the id is of shard {number}, and there are {shards} shards: no reservation has it")
                })?;
                (if layout.is_sharded() { id.shard() } else { 0 }, vec![("reservation", reservation)])
            }
            Err(_) => {
                let StockKeys { shard, inventory, active } = layout.stock(&Sku::parse(&args.subject)?);
                let shared = [
                    ("audit", &shard.audit),
                    ("due", &shard.due),
                    ("skus", &shard.skus),
                    ("settings", &shard.settings),
                ];
                let own = [("inventory", inventory), ("active", active)];
                (shard.number, own.into_iter().chain(shared.map(|(name, key)| (name, key.clone()))).collect())
            }
        };
        tell(&redis, &layout, shard, &keys).await
    })
}

async fn tell(redis: &Redis, layout: &Layout, shard: u16, keys: &[(&str, String)]) -> anyhow::Result<()> {
    print(format_args!("shard       {shard} of {}", layout.shards().len()))?;
    if redis.is_cluster() {
        // The map of the cluster is read with them.
        redis.primaries().await?;
        print(format_args!("slot        {}", slot(keys[0].1.as_bytes())))?;
        print(format_args!("node        {}", redis.node_of(&keys[0].1).address()))?;
    }
    for (name, key) in keys {
        print(format_args!("{name:<11} {key}"))?;
    }
    Ok(())
}
