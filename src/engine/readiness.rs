//! Whether the operations can be carried out: each script is called in a way that proves its rights and writes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::error::is_passing;
use super::{Engine, Error, claim_layout};
use crate::keys::{CartId, OperationId, ReservationId, Sku, StockKeys};
use crate::redis::{Failure, Redis};
use crate::scripts::State;

/// The minimum time between two looks: many readiness requests must cost Redis almost nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// SKUs that are considered for a look at each node of a cluster.
const MOST_PROBED: u32 = 1000;

/// The first version whose scripts can ask for the rights of their user (`redis.acl_check_cmd`), and say what they do.
const LEAST_MAJOR_VERSION: u32 = 7;

/// The essential operations: holds must be settled, and lapse in time.
const NEEDED: [&str; 5] = ["confirm", "release", "sweep", "inventory", "redis"];

/// A condition that an operator has to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impairment {
    /// The script that cannot be called, or `redis`, or `scripts` (which other services may not find).
    pub what: &'static str,
    /// The reason, without any text from Redis.
    pub why: &'static str,
    /// The reason as Redis gave it: for the log.
    pub cause: String,
    /// Whether it may be temporary.
    pub is_passing: bool,
}

impl Impairment {
    /// Whether no request should be served while it lasts. Otherwise a part of the work continues: when memory is
    /// full, new holds are refused and existing holds are settled.
    pub fn stops_service(&self) -> bool {
        NEEDED.contains(&self.what) || !self.is_passing
    }

    fn of(what: &'static str, failure: &Failure) -> Self {
        let (why, is_passing) = match failure {
            Failure::Unreachable(_) => ("Redis cannot be reached", true),
            Failure::Barred(_) => ("Redis cannot be used as it is set up; the log tells why", false),
            Failure::Malformed(_) => ("Redis holds what no script of stockhold wrote", false),
            Failure::NoReply(_) => ("Redis gave no reply in time, or too few of its replicas did", true),
            Failure::Refused { code, message } if code == "ERR" && message.contains("'may' (a nil value)") => {
                ("this Redis has no redis.acl_check_cmd, by which scripts learn what their user may do", false)
            }
            Failure::Refused { code, .. } => (meaning(code), is_passing(code)),
        };
        Self { what, why, cause: failure.to_string(), is_passing }
    }

    fn redis(why: &'static str, cause: String) -> Self {
        Self { what: "redis", why, cause, is_passing: true }
    }
}

/// Why this version of Redis cannot be used. One that does not say what it is may be good.
fn too_old(version: &str) -> Option<String> {
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major < LEAST_MAJOR_VERSION)
        .then(|| format!("it is Redis {version}, and Redis 7.0 or later is needed, or Valkey 8"))
}

/// What the first word of an error means for an operator.
fn meaning(code: &str) -> &'static str {
    match code {
        "OOM" => "the memory of Redis is full (maxmemory)",
        "MISCONF" => "Redis cannot write to its disk",
        "READONLY" => "Redis is a replica",
        "NOREPLICAS" => "Redis has fewer replicas than it needs to take writes",
        "LOADING" => "Redis is loading its data",
        "BUSY" => "Redis is busy with a script",
        "CLUSTERDOWN" => "the cluster is down",
        "NOPERM" => "the user at Redis may not do what this needs",
        "WRONGTYPE" => "a key of stockhold is of another type: is this the right database?",
        _ => "Redis refuses it; the log tells why",
    }
}

/// The latest look, shared by all callers that asked before it began.
#[derive(Default)]
pub(super) struct Looks {
    begun: AtomicU64,
    latest: Mutex<Option<Look>>,
}

struct Look {
    number: u64,
    ended: Instant,
    found: Arc<Vec<Impairment>>,
}

/// A call whose arguments make it refused or empty.
struct Probe {
    script: &'static str,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Engine {
    /// The conditions that keep operations from being carried out; empty if all is well. Calls each script so that
    /// nothing is written, and checks the role of Redis, its eviction policy and the published scripts.
    pub async fn impairments(&self) -> Arc<Vec<Impairment>> {
        let begun_before = self.looks.begun.load(Ordering::Acquire);
        let mut latest = self.looks.latest.lock().await;
        if let Some(look) = &*latest {
            if look.number > begun_before {
                return Arc::clone(&look.found);
            }
            sleep_until(look.ended + PAUSE).await;
        }
        let number = self.looks.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let found = Arc::new(self.look().await);
        *latest = Some(Look { number, ended: Instant::now(), found: Arc::clone(&found) });
        found
    }

    async fn look(&self) -> Vec<Impairment> {
        let nodes = match self.redis.primaries().await {
            Ok(nodes) => nodes,
            Err(failure) => return vec![Impairment::of("redis", &failure)],
        };
        let probed = self.probed(&nodes);
        let looks = nodes.iter().map(|node| self.look_at(node, probed.get(&node.address())));
        let (mut found, mut is_reached): (Vec<Impairment>, _) = (Vec::new(), false);
        for look in join_all(looks).await {
            is_reached |= look.is_ok();
            for impairment in look.unwrap_or_else(|away| vec![away]) {
                // The nodes of a cluster are often impaired in the same way.
                if !found.iter().any(|known| (known.what, known.why) == (impairment.what, impairment.why)) {
                    found.push(impairment);
                }
            }
        }
        if !is_reached {
            return found;
        }
        match self.scripts.state().await {
            Ok(states) => {
                found.extend(states.iter().find(|state| !state.is_usable()).map(|state: &State| Impairment {
                    what: "scripts",
                    why: "scripts are not loaded and published",
                    cause: format!("the script {} is not", state.name),
                    is_passing: true,
                }))
            }
            Err(failure) => found.push(Impairment::of("scripts", &failure)),
        }
        found
    }

    /// Fails when Redis is too old to load the scripts.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Broken`] says which version is needed.
    pub async fn check_version(&self) -> Result<(), Error> {
        for node in self.redis.primaries().await.map_err(Error::retry_safe)? {
            let health = node.health().await.map_err(Error::retry_safe)?;
            if let Some(why) = too_old(&health.version) {
                return Err(Error::Broken(why));
            }
        }
        Ok(())
    }

    /// For each node a SKU that would be there, by the address of the node. In a cluster that changes, one may be missing.
    fn probed(&self, nodes: &[Redis]) -> HashMap<String, Sku> {
        let mut probed = HashMap::new();
        for number in 0..MOST_PROBED {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let sku = Sku::parse(&format!("stockhold-readiness-probe{suffix}")).expect("a good SKU");
            let node = self.redis.node_of(&self.layout.shard_of(&sku).due);
            probed.entry(node.address()).or_insert(sku);
            if probed.len() == nodes.len() {
                break;
            }
        }
        probed
    }

    /// Looks at one node: at itself, and at what the scripts can do with a SKU there.
    ///
    /// # Errors
    /// When it cannot be reached.
    async fn look_at(&self, node: &Redis, sku: Option<&Sku>) -> Result<Vec<Impairment>, Impairment> {
        let health = node.health().await.map_err(|failure| Impairment::of("redis", &failure))?;
        let mut found = Vec::new();
        if let Some(cause) = too_old(&health.version) {
            return Ok(vec![Impairment { is_passing: false, ..Impairment::redis("Redis is too old", cause) }]);
        }
        if health.role != "master" {
            found.push(Impairment::redis("Redis is a replica", format!("its role is {}", health.role)));
        }
        if health.maxmemory_policy != "noeviction" {
            let cause = format!("its maxmemory-policy is {}, not noeviction", health.maxmemory_policy);
            found.push(Impairment::redis("Redis may evict stock", cause));
        }
        let replicas = self.options.replicas;
        if health.replicas < replicas && health.role == "master" {
            let cause =
                format!("{} replicas follow it, and --durability wait:{replicas} needs {replicas}", health.replicas);
            found.push(Impairment::redis("too few replicas follow Redis for --durability", cause));
            // Each probe would wait for them.
            return Ok(found);
        }
        for Probe { script, keys, arguments } in sku.map(|sku| self.probes(sku)).unwrap_or_default() {
            let [keys, arguments] =
                [&keys, &arguments].map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
            if let Err(failure) = self.scripts.call(script, &keys, &arguments).await {
                found.push(Impairment::of(script, &failure));
            }
        }
        Ok(found)
    }

    /// A call of each script that the server uses, with arguments that make it refused or empty: an unknown SKU, an
    /// unknown reservation, and more units than there can be.
    fn probes(&self, sku: &Sku) -> Vec<Probe> {
        let StockKeys { shard, inventory, active } = self.layout.stock(sku);
        let reservation = shard.reservation(&ReservationId::unused(shard.number));
        let operation = shard.operation(&OperationId::mint());
        let cart_key = shard.cart(&CartId::parse("stockhold-readiness-probe").expect("a good cart"));
        let adjusted = vec![&inventory, &active, &operation];
        let [stock, item] = [vec![&inventory, &active], vec![&inventory, &active, &reservation]];
        let changed = vec![&operation, &inventory, &active, &reservation];
        let both = vec![&shard.audit, &shard.due];
        let settings = [&shard.settings];
        let cart = vec!["readiness-probe", "1000000000", "1"];
        let probe = |script, keys: &[&[&String]], arguments: &[&[&str]]| Probe {
            script,
            keys: keys.concat().into_iter().cloned().collect(),
            arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
        };
        vec![
            probe("hold", &[&both, &item, &item], &[&["all"], &cart, &cart]),
            probe("hold_with_metadata", &[&both, &item, &item], &[&["all"], &cart, &[""], &cart, &[""]]),
            probe("cart_hold", &[&both, &settings, &[&cart_key, &operation], &item], &[&["", "1", "", "1000000000"]]),
            probe("confirm", &[&both, &settings, &item], &[&["all", ""]]),
            probe("release", &[&both, &settings, &item], &[&["all", ""]]),
            probe("sell", &[&both, &settings, &item], &[&["", "", ""]]),
            probe("extend", &[&both, &settings, &item], &[&["all", "1"]]),
            probe("change", &[&both, &settings, &changed], &[&["set", "1", ""]]),
            probe("sweep", &[&both, &settings, &stock], &[]),
            probe("seed", &[&both, &[&shard.skus], &settings, &[&operation], &stock], &[&["probe", ""]]),
            probe(
                "adjust",
                &[&[&shard.audit, &shard.skus], &settings, &adjusted],
                &[&["all", "add", "1", "", "", "", ""]],
            ),
            probe(
                "return",
                &[&[&shard.audit, &shard.settings, &operation], &[&inventory, &reservation]],
                &[&["1", "restock", ""]],
            ),
            probe("rules", &[&[&shard.audit, &inventory]], &[&["", "", ""]]),
            probe("inventory", &[&stock], &[&["0"]]),
            probe("audit", &[&[&shard.audit]], &[&["1", ""]]),
        ]
    }

    /// Loads the scripts: call it before the first operation. `Some` tells why they could not be published: they can
    /// be called, but other services do not find them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load_scripts(&self) -> Result<Option<Error>, Error> {
        self.scripts.cache().await.map_err(Error::retry_safe)?;
        match self.scripts.publish().await {
            Ok(()) => Ok(None),
            // A server that can only settle holds is better than none.
            Err(Failure::Refused { code, message }) if ["OOM", "MISCONF"].contains(&&*code) => {
                Ok(Some(Failure::Refused { code, message }.into()))
            }
            Err(failure) => Err(Error::retry_safe(failure)),
        }
    }

    /// Loads the scripts again if Redis has lost any. Returns whether Redis had lost any.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn restore_scripts(&self) -> Result<bool, Error> {
        let lost = self.scripts.restore().await.map_err(Error::retry_safe)?;
        if lost {
            // All of its data may be lost, too.
            claim_layout(&self.redis, &self.layout).await?;
        }
        Ok(lost)
    }
}
