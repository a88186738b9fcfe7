//! Whether a server can do what stockhold needs: each need is tried, and nothing is left behind.

use std::fmt;

use crate::engine::Error;
use crate::keys;
use crate::redis::{Failure, Redis};
use crate::scripts::Trial;

/// One need, and whether it is met.
#[derive(Debug)]
pub struct Need {
    /// The node of a cluster that was tried; `None` for what is about Redis as a whole.
    pub node: Option<String>,
    /// A command, a setting, or what is looked at.
    pub what: &'static str,
    /// Whether it is met.
    pub verdict: Verdict,
    /// What was seen, or what it means for stockhold.
    pub told: String,
}

/// Whether a need is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Ok,
    /// Stockhold works, with one command or one setting less, or with a risk.
    Warning,
    /// The server cannot be used.
    Failing,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failing => "will not work",
        })
    }
}

/// What was found out, in the order in which it was tried.
struct Trials<'a> {
    redis: &'a Redis,
    node: Option<String>,
    needs: Vec<Need>,
}

/// Tries everything as the user of `redis`, in a cluster on each primary. A script writes one key of its own, and removes it in the
/// same call.
///
/// # Errors
/// See [`Error`], when the server cannot be reached or gives no answer. A refusal is a [`Need`] that is not met.
pub async fn compatibility(redis: &Redis) -> Result<Vec<Need>, Error> {
    let mut trials = Trials { redis, node: None, needs: Vec::new() };
    if !redis.is_cluster() {
        trials.all().await?;
        return Ok(trials.needs);
    }
    let found = redis.primaries().await;
    let found = trials.tried("CLUSTER SLOTS", found, Verdict::Failing, "the nodes of the cluster cannot be found")?;
    let Some(primaries) = found else { return Ok(trials.needs) };
    trials.add("CLUSTER SLOTS", Verdict::Ok, format!("{} primaries", primaries.len()));
    let found = redis.nodes().await;
    let means = "the scripts cannot be loaded into all nodes";
    if let Some(nodes) = trials.tried("CLUSTER SHARDS", found, Verdict::Failing, means)? {
        trials.add("CLUSTER SHARDS", Verdict::Ok, format!("{} nodes", nodes.len()));
    }
    let mut needs = trials.needs;
    for redis in &primaries {
        let mut trials = Trials { redis, node: Some(redis.address()), needs };
        trials.all().await?;
        needs = trials.needs;
    }
    Ok(needs)
}

/// The oldest Redis whose scripts can ask for their rights.
const OLDEST_REDIS: u32 = 7;
/// The servers on which the tests run: their names, and the versions that begin so.
const TESTED: [(&str, &str); 3] = [("redis", "7."), ("redis", "8."), ("valkey", "8.")];

/// Keys that are tried on a node: it has one in some of a random name, if it has any.
const MOST_KEYS: usize = 1000;

/// What is known of a server of this name and version.
fn judged(server: &str, version: &str) -> (Verdict, String) {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let is_tested = TESTED.iter().any(|(name, begin)| server == *name && version.starts_with(begin));
    let seen = format!("{server} {version}");
    match (server, major) {
        ("redis", Some(major)) if major < OLDEST_REDIS => {
            (Verdict::Failing, format!("{seen}: stockhold needs Redis 7.0 or later, or Valkey 8"))
        }
        _ if is_tested => (Verdict::Ok, seen),
        _ => (Verdict::Warning, format!("{seen}: the tests of stockhold do not run on it")),
    }
}

impl Trials<'_> {
    fn add(&mut self, what: &'static str, verdict: Verdict, told: impl Into<String>) {
        self.needs.push(Need { node: self.node.clone(), what, verdict, told: told.into() });
    }

    /// Everything that one server needs.
    async fn all(&mut self) -> Result<(), Error> {
        self.greeting().await?;
        self.scripts().await?;
        self.replication().await?;
        self.cluster().await?;
        self.memory().await?;
        self.persistence().await?;
        self.checks().await
    }

    /// What an attempt gave. If it was refused, the need is not met: with this verdict, which means this.
    fn tried<T>(
        &mut self,
        what: &'static str,
        outcome: Result<T, Failure>,
        refused: Verdict,
        means: &str,
    ) -> Result<Option<T>, Error> {
        let failure = match outcome {
            Ok(seen) => return Ok(Some(seen)),
            Err(failure) => failure,
        };
        let why = match &failure {
            Failure::Refused { code, message } => format!("{code} {message}"),
            Failure::Malformed(why) => why.clone(),
            Failure::Unreachable(_) | Failure::Barred(_) | Failure::NoReply(_) => {
                return Err(Error::retry_safe(failure));
            }
        };
        match Error::retry_safe(failure) {
            Error::Unavailable(_) => self.add(what, Verdict::Failing, format!("refused at the moment: {why}")),
            _ => self.add(what, refused, format!("{means}: {why}")),
        }
        Ok(None)
    }

    /// An attempt that says nothing more when it succeeds.
    fn can<T>(
        &mut self,
        what: &'static str,
        outcome: Result<T, Failure>,
        refused: Verdict,
        means: &str,
    ) -> Result<bool, Error> {
        let can = self.tried(what, outcome, refused, means)?.is_some();
        if can {
            self.add(what, Verdict::Ok, "");
        }
        Ok(can)
    }

    async fn greeting(&mut self) -> Result<(), Error> {
        let greeting = self.redis.greeting().await;
        let means = "its name and version cannot be seen, nor whether it speaks RESP3";
        let Some(fields) = self.tried("HELLO", greeting, Verdict::Warning, means)? else { return Ok(()) };
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let (verdict, told) = judged(field("server"), field("version"));
        self.add("server", verdict, told);
        match field("proto") {
            "3" => self.add("RESP3", Verdict::Ok, ""),
            other => {
                self.add("RESP3", Verdict::Failing, format!("the connection speaks version {other} of the protocol"))
            }
        }
        Ok(())
    }

    async fn scripts(&mut self) -> Result<(), Error> {
        let redis = self.redis;
        let mut loaded = Vec::new();
        for trial in Trial::ALL {
            loaded.push(trial.load(redis).await);
        }
        let means = "the server and `scripts load` cannot load the scripts";
        let loaded = loaded.into_iter().collect::<Result<Vec<_>, _>>();
        let loaded = self.tried("SCRIPT LOAD", loaded, Verdict::Failing, means)?;
        // Without a script to look for, the right to look for it can be tried.
        let sha1s = loaded.unwrap_or_default();
        let sha1 = sha1s.first().map_or("da39a3ee5e6b4b0d3255bfef95601890afd80709", String::as_str);
        let exists = Trial::is_loaded(redis, sha1).await;
        if !sha1s.is_empty() {
            match exists {
                Ok(false) => self.add("SCRIPT LOAD", Verdict::Failing, "a script that was loaded is not there"),
                _ => self.add("SCRIPT LOAD", Verdict::Ok, ""),
            }
        }
        let means = "the server cannot tell whether Redis has lost the scripts, and does not start";
        self.can("SCRIPT EXISTS", exists, Verdict::Failing, means)?;
        let whats = [
            ("EVALSHA", "no operation can be carried out"),
            ("redis.acl_check_cmd", "the scripts ask for their rights before they write, and cannot be called"),
            ("TIME, and a change", "the scripts write at the time of Redis, and cannot be called"),
        ];
        for ((trial, sha1), (what, means)) in Trial::ALL.into_iter().zip(&sha1s).zip(whats) {
            let mut called = trial.call(redis, sha1, &keys::trial()).await;
            for _ in 0..MOST_KEYS {
                if !called.as_ref().is_err_and(is_elsewhere) {
                    break;
                }
                called = trial.call(redis, sha1, &keys::trial()).await;
            }
            if !self.can(what, called, Verdict::Failing, means)? && trial == Trial::Call {
                break;
            }
        }
        Ok(())
    }

    async fn replication(&mut self) -> Result<(), Error> {
        let listed = self.redis.listed_replicas().await;
        let means = "`redis+sentinel://` cannot be used, and `scripts load` and `verify` reach no replicas";
        let listed = self.tried("ROLE", listed, Verdict::Warning, means)?;
        match listed {
            None => {}
            Some(None) => self.add("ROLE", Verdict::Failing, "it is a replica: name the master"),
            Some(Some(replicas)) => self.add("ROLE", Verdict::Ok, format!("master with {replicas} replicas")),
        }
        let waited = self.redis.try_wait().await;
        self.can("WAIT", waited, Verdict::Warning, "`--durability wait:N` cannot be used")?;
        let info = self.redis.info("replication").await;
        let means = "the server cannot see whether Redis is a master and evicts nothing, and does not start";
        let Some(info) = self.tried("INFO", info, Verdict::Failing, means)? else { return Ok(()) };
        self.add("INFO", Verdict::Ok, "");
        let has_replicas = info.get("connected_slaves").is_some_and(|number| number != "0");
        // Redis shows this only where both settings are on.
        match info.get("min_slaves_good_slaves") {
            _ if !has_replicas => {}
            Some(good) => self.add("min-replicas-to-write", Verdict::Ok, format!("set; {good} good replicas")),
            None => self.add(
                "min-replicas-to-write",
                Verdict::Warning,
                "not set, or without min-replicas-max-lag: after a fail-over, an old master may take changes that will be lost",
            ),
        }
        Ok(())
    }

    async fn cluster(&mut self) -> Result<(), Error> {
        // What INFO means is told already.
        let Ok(info) = self.redis.info("cluster").await else { return Ok(()) };
        if info.get("cluster_enabled").is_none_or(|enabled| enabled != "1") {
            self.add("cluster", Verdict::Ok, "it is no node of a Redis Cluster");
            return Ok(());
        }
        match self.node {
            Some(_) => self.add("cluster", Verdict::Ok, "it is a node of a Redis Cluster"),
            None => self.add(
                "cluster",
                Verdict::Failing,
                "it is a node of a Redis Cluster: --redis-url must begin with redis+cluster:// or rediss+cluster://",
            ),
        }
        let asked = self.redis.try_asking().await;
        self.can("ASKING", asked, Verdict::Warning, "keys cannot be reached while their slot moves").map(drop)
    }

    async fn memory(&mut self) -> Result<(), Error> {
        let Ok(info) = self.redis.info("memory").await else { return Ok(()) };
        match info.get("maxmemory_policy").map(String::as_str) {
            Some("noeviction") => self.add("maxmemory-policy", Verdict::Ok, "noeviction"),
            Some(policy) => self.add(
                "maxmemory-policy",
                Verdict::Failing,
                format!("{policy}: Redis may evict stock; it must be noeviction, or no request is served"),
            ),
            None => self.add("maxmemory-policy", Verdict::Failing, "INFO does not show it, and no request is served"),
        }
        Ok(())
    }

    async fn persistence(&mut self) -> Result<(), Error> {
        let Ok(info) = self.redis.info("persistence").await else { return Ok(()) };
        let is = |name: &str, value: &str| info.get(name).is_some_and(|found| found == value);
        let (verdict, told) = if is("aof_enabled", "0") {
            (Verdict::Warning, "appendonly is off: a Redis that ends loses what is in no snapshot and on no replica")
        } else if !is("aof_enabled", "1") {
            (Verdict::Warning, "INFO does not show whether changes are written to a file")
        } else if is("aof_last_write_status", "err") {
            (Verdict::Failing, "Redis cannot write its append-only file")
        } else {
            (Verdict::Ok, "appendonly is on")
        };
        self.add("persistence", verdict, told);
        Ok(())
    }

    /// What only `stockhold check` does.
    async fn checks(&mut self) -> Result<(), Error> {
        let scanned = self.redis.scan(0).await;
        self.can("SCAN", scanned, Verdict::Warning, "`check` cannot be used by this user")?;
        let read = self.redis.try_transaction().await;
        self.can("MULTI", read, Verdict::Warning, "`check` cannot be used by this user").map(drop)
    }
}

/// In a cluster, another node has the key.
fn is_elsewhere(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { code, .. } if code == "MOVED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_name_and_version() {
        for (server, version, verdict) in [
            ("redis", "7.0.15", Verdict::Ok),
            ("redis", "8.0.2", Verdict::Ok),
            ("redis", "80.0.2", Verdict::Warning),
            ("redis", "6.2.14", Verdict::Failing),
            ("redis", "", Verdict::Warning),
            ("valkey", "8.1.1", Verdict::Ok),
            ("valkey", "7.2.5", Verdict::Warning),
            ("another", "6.0.0", Verdict::Warning),
        ] {
            assert_eq!(judged(server, version).0, verdict, "{server} {version}");
        }
    }
}
