//! Commands that tell what a server is and can do. They change nothing.

use std::collections::HashMap;

use ::redis::{FromRedisValue, Role, Value, cmd};

use super::reads::{malformed, typed};
use super::{Failure, Redis};

impl Redis {
    /// What it says of itself in its greeting: `server`, `version`, `mode`, `proto`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn greeting(&self) -> Result<HashMap<String, String>, Failure> {
        let Value::Map(fields) = self.call(&cmd("HELLO")).await? else { return Err(malformed("HELLO without fields")) };
        // Among them is a list of modules.
        let texts = fields.into_iter().filter_map(|(name, value)| Some((typed(name).ok()?, typed(value).ok()?)));
        Ok(texts.collect())
    }

    /// The fields of a section of INFO.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn info(&self, section: &str) -> Result<HashMap<String, String>, Failure> {
        let text: String = typed(self.call(cmd("INFO").arg(section)).await?)?;
        let fields = text.lines().filter_map(|line| line.trim().split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The number of replicas that it lists by ROLE; `None` if it is no master.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn listed_replicas(&self) -> Result<Option<usize>, Failure> {
        match Role::from_redis_value(self.call(&cmd("ROLE")).await?).map_err(|error| malformed(&error.to_string()))? {
            Role::Primary { replicas, .. } => Ok(Some(replicas.len())),
            _ => Ok(None),
        }
    }

    /// Tries to wait for replicas, for none of them.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn try_wait(&self) -> Result<(), Failure> {
        self.call(cmd("WAIT").arg(0).arg(1)).await.map(drop)
    }

    /// Tries a transaction.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn try_transaction(&self) -> Result<(), Failure> {
        // One that cannot be ended would go on with the connection.
        let own = self.with_own_connection();
        for word in ["MULTI", "PING", "EXEC"] {
            own.call(&cmd(word)).await?;
        }
        Ok(())
    }

    /// Tries to ask a node of a cluster for a key whose slot is moving to it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn try_asking(&self) -> Result<(), Failure> {
        self.with_own_connection().call(&cmd("ASKING")).await.map(drop)
    }
}
