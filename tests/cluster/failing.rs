//! Nodes that die, freeze or change their roles while calls arrive: service comes back, and no call is executed twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Value, cmd, pipe};
use stockhold::redis::{Failure, Redis};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::cluster::Cluster;

/// What callers were told about a key that each call has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    /// Done, and a replica has it.
    Safe,
    NotDone,
    Unknown,
}

/// Callers that count up keys of one slot, each key once.
struct Callers {
    tasks: JoinSet<BTreeMap<String, Told>>,
    closing: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Callers {
    fn start(redis: &Redis, tag: &str) -> Self {
        let mut callers =
            Self { tasks: JoinSet::new(), closing: Arc::default(), done: Arc::default(), failed: Arc::default() };
        for caller in 0..6 {
            let (redis, tag) = (redis.clone(), tag.to_owned());
            let [done, failed] = [&callers.done, &callers.failed].map(Arc::clone);
            let closing = Arc::clone(&callers.closing);
            callers.tasks.spawn(async move {
                let mut told = BTreeMap::new();
                while !closing.load(Ordering::Relaxed) {
                    let key = format!("{tag}{caller}-{}", told.len());
                    let outcome = count_up(&redis, &key).await;
                    let counter = if matches!(outcome, Told::Done | Told::Safe) { &done } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    told.insert(key, outcome);
                }
                told
            });
        }
        callers
    }

    /// Waits until calls have been carried out that began after now.
    async fn are_served(&self, cluster: &Cluster) {
        let before = self.done.load(Ordering::Relaxed);
        cluster.until("service is back", async || self.done.load(Ordering::Relaxed) > before + 50).await;
    }

    async fn stop(self) -> BTreeMap<String, Told> {
        self.closing.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn count_up(redis: &Redis, key: &str) -> Told {
    let mut call = pipe();
    call.cmd("INCR").arg(key).cmd("WAIT").arg(1).arg(100);
    match redis.each(call).await.as_deref() {
        Ok([Ok(Value::Int(1)), Ok(Value::Int(1))]) => Told::Safe,
        // WAIT is refused when a primary becomes a replica.
        Ok([Ok(Value::Int(1)), _]) => Told::Done,
        Ok([Err(Failure::Unreachable(_) | Failure::Refused { .. }), _]) | Err(Failure::Unreachable(_)) => Told::NotDone,
        Err(Failure::NoReply(_)) => Told::Unknown,
        other => panic!("{key} was counted up by nobody else, and is {other:?}"),
    }
}

/// Compares what callers were told with what there is.
async fn assert_once(cluster: &Cluster, told: &BTreeMap<String, Told>) -> BTreeMap<&'static str, usize> {
    let redis = cluster.open();
    let mut counts = BTreeMap::new();
    for (key, told) in told {
        let count: i64 = match redis.call(cmd("GET").arg(key)).await.unwrap() {
            Value::Nil => 0,
            Value::BulkString(count) => String::from_utf8(count).unwrap().parse().unwrap(),
            other => panic!("{other:?}"),
        };
        match told {
            Told::Safe => assert_eq!(count, 1, "{key} is safe"),
            Told::NotDone => assert_eq!(count, 0, "{key} was not done"),
            // A fail-over may lose what no replica had.
            Told::Done | Told::Unknown => assert!(count <= 1, "{key} was done {count} times"),
        }
        let word = match told {
            Told::Safe => "safe",
            Told::Done => "done",
            Told::NotDone => "not done",
            Told::Unknown => "unknown",
        };
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Lets callers call, breaks the primary of their slot, and waits until they are served again.
async fn survive(
    cluster: &mut Cluster,
    break_it: impl AsyncFnOnce(&mut Cluster, usize),
) -> BTreeMap<&'static str, usize> {
    let primary = cluster.owner(0, "{a}").await;
    let redis = cluster.open();
    let callers = Callers::start(&redis, "{a}");
    callers.are_served(cluster).await;
    break_it(cluster, primary).await;
    callers.are_served(cluster).await;
    let told = callers.stop().await;
    assert_once(cluster, &told).await
}

/// Another node than this one.
fn witness(node: usize) -> usize {
    (node + 1) % 3
}

#[tokio::test]
async fn a_primary_is_killed() {
    let mut cluster = Cluster::start().await;
    let counts = survive(&mut cluster, async |cluster, primary| {
        cluster.nodes[primary].kill();
        cluster.until_owner(witness(primary), "{a}", primary + 3).await;
    })
    .await;
    assert!(counts["safe"] > 50, "{counts:?}");
    assert!(counts.contains_key("unknown") || counts.contains_key("not done"), "{counts:?}");
}

/// It is as long away as to be given up by nobody: what was sent to it is carried out when it goes on.
#[tokio::test]
async fn a_primary_freezes_and_goes_on() {
    let mut cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
    let counts = survive(&mut cluster, async |cluster, primary| {
        cluster.nodes[primary].stop_process();
        sleep(Duration::from_millis(1500)).await;
        cluster.nodes[primary].continue_process();
    })
    .await;
    assert!(counts["unknown"] > 0, "{counts:?}");
}

/// Its replica may be promoted before it goes on.
#[tokio::test]
async fn a_primary_freezes_while_its_replica_is_promoted() {
    let mut cluster = Cluster::start().await;
    let counts = survive(&mut cluster, async |cluster, primary| {
        cluster.nodes[primary].stop_process();
        cluster.until_owner(witness(primary), "{a}", primary + 3).await;
        cluster.nodes[primary].continue_process();
    })
    .await;
    assert!(counts["unknown"] > 0, "{counts:?}");
}

#[tokio::test]
async fn a_primary_freezes_for_good() {
    let mut cluster = Cluster::start().await;
    let counts = survive(&mut cluster, async |cluster, primary| {
        cluster.nodes[primary].stop_process();
        cluster.until_owner(witness(primary), "{a}", primary + 3).await;
    })
    .await;
    assert!(counts["unknown"] > 0, "{counts:?}");
}

#[tokio::test]
async fn roles_are_exchanged() {
    for how in [&["CLUSTER", "FAILOVER"][..], &["CLUSTER", "FAILOVER", "FORCE"]] {
        let mut cluster = Cluster::start().await;
        survive(&mut cluster, async |cluster, primary| {
            cluster.tell(primary + 3, how).await;
            cluster.until_owner(witness(primary), "{a}", primary + 3).await;
        })
        .await;
    }
}

/// The other parts go on, and calls to several nodes tell which of them have been answered.
#[tokio::test]
async fn only_the_part_of_a_frozen_primary_is_away() {
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
    let redis = cluster.open();
    let frozen = cluster.owner(0, "{a}").await;
    let keys: Vec<String> = (0..20).map(|number| format!("name-{number}")).chain(["{a}".to_owned()]).collect();
    let all = || {
        let mut all = pipe();
        for key in &keys {
            all.cmd("INCR").arg(key);
        }
        all
    };
    for outcome in redis.each(all()).await.unwrap() {
        assert_eq!(outcome.unwrap(), Value::Int(1));
    }
    cluster.nodes[frozen].stop_process();
    let outcomes = redis.each(all()).await.unwrap();
    let failure = redis.each(pipe().cmd("INCR").arg("{a}").clone()).await.unwrap_err();
    assert!(matches!(failure, Failure::NoReply(_) | Failure::Unreachable(_)), "{failure}");
    cluster.nodes[frozen].continue_process();
    let mut apart = 0;
    for (key, outcome) in keys.iter().zip(outcomes) {
        if cluster.owner(0, key).await == frozen {
            assert!(matches!(outcome, Err(Failure::NoReply(_))), "{key}: {outcome:?}");
            apart += 1;
        } else {
            assert_eq!(outcome.unwrap(), Value::Int(2), "{key}");
        }
    }
    assert!(apart > 0 && apart < keys.len());
    cluster.until_sound().await;
    for key in keys.iter().filter(|key| *key != "{a}") {
        let count = redis.call(cmd("GET").arg(key)).await.unwrap();
        assert_eq!(count, Value::BulkString(b"2".to_vec()), "{key}");
    }
}
