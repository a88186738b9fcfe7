//! Many and large reads: sales continue, and what is read is correct.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, InfoDict, cmd, pipe};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// No sweep within a test, but for the round that the server begins with.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];
const LONG_MS: u64 = 600_000;

/// Makes holds through the script, a hundred in a call: `units` of each SKU in turn. All SKUs are in one shard.
async fn fill(redis: &mut MultiplexedConnection, holds: &[(&str, u64)], ttl_ms: u64) -> Vec<String> {
    make(redis, holds, ttl_ms, false).await
}

/// Makes holds that lapse at once and that no sweeper sees: its first round may come late on a busy machine, and it
/// looks only at what is listed as due.
async fn fill_lapsed(redis: &mut MultiplexedConnection, holds: &[(&str, u64)]) -> Vec<String> {
    make(redis, holds, 1, true).await
}

async fn make(redis: &mut MultiplexedConnection, holds: &[(&str, u64)], ttl_ms: u64, is_hidden: bool) -> Vec<String> {
    let sha1: String = redis.hget("stockhold:scripts", "hold").await.unwrap();
    let (audit, due) = (keys::audit_of(holds[0].0), keys::due_of(holds[0].0));
    let ids: Vec<_> = holds.iter().map(|(sku, _)| keys::new_id(sku)).collect();
    let items: Vec<_> = holds.iter().zip(&ids).collect();
    for items in items.chunks(100 * 10) {
        let mut calls = pipe();
        if is_hidden {
            calls.atomic();
        }
        for items in items.chunks(100) {
            calls.cmd("EVALSHA").arg(&sha1).arg(2 + 3 * items.len()).arg(audit).arg(due);
            for ((sku, _), id) in items {
                calls.arg(keys::inventory(sku)).arg(keys::active(sku)).arg(keys::reservation(id));
            }
            calls.arg("each");
            for ((_, units), _) in items {
                calls.arg("cart-1").arg(*units).arg(ttl_ms);
            }
        }
        if is_hidden {
            calls.cmd("DEL").arg(due).ignore();
        }
        let replies: Vec<Vec<Vec<String>>> = calls.query_async(redis).await.unwrap();
        assert!(replies.iter().flatten().all(|reply| reply[0] == "HELD"));
    }
    ids
}

async fn calls(redis: &mut MultiplexedConnection, command: &str) -> u64 {
    let info: InfoDict = cmd("INFO").arg("commandstats").query_async(redis).await.unwrap();
    let Some(stats) = info.get::<String>(&format!("cmdstat_{command}")) else { return 0 };
    let calls = stats.strip_prefix("calls=").and_then(|stats| stats.split(',').next());
    calls.unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_hold_fails_during_any_reads() {
    const READERS: usize = 64;
    const SELLERS: usize = 8;
    const HOLDS: usize = 25;
    let [hot, cold] = keys::in_one_shard(["hot", "cold"]);
    let reads = [
        "/api/inventory/hot?active=10000",
        "/api/audit?sku=hot&limit=1000",
        "/api/audit?limit=1000",
        &*format!("/api/audit?sku={cold}&limit=1000").leak(),
        "/api/inventory/hot",
        "/api/inventory/hot?active=0",
        "/api/inventory?limit=1000",
        "/api/reservations?sku=hot&limit=1000",
    ];
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start(&redis));
    for sku in [hot, cold, "other"] {
        server.seed(sku, 1_000_000).await;
    }
    let mut connection = redis.connection().await;
    let sku = |number: usize| if number.is_multiple_of(10) { (cold, 1) } else { (hot, 1) };
    fill(&mut connection, &(0..10_000).map(sku).collect::<Vec<_>>(), LONG_MS).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        readers.spawn(async move {
            let mut answers = Vec::new();
            for number in reader.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                answers.push(server.get(reads[number % reads.len()]).await);
            }
            answers
        });
    }
    let mut sellers = JoinSet::new();
    for _ in 0..SELLERS {
        let server = Arc::clone(&server);
        sellers.spawn(async move {
            for _ in 0..HOLDS {
                server.held("other", 1).await;
            }
        });
    }
    sellers.join_all().await;
    done.store(true, Ordering::Relaxed);
    for answer in readers.join_all().await.into_iter().flatten() {
        if answer.status != 200 {
            refused(answer);
        }
    }
    assert_eq!(server.counts("other").await[1], (SELLERS * HOLDS) as u64);
}

/// A read that was not served: the problem says that it may be retried, and when.
fn refused(answer: crate::support::stockhold::Answer) {
    assert_eq!(answer.headers["retry-after"], "1");
    let problem = answer.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "none");
}

#[tokio::test]
async fn some_of_too_many_large_reads_are_refused_and_the_others_are_whole() {
    const READERS: usize = 200;
    const HOLDS: usize = 10_000;
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("hot", 1_000_000).await;
    let mut connection = redis.connection().await;
    fill(&mut connection, &[("hot", 1); HOLDS], LONG_MS).await;
    let reads = (0..READERS).map(|_| server.get("/api/inventory/hot?active=10000"));
    let (mut whole, mut turned_away) = (0, 0);
    for answer in futures_util::future::join_all(reads).await {
        if answer.status == 200 {
            assert_eq!(answer.body["activeReservations"].as_array().unwrap().len(), HOLDS);
            whole += 1;
        } else {
            refused(answer);
            turned_away += 1;
        }
    }
    assert!(whole > 0 && turned_away > 0, "{whole} whole, {turned_away} turned away");
    server.get("/api/inventory/hot?active=10000").await.ok();
}

#[tokio::test]
async fn a_long_list_has_each_reservation_once() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 1_000_000).await;
    let mut connection = redis.connection().await;
    let ids = fill(&mut connection, &[("sku", 1); 3000], LONG_MS).await;
    let listed = async |connection: &mut MultiplexedConnection, limit: isize| {
        let expected: Vec<String> = connection.zrange(keys::active("sku"), 0, limit - 1).await.unwrap();
        let stock = server.get(&format!("/api/inventory/sku?active={limit}")).await.ok();
        assert_eq!(stock["activeReservations"], json!(expected), "{limit}");
    };
    for limit in [1, 100, 101, 1000, 1001, 2500, 2999, 3000, 10_000] {
        listed(&mut connection, limit).await;
    }
    assert_eq!(server.stock("sku").await["activeReservations"].as_array().unwrap().len(), 100, "unless asked for more");
    // Many holds that lapse in the same millisecond, over several pages.
    let score: u64 = connection.zscore(keys::active("sku"), &ids[1500]).await.unwrap();
    for ids in ids[200..2400].chunks(500) {
        let ties: Vec<_> = ids.iter().map(|id| (score, id)).collect();
        connection.zadd_multiple::<_, _, _, ()>(keys::active("sku"), &ties).await.unwrap();
    }
    for limit in [1001, 2000, 10_000] {
        listed(&mut connection, limit).await;
    }
}

/// The chain of a SKU, followed here link by link. It ends at a missing event.
async fn chain(redis: &mut MultiplexedConnection, sku: &str) -> Vec<String> {
    let entries: Vec<(String, HashMap<String, String>)> =
        cmd("XRANGE").arg(keys::audit_of(sku)).arg("-").arg("+").query_async(redis).await.unwrap();
    let entries: HashMap<_, _> = entries.into_iter().collect();
    let mut next: String = redis.hget(keys::inventory(sku), "lastEvent").await.unwrap();
    let mut chain = Vec::new();
    while let Some(fields) = entries.get(&next) {
        chain.push(std::mem::replace(&mut next, fields["previous"].clone()));
    }
    chain
}

#[tokio::test]
async fn a_history_that_spans_pages_is_the_chain() {
    let [tea, cup, pot] = keys::in_one_shard(["tea", "cup", "pot"]);
    let shown = |ids: &[String]| ids.iter().map(|id| keys::shown_event(tea, id)).collect::<Vec<_>>();
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--audit-max", "0"]);
    for sku in [tea, cup, pot] {
        server.seed(sku, 1_000_000).await;
    }
    let mut connection = redis.connection().await;
    // Alone, close together, far apart, and again: according to its share of the stream.
    for share in [1, 3, 40, 2, 5, 1, 7, 1] {
        let sku = |number: usize| if number.is_multiple_of(share) { (tea, 1) } else { (cup, 1) };
        fill(&mut connection, &(0..70 * share).map(sku).collect::<Vec<_>>(), LONG_MS).await;
    }
    let audit = async |query: &str| -> Vec<String> {
        let body = server.get(&format!("/api/audit?{query}")).await.ok();
        let events = body["events"].as_array().unwrap().iter();
        events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    let compare = async |connection: &mut MultiplexedConnection| {
        for sku in [tea, cup, pot] {
            let whole = shown(&chain(connection, sku).await);
            for limit in [1, 19, 50, 120, 1000] {
                let expected = &whole[..limit.min(whole.len())];
                assert!(audit(&format!("sku={sku}&limit={limit}")).await == expected, "{sku} {limit}");
            }
            let (mut rest, mut before) = (&*whole, String::new());
            while !rest.is_empty() {
                let page = audit(&format!("sku={sku}&limit=270{before}")).await;
                let (expected, others) = rest.split_at(270.min(rest.len()));
                assert!(page == expected, "{sku} {before}");
                before = format!("&before={}", page.last().unwrap());
                rest = others;
            }
            assert!(audit(&format!("sku={sku}{before}")).await.is_empty());
        }
    };
    let whole = chain(&mut connection, tea).await;
    assert_eq!(whole.len(), 1 + 8 * 70);
    compare(&mut connection).await;

    let all: Vec<(String, HashMap<String, String>)> =
        cmd("XREVRANGE").arg(keys::audit_of(tea)).arg("+").arg("-").query_async(&mut connection).await.unwrap();
    let all: Vec<String> = all.into_iter().map(|(id, _)| id).collect();
    assert!(audit("limit=1000").await == shown(&all[..1000]));
    let before = keys::shown_event(tea, &all[999]);
    assert!(audit(&format!("limit=1000&before={before}")).await == shown(&all[1000..2000]));

    // The chain ends where events are missing: where the stream was trimmed, and where one event was deleted.
    let oldest = &all[all.len() - 1000];
    cmd("XTRIM").arg(keys::audit_of(tea)).arg("MINID").arg(oldest).exec_async(&mut connection).await.unwrap();
    compare(&mut connection).await;
    for lost in [300, 145, 123, 75, 50, 10, 0] {
        cmd("XDEL").arg(keys::audit_of(tea)).arg(&whole[lost]).exec_async(&mut connection).await.unwrap();
        compare(&mut connection).await;
        assert!(audit(&format!("sku={tea}&limit=1000")).await.len() <= lost);
    }
}

#[tokio::test]
async fn many_lapsed_holds_are_counted_as_if_swept_and_are_not_swept() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    let mut connection = redis.connection().await;
    for alive in [false, true] {
        server.seed("sku", 100_000).await;
        let units = |number: u64| ("sku", 1 + number % 7);
        let lapsing = fill_lapsed(&mut connection, &(0..1100).map(units).collect::<Vec<_>>()).await;
        let mut live = Vec::new();
        if alive {
            live = fill(&mut connection, &[("sku", 1000), ("sku", 2000)], LONG_MS).await;
        }
        sleep(Duration::from_millis(10)).await;
        let sold = if alive { 2000 } else { 0 };
        if alive {
            server.confirm(&live[1]).await.ok();
            // Too late, and from the middle: this request expires the first one, before and between the reads.
            server.confirm(&lapsing[700]).await.problem(409, "reservation_not_active");
        }
        let reserved = if alive { 1000 } else { 0 };
        for (query, listed) in [("", 1), ("?active=0", 0), ("?active=1", 1), ("?active=10000", 1)] {
            let stock = server.get(&format!("/api/inventory/sku{query}")).await.ok();
            let counts = ["available", "reserved", "confirmed"].map(|name| stock[name].as_u64().unwrap());
            assert_eq!(counts, [100_000 - reserved - sold, reserved, sold], "{query}");
            let listed = if alive { &live[..listed] } else { &[] };
            assert_eq!(stock["activeReservations"], json!(listed), "{query}");
        }
        let active: usize = connection.zcard(keys::active("sku")).await.unwrap();
        assert_eq!(active, 1100, "a read sweeps none of them");
        assert_eq!(server.events("sku", 1).await[0]["event"], if alive { "expired" } else { "hold" });
    }
}

/// Thousands of holds lapse and are swept, buyers come too late with some of them, others buy, and meanwhile readers
/// read. What a reader sees was true at some moment during its read.
#[tokio::test]
async fn counts_are_right_while_sweepers_and_buyers_are_at_work() {
    const SEEDED: u64 = 10_000_000;
    const ROUNDS: u64 = 4;
    let redis = RedisServer::start();
    let server = Arc::new(Stockhold::start_with(&redis, &["--sweep-interval-ms", "50"]));
    server.seed("sku", SEEDED).await;
    let mut connection = redis.connection().await;
    let done = Arc::new(AtomicBool::new(false));
    let (asked, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for round in 0..ROUNDS {
        let units = |number: u64| ("sku", 1 + number % 9);
        let lapsing = fill(&mut connection, &(0..4000).map(units).collect::<Vec<_>>(), 1).await;
        sleep(Duration::from_millis(10)).await;
        done.store(false, Ordering::SeqCst);
        let mut readers = JoinSet::new();
        for reader in 0..6 {
            let (server, done) = (Arc::clone(&server), Arc::clone(&done));
            let (asked, held) = (Arc::clone(&asked), Arc::clone(&held));
            readers.spawn(async move {
                let mut right = 0;
                while !done.load(Ordering::SeqCst) {
                    let least = held.load(Ordering::SeqCst);
                    let answer = server.get(["/api/inventory/sku?active=0", "/api/inventory/sku"][reader % 2]).await;
                    let most = asked.load(Ordering::SeqCst);
                    if answer.status == 503 {
                        refused(answer);
                        continue;
                    }
                    let stock = answer.ok();
                    let [available, reserved, confirmed] =
                        ["available", "reserved", "confirmed"].map(|name| stock[name].as_u64().unwrap());
                    assert_eq!(available + reserved + confirmed, SEEDED, "{stock}");
                    assert!((least..=most).contains(&(reserved + confirmed)), "{least}..{most}: {stock}");
                    right += 1;
                }
                right
            });
        }
        for number in 0..60 {
            asked.fetch_add(3, Ordering::SeqCst);
            let id = server.held("sku", 3).await;
            held.fetch_add(3, Ordering::SeqCst);
            if number % 3 == 0 {
                server.confirm(&id).await.ok();
            }
            if number % 10 == round {
                let late = &lapsing[(number as usize * 997) % lapsing.len()];
                server.confirm(late).await.problem(409, "reservation_not_active");
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(readers.join_all().await.into_iter().sum::<u64>() > 0, "nothing was read");
    }
}

#[tokio::test]
async fn one_of_many_readers_adds_up_the_lapsed_holds() {
    const HOLDS: u64 = 3000;
    const CROWD: usize = 100;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", HOLDS + 1).await;
    let mut connection = redis.connection().await;
    fill_lapsed(&mut connection, &vec![("sku", 1); HOLDS as usize]).await;
    server.held("sku", 1).await;
    sleep(Duration::from_millis(10)).await;
    let before = calls(&mut connection, "hmget").await;
    let readers = (0..CROWD).map(|_| server.get("/api/inventory/sku?active=0"));
    for answer in futures_util::future::join_all(readers).await {
        let stock = answer.ok();
        assert_eq!((&stock["available"], &stock["reserved"]), (&json!(HOLDS), &json!(1)));
    }
    let reads = calls(&mut connection, "hmget").await - before;
    // Each thread of the server counts separately: once, and again for readers that came meanwhile, in a few groups.
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let enough = threads * 5 * (HOLDS + 20) + 3 * CROWD as u64;
    assert!((HOLDS..=enough).contains(&reads), "{reads} reads, where {enough} are enough");
}

#[tokio::test]
async fn a_read_stops_when_its_client_goes() {
    const HOLDS: usize = 60_000;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("sku", 1_000_000).await;
    let mut connection = redis.connection().await;
    fill_lapsed(&mut connection, &vec![("sku", 1); HOLDS]).await;
    server.held("sku", 1).await;
    sleep(Duration::from_millis(10)).await;
    let before = calls(&mut connection, "hmget").await;
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(b"GET /api/inventory/sku?active=0 HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    while calls(&mut connection, "hmget").await == before {
        sleep(Duration::from_millis(1)).await;
    }
    drop(stream);
    let mut last = 0;
    loop {
        let reads = calls(&mut connection, "hmget").await - before;
        if std::mem::replace(&mut last, reads) == reads {
            break;
        }
        sleep(Duration::from_millis(300)).await;
    }
    assert!(last < HOLDS as u64 * 3 / 4, "{last} holds were read for nobody");
    // A client that stays gets the answer.
    assert_eq!(server.get("/api/inventory/sku?active=0").await.ok()["reserved"], Value::from(1));
}
