//! Everything that a server stores: it shows whether a refusal changed anything.

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, Value, cmd, pipe};

/// Every key, with its contents and the epoch ms at which it expires (-1: never).
///
/// The moment and not the remaining time, so that two snapshots of the same state are equal.
#[derive(Debug, PartialEq)]
pub struct Snapshot(BTreeMap<Vec<u8>, (Stored, i64)>);

/// Byte for byte where Redis keeps an order. The order of a hash or a set is not included: even a read may change it.
#[derive(Debug, PartialEq)]
enum Stored {
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Dump(Vec<u8>),
}

impl Snapshot {
    pub async fn take(redis: &mut MultiplexedConnection) -> Self {
        let keys = keys(redis).await;
        let mut commands = pipe();
        for key in &keys {
            commands.cmd("TYPE").arg(key);
        }
        let types: Vec<String> = answers(redis, &commands).await.into_iter().map(typed).collect();
        commands.clear();
        for (key, kind) in keys.iter().zip(&types) {
            let read = match kind.as_str() {
                "hash" => "HGETALL",
                "set" => "SMEMBERS",
                _ => "DUMP",
            };
            commands.cmd(read).arg(key).cmd("PEXPIRETIME").arg(key);
        }
        let mut answers = answers(redis, &commands).await.into_iter();
        let mut next = || answers.next().unwrap();
        let stored = types.iter().map(|kind| {
            let stored = match kind.as_str() {
                "hash" => Stored::Hash(typed(next())),
                "set" => Stored::Set(typed(next())),
                _ => Stored::Dump(typed(next())),
            };
            (stored, typed(next()))
        });
        Self(keys.into_iter().zip(stored).collect())
    }

    /// The keys that differ between the two.
    pub fn changed(&self, after: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != after.0.get(*name))
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()
    }
}

/// The names of all keys, each once, in order.
pub async fn keys(redis: &mut MultiplexedConnection) -> Vec<Vec<u8>> {
    let (mut cursor, mut keys) = (0, BTreeSet::new());
    loop {
        let (next, page): (u64, Vec<Vec<u8>>) =
            cmd("SCAN").arg(cursor).arg("COUNT").arg(1000).query_async(redis).await.unwrap();
        keys.extend(page);
        if next == 0 {
            return keys.into_iter().collect();
        }
        cursor = next;
    }
}

/// The replies to commands, of which there may be none: the client refuses to send nothing.
pub async fn answers(redis: &mut MultiplexedConnection, commands: &Pipeline) -> Vec<Value> {
    if commands.is_empty() { Vec::new() } else { commands.query_async(redis).await.unwrap() }
}

pub fn typed<T: FromRedisValue>(value: Value) -> T {
    redis::from_redis_value(value).unwrap()
}
