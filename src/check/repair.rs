//! Repairs what a check found. The script `repair` decides; the plan here only says what to ask for.

use std::sync::Arc;

use super::findings::Checked;
use crate::engine::{Engine, Error, malformed};
use crate::keys::{Layout, ReservationId, Sku, StockKeys};
use crate::redis::Redis;
use crate::scripts::{Catalogue, Scripts};

/// The maximum number of reservations in one call.
const ITEMS_PER_CALL: usize = 100;

/// The outcome of a call.
pub(super) enum Answer {
    /// Done, and recorded in this number of events.
    Repaired(u64),
    /// Too much has changed since the check.
    Stale,
    /// It cannot be done, for this reason.
    Left(String),
}

/// Carries out the plan.
pub(super) struct Repairer {
    engine: Arc<Engine>,
    scripts: Scripts,
    layout: Layout,
}

impl Repairer {
    pub(super) fn new(engine: Arc<Engine>, redis: Redis, layout: Layout) -> Self {
        Self { engine, scripts: Scripts::new(Catalogue::embedded(), redis), layout }
    }

    /// One round: one call for what depends on the moment of the check, and as many calls as necessary for the rest.
    pub(super) async fn round(&self, checked: &Checked) -> Result<Answer, Error> {
        let sku = &checked.sku;
        let keys = self.layout.stock(sku);
        let plan = &checked.plan;
        let restore = &plan.restore[..plan.restore.len().min(ITEMS_PER_CALL)];
        let bound = [&*plan.version, &*plan.last_event, &*plan.restart];
        let mut total = match self.call(sku, &keys, bound, (plan.change, &plan.rules), restore).await? {
            Answer::Repaired(events) => events,
            other => return Ok(other),
        };
        let file: Vec<_> = plan.file.iter().map(|id| (id.clone(), String::new())).collect();
        for page in file.chunks(ITEMS_PER_CALL) {
            match self.call(sku, &keys, [""; 3], ([0; 3], ""), page).await? {
                Answer::Repaired(events) => total += events,
                other => return Ok(other),
            }
        }
        if plan.sweep {
            total += match self.engine.expire_due(sku).await {
                Err(Error::Broken(why)) => return Ok(Answer::Left(why)),
                expired => expired?,
            };
        }
        Ok(Answer::Repaired(total))
    }

    async fn call(
        &self,
        sku: &Sku,
        keys: &StockKeys,
        bound: [&str; 3],
        (change, rules): ([i64; 3], &str),
        items: &[(String, String)],
    ) -> Result<Answer, Error> {
        let shard = &keys.shard;
        let record = |(id, _): &(String, String)| {
            let key = ReservationId::parse(id).ok().and_then(|id| keys.reservation(&id));
            key.ok_or_else(|| malformed("the id of a reservation"))
        };
        let records = items.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let mut names =
            vec![&*shard.audit, &*shard.due, &*shard.skus, &*shard.settings, &*keys.inventory, &*keys.active];
        names.extend(records.iter().map(String::as_str));
        let change = change.map(|units| units.to_string());
        let mut arguments = bound.to_vec();
        arguments.extend(change.iter().map(String::as_str));
        arguments.push(rules);
        arguments.extend(items.iter().map(|(_, event)| event.as_str()));
        let replies = match self.scripts.call("repair", &names, &arguments).await.map_err(Error::from) {
            Err(Error::Broken(why)) => return Ok(Answer::Left(why)),
            replies => replies?,
        };
        let [reply] = &*replies else { return Err(malformed("repair")) };
        Ok(match &*reply.parts() {
            ["REPAIRED", events, ..] => Answer::Repaired(events.parse().map_err(|_| malformed("the count of repair"))?),
            ["STALE"] => Answer::Stale,
            ["OVERSOLD", available] => Answer::Left(format!("{available} units of {sku} would be available")),
            ["UNKNOWN_SKU"] => Answer::Left(format!("there is nothing to make {sku} again from")),
            _ => return Err(malformed("repair")),
        })
    }
}
