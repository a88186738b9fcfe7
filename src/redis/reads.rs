//! The few plain reads that need no script: each reads keys, or a node itself.

use std::collections::HashMap;

use ::redis::{FromRedisValue, Value, cmd, pipe};

use super::{At, Failure, Redis};

/// A replica reports once a second. One that has not for this time is away: Redis's own default for `min-replicas-max-lag`.
const MOST_LAG_SECONDS: u64 = 10;

/// A hash as it was stored, and the time to compare it with.
#[derive(Debug)]
pub struct StoredHash {
    /// Field -> value; empty when there is no such key.
    pub fields: HashMap<String, String>,
    /// Redis's clock just after, epoch milliseconds.
    pub now_ms: u64,
}

/// What Redis reports about itself.
#[derive(Debug)]
pub struct Health {
    /// `master` or `slave`.
    pub role: String,
    /// `noeviction`, if all is well.
    pub maxmemory_policy: String,
    /// Such as `7.0.15`; Valkey says which version of Redis it is like.
    pub version: String,
    /// How many replicas follow it, and have said so lately.
    pub replicas: u32,
}

impl Redis {
    /// Redis's clock, epoch milliseconds; in a cluster, that of the node that has `key`, whose scripts go by it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn now_ms(&self, key: &str) -> Result<u64, Failure> {
        clock(self.call_at(key, &cmd("TIME")).await?)
    }

    /// All fields of a hash.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hash(&self, key: &str) -> Result<StoredHash, Failure> {
        let replies = self.pipeline(pipe().cmd("HGETALL").arg(key).cmd("TIME")).await?;
        let [fields, time] = <[Value; 2]>::try_from(replies).map_err(|_| malformed("two replies"))?;
        Ok(StoredHash { fields: typed(fields)?, now_ms: clock(time)? })
    }

    /// All fields of several hashes, in the order of the keys.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hashes(
        &self,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<Vec<HashMap<String, String>>, Failure> {
        let mut reads = pipe();
        for key in keys {
            reads.cmd("HGETALL").arg(key);
        }
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        self.each(reads).await?.into_iter().map(|fields| typed(fields?)).collect()
    }

    /// The same for at least one key, and Redis's clock just after, epoch milliseconds; in a cluster, that of the node that has the
    /// last key.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hashes_now(
        &self,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<(Vec<HashMap<String, String>>, u64), Failure> {
        let mut reads = pipe();
        for key in keys {
            reads.cmd("HGETALL").arg(key);
        }
        reads.cmd("TIME");
        let mut replies = self.each(reads).await?;
        let now_ms = clock(replies.pop().ok_or_else(|| malformed("a reply"))??)?;
        Ok((replies.into_iter().map(|fields| typed(fields?)).collect::<Result<_, _>>()?, now_ms))
    }

    /// One field of a hash, if it is there.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn hash_field(&self, key: &str, field: &str) -> Result<Option<String>, Failure> {
        typed(self.call(cmd("HGET").arg(key).arg(field)).await?)
    }

    /// How many members of a sorted set have the score `score` or lower.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn count_up_to(&self, key: &str, score: u64) -> Result<u64, Failure> {
        typed(self.call(cmd("ZCOUNT").arg(key).arg("-inf").arg(score)).await?)
    }

    /// The same number, and the member with the lowest score; not read atomically.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn tail(&self, key: &str, score: u64) -> Result<(u64, Option<String>), Failure> {
        let mut reads = pipe();
        reads.cmd("ZCOUNT").arg(key).arg("-inf").arg(score).cmd("ZRANGE").arg(key).arg(0).arg(0);
        let [count, lowest] =
            <[Value; 2]>::try_from(self.pipeline(&reads).await?).map_err(|_| malformed("two replies"))?;
        Ok((typed(count)?, typed::<Vec<String>>(lowest)?.pop()))
    }

    /// The member with the lowest score of each sorted set, in the order of the keys; `None` for an empty one.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn first_members<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Option<String>>, Failure> {
        let mut reads = pipe();
        for key in keys {
            reads.cmd("ZRANGE").arg(key).arg(0).arg(0);
        }
        self.each(reads).await?.into_iter().map(|first| Ok(typed::<Vec<String>>(first?)?.pop())).collect()
    }

    /// The members of a sorted set from one rank to another, both included.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn ranked(&self, key: &str, first: u64, last: u64) -> Result<Vec<String>, Failure> {
        typed(self.call(cmd("ZRANGE").arg(key).arg(first).arg(last)).await?)
    }

    /// The members of a sorted set with the lowest scores, at most `count`, which is at least 1; and a field of a hash,
    /// unless it changed meanwhile.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lowest_while(
        &self,
        key: &str,
        count: usize,
        hash: &str,
        field: &str,
    ) -> Result<(Vec<String>, Option<String>), Failure> {
        let mut reads = pipe();
        reads.cmd("HGET").arg(hash).arg(field);
        reads.cmd("ZRANGE").arg(key).arg(0).arg(count - 1);
        reads.cmd("HGET").arg(hash).arg(field);
        let [before, members, after] =
            <[Value; 3]>::try_from(self.pipeline(&reads).await?).map_err(|_| malformed("three replies"))?;
        Ok((typed(members)?, if before == after { typed(after)? } else { None }))
    }

    /// The members of a sorted set with the score `score` or higher, with their scores, at most `count`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scored_from(&self, key: &str, score: f64, count: usize) -> Result<Vec<(String, f64)>, Failure> {
        let mut command = cmd("ZRANGE");
        command.arg(key).arg(score).arg("+inf").arg("BYSCORE").arg("LIMIT").arg(0).arg(count).arg("WITHSCORES");
        typed(self.call(&command).await?)
    }

    /// For each sorted set without scores, the members that come after a place in byte order, at most `count`. As
    /// bytes, because a member may not be text.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn members_after(&self, places: &[(&str, &[u8])], count: usize) -> Result<Vec<Vec<Vec<u8>>>, Failure> {
        let mut reads = pipe();
        for (key, after) in places {
            let after = [b"(", *after].concat();
            reads.cmd("ZRANGE").arg(*key).arg(after).arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(count);
        }
        self.each(reads).await?.into_iter().map(|members| typed(members?)).collect()
    }

    /// The members of a sorted set with the lowest scores, at most `count`, which is at least 1.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lowest(&self, key: &str, count: usize) -> Result<Vec<String>, Failure> {
        typed(self.call(cmd("ZRANGE").arg(key).arg(0).arg(count - 1)).await?)
    }

    /// The lowest score of each sorted set; `None` of an empty one. Each has its own outcome.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn lowest_scores(&self, keys: &[&str]) -> Result<Vec<Result<Option<f64>, Failure>>, Failure> {
        let mut reads = pipe();
        for key in keys {
            reads.cmd("ZRANGE").arg(*key).arg(0).arg(0).arg("WITHSCORES");
        }
        let score = |reply: Result<Value, Failure>| {
            let lowest: Vec<(Vec<u8>, f64)> = typed(reply?)?;
            Ok(lowest.first().map(|(_, score)| *score))
        };
        Ok(self.each(reads).await?.into_iter().map(score).collect())
    }

    /// Of each sorted set, the members with the score `score` or lower, each with its score: at most `count` of them,
    /// after the first few, as many as its number says. As bytes, because a member may not be text. Each has its own
    /// outcome.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn up_to(
        &self,
        places: &[(&str, usize)],
        score: u64,
        count: usize,
    ) -> Result<Vec<Result<Vec<(Vec<u8>, f64)>, Failure>>, Failure> {
        let mut reads = pipe();
        for (key, skip) in places {
            let read = reads.cmd("ZRANGEBYSCORE").arg(*key).arg("-inf").arg(score).arg("WITHSCORES");
            read.arg("LIMIT").arg(*skip).arg(count);
        }
        Ok(self.each(reads).await?.into_iter().map(|reply| typed(reply?)).collect())
    }

    /// For each list, one of its members, and another sorted set: if the member has the score `score` or lower in the
    /// list, the members of the other set, the lowest first, at most `count`. Each has its own outcome.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn listed_up_to(
        &self,
        members: &[(&str, &str, &str)],
        score: u64,
        count: usize,
    ) -> Result<Vec<Result<Option<Vec<String>>, Failure>>, Failure> {
        let mut reads = pipe();
        for (list, member, set) in members {
            reads.cmd("ZSCORE").arg(*list).arg(*member);
            reads.cmd("ZRANGEBYSCORE").arg(*set).arg("-inf").arg(score).arg("LIMIT").arg(0).arg(count);
        }
        let mut replies = self.each(reads).await?.into_iter();
        let mut listed = Vec::with_capacity(members.len());
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

    /// The number of entries of a stream.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn stream_length(&self, stream: &str) -> Result<u64, Failure> {
        typed(self.call(cmd("XLEN").arg(stream)).await?)
    }

    /// The role, the replicas, the eviction policy and the version of one node.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn health(&self) -> Result<Health, Failure> {
        // INFO and not CONFIG GET: hosted Redis often forbids the latter.
        let mut sections = pipe();
        for section in ["replication", "memory", "server"] {
            sections.cmd("INFO").arg(section);
        }
        let replies = self.pipeline(&sections).await?;
        let text: Vec<String> = replies.into_iter().map(typed).collect::<Result<_, _>>()?;
        let find = |name: &str| {
            let line = text.iter().flat_map(|section| section.lines()).find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let replicas = text.iter().flat_map(|section| section.lines()).filter(|line| follows(line)).count();
        Ok(Health {
            role: find("role:"),
            maxmemory_policy: find("maxmemory_policy:"),
            version: find("redis_version:"),
            replicas: replicas as u32,
        })
    }

    /// Whether it was named as a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.at, At::Cluster(_))
    }

    /// Whether it is a Redis Cluster, or a node of one, which refuses calls with keys in several slots.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn is_cluster_node(&self) -> Result<bool, Failure> {
        if self.is_cluster() {
            return Ok(true);
        }
        let info: String = typed(self.call(cmd("INFO").arg("cluster")).await?)?;
        Ok(info.lines().any(|line| line.trim() == "cluster_enabled:1"))
    }
}

/// Whether a line of `INFO replication` is about a replica that follows: `slave0:ip=10.0.0.1,port=6379,state=online,offset=9,lag=0`.
fn follows(line: &str) -> bool {
    let Some((name, fields)) = line.trim().split_once(':') else { return false };
    let is_replica = name.strip_prefix("slave").is_some_and(|number| number.parse::<u32>().is_ok());
    let mut fields = fields.split(',').filter_map(|field| field.split_once('='));
    let lag = fields.clone().find(|(name, _)| *name == "lag").and_then(|(_, lag)| lag.parse::<u64>().ok());
    is_replica && fields.any(|field| field == ("state", "online")) && lag.is_some_and(|lag| lag <= MOST_LAG_SECONDS)
}

pub(super) fn clock(value: Value) -> Result<u64, Failure> {
    let (seconds, micros): (u64, u64) = typed(value)?;
    Ok(seconds * 1000 + micros / 1000)
}

pub(super) fn typed<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    T::from_redis_value(value).map_err(|error| malformed(&error.to_string()))
}

/// A reply of an unexpected shape, or with bytes that are not text.
pub(super) fn malformed(what: &str) -> Failure {
    Failure::Malformed(what.to_owned())
}
