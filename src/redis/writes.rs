//! The few plain writes that need no script: none of them changes stock.

use ::redis::{cmd, pipe};

use super::reads::typed;
use super::{Dumped, Failure, Redis};

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

    /// Removes a field of a hash.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn remove_field(&self, key: &str, field: &str) -> Result<(), Failure> {
        self.call(cmd("HDEL").arg(key).arg(field)).await.map(drop)
    }

    /// Removes keys.
    ///
    /// # Errors
    /// See [`Failure`]. Some may be removed.
    pub async fn remove(&self, keys: &[String]) -> Result<(), Failure> {
        let mut writes = pipe();
        for key in keys {
            writes.cmd("DEL").arg(key);
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.each(writes).await?.into_iter().try_for_each(|removed| removed.map(drop))
    }

    /// Writes keys as another Redis has dumped them; what has one of their names is replaced. Returns their number.
    ///
    /// # Errors
    /// See [`Failure`]. Some may be written.
    pub async fn restore(&self, dumped: &[Dumped]) -> Result<u64, Failure> {
        let mut writes = pipe();
        for Dumped { key, bytes, expires_at_ms } in dumped {
            writes.cmd("RESTORE").arg(key).arg(expires_at_ms).arg(bytes).arg("REPLACE").arg("ABSTTL");
        }
        if writes.is_empty() {
            return Ok(0);
        }
        for written in self.each(writes).await? {
            written?;
        }
        Ok(dumped.len() as u64)
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
