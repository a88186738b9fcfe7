//! Inputs and outputs of a check: its limits, its findings, and the plan of a repair.

use std::fmt;

use crate::keys::Sku;

/// How far a check goes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum number of events of each SKU that are replayed.
    pub events: usize,
    /// Milliseconds that a reservation may be active after its expiry before that is a finding.
    pub overdue_ms: u64,
}

/// The kind of a finding, by the repair that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The counts differ from the sum of the audit and the active reservations.
    Counts,
    /// The audit does not add up, or lacks an event that it should have.
    History,
    /// A reservation differs from the state after its last event.
    Record,
    /// The rules of the SKU differ from those that the audit told last.
    Rules,
    /// A reservation or the SKU is not where the scripts and the sweeper look for it.
    Index,
    /// A reservation would be active longer than it was held for, or longer than allowed.
    Expiry,
    /// Reservations are active long after their expiry: no sweeper runs.
    Overdue,
    /// A value cannot be parsed, or a required value is missing.
    Unreadable,
    /// The SKU changed too fast for a check: nothing is known.
    Busy,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Counts => "counts",
            Self::History => "history",
            Self::Record => "record",
            Self::Rules => "rules",
            Self::Index => "index",
            Self::Expiry => "expiry",
            Self::Overdue => "overdue",
            Self::Unreadable => "unreadable",
            Self::Busy => "busy",
        })
    }
}

impl Damage {
    /// Whether a repair can correct it, on a SKU.
    pub fn is_repairable(self) -> bool {
        !matches!(self, Self::Unreadable | Self::Busy)
    }
}

/// Something that is not as the scripts left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub damage: Damage,
    /// The reservation that it is about; empty when it is about the SKU, or about the audit as a whole.
    pub reservation: String,
    /// A description in words.
    pub what: String,
}

impl Finding {
    /// A finding that is not about a single reservation.
    pub(super) fn overall(damage: Damage, what: impl Into<String>) -> Self {
        Self { damage, reservation: String::new(), what: what.into() }
    }

    /// Says in which shard it is.
    pub(super) fn in_shard(self, number: u16) -> Self {
        Self { what: format!("in shard {number}, {}", self.what), ..self }
    }
}

/// A SKU that was checked.
#[derive(Debug)]
pub struct Checked {
    /// The SKU.
    pub sku: Sku,
    /// Events that were replayed.
    pub events: usize,
    /// Reservations that were looked at.
    pub reservations: usize,
    /// What is wrong; empty if all is well.
    pub findings: Vec<Finding>,
    pub(super) plan: Plan,
}

impl Checked {
    pub(super) fn new(sku: &Sku) -> Self {
        Self { sku: sku.clone(), events: 0, reservations: 0, findings: Vec::new(), plan: Plan::default() }
    }

    /// A SKU that could not be verified, with the reason as its only finding.
    pub(super) fn unverified(sku: &Sku, damage: Damage, what: String) -> Self {
        let mut checked = Self::new(sku);
        checked.findings.push(Finding::overall(damage, what));
        checked
    }

    pub(super) fn is_repairable(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage.is_repairable())
    }
}

/// What would repair it: the arguments of the script `repair`.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub version: String,
    pub last_event: String,
    pub restart: String,
    /// Units to add: available, reserved, confirmed.
    pub change: [i64; 3],
    /// The event that told the rules last, or `none`; empty when they are right.
    pub rules: String,
    /// Reservations to make again, each from the ids of its events, as the script takes them.
    pub restore: Vec<(String, String)>,
    /// Reservations to file by their records.
    pub file: Vec<String>,
    /// Whether lapsed reservations are left.
    pub sweep: bool,
}
