//! Why an operation has no outcome, and what of it may pass.

use crate::redis::Failure;

/// Why an operation has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis cannot be used just now. Nothing was done: the same request may be made again.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// A read that had to wait too long for its turn, so that sales go on. Nothing was read: it may be made again later.
    #[error("too much is being read at once")]
    Busy,
    /// The request was sent and no reply came: it may have been carried out or not.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Redis refused what this crate sent, or holds or answers what no script wrote. A retry will not help.
    #[error("{0}")]
    Broken(String),
}

/// First words of errors that pass, and with which nothing was applied.
const PASSING: [&str; 12] = [
    "NOSCRIPT",
    "LOADING",
    "BUSY",
    "READONLY",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
];

pub(super) fn is_passing(code: &str) -> bool {
    PASSING.contains(&code)
}

/// Those of them that are about one key, or about its slot: the others of that Redis can be used.
const OF_ONE_KEY: [&str; 3] = ["MOVED", "ASK", "TRYAGAIN"];

pub(super) fn is_of_one_key(code: &str) -> bool {
    OF_ONE_KEY.contains(&code)
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Unreachable(_) => Self::Unavailable(text),
            Failure::NoReply(_) => Self::Unknown(text),
            Failure::Refused { code, .. } if is_passing(&code) => Self::Unavailable(text),
            Failure::Refused { .. } | Failure::Malformed(_) => Self::Broken(text),
        }
    }
}

impl Error {
    /// For a call that changed nothing, or whose change does not matter to the operation: a lost reply leaves no doubt.
    pub(crate) fn retry_safe(failure: Failure) -> Self {
        match Self::from(failure) {
            Self::Unknown(why) => Self::Unavailable(why),
            other => other,
        }
    }
}
