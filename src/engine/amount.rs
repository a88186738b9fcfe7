//! Amounts that callers choose, with their limits.

use std::fmt;

use super::MAX_BATCH;
use crate::keys::Invalid;

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $field:literal, $low:literal ..= $high:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(u64);

        impl $name {
            /// # Errors
            /// When `value` is out of range.
            pub fn new(value: u64) -> Result<Self, Invalid> {
                if ($low..=$high).contains(&value) {
                    Ok(Self(value))
                } else {
                    let rule = concat!("must be a whole number from ", $low, " to ", $high);
                    Err(Invalid { field: $field, rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bounded!(
    /// Units of a hold: 1 to 10^9.
    Quantity, "quantity", 1..=1000000000
);

bounded!(
    /// Units that a seed puts on sale: 0 (off sale) to 10^9.
    SeedQuantity, "quantity", 0..=1000000000
);

bounded!(
    /// How many active reservations a read lists: 0 to 10,000.
    ActiveLimit, "active", 0..=10000
);

bounded!(
    /// How many events, or entries of a list, a page has: 1 to 1,000.
    PageLimit, "limit", 1..=1000
);

impl PageLimit {
    /// The longest page.
    pub const MAX: Self = Self(1000);
}

bounded!(
    /// A list has the SKUs with fewer available units than this: 1 to 10^12.
    AvailableBelow, "availableBelow", 1..=1000000000000
);

bounded!(
    /// How long a hold lasts, in whole seconds: 1 s to 30 days.
    Ttl, "ttlSeconds", 1..=2592000
);

bounded!(
    /// How many units of a SKU one cart may have: 1 to 10^9.
    PerCart, "perCart", 1..=1000000000
);

bounded!(
    /// How many units of a SKU are kept back: 1 to 10^9.
    SafetyStock, "safetyStock", 1..=1000000000
);

bounded!(
    /// How long a hold of a SKU lasts at most, in whole seconds: 1 s to 30 days.
    MaxTtl, "maxTtlSeconds", 1..=2592000
);

bounded!(
    /// The version that a SKU must have: 0 (it has no event yet) to 10^12.
    Version, "ifVersion", 0..=1000000000000
);

/// Units that come or go: -10^9 to 10^9, not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta(i64);

impl Delta {
    /// # Errors
    /// When `value` is out of range, or 0.
    pub fn new(value: i64) -> Result<Self, Invalid> {
        if value != 0 && (-1_000_000_000..=1_000_000_000).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Invalid { field: "delta", rule: "must be a whole number from -1000000000 to 1000000000, not 0" })
        }
    }

    /// The number of units, and less than 0 if they go.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Quantity {
    /// The number of units.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl ActiveLimit {
    /// Lists none.
    pub const NONE: Self = Self(0);
    /// The default number that a read lists: 100.
    pub const DEFAULT: Self = Self(100);

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

impl PageLimit {
    /// The default number: 50.
    pub const DEFAULT: Self = Self(50);

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

impl AvailableBelow {
    pub(super) fn get(self) -> u64 {
        self.0
    }
}

impl PerCart {
    /// The number of units.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl SafetyStock {
    /// The number of units.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl MaxTtl {
    pub(super) fn as_ms(self) -> u64 {
        self.0 * 1000
    }
}

impl Ttl {
    /// The default time of a hold: 10 minutes. The scripts know it, too.
    pub(super) const DEFAULT: Self = Self(600);
    /// The longest that a hold lasts: 30 days.
    pub const MAX: Self = Self(2_592_000);

    /// In milliseconds, the unit of the scripts.
    pub fn as_ms(self) -> u64 {
        self.0 * 1000
    }
}

/// Options of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Requests of one kind that are sent in one call, at most: 1 to [`MAX_BATCH`]. With 1, each is sent alone.
    pub max_batch: usize,
    /// Replicas that must have a change before it is acknowledged. If fewer have it in time, the result is
    /// [`super::Error::Unknown`].
    pub replicas: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_batch: MAX_BATCH, replicas: 0 }
    }
}
