//! The layout that stands in Redis: the number of shards, which the first server decides for good.
//!
//! A Redis without that number, from before it was written, has what its keys show.

use super::Error;
use crate::keys::{self, Layout, MAX_SHARDS, Sku};
use crate::redis::{Failure, Redis, crc16};

/// Shards whose keys are looked at together.
const LOOKED_AT: usize = 512;

/// The layout that `redis` has; `None` when it has no stock yet.
///
/// # Errors
/// See [`Error`]. [`Error::Broken`] when the number cannot be read, or the keys do not show which it is.
pub async fn standing_layout(redis: &Redis) -> Result<Option<Layout>, Error> {
    match written_layout(redis).await? {
        Some(layout) => Ok(Some(layout)),
        None => match shown(redis).await?.as_slice() {
            [] => Ok(None),
            [shards] => Ok(Layout::of(*shards).ok()),
            _ => {
                let why =
                    format!("its keys have shards, and {} does not say how many: start the server first", keys::LAYOUT);
                Err(Error::Broken(why))
            }
        },
    }
}

/// Writes that `redis` has this layout, unless another stands there. Returns the layout that stands: this one, or the other
/// one.
///
/// # Errors
/// See [`Error`].
pub async fn claim_layout(redis: &Redis, layout: &Layout) -> Result<Layout, Error> {
    let shards = layout.shards().len();
    if let Some(standing) = written_layout(redis).await? {
        return Ok(standing);
    }
    let shown = shown(redis).await?;
    if let Some(other) = shown.first()
        && !shown.iter().any(|shown| usize::from(*shown) == shards)
    {
        return Layout::of(*other).map_err(|invalid| Error::Broken(invalid.to_string()));
    }
    if shown.is_empty() {
        spread_settings(redis, layout).await?;
    }
    match redis.set_field_once(keys::LAYOUT, keys::LAYOUT_SHARDS, &shards.to_string()).await {
        Ok(()) => written_layout(redis).await?.ok_or_else(|| Error::Broken(format!("{} was removed", keys::LAYOUT))),
        // A server that can only settle holds is better than none. Its keys show the layout, and it is written later.
        Err(Failure::Refused { code, .. }) if !shown.is_empty() && ["OOM", "MISCONF"].contains(&&*code) => {
            Ok(layout.clone())
        }
        Err(failure) => Err(Error::retry_safe(failure)),
    }
}

/// The layout that is written in `redis`; `None` when there is none, whatever its keys show.
///
/// # Errors
/// See [`Error`]. [`Error::Broken`] when the number cannot be read.
pub async fn written_layout(redis: &Redis) -> Result<Option<Layout>, Error> {
    let shards = redis.hash_field(keys::LAYOUT, keys::LAYOUT_SHARDS).await.map_err(Error::retry_safe)?;
    let Some(shards) = shards else { return Ok(None) };
    let layout = shards.parse().ok().and_then(|shards| Layout::of(shards).ok());
    let why = || format!("{} says {shards:?} shards, not a number from 1 to {MAX_SHARDS}", keys::LAYOUT);
    layout.map(Some).ok_or_else(|| Error::Broken(why()))
}

/// Writes into every shard what the operator decided before there was a number of shards.
async fn spread_settings(redis: &Redis, layout: &Layout) -> Result<(), Error> {
    if !layout.is_sharded() {
        return Ok(());
    }
    let set = redis.hash(&Layout::unsharded().first().settings).await.map_err(Error::retry_safe)?.fields;
    if set.is_empty() {
        return Ok(());
    }
    let set: Vec<(&str, String)> = set.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    for shard in layout.shards() {
        redis.set_fields(&shard.settings, &set).await.map_err(Error::retry_safe)?;
    }
    Ok(())
}

/// The numbers of shards with which the SKUs may have been put on sale; none when there are no SKUs.
async fn shown(redis: &Redis) -> Result<Vec<u16>, Error> {
    let whole = Layout::unsharded();
    let skus = redis.first_members([&*whole.first().skus]).await.map_err(Error::retry_safe)?;
    if skus.iter().any(Option::is_some) {
        return Ok(vec![1]);
    }
    let most = Layout::sharded(MAX_SHARDS).map_err(|invalid| Error::Broken(invalid.to_string()))?;
    let mut found = Vec::new();
    for shards in most.shards().chunks(LOOKED_AT) {
        let lists = shards.iter().map(|shard| &*shard.skus);
        let firsts = redis.first_members(lists).await.map_err(Error::retry_safe)?;
        let named = shards.iter().zip(firsts).filter_map(|(shard, sku)| Some((shard.number, Sku::parse(&sku?).ok()?)));
        found.extend(named);
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<(u16, u16)> = found.iter().map(|(shard, sku)| (*shard, crc16(sku.as_str().as_bytes()))).collect();
    let fits = |shards: &u16| hashes.iter().all(|(shard, hash)| hash % shards == *shard);
    Ok((2..=MAX_SHARDS).filter(fits).collect())
}
