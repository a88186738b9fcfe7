//! The few plain writes that need no script: none of them changes stock.

use ::redis::cmd;

use super::reads::typed;
use super::{Failure, Redis};

impl Redis {
    /// Sets fields of a hash.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn set_fields(&self, key: &str, fields: &[(&str, String)]) -> Result<(), Failure> {
        self.call(cmd("HSET").arg(key).arg(fields)).await.map(drop)
    }

    /// Sets a field of a hash unless it is set already.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn set_field_once(&self, key: &str, field: &str, value: &str) -> Result<(), Failure> {
        self.call(cmd("HSETNX").arg(key).arg(field).arg(value)).await.map(drop)
    }

    /// Removes the oldest entries from a stream until about `most` are left, 10,000 at most. Returns the number of
    /// removed entries.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn trim(&self, stream: &str, most: u64) -> Result<u64, Failure> {
        typed(self.call(cmd("XTRIM").arg(stream).arg("MAXLEN").arg("~").arg(most)).await?)
    }
}
