//! The scripts: what exists ([`Catalogue`]), and what happens when one is called ([`Scripts`]).

mod catalogue;

use ::redis::{Value, cmd, pipe};
use std::sync::atomic::{AtomicU64, Ordering};

pub use catalogue::{Catalogue, Script};

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

/// The catalogue, loaded into a Redis and called there by SHA-1.
pub struct Scripts {
    catalogue: Catalogue,
    redis: Redis,
    /// Counts the loads, so that of many callers that miss a script one loads and the others see that it was done.
    loads: AtomicU64,
    loading: tokio::sync::Mutex<()>,
}

impl Scripts {
    /// Binds the embedded catalogue to a Redis; nothing is sent yet.
    pub fn new(redis: Redis) -> Self {
        Self { catalogue: Catalogue::embedded(), redis, loads: AtomicU64::new(0), loading: tokio::sync::Mutex::new(()) }
    }

    /// What is embedded in this build.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Loads every script, checks the SHA-1 that Redis gives each, and publishes name -> SHA-1 in [`keys::SCRIPTS`].
    ///
    /// # Errors
    /// See [`Failure`]; a SHA-1 that differs is a refusal.
    pub async fn load(&self) -> Result<(), Failure> {
        let mut loads = pipe();
        for script in self.catalogue.iter() {
            loads.cmd("SCRIPT").arg("LOAD").arg(script.source);
        }
        for (script, reply) in self.catalogue.iter().zip(self.redis.pipeline(&loads).await?) {
            if text(&reply).as_deref() != Some(&script.sha1) {
                let message = format!("SCRIPT LOAD of {} answered {reply:?}, not {}", script.name, script.sha1);
                return Err(Failure::Refused { code: "BADSHA".to_owned(), message });
            }
        }
        let mut publish = cmd("HSET");
        publish.arg(keys::SCRIPTS);
        for script in self.catalogue.iter() {
            publish.arg(script.name).arg(&script.sha1);
        }
        self.redis.call(&publish).await?;
        self.loads.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The names of the scripts that Redis does not have loaded.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn missing(&self) -> Result<Vec<&'static str>, Failure> {
        let mut exists = cmd("SCRIPT");
        exists.arg("EXISTS");
        for script in self.catalogue.iter() {
            exists.arg(&script.sha1);
        }
        let Value::Array(flags) = self.redis.call(&exists).await? else {
            return Err(Failure::NoReply("SCRIPT EXISTS gave no array".to_owned()));
        };
        let flagged = self.catalogue.iter().zip(flags);
        Ok(flagged.filter(|(_, flag)| *flag != Value::Int(1)).map(|(script, _)| script.name).collect())
    }

    /// Calls a script by its SHA-1. If Redis lost it (a restart, a flush), loads all and calls once more.
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
        let reply = match self.redis.call(&evalsha).await {
            Err(Failure::Refused { code, .. }) if code == "NOSCRIPT" => {
                self.load_once_since(loads_seen).await?;
                self.redis.call(&evalsha).await?
            }
            other => other?,
        };
        replies(&reply).ok_or_else(|| Failure::NoReply(format!("{name} answered {reply:?}")))
    }

    async fn load_once_since(&self, loads_seen: u64) -> Result<(), Failure> {
        let _turn = self.loading.lock().await;
        if self.loads.load(Ordering::Acquire) != loads_seen {
            return Ok(());
        }
        tracing::info!("Redis has lost the scripts; loading them");
        self.load().await.map_err(|failure| match failure {
            // The operation itself was not sent again: nothing of it is unknown.
            Failure::NoReply(why) => Failure::Unreachable(why),
            other => other,
        })
    }
}

fn replies(value: &Value) -> Option<Vec<Reply>> {
    let Value::Array(items) = value else { return None };
    let reply = |item: &Value| {
        let Value::Array(parts) = item else { return None };
        parts.iter().map(text).collect::<Option<_>>().map(Reply)
    };
    items.iter().map(reply).collect()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
