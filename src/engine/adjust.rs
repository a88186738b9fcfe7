//! Adjusting: units come or go, or are counted, without touching holds and sales. Script `adjust`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::expiry::Lapsed;
use super::record::{malformed, number};
use super::{Delta, Engine, Error, SeedQuantity, Stock, Version};
use crate::keys::{IdempotencyKey, OperationId, Reason, Sku, StockKeys};
use crate::scripts::Reply;

/// A change of what is available of a SKU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The SKU.
    pub sku: Sku,
    /// The change.
    pub how: How,
    /// The version that the SKU must have, if it matters.
    pub if_version: Option<Version>,
    /// Whether a SKU that was never seeded comes into being.
    pub create: bool,
    /// Why: for the audit.
    pub reason: Option<Reason>,
}

/// How the available units change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By this number of units.
    Add(Delta),
    /// To this number of units.
    Set(SeedQuantity),
}

/// What several adjustments have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: each is made or refused alone.
    Each,
    /// All are made, or none: they must be of one shard, as [`Engine::are_together`] tells.
    All,
}

/// The outcome of an adjustment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjusted {
    /// It is made, and this is left. Reservations are not listed.
    Done(Stock),
    /// It was made before, under the same idempotency key: what it left then.
    Replayed(Stock),
    /// The same idempotency key was used for another adjustment.
    Conflict {
        /// The first field that differs.
        field: String,
    },
    /// The SKU was never seeded.
    UnknownSku,
    /// The SKU has another version.
    Stale {
        /// Its version.
        version: u64,
    },
    /// Fewer units are available than have to go, and none on lapsed holds.
    Insufficient {
        /// How many units are available.
        available: u64,
    },
    /// The SKU would have more than 10^12 units in all.
    Excessive,
    /// [`Mode::All`]: it would have been made, and another was refused.
    Withdrawn,
}

/// An adjustment on its way.
struct Line {
    keys: StockKeys,
    sku: Sku,
    operation: String,
    arguments: [String; 6],
    outcome: Adjusted,
    lapsed: Lapsed,
}

impl Engine {
    /// Makes 1 to 100 adjustments, each of which sees what those before it leave. Script `adjust`. Before a refusal for
    /// lack of units, it sweeps what has lapsed on the SKU. A key makes the request safe to repeat, SKU by SKU.
    ///
    /// # Errors
    /// See [`Error`]. With several calls any failure after the first that changed something is [`Error::Unknown`].
    pub async fn adjust(
        &self,
        adjustments: &[Adjustment],
        mode: Mode,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<Adjusted>, Error> {
        let mut turns: HashMap<&Sku, usize> = HashMap::new();
        let mut lines = Vec::with_capacity(adjustments.len());
        for adjustment in adjustments {
            let turn = turns.entry(&adjustment.sku).or_default();
            lines.push(self.line(adjustment, *turn, key));
            *turn += 1;
        }
        let mut asked: Vec<usize> = (0..lines.len()).collect();
        loop {
            if let Err(error) = self.adjust_once(&mut lines, &asked, mode).await {
                return Err(after(&lines, error));
            }
            let short: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].lapsed.may_suffice()).collect();
            if short.is_empty() {
                return Ok(lines.into_iter().map(|line| line.outcome).collect());
            }
            for at in &short {
                let Line { keys, lapsed, .. } = &mut lines[*at];
                if let Err(error) = self.sweep_for(keys, lapsed).await {
                    return Err(after(&lines, error));
                }
            }
            // In mode all nothing was done.
            if mode == Mode::Each {
                asked = short;
            }
        }
    }

    fn line(&self, adjustment: &Adjustment, turn: usize, key: Option<&IdempotencyKey>) -> Line {
        let Adjustment { sku, how, if_version, create, reason } = adjustment;
        let keys = self.layout.stock(sku);
        let operation = match key {
            Some(key) => OperationId::from_idempotency_key(key, sku, turn),
            None => OperationId::mint(),
        };
        let (how, units) = match how {
            How::Add(delta) => ("add", delta.to_string()),
            How::Set(available) => ("set", available.to_string()),
        };
        let word = |is_so: bool, word: &str| if is_so { word.to_owned() } else { String::new() };
        let arguments = [
            how.to_owned(),
            units,
            if_version.map_or(String::new(), |version| version.to_string()),
            word(*create, "create"),
            reason.as_ref().map_or(String::new(), |reason| reason.as_str().to_owned()),
            word(key.is_some(), "once"),
        ];
        Line {
            operation: keys.shard.operation(&operation),
            keys,
            sku: sku.clone(),
            arguments,
            outcome: Adjusted::Withdrawn,
            lapsed: Lapsed::default(),
        }
    }

    /// Whether SKUs are in one shard: only then [`Mode::All`] can be kept.
    pub fn are_together<'a>(&self, skus: impl IntoIterator<Item = &'a Sku>) -> bool {
        let shards: BTreeSet<u16> = skus.into_iter().map(|sku| self.layout.shard_of(sku).number).collect();
        shards.len() <= 1
    }

    /// A call for some of the lines, or one for each of their shards.
    async fn adjust_once(&self, lines: &mut [Line], asked: &[usize], mode: Mode) -> Result<(), Error> {
        let mut by_shard: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for at in asked {
            by_shard.entry(lines[*at].keys.shard.number).or_default().push(*at);
        }
        if mode == Mode::All && by_shard.len() > 1 {
            return Err(Error::Broken("adjustments in mode all are of several shards".to_owned()));
        }
        for asked in by_shard.values() {
            self.adjust_shard(lines, asked, mode).await?;
        }
        Ok(())
    }

    /// One call for some of the lines, which are of one shard.
    async fn adjust_shard(&self, lines: &mut [Line], asked: &[usize], mode: Mode) -> Result<(), Error> {
        let shard = Arc::clone(&lines[asked[0]].keys.shard);
        let mut names = vec![&*shard.audit, &*shard.skus, &*shard.settings];
        let mut arguments = vec![match mode {
            Mode::Each => "each",
            Mode::All => "all",
        }];
        for line in asked.iter().map(|at| &lines[*at]) {
            names.extend([&*line.keys.inventory, &*line.keys.active, &*line.operation]);
            arguments.extend(line.arguments.iter().map(String::as_str));
        }
        let replies = self.scripts.call("adjust", &names, &arguments).await?;
        if replies.len() != asked.len() {
            return Err(malformed("adjust"));
        }
        for (at, reply) in asked.iter().zip(&replies) {
            lines[*at].take(reply)?;
        }
        Ok(())
    }
}

impl Line {
    fn take(&mut self, reply: &Reply) -> Result<(), Error> {
        let mut due = 0;
        self.outcome = match &*reply.parts() {
            ["ADJUSTED", left @ ..] => Adjusted::Done(Stock::counted(&self.sku, left)?),
            ["REPLAYED", left @ ..] => Adjusted::Replayed(Stock::counted(&self.sku, left)?),
            ["CONFLICT", field] => Adjusted::Conflict { field: (*field).to_owned() },
            ["UNKNOWN_SKU"] => Adjusted::UnknownSku,
            ["STALE", version] => Adjusted::Stale { version: number(version)? },
            ["INSUFFICIENT", available, lapsed] => {
                due = number(lapsed)?;
                Adjusted::Insufficient { available: number(available)? }
            }
            ["EXCESSIVE"] => Adjusted::Excessive,
            ["WITHDRAWN"] => Adjusted::Withdrawn,
            _ => return Err(malformed("adjust")),
        };
        self.lapsed.note(due);
        Ok(())
    }
}

/// The error after calls that may have changed something.
fn after(lines: &[Line], error: Error) -> Error {
    match error {
        Error::Unavailable(why) if lines.iter().any(|line| matches!(line.outcome, Adjusted::Done(_))) => {
            Error::Unknown(why)
        }
        error => error,
    }
}
