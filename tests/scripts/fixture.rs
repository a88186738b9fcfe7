//! A private Redis with the scripts loaded, and a way to call them that checks every call.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, FromRedisValue, RedisError, Value, cmd};

use crate::call::{Call, LAST_EVENT, LONG_MS, confirm, hold, line, release, seed};
use crate::contract::Contract;
use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::{IS_CLUSTER, RedisServer};
use crate::support::snapshot::Snapshot;

/// The reservations of [`ScriptFixture::stocked`], and two unused ids.
pub const ACTIVE: &str = "00000000-0000-8007-8000-00000000000a";
pub const LAPSED: &str = "00000000-0000-8007-8000-00000000000b";
pub const CONFIRMED: &str = "00000000-0000-8007-8000-00000000000c";
pub const RELEASED: &str = "00000000-0000-8007-8000-00000000000d";
pub const CUP: &str = "00000000-0000-8007-8000-00000000000e";
pub const NEW: &str = "00000000-0000-8007-8000-00000000000f";
pub const NEWER: &str = "00000000-0000-8007-8000-000000000010";

/// What the names of keys begin with, without the prefix of a shard.
const KEYS: [&[u8]; 5] = [b"inventory:", b"reservation:", b"stockhold:", b"operation:", b"cart:"];

/// Replies that always mean a write.
const DONE: [&str; 6] = ["SEEDED", "HELD", "CONFIRMED", "RELEASED", "ADJUSTED", "RETURNED"];
/// Replies that may mean a write: these calls also remove stray entries, or find all done already.
const TIDYING: [&str; 7] = ["CHANGED", "DRAINING", "EXPIRED", "EXTENDED", "REPAIRED", "RULED", "SWEPT"];

type Fields = BTreeMap<String, Vec<u8>>;

/// A stream entry: its id and its fields.
type Entry = (Vec<u8>, Fields);

/// A call's answer: a line for each item, or an error reply.
pub type Answer = Result<Vec<Vec<String>>, Refusal>;

/// An error reply.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub word: String,
    pub text: String,
}

pub struct ScriptFixture {
    pub redis: MultiplexedConnection,
    pub history: History,
    shas: BTreeMap<&'static str, String>,
    /// Of all its keys: that of a shard, or nothing. Tests write calls and commands without it.
    prefix: &'static str,
    /// Its own Redis, if it has one.
    server: Option<RedisServer>,
}

impl ScriptFixture {
    /// Starts a Redis without any stock. In a cluster all keys are those of a shard, so that they are in one slot.
    pub async fn open() -> Self {
        let prefix = if *IS_CLUSTER { "{7}:" } else { "" };
        Self::on_own(RedisServer::start(), prefix).await
    }

    /// The same on a Redis that is no cluster, for calls on keys of several shards or of none.
    pub async fn open_single() -> Self {
        Self::on_own(RedisServer::start_single(&[]), "").await
    }

    async fn on_own(server: RedisServer, prefix: &'static str) -> Self {
        let fixture = Self::on(server.connection().await, prefix).await;
        Self { server: Some(server), ..fixture }
    }

    /// Uses a Redis of somebody else, with the keys of a shard.
    pub async fn on(mut redis: MultiplexedConnection, prefix: &'static str) -> Self {
        let mut shas = BTreeMap::new();
        for (name, contract) in Contract::all() {
            shas.insert(name, cmd("SCRIPT").arg("LOAD").arg(&contract.source).query_async(&mut redis).await.unwrap());
        }
        Self { redis, history: History::Whole, shas, prefix, server: None }
    }

    /// Starts a Redis with a reservation in each state: of 10 `tea`, 2 held by [`ACTIVE`], 1 by [`LAPSED`], 1
    /// [`CONFIRMED`] and 1 [`RELEASED`], both with the token `token`; of 5 `cup`, 1 held by [`CUP`].
    pub async fn stocked() -> Self {
        let mut fixture = Self::open().await;
        fixture.stock().await;
        fixture
    }

    /// Replaces all data with that of [`ScriptFixture::stocked`]. This runs hundreds of times, so it checks nothing:
    /// the next call that succeeds checks the books, including this data.
    pub async fn stock(&mut self) {
        self.run::<()>(&cmd("FLUSHALL")).await;
        self.keep_ms(0).await;
        for call in stocking() {
            self.evalsha(&call).await.unwrap();
        }
        self.lapse(LAPSED).await;
    }

    /// Sets how long settled records are kept, as the operator does; 0 keeps them forever.
    pub async fn keep_ms(&mut self, keep_ms: i64) {
        self.run::<()>(cmd("HSET").arg("stockhold:settings").arg("keepMs").arg(keep_ms)).await;
    }

    /// Calls a script, and checks what must be true of every call: the header lists the reply, with the same number of
    /// elements; an error or a refusal changed nothing; a reply that means a write changed something; the books
    /// balance.
    pub async fn call(&mut self, call: &Call) -> Answer {
        let before = Snapshot::take(&mut self.redis).await;
        let answer = self.evalsha(call).await;
        let changed = before.changed(&Snapshot::take(&mut self.redis).await);

        let contract = Contract::of(call.script);
        match &answer {
            Err(refusal) => {
                let known = contract.errors.contains(&refusal.word) || ["WRONGTYPE", "OOM"].contains(&&*refusal.word);
                assert!(known, "{call:?} failed with {refusal:?}");
                assert!(changed.is_empty(), "{call:?} failed with {refusal:?} and changed {changed:?}");
            }
            Ok(replies) => {
                for reply in replies {
                    let listed = contract.replies.get(&reply[0]);
                    let listed = listed.unwrap_or_else(|| panic!("{} lists no {:?}", call.script, reply[0]));
                    assert_eq!(reply.len(), 1 + listed.names.len(), "{reply:?} of {call:?}");
                }
                let says = |words: &[&str]| replies.iter().any(|reply| words.contains(&&*reply[0]));
                if says(&DONE) {
                    assert!(!changed.is_empty(), "{call:?} answered {replies:?} and changed nothing");
                } else if !says(&TIDYING) {
                    assert!(changed.is_empty(), "{call:?} answered {replies:?} and changed {changed:?}");
                }
                assert_invariants(&mut self.redis, self.history).await;
            }
        }
        answer
    }

    /// The lines of the answer to a call that must succeed.
    pub async fn replies(&mut self, call: &Call) -> Vec<Vec<String>> {
        self.call(call).await.unwrap_or_else(|refusal| panic!("{call:?} failed with {refusal:?}"))
    }

    /// The first words of [`ScriptFixture::replies`].
    pub async fn words(&mut self, call: &Call) -> Vec<String> {
        self.replies(call).await.into_iter().map(|reply| reply[0].clone()).collect()
    }

    /// The only line of [`ScriptFixture::replies`].
    pub async fn reply(&mut self, call: &Call) -> Vec<String> {
        let mut replies = self.replies(call).await;
        assert_eq!(replies.len(), 1, "{call:?} answered {replies:?}");
        replies.remove(0)
    }

    /// The error reply to a call that must fail.
    pub async fn refusal(&mut self, call: &Call) -> Refusal {
        match self.call(call).await {
            Err(refusal) => refusal,
            Ok(replies) => panic!("{call:?} answered {replies:?}"),
        }
    }

    /// Calls a script and checks nothing: for data that is meant to be inconsistent.
    pub async fn evalsha(&mut self, call: &Call) -> Answer {
        let mut redis = self.redis.clone();
        self.evalsha_on(&mut redis, call).await
    }

    /// The same on another connection.
    pub async fn evalsha_on(&self, redis: &mut MultiplexedConnection, call: &Call) -> Answer {
        let args = self.with_events(call).await;
        let mut command = cmd("EVALSHA");
        command.arg(&self.shas[call.script]).arg(call.keys.len()).arg(self.keys(call)).arg(args);
        match command.query_async(redis).await {
            Ok(replies) => Ok(lines(replies)),
            Err(error) => Err(Refusal::from(&error)),
        }
    }

    /// The arguments, with an event's id in place of each [`LAST_EVENT`].
    pub async fn with_events(&self, call: &Call) -> Vec<Vec<u8>> {
        let mut args = call.args.clone();
        let mut redis = self.redis.clone();
        for arg in &mut args {
            let Some(of) = arg.strip_prefix(LAST_EVENT.as_bytes()) else { continue };
            let found: Option<Vec<u8>> = if let Some(id) = of.strip_prefix(b":") {
                let mut read = cmd("XREVRANGE");
                let entries: Vec<Entry> =
                    read.arg(self.key("inventory:audit")).arg("+").arg("-").query_async(&mut redis).await.unwrap();
                let is_of = |fields: &Fields| fields.get("reservationId").is_some_and(|of| of == id);
                let mut of: Vec<Entry> = entries.into_iter().filter(|(_, fields)| is_of(fields)).collect();
                // The returns, and the event before them.
                let last = of.iter().position(|(_, fields)| fields["event"] != b"return").map_or(0, |at| at + 1);
                of.truncate(last);
                let ids: Vec<_> = of.into_iter().rev().map(|(event, _)| event).collect();
                Some(ids.join(&b','))
            } else {
                cmd("HGET").arg(self.keys(call).get(4)).arg("lastEvent").query_async(&mut redis).await.ok().flatten()
            };
            *arg = found.unwrap_or_else(|| arg.clone());
        }
        args
    }

    /// A connection as a user without a password.
    pub async fn connect_as(&self, user: &str) -> MultiplexedConnection {
        let mut redis = self.server.as_ref().expect("its own Redis").connection().await;
        cmd("AUTH").arg(user).arg("any").exec_async(&mut redis).await.unwrap();
        redis
    }

    /// A plain Redis command. Each word that is the name of a key gets the prefix.
    pub async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> T {
        let mut placed = Cmd::new();
        for word in command.args_iter() {
            let Arg::Simple(word) = word else { panic!("a cursor") };
            let is_key = KEYS.iter().any(|kind| word.starts_with(kind));
            placed.arg([if is_key { self.prefix.as_bytes() } else { b"" }, word].concat());
        }
        placed.query_async(&mut self.redis).await.unwrap()
    }

    /// The name of a key with the prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The keys of a call with the prefix.
    pub fn keys(&self, call: &Call) -> Vec<Vec<u8>> {
        call.clone().in_shard(self.prefix).keys
    }

    pub async fn field(&mut self, key: &str, field: &str) -> String {
        self.run(cmd("HGET").arg(key).arg(field)).await
    }

    /// `available`, `reserved` and `confirmed`, as stored.
    pub async fn counts(&mut self, sku: &str) -> [u64; 3] {
        let fields = ["available", "reserved", "confirmed"];
        self.run(cmd("HMGET").arg(format!("inventory:{sku}")).arg(&fields)).await
    }

    /// The SKU's score in `stockhold:due`.
    pub async fn due(&mut self, sku: &str) -> Option<u64> {
        self.run(cmd("ZSCORE").arg("stockhold:due").arg(sku)).await
    }

    pub async fn state(&mut self, id: &str) -> String {
        self.field(&format!("reservation:{id}"), "state").await
    }

    /// The number of audit entries.
    pub async fn events(&mut self) -> u64 {
        self.run(cmd("XLEN").arg("inventory:audit")).await
    }

    /// Redis's clock, which decides.
    pub async fn now_ms(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.run(&cmd("TIME")).await;
        seconds * 1000 + micros / 1000
    }

    /// Waits until a reservation is due.
    pub async fn lapse(&mut self, id: &str) {
        let expires: u64 = self.field(&format!("reservation:{id}"), "expiresAt").await.parse().unwrap();
        while self.now_ms().await < expires {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The calls that make the data of [`ScriptFixture::stocked`].
pub fn stocking() -> [Call; 5] {
    let lapsing = line("tea", LAPSED).ttl_ms(1);
    let holds =
        [line("tea", ACTIVE).quantity(2), line("tea", CONFIRMED), line("tea", RELEASED), line("cup", CUP), lapsing];
    [
        seed("tea", 10, &[]),
        seed("cup", 5, &[]),
        hold("each", &holds),
        confirm("each", &[("tea", CONFIRMED, "token")]),
        release("each", &[("tea", RELEASED, "token")]),
    ]
}

/// The id of a reservation, made from a number.
pub fn id(n: usize) -> String {
    format!("11111111-1111-8007-8111-{n:012x}")
}

/// Makes `count` holds of one unit each, which lapse after `ttl_ms`.
pub async fn hold_many(fixture: &mut ScriptFixture, sku: &str, count: usize, ttl_ms: u64) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(id).collect();
    let lines: Vec<_> = ids.iter().map(|id| line(sku, id).ttl_ms(ttl_ms)).collect();
    assert!(ttl_ms == LONG_MS || ttl_ms < 100, "neither for long nor soon over");
    assert_eq!(fixture.words(&hold("all", &lines)).await, vec!["HELD"; count]);
    ids
}

/// Arrays of strings, and nothing else: client libraries convert a nil or a number differently.
fn lines(value: Value) -> Vec<Vec<String>> {
    let Value::Array(replies) = value else { panic!("not an array: {value:?}") };
    let line = |reply| {
        let Value::Array(elements) = reply else { panic!("not an array: {reply:?}") };
        elements.into_iter().map(text).collect()
    };
    replies.into_iter().map(line).collect()
}

fn text(value: Value) -> String {
    let Value::BulkString(bytes) = value else { panic!("not a string: {value:?}") };
    String::from_utf8(bytes).unwrap()
}

impl From<&RedisError> for Refusal {
    fn from(error: &RedisError) -> Self {
        let word = error.code().unwrap_or_else(|| panic!("not the server's error: {error}"));
        Self { word: word.to_owned(), text: error.detail().unwrap_or_default().to_owned() }
    }
}
