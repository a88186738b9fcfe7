//! A mixed fleet: buyers over HTTP, in Python by SHA and in Node by SHA, all of them after the same units.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::install::{NODE, PYTHON, source};
use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold};

const UNITS: u64 = 500;
const HTTP_BUYERS: usize = 8;
/// Buyers of every kind have made this number of holds before the next fault.
const HOLDS_BETWEEN: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two purchases of one buyer.
const PAUSE: Duration = Duration::from_millis(2);

/// What a buyer was told: the word of the contract, and the id of the reservation.
type Told = Vec<(String, String)>;

/// A program whose threads or tasks buy until its standard input is closed.
struct Program {
    child: Child,
    told: JoinHandle<Told>,
}

impl Program {
    fn start(mut command: Command, redis: &RedisServer) -> Self {
        let command = redis.tell(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = std::thread::spawn(move || {
            let pair = |line: String| line.split_once(' ').map(|(word, id)| (word.to_owned(), id.to_owned())).unwrap();
            lines.map(|line| pair(line.unwrap())).collect()
        });
        Self { child, told }
    }

    fn finish(mut self) -> Told {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success(), "a buyer had no answer, or one that it did not understand");
        self.told.join().unwrap()
    }
}

/// Buys over HTTP until it is stopped.
async fn buy(server: Arc<Stockhold>, closing: Arc<AtomicBool>) -> Told {
    let mut told = Told::new();
    for turn in 0_u64.. {
        if closing.load(Ordering::Relaxed) {
            break;
        }
        sleep(PAUSE).await;
        let key = Uuid::new_v4().to_string();
        let body = json!({ "cartId": "http", "sku": "tea", "quantity": turn % 3 + 1, "ttlSeconds": turn % 2 * 59 + 1 });
        let held = answered(&server, "/api/reservations/hold", Some(body), &key).await;
        // The hold of a second may have lapsed before a retry found out that it was made.
        if held.status == 409 && held.body["code"] == "reservation_not_active" {
            continue;
        }
        if held.status != 200 {
            held.problem(409, "insufficient_inventory");
            continue;
        }
        let id = held.body["reservationId"].as_str().unwrap().to_owned();
        told.push(("HELD".to_owned(), id.clone()));
        let (verb, word) = if turn % 200 == 0 { ("confirm", "CONFIRMED") } else { ("release", "RELEASED") };
        let path = format!("/api/reservations/{id}/{verb}");
        let settled = answered(&server, &path, None, &key).await;
        match settled.status.as_u16() {
            200 => told.push((word.to_owned(), id)),
            _ => drop(settled.problem(409, "reservation_not_active")),
        }
    }
    told
}

/// Repeats the request until it is answered: the key makes that safe.
async fn answered(server: &Stockhold, path: &str, body: Option<Value>, key: &str) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.post_with(path, body.clone(), Some(key)).await;
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.body);
        sleep(Duration::from_millis(100)).await;
    }
}

/// An entry of the audit: event, reservation and cart.
type Event = [String; 3];

/// The events after one of them (`-`: all), oldest first, and the id of the last.
async fn events_after(redis: &mut MultiplexedConnection, last: &mut String) -> Vec<Event> {
    let entries: Vec<(String, BTreeMap<String, String>)> =
        cmd("XRANGE").arg("inventory:audit").arg(&*last).arg("+").query_async(redis).await.unwrap();
    if let Some((id, _)) = entries.last() {
        *last = format!("({id}");
    }
    let event = |(_, mut fields): (_, BTreeMap<String, String>)| {
        ["event", "reservationId", "cartId"].map(|name| fields.remove(name).unwrap())
    };
    entries.into_iter().map(event).collect()
}

/// Follows the audit until buyers of every kind have held `times` more times.
async fn until_all_have_held(redis: &RedisServer, times: usize, audit: &mut Vec<Event>, last: &mut String) {
    let mut connection = redis.connection().await;
    audit.extend(events_after(&mut connection, last).await);
    let before = audit.len();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let by = |cart: &str| audit[before..].iter().filter(|[event, _, of]| event == "hold" && of == cart).count();
        let held = ["http", "python", "node"].map(|cart| (cart, by(cart)));
        if held.iter().all(|(_, held)| *held >= times) {
            return;
        }
        assert!(Instant::now() < deadline, "somebody does not recover: {held:?}");
        sleep(Duration::from_millis(50)).await;
        audit.extend(events_after(&mut connection, last).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_oversold_while_scripts_are_flushed_and_redis_is_killed() {
    // What was answered is in the file by then, so a killed process loses nothing that was answered.
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let server = Arc::new(Stockhold::start(&redis));
    server.seed("tea", UNITS).await;

    let mut python = Command::new(&*PYTHON);
    python.arg(source("tests/clients/fleet.py"));
    python.env("PYTHONPATH", source("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut node = Command::new("node");
    node.arg(NODE.join("fleet.mjs"));
    let programs = [Program::start(python, &redis), Program::start(node, &redis)];
    let closing = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for _ in 0..HTTP_BUYERS {
        buyers.spawn(buy(Arc::clone(&server), Arc::clone(&closing)));
    }

    let (mut audit, mut last) = (Vec::new(), "-".to_owned());
    until_all_have_held(&redis, HOLDS_BETWEEN, &mut audit, &mut last).await;
    for _ in 0..3 {
        cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis.connection().await).await.unwrap();
        until_all_have_held(&redis, HOLDS_BETWEEN, &mut audit, &mut last).await;
    }
    redis.restart();
    until_all_have_held(&redis, HOLDS_BETWEEN, &mut audit, &mut last).await;
    closing.store(true, Ordering::Relaxed);
    let mut told = buyers.join_all().await.concat();
    told.extend(programs.into_iter().flat_map(Program::finish));

    let mut connection = redis.connection().await;
    // Nothing is oversold, the audit accounts for every unit, and each reservation ended at most once.
    assert_invariants(&mut connection, History::Whole).await;
    assert_eq!(server.counts("tea").await.iter().sum::<u64>(), UNITS);
    // Everything that a buyer was told is in the audit, and what was refused is not in it.
    audit.extend(events_after(&mut connection, &mut last).await);
    let happened: BTreeSet<(String, String)> = audit.into_iter().map(|[event, id, _]| (event, id)).collect();
    for (word, id) in told {
        let has = |event: &str| happened.contains(&(event.to_owned(), id.clone()));
        let (event, expected) = match &*word {
            // REPLAYED may also answer a settlement: whatever was settled was held.
            "REPLAYED" | "HELD" => ("hold", true),
            "CONFIRMED" => ("confirm", true),
            "RELEASED" => ("release", true),
            "EXPIRED" | "NOT_ACTIVE" => ("expired", true),
            "INSUFFICIENT" => ("hold", false),
            _ => panic!("{word} of {id}"),
        };
        assert_eq!(has(event), expected, "{word} of {id}");
    }
}
