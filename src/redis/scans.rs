//! Reads over all data, a limited page at a time: for a check of a live system.

use std::collections::HashMap;

use ::redis::{Value, cmd, pipe};

use super::reads::{clock, malformed, typed};
use super::{Failure, Redis};

/// About how many elements one call of a scan looks at.
const PAGE: usize = 500;

/// A page of a scan, and where the next one starts; 0 after the last page.
pub type Page<T> = (u64, Vec<T>);

/// The fields of a stream entry, with its id; `None` for the fields when one of them is not text.
pub type Entry = (String, HashMap<String, String>);

/// The present and past contents of a stream.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// Entries that it has.
    pub length: u64,
    /// Entries that were ever added to it.
    pub entries_added: u64,
    /// Its oldest entry.
    pub first: Option<Entry>,
    /// The highest id that was deleted individually, if any.
    pub max_deleted: Option<String>,
}

/// A key, in the form in which Redis gives it and takes it.
#[derive(Debug, Clone)]
pub struct Dumped {
    /// Its name.
    pub key: String,
    /// What it has, with a checksum and the version of the form.
    pub bytes: Vec<u8>,
    /// When it is dropped, epoch milliseconds; 0 for never.
    pub expires_at_ms: u64,
}

/// A member of a sorted set with the hash that it names, read atomically.
#[derive(Debug, Clone)]
pub struct Look {
    /// The fields of the hash; empty when there is no such hash, `None` when a field is not text.
    pub fields: Option<HashMap<String, String>>,
    /// The member's score as Redis writes it; `None` when it is not a member.
    pub score: Option<String>,
    /// Whether the hash has a TTL.
    pub is_mortal: bool,
}

/// The score of a member of a sorted set, the lowest score of another, and whether a list has it, read atomically.
#[derive(Debug, Clone)]
pub struct IndexLook {
    /// The member's score.
    pub bound: Option<f64>,
    /// The lowest score of the other set.
    pub lowest: Option<f64>,
    /// Whether it is in the list, with the score 0 that keeps the list in alphabetical order.
    pub listed: bool,
}

impl Redis {
    /// A page of the names of all keys of one node, without those that are not text.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scan(&self, cursor: u64) -> Result<Page<String>, Failure> {
        let page = self.call(cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE)).await?;
        let (next, names): Page<Vec<u8>> = typed(page)?;
        Ok((next, names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect()))
    }

    /// Those of the keys that do not exist.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn missing(&self, keys: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut reads = pipe();
        for key in &keys {
            reads.cmd("EXISTS").arg(key);
        }
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let mut missing = Vec::new();
        for (key, exists) in keys.into_iter().zip(self.each(reads).await?) {
            if !typed::<bool>(exists?)? {
                missing.push(key);
            }
        }
        Ok(missing)
    }

    /// Keys of one node as Redis itself can restore them; without those that are gone.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn dump(&self, keys: &[String]) -> Result<Vec<Dumped>, Failure> {
        let mut reads = pipe();
        for key in keys {
            reads.cmd("DUMP").arg(key).cmd("PEXPIRETIME").arg(key);
        }
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.pipeline(&reads).await?;
        let mut dumped = Vec::with_capacity(keys.len());
        for (key, replies) in keys.iter().zip(replies.chunks(2)) {
            let (bytes, expires): (Option<Vec<u8>>, i64) = (typed(replies[0].clone())?, typed(replies[1].clone())?);
            if let Some(bytes) = bytes {
                dumped.push(Dumped { key: key.clone(), bytes, expires_at_ms: expires.max(0).unsigned_abs() });
            }
        }
        Ok(dumped)
    }

    /// A page of the members of a sorted set. Bytes that are not text are replaced.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn scan_members(&self, key: &str, cursor: u64) -> Result<Page<String>, Failure> {
        let page = self.call(cmd("ZSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE)).await?;
        let (next, members): Page<(Vec<u8>, Vec<u8>)> = typed(page)?;
        Ok((next, members.iter().map(|(member, _score)| String::from_utf8_lossy(member).into_owned()).collect()))
    }

    /// Some fields of several hashes; those of a key that is not a hash are absent.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn fields(&self, keys: &[String], names: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        for key in keys {
            reads.cmd("HMGET").arg(key).arg(names);
        }
        let absent = vec![None; names.len()];
        let read = |fields: Result<Value, Failure>| match fields.and_then(typed) {
            Err(Failure::Malformed(_)) => Ok(absent.clone()),
            Err(Failure::Refused { code, .. }) if code == "WRONGTYPE" => Ok(absent.clone()),
            fields => fields,
        };
        self.each(reads).await?.into_iter().map(read).collect()
    }

    /// Reads members of the sorted set `scores`, each with the hash that it names.
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
                fields: text_fields(typed(fields.clone())?),
                score: typed::<Option<f64>>(score.clone())?.map(|score| score.to_string()),
                is_mortal: typed::<i64>(ttl.clone())? >= 0,
            }),
            _ => Err(malformed("three replies for a member")),
        };
        replies.chunks(3).map(look).collect()
    }

    /// Reads `member` in the sorted sets `bounds` and `list`, and the lowest score of `scores`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn index_look(&self, member: &str, bounds: &str, scores: &str, list: &str) -> Result<IndexLook, Failure> {
        let mut reads = pipe();
        reads.atomic();
        reads.cmd("ZSCORE").arg(bounds).arg(member);
        reads.cmd("ZRANGE").arg(scores).arg(0).arg(0).arg("WITHSCORES");
        reads.cmd("ZSCORE").arg(list).arg(member);
        let [bound, lowest, listed] =
            <[Value; 3]>::try_from(self.pipeline(&reads).await?).map_err(|_| malformed("three replies"))?;
        let lowest: Vec<(String, f64)> = typed(lowest)?;
        Ok(IndexLook {
            bound: typed(bound)?,
            lowest: lowest.first().map(|(_, score)| *score),
            listed: typed::<Option<f64>>(listed)? == Some(0.0),
        })
    }

    /// Entries of a stream from the id `newest` (`+` for the end) backwards, at most `count`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entries_back(&self, stream: &str, newest: &str, count: usize) -> Result<Vec<Entry>, Failure> {
        let mut command = cmd("XREVRANGE");
        entries(self.call(command.arg(stream).arg(newest).arg("-").arg("COUNT").arg(count)).await?)
    }

    /// The same of several streams, each from an id of its own.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entries_back_of(&self, places: &[(&str, String)], count: usize) -> Result<Vec<Vec<Entry>>, Failure> {
        let mut reads = pipe();
        for (stream, newest) in places {
            reads.cmd("XREVRANGE").arg(*stream).arg(newest).arg("-").arg("COUNT").arg(count);
        }
        self.each(reads).await?.into_iter().map(|page| entries(page?)).collect()
    }

    /// Entries of several streams, each from an id on (`(` before it: after it), at most `count` of each, the oldest
    /// first. With the time of the stream's Redis after they were read, epoch milliseconds.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entries_on_of(
        &self,
        places: &[(&str, &str)],
        count: usize,
    ) -> Result<Vec<(Vec<Entry>, u64)>, Failure> {
        let mut reads = pipe();
        for (stream, from) in places {
            reads.cmd("XRANGE").arg(*stream).arg(*from).arg("+").arg("COUNT").arg(count).cmd("TIME");
        }
        let mut replies = self.each(reads).await?.into_iter();
        let mut pages = Vec::with_capacity(places.len());
        while let (Some(page), Some(time)) = (replies.next(), replies.next()) {
            pages.push((entries(page?)?, clock(time?)?));
        }
        Ok(pages)
    }

    /// The id of the oldest entry of several streams, and how many entries each has.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn oldest_and_length_of(&self, streams: &[&str]) -> Result<Vec<(Option<String>, u64)>, Failure> {
        let mut reads = pipe();
        for stream in streams {
            reads.cmd("XRANGE").arg(*stream).arg("-").arg("+").arg("COUNT").arg(1).cmd("XLEN").arg(*stream);
        }
        let mut replies = self.each(reads).await?.into_iter();
        let mut reaches = Vec::with_capacity(streams.len());
        while let (Some(page), Some(length)) = (replies.next(), replies.next()) {
            reaches.push((entries(page?)?.into_iter().next().map(|(id, _)| id), typed(length?)?));
        }
        Ok(reaches)
    }

    /// The entry with that id, if it exists.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn entry(&self, stream: &str, id: &str) -> Result<Option<Entry>, Failure> {
        Ok(entries(self.call(cmd("XRANGE").arg(stream).arg(id).arg(id)).await?)?.pop())
    }

    /// The id of the oldest entry that a stream still has.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn oldest_entry(&self, stream: &str) -> Result<Option<String>, Failure> {
        let mut command = cmd("XRANGE");
        let page = entries(self.call(command.arg(stream).arg("-").arg("+").arg("COUNT").arg(1)).await?)?;
        Ok(page.into_iter().next().map(|(id, _)| id))
    }

    /// The present and past contents of a stream, read atomically; `None` when there is no such key.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn stream_info(&self, stream: &str) -> Result<Option<StreamInfo>, Failure> {
        let mut info: HashMap<String, Value> = match self.call(cmd("XINFO").arg("STREAM").arg(stream)).await {
            Err(Failure::Refused { message, .. }) if message == "no such key" => return Ok(None),
            reply => typed(reply?)?,
        };
        let mut take = |name: &str| info.remove(name).ok_or_else(|| malformed(name));
        let first: Option<RawEntry> = typed(take("first-entry")?)?;
        let max_deleted: String = typed(take("max-deleted-entry-id")?)?;
        Ok(Some(StreamInfo {
            length: typed(take("length")?)?,
            entries_added: typed(take("entries-added")?)?,
            first: first.map(entry),
            max_deleted: Some(max_deleted).filter(|id| entry_order(id) > Some((0, 0))),
        }))
    }
}

/// An entry of a stream. Its fields may not be text: an entry that was added by hand must not block readers of other
/// entries.
type RawEntry = (String, HashMap<Vec<u8>, Vec<u8>>);

fn entries(value: Value) -> Result<Vec<Entry>, Failure> {
    Ok(typed::<Vec<RawEntry>>(value)?.into_iter().map(entry).collect())
}

fn entry((id, fields): RawEntry) -> Entry {
    (id, text_fields(fields).unwrap_or_default())
}

/// `None` when one of them is not text.
fn text_fields(fields: HashMap<Vec<u8>, Vec<u8>>) -> Option<HashMap<String, String>> {
    let text = |bytes| String::from_utf8(bytes).ok();
    fields.into_iter().map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// The id of a stream entry, for comparison.
pub fn entry_order(id: &str) -> Option<(u64, u64)> {
    let (ms, sequence) = id.split_once('-')?;
    let number = |digits: &str| {
        let is_number = (1..=19).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse().ok() } else { None }
    };
    Some((number(ms)?, number(sequence)?))
}
