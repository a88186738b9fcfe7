//! The few plain reads that need no script: each looks at one key, or at Redis itself.

use std::collections::HashMap;

use ::redis::{FromRedisValue, Value, cmd, pipe};

use super::{Failure, Redis};

/// A hash as it was stored, and the clock by which to judge it.
#[derive(Debug)]
pub struct StoredHash {
    /// Field -> value; empty when there is no such key.
    pub fields: HashMap<String, String>,
    /// Redis's clock just after, epoch milliseconds.
    pub now_ms: u64,
}

/// What Redis says of itself.
#[derive(Debug)]
pub struct Health {
    /// `master` or `slave`.
    pub role: String,
    /// `noeviction`, if all is well.
    pub maxmemory_policy: String,
}

impl Redis {
    /// Redis's clock, epoch milliseconds.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn now_ms(&self) -> Result<u64, Failure> {
        clock(self.call(&cmd("TIME")).await?)
    }

    /// All fields of a hash.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hash(&self, key: &str) -> Result<StoredHash, Failure> {
        let replies = self.pipeline(pipe().cmd("HGETALL").arg(key).cmd("TIME")).await?;
        let [fields, time] = <[Value; 2]>::try_from(replies).map_err(|_| odd("two replies"))?;
        Ok(StoredHash { fields: typed(fields)?, now_ms: clock(time)? })
    }

    /// One field of a hash, if it is there.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hash_field(&self, key: &str, field: &str) -> Result<Option<String>, Failure> {
        typed(self.call(cmd("HGET").arg(key).arg(field)).await?)
    }

    /// The members of a sorted set with the lowest scores, at most `count`, which is at least 1.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lowest(&self, key: &str, count: usize) -> Result<Vec<String>, Failure> {
        typed(self.call(cmd("ZRANGE").arg(key).arg(0).arg(count - 1)).await?)
    }

    /// The members of a sorted set scored `score` or lower, at most `count` of them after the first `skip`, each with its
    /// score; as bytes, for not all that is listed there need be text.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn up_to(
        &self,
        key: &str,
        score: u64,
        skip: usize,
        count: usize,
    ) -> Result<Vec<(Vec<u8>, f64)>, Failure> {
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(key).arg("-inf").arg(score).arg("WITHSCORES").arg("LIMIT").arg(skip).arg(count);
        typed(self.call(&command).await?)
    }

    /// For each pair of a member and another sorted set: if the member is scored `score` or lower in `list`, what else is in
    /// the other set, the lowest first, at most `count`. Each has its own outcome.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn listed_up_to(
        &self,
        list: &str,
        pairs: &[(&str, &str)],
        score: u64,
        count: usize,
    ) -> Result<Vec<Result<Option<Vec<String>>, Failure>>, Failure> {
        let mut reads = pipe();
        for (member, set) in pairs {
            reads.cmd("ZSCORE").arg(list).arg(member);
            reads.cmd("ZRANGEBYSCORE").arg(set).arg("-inf").arg(score).arg("LIMIT").arg(0).arg(count);
        }
        let mut replies = self.each(reads).await?.into_iter();
        let mut listed = Vec::with_capacity(pairs.len());
        while let (Some(bound), Some(members)) = (replies.next(), replies.next()) {
            let is_listed =
                bound.and_then(typed::<Option<f64>>).map(|bound| bound.is_some_and(|at| at <= score as f64));
            listed.push(match is_listed {
                Ok(true) => members.and_then(typed).map(Some),
                Ok(false) => Ok(None),
                Err(failure) => Err(failure),
            });
        }
        Ok(listed)
    }

    /// Its role and what it does when memory is full.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn health(&self) -> Result<Health, Failure> {
        // INFO and not CONFIG GET: hosted Redis often forbids the latter.
        let replies = self.pipeline(pipe().cmd("INFO").arg("replication").cmd("INFO").arg("memory")).await?;
        let text: Vec<String> = replies.into_iter().map(typed).collect::<Result<_, _>>()?;
        let find = |name: &str| {
            let line = text.iter().flat_map(|section| section.lines()).find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        Ok(Health { role: find("role:"), maxmemory_policy: find("maxmemory_policy:") })
    }
}

fn clock(value: Value) -> Result<u64, Failure> {
    let (seconds, micros): (u64, u64) = typed(value)?;
    Ok(seconds * 1000 + micros / 1000)
}

pub(super) fn typed<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    T::from_redis_value(value).map_err(|error| odd(&error.to_string()))
}

/// A reply of a shape that no Redis gives.
pub(super) fn odd(what: &str) -> Failure {
    Failure::NoReply(format!("not understood: {what}"))
}
