//! Why an operation has no outcome, and which of these errors are temporary.

use crate::redis::Failure;

/// Why an operation has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis cannot be used now. Nothing was done: the same request can be retried.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// A read that waited too long for its turn, because sales come first. Nothing was read: retry later.
    #[error("too much is being read at once")]
    Busy,
    /// The request was sent and no reply came. It may have been carried out or not.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Redis refused what this crate sent, or holds or answers something that no script wrote. A retry will not help.
    #[error("{0}")]
    Broken(String),
}

/// First words of errors that are temporary and with which nothing was applied.
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

/// Those of them that concern one key, or its slot: the other keys of that Redis can be used.
const OF_ONE_KEY: [&str; 3] = ["MOVED", "ASK", "TRYAGAIN"];

pub(super) fn is_of_one_key(code: &str) -> bool {
    OF_ONE_KEY.contains(&code)
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Unreachable(_) | Failure::Barred(_) => Self::Unavailable(text),
            Failure::NoReply(_) => Self::Unknown(text),
            Failure::Refused { code, .. } if is_passing(&code) => Self::Unavailable(text),
            Failure::Refused { .. } | Failure::Malformed(_) => Self::Broken(text),
        }
    }
}

impl Error {
    /// For a call that changed nothing, or whose change does not matter to the operation: a lost reply is not
    /// ambiguous.
    pub(crate) fn retry_safe(failure: Failure) -> Self {
        match Self::from(failure) {
            Self::Unknown(why) => Self::Unavailable(why),
            other => other,
        }
    }
}
