//! Reads that go over all there is, a bounded page at a time: what a check of a live system needs.

use std::collections::HashMap;

use ::redis::{Value, cmd, pipe};

use super::reads::{malformed, typed};
use super::{Failure, Redis};

/// Elements that one call of a scan looks at, about.
const PAGE: usize = 500;

/// A page of a scan, and where the next one starts; 0 after the last.
pub type Page<T> = (u64, Vec<T>);

/// The fields of a stream entry, with its id.
pub type Entry = (String, HashMap<String, String>);

/// A member of a sorted set with the hash that it stands for, all of one moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// The fields of the hash; empty when there is none.
    pub fields: HashMap<String, String>,
    /// The member's score as Redis writes it; none when it is no member.
    pub score: Option<String>,
    /// Whether Redis will drop the hash by itself.
    pub is_mortal: bool,
}

/// A member of a sorted set, the lowest of another, and whether it is in a set, all of one moment.
#[derive(Debug, Clone)]
pub struct IndexLook {
    /// The member's score.
    pub bound: Option<f64>,
    /// The lowest score of the other set.
    pub lowest: Option<f64>,
    /// Whether it is in the set.
    pub listed: bool,
}

impl Redis {
    /// A page of the names of all keys, without those that are no text.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scan(&self, cursor: u64) -> Result<Page<String>, Failure> {
        let page = self.call(cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE)).await?;
        let (next, names): Page<Vec<u8>> = typed(page)?;
        Ok((next, names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect()))
    }

    /// A page of the members of a set.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scan_set(&self, key: &str, cursor: u64) -> Result<Page<String>, Failure> {
        typed(self.call(cmd("SSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE)).await?)
    }

    /// A page of the members of a sorted set.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scan_members(&self, key: &str, cursor: u64) -> Result<Page<String>, Failure> {
        let page = self.call(cmd("ZSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE)).await?;
        let (next, members): Page<(String, String)> = typed(page)?;
        Ok((next, members.into_iter().map(|(member, _score)| member).collect()))
    }

    /// Some fields of several hashes; those of a key that is no hash are absent.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn fields(&self, keys: &[String], names: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        reads.ignore_errors();
        for key in keys {
            reads.cmd("HMGET").arg(key).arg(names);
        }
        let absent = vec![None; names.len()];
        Ok(self.pipeline(&reads).await?.into_iter().map(|fields| typed(fields).unwrap_or(absent.clone())).collect())
    }

    /// Looks at members of the sorted set `scores`, each with the hash that it stands for.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn looks(&self, scores: &str, members: &[(String, String)]) -> Result<Vec<Look>, Failure> {
        let mut reads = pipe();
        reads.atomic();
        for (member, hash) in members {
            reads.cmd("HGETALL").arg(hash).cmd("ZSCORE").arg(scores).arg(member).cmd("PTTL").arg(hash);
        }
        let replies = self.pipeline(&reads).await?;
        let look = |replies: &[Value]| match replies {
            [fields, score, ttl] => Ok(Look {
                fields: typed(fields.clone())?,
                score: typed::<Option<f64>>(score.clone())?.map(|score| score.to_string()),
                is_mortal: typed::<i64>(ttl.clone())? >= 0,
            }),
            _ => Err(malformed("three replies for a member")),
        };
        replies.chunks(3).map(look).collect()
    }

    /// Looks for `member` in the sorted set `bounds` and the set `list`, and at the lowest score of `scores`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn index_look(&self, member: &str, bounds: &str, scores: &str, list: &str) -> Result<IndexLook, Failure> {
        let mut reads = pipe();
        reads.atomic();
        reads.cmd("ZSCORE").arg(bounds).arg(member);
        reads.cmd("ZRANGE").arg(scores).arg(0).arg(0).arg("WITHSCORES");
        reads.cmd("SISMEMBER").arg(list).arg(member);
        let [bound, lowest, listed] =
            <[Value; 3]>::try_from(self.pipeline(&reads).await?).map_err(|_| malformed("three replies"))?;
        let lowest: Vec<(String, f64)> = typed(lowest)?;
        Ok(IndexLook {
            bound: typed(bound)?,
            lowest: lowest.first().map(|(_, score)| *score),
            listed: typed::<i64>(listed)? == 1,
        })
    }

    /// Entries of a stream from the id `newest` (`+` for the end) backwards, at most `count`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entries_back(&self, stream: &str, newest: &str, count: usize) -> Result<Vec<Entry>, Failure> {
        let mut command = cmd("XREVRANGE");
        typed(self.call(command.arg(stream).arg(newest).arg("-").arg("COUNT").arg(count)).await?)
    }

    /// The entry of that id, if it is there.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entry(&self, stream: &str, id: &str) -> Result<Option<Entry>, Failure> {
        let entries: Vec<Entry> = typed(self.call(cmd("XRANGE").arg(stream).arg(id).arg(id)).await?)?;
        Ok(entries.into_iter().next())
    }

    /// The id of the oldest entry that a stream still has.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn oldest_entry(&self, stream: &str) -> Result<Option<String>, Failure> {
        let mut command = cmd("XRANGE");
        let entries: Vec<Entry> = typed(self.call(command.arg(stream).arg("-").arg("+").arg("COUNT").arg(1)).await?)?;
        Ok(entries.into_iter().next().map(|(id, _)| id))
    }
}
