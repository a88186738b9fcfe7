//! Fail-overs with a partitioned master. The master and its replica are separate hosts, and the cable between them is
//! cut.
//!
//! It uses network namespaces, so it runs on Linux only, with `ip` and `unshare`. `make failover`; `ROUNDS` sets the
//! number of rounds, 20 by default.

#[path = "../support/mod.rs"]
mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use redis::cmd;
use serde_json::json;
use support::invariants::{History, assert_invariants};
use support::redis_server::RedisServer;
use support::stockhold::{Answer, Stockhold};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

const BUYERS: usize = 8;
const UNITS: u64 = 1_000_000_000;
/// The two ends of the cable.
const MASTER: [&str; 2] = ["west", "10.77.0.1"];
const REPLICA: [&str; 2] = ["east", "10.77.0.2"];
/// How long buyers buy before the cut, then without the replica, and then with two masters.
const OPEN: Duration = Duration::from_millis(300);
const CUT: Duration = Duration::from_millis(800);
const TWO_MASTERS: Duration = Duration::from_millis(800);

/// What buyers were told.
#[derive(Default)]
struct Told {
    /// Reservations that were acknowledged.
    promised: Vec<String>,
    /// Keys of the holds with an unknown outcome.
    unknown: Vec<String>,
}

fn main() {
    // The hosts of this test have a separate network, in which it may create cables.
    if std::env::var_os("HOSTS").is_none() {
        let myself = std::env::current_exe().unwrap();
        let error = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(myself)
            .args(std::env::args_os().skip(1))
            .env("HOSTS", "apart")
            .exec();
        panic!("cannot run `unshare`, which comes with util-linux: {error}");
    }
    let rounds = std::env::var("ROUNDS").map_or(20, |rounds| rounds.parse().expect("ROUNDS"));
    ip(&["link", "set", "lo", "up"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut promised, mut unknown, mut done) = (0, 0, 0);
    for round in 1..=rounds {
        let told = runtime.block_on(fail_over());
        promised += told.promised;
        unknown += told.unknown;
        done += told.done;
        println!(
            "{round} of {rounds}: {promised} holds acknowledged, none lost; {unknown} unknown, of which {done} were done"
        );
    }
}

/// The outcome of a fail-over.
struct Outcome {
    promised: usize,
    unknown: usize,
    /// Unknown holds that the new master had.
    done: usize,
}

async fn fail_over() -> Outcome {
    let open_to_all = ["--bind", "0.0.0.0", "--protected-mode", "no", "--repl-diskless-sync-delay", "0"];
    let master = RedisServer::start_with(&open_to_all);
    let replica = thread::spawn(move || start_elsewhere(&open_to_all)).join().unwrap();
    plug(MASTER);
    let master_port = master.port().to_string();
    follow(&replica, MASTER[1], &master_port).await;
    master.until_followed().await;
    let server = Arc::new(Stockhold::start_with(&master, &["--durability", "wait:1"]));
    server.seed("tea", UNITS).await;

    let closing = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        buyers.spawn(buy(Arc::clone(&server), Arc::clone(&closing)));
    }
    sleep(OPEN).await;
    // No process is notified: what either side sends from now on is lost. The master continues to serve.
    ip(&["link", "set", MASTER[0], "down"]);
    sleep(CUT).await;
    cmd("REPLICAOF").arg(&["NO", "ONE"]).exec_async(&mut replica.connection().await).await.unwrap();
    sleep(TWO_MASTERS).await;
    closing.store(true, Ordering::Relaxed);
    let told = buyers.join_all().await.into_iter().fold(Told::default(), |mut all, told| {
        all.promised.extend(told.promised);
        all.unknown.extend(told.unknown);
        all
    });
    assert!(!told.promised.is_empty() && !told.unknown.is_empty(), "the cable was cut neither too early nor too late");
    drop(server);

    // The old master follows the new one, and loses what it did alone.
    ip(&["link", "set", MASTER[0], "up"]);
    follow(&master, REPLICA[1], &replica.port().to_string()).await;
    replica.until_followed().await;
    let url = format!("redis://{}:{}", REPLICA[1], replica.port());
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &url, "--durability", "wait:1"]);
    for id in &told.promised {
        server.get(&format!("/api/reservations/{id}")).await.ok();
    }
    // When it is retried, each unknown hold is done exactly once.
    let mut done = 0;
    for key in &told.unknown {
        let answer = hold(&server, key).await;
        done += usize::from(answer.headers.contains_key("idempotent-replayed"));
        answer.ok();
    }
    let held = (told.promised.len() + told.unknown.len()) as u64;
    assert_eq!(server.counts("tea").await, [UNITS - held, held, 0]);
    for redis in [&master, &replica] {
        assert_invariants(&mut redis.connection().await, History::Whole).await;
    }
    ip(&["link", "delete", MASTER[0]]);
    Outcome { promised: told.promised.len(), unknown: told.unknown.len(), done }
}

/// Starts a Redis on a separate host, with a cable to this one.
fn start_elsewhere(arguments: &[&str]) -> RedisServer {
    // For this thread only, and for what it starts.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let here = std::process::id().to_string();
    ip(&["link", "set", "lo", "up"]);
    ip(&["link", "add", "name", REPLICA[0], "type", "veth", "peer", "name", MASTER[0], "netns", &here]);
    plug(REPLICA);
    RedisServer::start_with(arguments)
}

fn plug([name, address]: [&str; 2]) {
    ip(&["address", "add", &format!("{address}/24"), "dev", name]);
    ip(&["link", "set", name, "up"]);
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("cannot run `ip`, which comes with iproute2: {error}"));
    assert!(status.success(), "ip {}: {status}", arguments.join(" "));
}

async fn follow(redis: &RedisServer, host: &str, port: &str) {
    cmd("REPLICAOF").arg(&[host, port]).exec_async(&mut redis.connection().await).await.unwrap();
}

async fn hold(server: &Stockhold, key: &str) -> Answer {
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 1 });
    server.post_with("/api/reservations/hold", body, Some(key)).await
}

/// Buys until it is stopped.
async fn buy(server: Arc<Stockhold>, closing: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    while !closing.load(Ordering::Relaxed) {
        let key = Uuid::new_v4().to_string();
        let answer = hold(&server, &key).await;
        if answer.status == 200 {
            told.promised.push(answer.body["reservationId"].as_str().unwrap().to_owned());
        } else if answer.problem(503, "unavailable")["outcome"] == "unknown" {
            told.unknown.push(key);
        }
    }
    told
}
