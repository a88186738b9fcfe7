//! Mending what a check found. Script `repair`: it decides; what is planned here is only what to ask for.

use super::record::{malformed, number};
use super::{Checked, Engine, Error, Thoroughness, only};
use crate::keys::{ReservationId, Sku, StockKeys};

/// Reservations that one call takes.
const ITEMS_PER_CALL: usize = 100;

/// Times that a SKU is checked again, because it changed, before it is left as it is.
const MAX_STALLS: u32 = 20;

/// What became of a SKU that was to be mended.
#[derive(Debug)]
pub struct Mended {
    /// Events that tell what was done.
    pub events: u64,
    /// As it was found after that.
    pub checked: Checked,
    /// Why it was left as it is, if it was.
    pub left: Option<String>,
}

enum Answer {
    Repaired(u64),
    Stale,
    Left(String),
}

impl Engine {
    /// Mends what `checked` found, and checks again until nothing is found that can be mended.
    ///
    /// # Errors
    /// See [`Error`]. With [`Error::Unknown`] a part may be mended: check again.
    pub async fn mend(&self, checked: Checked, suspects: &[String], how: Thoroughness) -> Result<Mended, Error> {
        let mut mended = Mended { events: 0, checked, left: None };
        let sku = mended.checked.sku.clone();
        let mut stalled = 0;
        while mended.left.is_none() && mended.checked.findings.iter().any(|finding| finding.damage.is_mendable()) {
            if stalled > MAX_STALLS {
                mended.left = Some("it changes faster than it can be mended".to_owned());
                break;
            }
            match self.mend_once(&mended.checked).await? {
                Answer::Repaired(0) | Answer::Stale => stalled += 1,
                Answer::Repaired(events) => (mended.events, stalled) = (mended.events + events, 0),
                Answer::Left(why) => mended.left = Some(why),
            }
            mended.checked = self.check(&sku, suspects, how).await?;
        }
        Ok(mended)
    }

    /// One round: what is bound to the moment of the check in one call, what is not in as many as it takes.
    async fn mend_once(&self, checked: &Checked) -> Result<Answer, Error> {
        let keys = self.layout.stock(&checked.sku);
        let plan = &checked.plan;
        let restore = &plan.restore[..plan.restore.len().min(ITEMS_PER_CALL)];
        let bound = [&*plan.version, &*plan.last_event, &*plan.restart];
        let mut total = match self.repair(&checked.sku, &keys, bound, plan.change, restore).await? {
            Answer::Repaired(events) => events,
            other => return Ok(other),
        };
        let file: Vec<_> = plan.file.iter().map(|id| (id.clone(), String::new())).collect();
        for page in file.chunks(ITEMS_PER_CALL) {
            match self.repair(&checked.sku, &keys, [""; 3], [0; 3], page).await? {
                Answer::Repaired(events) => total += events,
                other => return Ok(other),
            }
        }
        if plan.sweep {
            total += match self.sweep_all(&keys).await {
                Err(Error::Broken(why)) => return Ok(Answer::Left(why)),
                swept => swept?,
            };
        }
        Ok(Answer::Repaired(total))
    }

    async fn repair(
        &self,
        sku: &Sku,
        keys: &StockKeys,
        bound: [&str; 3],
        change: [i64; 3],
        items: &[(String, String)],
    ) -> Result<Answer, Error> {
        let shard = &keys.shard;
        let record = |(id, _): &(String, String)| {
            ReservationId::parse(id)
                .map(|id| self.layout.reservation(&id))
                .map_err(|_| malformed("the id of a reservation"))
        };
        let records = items.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let mut names =
            vec![&*shard.audit, &*shard.due, &*shard.skus, &*shard.settings, &*keys.inventory, &*keys.active];
        names.extend(records.iter().map(String::as_str));
        let change = change.map(|units| units.to_string());
        let mut arguments = bound.to_vec();
        arguments.extend(change.iter().map(String::as_str));
        arguments.extend(items.iter().map(|(_, event)| event.as_str()));
        let replies = match self.scripts.call("repair", &names, &arguments).await.map_err(Error::from) {
            Err(Error::Broken(why)) => return Ok(Answer::Left(why)),
            replies => replies?,
        };
        Ok(match &*only(&replies)?.parts() {
            ["REPAIRED", events, ..] => Answer::Repaired(number(events)?),
            ["STALE"] => Answer::Stale,
            ["OVERSOLD", available] => Answer::Left(format!("{available} units of {sku} would be available")),
            ["UNKNOWN_SKU"] => Answer::Left(format!("there is nothing to make {sku} again from")),
            _ => return Err(malformed("repair")),
        })
    }
}
