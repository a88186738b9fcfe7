//! The scripts: what exists ([`Catalogue`]), and what happens when one is called ([`Scripts`]).

mod catalogue;
mod header;
pub(crate) mod metrics;
mod trial;

use ::redis::{Cmd, Value, cmd, pipe};
use futures_util::future::join_all;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

pub use catalogue::{Catalogue, Script};
pub use header::{ArgumentSlot, Contract, KeySlot, ReplyWord};
pub use trial::Trial;

use crate::keys;
use crate::redis::{Failure, Redis};

/// One item's reply: an upper-case word and its fields, all text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(Vec<String>);

impl Reply {
    /// Word and fields, to be matched as a slice.
    pub fn parts(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// What Redis has of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// Its SHA-1 in this build.
    pub sha1: String,
    /// As in [`Script::previous`].
    pub previous: bool,
    /// Whether Redis has it.
    pub loaded: bool,
    /// The SHA-1 under which its name is published to other services; `None` for a previous version.
    pub published: Option<String>,
}

impl State {
    /// It is loaded, and its name is published, either as this version or as another that runs beside it.
    pub fn is_usable(&self) -> bool {
        self.loaded && (self.previous || self.published.is_some())
    }
}

/// How long replicas may take to confirm a write, in milliseconds: less than a call may take.
const WAIT_MS: u64 = 500;

/// The catalogue, loaded into a Redis and called there by SHA-1.
pub struct Scripts {
    catalogue: Catalogue,
    redis: Redis,
    /// How many replicas must have a write before its reply counts, and the connection that waits for them.
    replicas: Option<(u32, Redis)>,
    /// Counts the loads when they begin. When many calls find a script missing on a node, one loads, and the others see
    /// that a load into this node began after they were sent.
    loads: AtomicU64,
    /// By the address of a node: the number of the latest load into it.
    loading: tokio::sync::Mutex<HashMap<String, u64>>,
    /// By address: replicas that the scripts are kept loaded on.
    successors: tokio::sync::Mutex<HashMap<String, Redis>>,
}

impl Scripts {
    /// Binds a catalogue to a Redis; nothing is sent yet.
    pub fn new(catalogue: Catalogue, redis: Redis) -> Self {
        let (loading, successors) = Default::default();
        Self { catalogue, redis, replicas: None, loads: AtomicU64::new(0), loading, successors }
    }

    /// Makes [`Self::call`] wait for replicas: the reply of a script that writes counts only when this number of
    /// replicas have the write. If there are too few in time, the call is a [`Failure::NoReply`]: it was carried out,
    /// but a fail-over may lose it.
    pub fn wait_for_replicas(mut self, replicas: u32) -> Self {
        self.replicas = (replicas > 0).then(|| (replicas, self.redis.with_own_connection()));
        self
    }

    /// Loads every script, checks the SHA-1 that Redis gives each, and publishes name -> SHA-1 in [`keys::SCRIPTS`].
    ///
    /// # Errors
    /// See [`Failure`]; a SHA-1 that differs is a refusal.
    pub async fn load(&self) -> Result<(), Failure> {
        self.cache().await?;
        self.publish().await
    }

    /// Publishes name -> SHA-1 of each script in [`keys::SCRIPTS`]; writes nothing if that is already published.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn publish(&self) -> Result<(), Failure> {
        self.publish_with("HSET").await
    }

    /// Loads the scripts again where they are missing: on every node of a cluster, replicas and new nodes included, before
    /// they are needed there, and on the replicas of a master that sentinels name. Returns whether any was missing. What
    /// another version has published since then stays published: two versions that run side by side during a deploy must
    /// not overwrite each other.
    ///
    /// # Errors
    /// See [`Failure`]. All nodes that can be reached have the scripts nevertheless.
    pub async fn restore(&self) -> Result<bool, Failure> {
        let nodes = self.redis.nodes().await?;
        let successors = self.successors().await;
        let restore_on = |node| self.restore_on(node);
        let restored = join_all(nodes.iter().map(restore_on));
        // One that cannot be reached now cannot take over now, either.
        let (restored, _) = tokio::join!(restored, join_all(successors.iter().map(restore_on)));
        let published = self.redis.hash(keys::SCRIPTS).await?.fields;
        let mut lost = self.catalogue.current().any(|script| !published.contains_key(script.name));
        if lost {
            self.publish_with("HSETNX").await?;
        }
        for node_had_lost in restored {
            lost |= node_had_lost?;
        }
        Ok(lost)
    }

    /// The replicas of a master that sentinels name, each with the connection that it had the last time.
    async fn successors(&self) -> Vec<Redis> {
        let found = self.redis.successors().await;
        let mut known = self.successors.lock().await;
        let mut kept = HashMap::new();
        for replica in found {
            let address = replica.address();
            kept.insert(address.clone(), known.remove(&address).unwrap_or(replica));
        }
        *known = kept;
        known.values().cloned().collect()
    }

    /// Loads every script and checks its SHA-1, publishing nothing. In a cluster, on every node; a replica that cannot be
    /// reached is left to [`Self::restore`].
    ///
    /// # Errors
    /// See [`Self::load`].
    pub async fn cache(&self) -> Result<(), Failure> {
        let primaries = self.redis.primaries().await?;
        let held: HashSet<String> = primaries.iter().map(Redis::address).collect();
        let others = self.redis.nodes().await?.into_iter().filter(|node| !held.contains(&node.address()));
        let others: Vec<Redis> = others.collect();
        let cache_on = |node| self.cache_on(node);
        let (cached, _) = tokio::join!(join_all(primaries.iter().map(cache_on)), join_all(others.iter().map(cache_on)));
        cached.into_iter().collect()
    }

    async fn cache_on(&self, node: &Redis) -> Result<(), Failure> {
        let mut loads = pipe();
        for script in self.catalogue.iter() {
            loads.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        for (script, reply) in self.catalogue.iter().zip(node.pipeline(&loads).await?) {
            let answer = text(reply).unwrap_or_default();
            if answer != script.sha1 {
                let message = format!("SCRIPT LOAD of {} answered {answer:?}, not {}", script.name, script.sha1);
                return Err(Failure::Refused { code: "BADSHA".to_owned(), message });
            }
        }
        Ok(())
    }

    /// Loads the scripts on a node if it lacks any. Returns whether it did.
    async fn restore_on(&self, node: &Redis) -> Result<bool, Failure> {
        let lost = !self.loaded_on(node).await?.into_iter().all(|loaded| loaded);
        if lost {
            let mut loading = self.loading.lock().await;
            self.load_in_turn(node, &mut loading).await?;
        }
        Ok(lost)
    }

    async fn load_in_turn(&self, node: &Redis, loading: &mut HashMap<String, u64>) -> Result<(), Failure> {
        let number = self.loads.fetch_add(1, Ordering::AcqRel) + 1;
        metrics::RELOADS.inc();
        loading.insert(node.address(), number);
        self.cache_on(node).await
    }

    /// Publishes what is not yet published, by a command that sets a field of a hash. When Redis takes no writes
    /// (memory, disk), a release that was already published does not need this.
    async fn publish_with(&self, publish: &str) -> Result<(), Failure> {
        let published = self.redis.hash(keys::SCRIPTS).await?.fields;
        let mut publishes = pipe();
        for script in self.catalogue.current().filter(|script| published.get(script.name) != Some(&script.sha1)) {
            publishes.cmd(publish).arg(keys::SCRIPTS).arg(script.name).arg(&script.sha1);
        }
        if publishes.is_empty() { Ok(()) } else { self.redis.pipeline(&publishes).await.map(drop) }
    }

    /// What Redis has of each script. In a cluster a script is loaded when all primaries that have slots have it.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn state(&self) -> Result<Vec<State>, Failure> {
        let primaries = self.redis.primaries().await?;
        let mut loaded = vec![true; self.catalogue.iter().len()];
        for flags in join_all(primaries.iter().map(|node| self.loaded_on(node))).await {
            for (loaded, flag) in loaded.iter_mut().zip(flags?) {
                *loaded &= flag;
            }
        }
        let mut published = self.redis.hash(keys::SCRIPTS).await?.fields;
        let state = |(script, loaded): (&Script, bool)| State {
            name: script.name,
            sha1: script.sha1.clone(),
            previous: script.previous,
            loaded,
            published: if script.previous { None } else { published.remove(script.name) },
        };
        Ok(self.catalogue.iter().zip(loaded).map(state).collect())
    }

    /// The scripts that a single node lacks.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn missing(&self) -> Result<Vec<&Script>, Failure> {
        let loaded = self.loaded_on(&self.redis).await?;
        Ok(self.catalogue.iter().zip(loaded).filter(|(_, loaded)| !loaded).map(|(script, _)| script).collect())
    }

    /// Whether a node has each script.
    async fn loaded_on(&self, node: &Redis) -> Result<Vec<bool>, Failure> {
        let mut exists = cmd("SCRIPT");
        exists.arg("EXISTS");
        for script in self.catalogue.iter() {
            exists.arg(&script.sha1);
        }
        match node.call(&exists).await? {
            Value::Array(flags) => Ok(flags.into_iter().map(|flag| flag == Value::Int(1)).collect()),
            _ => Err(Failure::Malformed("SCRIPT EXISTS gave no array".to_owned())),
        }
    }

    /// Calls a script by its SHA-1. If Redis has lost it (a restart, a flush), loads all scripts and calls once more; in a
    /// cluster, on the node that has the keys.
    /// The reply is a promise to a client: if replicas must confirm writes, the reply of a script that writes counts
    /// only after that.
    ///
    /// # Errors
    /// See [`Failure`].
    ///
    /// # Panics
    /// When `lua/` has no script of that name.
    pub async fn call(&self, name: &str, keys: &[&str], arguments: &[&str]) -> Result<Vec<Reply>, Failure> {
        let script = self.catalogue.get(name).expect("the engine calls scripts that lua/ has");
        let mut evalsha = cmd("EVALSHA");
        evalsha.arg(&script.sha1).arg(keys.len()).arg(keys).arg(arguments);
        let loads_seen = self.loads.load(Ordering::Acquire);
        let writes = !script.contract.flags.contains(&"no-writes");
        let reply = match self.send(&evalsha, writes).await {
            Err(Failure::Refused { code, .. }) if code == "NOSCRIPT" => {
                let node = self.redis.node_of(keys.first().copied().unwrap_or_default());
                self.load_once_since(loads_seen, &node).await?;
                self.send(&evalsha, writes).await?
            }
            other => other?,
        };
        understood(name, reply)
    }

    /// Calls a script once for each list of keys, all together on `redis`, each with its own outcome. The replies
    /// promise nothing to a client, so no replica has to confirm: the work can be repeated after a fail-over.
    ///
    /// # Errors
    /// See [`Failure`]: a failure of all calls together, such as no connection.
    ///
    /// # Panics
    /// When `lua/` has no script of that name.
    pub async fn call_each(
        &self,
        redis: &Redis,
        name: &str,
        keys: &[Vec<&str>],
        arguments: &[&str],
    ) -> Result<Vec<Result<Vec<Reply>, Failure>>, Failure> {
        let script = self.catalogue.get(name).expect("the engine calls scripts that lua/ has");
        let calls = |which: &mut dyn Iterator<Item = &Vec<&str>>| {
            let mut calls = pipe();
            for keys in which {
                calls.cmd("EVALSHA").arg(&script.sha1).arg(keys.len()).arg(keys).arg(arguments);
            }
            calls
        };
        let loads_seen = self.loads.load(Ordering::Acquire);
        let mut outcomes = redis.each(calls(&mut keys.iter())).await?;
        let missed: Vec<usize> = (0..keys.len()).filter(|at| is_missing(&outcomes[*at])).collect();
        if !missed.is_empty() {
            let node_of = |at: &usize| redis.node_of(keys[*at].first().copied().unwrap_or_default());
            let nodes: HashMap<String, Redis> = missed.iter().map(node_of).map(|node| (node.address(), node)).collect();
            for node in nodes.values() {
                self.load_once_since(loads_seen, node).await?;
            }
            let again = redis.each(calls(&mut missed.iter().map(|at| &keys[*at]))).await?;
            for (at, outcome) in missed.into_iter().zip(again) {
                outcomes[at] = outcome;
            }
        }
        Ok(outcomes.into_iter().map(|outcome| understood(name, outcome?)).collect())
    }

    async fn send(&self, evalsha: &Cmd, writes: bool) -> Result<Value, Failure> {
        let Some((replicas, redis)) = self.replicas.as_ref().filter(|_| writes) else {
            return self.redis.call(evalsha).await;
        };
        // WAIT covers all that Redis had written when the script was done, also an earlier write that a replay reports.
        let mut both = pipe();
        both.add_command(evalsha.clone()).cmd("WAIT").arg(replicas).arg(WAIT_MS);
        let [reply, have] = <[_; 2]>::try_from(redis.each(both).await?)
            .map_err(|other| Failure::Malformed(format!("EVALSHA and WAIT answered {other:?}")))?;
        let reply = reply?;
        match have {
            Ok(Value::Int(have)) if have >= i64::from(*replicas) => Ok(reply),
            Ok(have) => {
                metrics::REPLICA_SHORTAGES.inc();
                Err(Failure::NoReply(format!("done, but {have:?} of {replicas} replicas have it")))
            }
            // The master has become a replica meanwhile.
            Err(failure) => Err(Failure::NoReply(format!("done, but whether replicas have it is unknown: {failure}"))),
        }
    }

    async fn load_once_since(&self, loads_seen: u64, node: &Redis) -> Result<(), Failure> {
        let mut loading = self.loading.lock().await;
        if loading.get(&node.address()).is_some_and(|latest| *latest > loads_seen) {
            return Ok(());
        }
        tracing::info!("Redis has lost the scripts; loading them");
        self.load_in_turn(node, &mut loading).await.map_err(|failure| match failure {
            // The operation itself was not sent again, so its result is certain: it was not carried out.
            Failure::NoReply(why) => Failure::Unreachable(why),
            other => other,
        })?;
        // It can be called now. Whether others can find it is the concern of the reloader.
        drop(self.publish_with("HSETNX").await);
        Ok(())
    }
}

fn is_missing(outcome: &Result<Value, Failure>) -> bool {
    matches!(outcome, Err(Failure::Refused { code, .. }) if code == "NOSCRIPT")
}

fn understood(name: &str, reply: Value) -> Result<Vec<Reply>, Failure> {
    replies(reply).ok_or_else(|| Failure::Malformed(format!("{name} answered what is no list of replies in text")))
}

fn replies(value: Value) -> Option<Vec<Reply>> {
    let Value::Array(items) = value else { return None };
    let reply = |item: Value| {
        let Value::Array(parts) = item else { return None };
        parts.into_iter().map(text).collect::<Option<_>>().map(Reply)
    };
    items.into_iter().map(reply).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
