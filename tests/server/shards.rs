//! A stock in several shards is one stock: each endpoint answers as with one shard, and nobody serves it with another
//! number of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use stockhold::engine::{Engine, Options, Rounds};
use stockhold::keys::{CartId, IdempotencyKey, Layout, ReservationId, Sku};
use stockhold::scripts::Catalogue;
use tokio::time::{Instant, sleep};

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::{IS_CLUSTER, RedisServer};
use crate::support::snapshot::{Snapshot, keys};
use crate::support::stockhold::{Answer, Stockhold, program, run};

const SHARDS: u16 = 16;
const SIXTEEN: [&str; 2] = ["--shards", "16"];
const NO_SWEEPER: [&str; 4] = ["--shards", "16", "--sweep-interval-ms", "60000"];
const PATIENCE: Duration = Duration::from_secs(20);

fn layout() -> Layout {
    Layout::sharded(SHARDS).unwrap()
}

fn shard_of(sku: &str) -> u16 {
    layout().shard_of(&Sku::parse(sku).unwrap()).number
}

/// SKUs, each in another shard, that of the lowest shard first.
fn apart<const N: usize>() -> [String; N] {
    let mut names: BTreeMap<u16, String> = BTreeMap::new();
    for name in (0..100).map(|number| format!("sku-{number}")) {
        names.entry(shard_of(&name)).or_insert(name);
    }
    names.into_values().take(N).collect::<Vec<_>>().try_into().unwrap()
}

/// Two SKUs of one shard.
fn together() -> [String; 2] {
    let names: Vec<String> = (0..100).map(|number| format!("sku-{number}")).collect();
    let other = names[1..].iter().find(|name| shard_of(name) == shard_of(&names[0])).unwrap();
    [names[0].clone(), other.clone()]
}

async fn hold(server: &Stockhold, cart: &str, items: &[(&String, u64)], key: Option<&str>) -> Answer {
    hold_for(server, cart, items, 600, key).await
}

async fn hold_for(server: &Stockhold, cart: &str, items: &[(&String, u64)], seconds: u64, key: Option<&str>) -> Answer {
    let items: Vec<Value> = items.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
    let body = json!({ "items": items, "ttlSeconds": seconds });
    server.post_with(&format!("/api/carts/{cart}/hold"), body, key).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
}

/// The states of a cart's reservations by SKU.
async fn states(server: &Stockhold, cart: &str) -> BTreeMap<String, Vec<String>> {
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in server.get(&format!("/api/carts/{cart}")).await.ok()["reservations"].as_array().unwrap() {
        let [sku, state] = ["sku", "state"].map(|name| record[name].as_str().unwrap().to_owned());
        states.entry(sku).or_default().push(state);
    }
    states
}

fn ids(body: &Value) -> Vec<String> {
    let records = body["reservations"].as_array().unwrap().iter();
    records.map(|record| record["reservationId"].as_str().unwrap().to_owned()).collect()
}

async fn balance(redis: &RedisServer) {
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

/// What a shard stores, to bring it back.
async fn dump(connection: &mut MultiplexedConnection, shard: u16) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut stored = Vec::new();
    for key in keys(connection).await {
        if key.starts_with(format!("{{{shard}}}:").as_bytes()) {
            let bytes = cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
            stored.push((key, bytes));
        }
    }
    stored
}

/// As if nothing had happened in a shard since: its Redis was not reached.
async fn bring_back(connection: &mut MultiplexedConnection, shard: u16, stored: &[(Vec<u8>, Vec<u8>)]) {
    for (key, _) in dump(connection, shard).await {
        cmd("DEL").arg(key).exec_async(connection).await.unwrap();
    }
    for (key, bytes) in stored {
        cmd("RESTORE").arg(key).arg(0).arg(bytes).exec_async(connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_sku_and_all_that_belongs_to_it_are_in_one_shard() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    for sku in apart::<16>() {
        server.seed(&sku, 5).await;
        let (held, sold, back) = (server.held(&sku, 1).await, server.held(&sku, 1).await, server.held(&sku, 1).await);
        server.confirm(&sold).await.ok();
        server.release(&back).await.ok();
        let extension = json!({ "ttlSeconds": 900 });
        server.post(&format!("/api/reservations/{held}/extend"), extension).await.ok();
        server.post(&format!("/api/reservations/{held}/change"), json!({ "quantity": 2 })).await.ok();
        server.post(&format!("/api/reservations/{sold}/return"), json!({ "quantity": 1, "restock": true })).await.ok();
        for id in [held, sold, back] {
            assert_eq!(ReservationId::parse(&id).unwrap().shard(), shard_of(&sku));
        }
        assert_eq!(server.counts(&sku).await, [3, 2, 0]);
    }
    let mut connection = redis.connection().await;
    let shared = ["stockhold:layout", "stockhold:scripts"];
    for key in keys(&mut connection).await {
        let key = String::from_utf8(key).unwrap();
        assert!(key.starts_with('{') || shared.contains(&&*key), "{key}");
    }
    balance(&redis).await;
    let url = redis.url();
    let output = program(&["check", "--redis-url", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("16 SKUs"), "{output:?}");
}

/// Another service may have made any id; none of them is in a shard whose number it does not carry.
#[tokio::test]
async fn an_id_with_the_number_of_no_shard_or_another_one_is_unknown() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    server.seed("tea", 5).await;
    let id = server.held("tea", 1).await;
    let other = ReservationId::mint((shard_of("tea") + 1) % SHARDS).to_string();
    let moved = format!("{}{}{}", &id[..14], &other[14..18], &id[18..]);
    for unknown in [other, moved, ReservationId::mint(SHARDS).to_string(), uuid::Uuid::new_v4().to_string()] {
        server.get(&format!("/api/reservations/{unknown}")).await.problem(404, "unknown_reservation");
        server.confirm(&unknown).await.problem(404, "unknown_reservation");
    }
    assert_eq!(server.counts("tea").await, [4, 1, 0]);
}

/// The number is fixed for good, and it stands in Redis.
#[tokio::test]
async fn a_server_with_another_number_of_shards_is_refused() {
    let redis = RedisServer::start();
    let url = redis.url();
    let refusal = |shards: &str| {
        let (status, told) = run(&mut program(&["serve", "--port", "0", "--redis-url", &url, "--shards", shards]));
        assert_eq!(status, 1);
        told
    };
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    // One shard is refused by every cluster, whatever is there.
    let others = if *IS_CLUSTER { &["8", "17"][..] } else { &["1", "8", "17"] };
    for shards in others {
        let told = refusal(shards);
        assert!(told.contains("has 16 shards") && told.contains("--shards 16"), "{told}");
    }
    // A second one joins it.
    drop(Stockhold::start_with(&redis, &SIXTEEN));
    for sku in apart::<16>() {
        server.seed(&sku, 5).await;
    }
    drop(server);
    // Without the number its keys show which it is.
    let mut connection = redis.connection().await;
    cmd("DEL").arg("stockhold:layout").exec_async(&mut connection).await.unwrap();
    for shards in others {
        let told = refusal(shards);
        assert!(told.contains("has 16 shards"), "{told}");
    }
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    assert_eq!(server.counts(&apart::<1>()[0]).await, [5, 0, 0]);
    let shards: String = cmd("HGET").arg("stockhold:layout").arg("shards").query_async(&mut connection).await.unwrap();
    assert_eq!(shards, "16");
    cmd("HSET").arg("stockhold:layout").arg("shards").arg("many").exec_async(&mut connection).await.unwrap();
    let told = refusal("16");
    assert!(told.contains("stockhold:layout says \"many\" shards"), "{told}");
}

/// A stock from before the number was written has one shard.
#[tokio::test]
async fn a_stock_without_shards_keeps_its_keys() {
    const ONE: [&str; 2] = ["--shards", "1"];
    let redis = RedisServer::start_single(&[]);
    let server = Stockhold::start_with(&redis, &ONE);
    server.seed("tea", 5).await;
    drop(server);
    let mut connection = redis.connection().await;
    cmd("DEL").arg("stockhold:layout").exec_async(&mut connection).await.unwrap();
    let (_, told) = run(&mut program(&["serve", "--port", "0", "--redis-url", &redis.url(), "--shards", "16"]));
    assert!(told.contains("has 1 shards"), "{told}");
    assert_eq!(Stockhold::start_with(&redis, &ONE).counts("tea").await, [5, 0, 0]);
}

#[tokio::test]
async fn the_audit_of_all_shards_is_one_in_the_order_of_time() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let skus = apart::<9>();
    for round in 0..12 {
        for sku in &skus {
            server.seed(sku, 100 + round).await;
        }
    }
    // Many in one millisecond of one shard, and one that is alone in its shard.
    for quantity in 0..60 {
        server.seed(&skus[3], quantity).await;
    }
    let read = async |path: &str| {
        let body = server.get(path).await.ok();
        let told =
            |event: &Value| ["id", "previous", "sku"].map(|name| event[name].as_str().unwrap_or_default().to_owned());
        body["events"].as_array().unwrap().iter().map(told).collect::<Vec<_>>()
    };
    let order = |[id, ..]: &[String; 3]| {
        let [ms, number, shard] = id.split('-').map(|part| part.parse::<i64>().unwrap()).collect::<Vec<_>>()[..] else {
            panic!("{id}")
        };
        (-ms, -number, shard)
    };
    let all = read("/api/audit?limit=1000").await;
    assert_eq!(all.len(), 12 * 9 + 60);
    assert!(all.is_sorted_by_key(order), "{all:?}");
    assert_eq!(all.iter().map(|[id, ..]| id).collect::<BTreeSet<_>>().len(), all.len());
    for page in [1, 7, 50] {
        let (mut walked, mut before) = (Vec::new(), String::new());
        loop {
            let events = read(&format!("/api/audit?limit={page}{before}")).await;
            let Some([last, ..]) = events.last() else { break };
            before = format!("&before={last}");
            walked.extend(events);
        }
        assert_eq!(walked, all, "{page}");
    }
    for sku in &skus {
        let own: Vec<_> = all.iter().filter(|[_, _, of]| of == sku).cloned().collect();
        assert_eq!(read(&format!("/api/audit?sku={sku}&limit=1000")).await, own);
        // Each names the one before it, as it is shown.
        assert!(own.windows(2).all(|pair| pair[0][1] == pair[1][0]) && own.last().unwrap()[1].is_empty());
        let rest = read(&format!("/api/audit?sku={sku}&limit=1000&before={}", own[3][0])).await;
        assert_eq!(rest, own[4..]);
    }
    let foreign = all.iter().find(|[_, _, sku]| *sku != skus[0]).unwrap();
    for bad in [&foreign[0], "1-1", "1-1-16", "1-1-07", "1-1-x", "1-1-1-1"] {
        let path = format!("/api/audit?sku={}&before={bad}", skus[0]);
        server.get(&path).await.problem(400, "invalid_request");
    }
    server.get("/api/audit?before=1-1").await.problem(400, "invalid_request");
    assert!(read("/api/audit?before=0-0-0").await.is_empty());
}

#[tokio::test]
async fn the_skus_of_all_shards_are_one_list() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let mut skus: Vec<String> = (0..250).map(|number| format!("sku-{}", number * 7919 % 1000)).collect();
    for (number, sku) in skus.iter().enumerate() {
        server.seed(sku, number as u64).await;
    }
    skus.sort();
    for (page, below) in [(1000, 1000), (1, 1000), (30, 1000), (30, 20)] {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/inventory?limit={page}&availableBelow={below}{after}");
            let body = server.get(&path).await.ok();
            let items = body["items"].as_array().unwrap().iter();
            listed.extend(items.map(|item| (item["sku"].as_str().unwrap().to_owned(), item["available"].clone())));
            let Some(next) = body["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        let expected: Vec<_> = if below == 1000 { skus.clone() } else { vec![] };
        let names: Vec<_> = listed.iter().map(|(sku, _)| sku.clone()).collect();
        assert!(names.is_sorted());
        if below == 1000 {
            assert_eq!(names, expected, "{page}");
        } else {
            assert_eq!(names.len(), below);
        }
    }
}

#[tokio::test]
async fn what_lapses_in_any_shard_is_swept() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    let skus = apart::<16>();
    for sku in &skus {
        server.seed(sku, 100).await;
        for _ in 0..30 {
            server.held_for(sku, 1, 1).await;
        }
    }
    drop(server);
    // One shard cannot be swept, and an entry is where it does not belong.
    let mut connection = redis.connection().await;
    let broken = layout().stock(&Sku::parse(&skus[5]).unwrap());
    cmd("DEL").arg(&broken.shard.due).exec_async(&mut connection).await.unwrap();
    cmd("SET").arg(&broken.shard.due).arg("no list").exec_async(&mut connection).await.unwrap();
    let other = layout().stock(&Sku::parse(&skus[6]).unwrap());
    cmd("ZADD").arg(&other.shard.due).arg(1).arg(&skus[7]).exec_async(&mut connection).await.unwrap();
    let _server = Stockhold::start_with(&redis, &["--shards", "16", "--sweep-interval-ms", "20", "--log", "off"]);
    let deadline = Instant::now() + PATIENCE;
    for (at, sku) in skus.iter().enumerate().filter(|(at, _)| *at != 5) {
        let keys = layout().stock(&Sku::parse(sku).unwrap());
        loop {
            let left: u64 = cmd("ZCARD").arg(&keys.active).query_async(&mut connection).await.unwrap();
            if left == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "shard of {sku} ({at}) has {left} left");
            sleep(Duration::from_millis(20)).await;
        }
    }
    let left: u64 = cmd("ZCARD").arg(&broken.active).query_async(&mut connection).await.unwrap();
    assert_eq!(left, 30);
    // An operator hears of both.
    let engine = Engine::on(layout(), redis.open(&redis.url()), Options::default());
    let mut rounds = Rounds::default();
    assert!(engine.sweep_due(&mut rounds).await.unwrap_err().to_string().contains("WRONGTYPE"));
    let told = (format!("{} (in shard {})", skus[7], other.shard.number), "it is of another shard".to_owned());
    assert_eq!(rounds.newly_stuck(), [told]);
}

#[tokio::test]
async fn settings_are_those_of_every_shard() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--shards", "16", "--sweep-interval-ms", "20"]);
    let skus = apart::<16>();
    for sku in &skus {
        for quantity in 0..250 {
            server.seed(sku, quantity).await;
        }
    }
    let url = redis.url();
    let output = program(&["settings", "--redis-url", &url, "--keep-seconds", "60", "--audit-max", "1600"]).output();
    assert!(output.unwrap().status.success());
    let mut connection = redis.connection().await;
    let deadline = Instant::now() + PATIENCE;
    for sku in &skus {
        let shard = &layout().stock(&Sku::parse(sku).unwrap()).shard;
        // Redis removes whole nodes of 100 entries.
        loop {
            let entries: u64 = cmd("XLEN").arg(&shard.audit).query_async(&mut connection).await.unwrap();
            if (100..=200).contains(&entries) {
                break;
            }
            assert!(Instant::now() < deadline, "{entries} in {}", shard.audit);
            sleep(Duration::from_millis(20)).await;
        }
        let id = server.held(sku, 1).await;
        server.confirm(&id).await.ok();
        let key = layout().reservation(&ReservationId::parse(&id).unwrap()).unwrap();
        let left: i64 = cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!((1..=60_000).contains(&left), "{left}");
    }
    let output = program(&["check", "--redis-url", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// An operator may decide before there is a server, and so before there is a number of shards.
#[tokio::test]
async fn settings_from_before_the_first_server_are_those_of_every_shard() {
    let redis = RedisServer::start();
    let output = program(&["settings", "--redis-url", &redis.url(), "--keep-seconds", "60"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let mut connection = redis.connection().await;
    for sku in apart::<16>() {
        server.seed(&sku, 5).await;
        let id = server.held(&sku, 1).await;
        server.confirm(&id).await.ok();
        let record = layout().reservation(&ReservationId::parse(&id).unwrap()).unwrap();
        let left: i64 = cmd("PTTL").arg(record).query_async(&mut connection).await.unwrap();
        assert!((1..=60_000).contains(&left), "{sku}: {left}");
    }
}

#[tokio::test]
async fn damage_in_any_shard_is_found() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    let [one, other, third] = apart();
    for sku in [&one, &other, &third] {
        server.seed(sku, 5).await;
        server.held(sku, 1).await;
    }
    let mut connection = redis.connection().await;
    let keys = [&one, &other, &third].map(|sku| layout().stock(&Sku::parse(sku).unwrap()));
    cmd("HINCRBY").arg(&keys[1].inventory).arg("available").arg(1).exec_async(&mut connection).await.unwrap();
    cmd("DEL").arg(&keys[2].shard.audit).exec_async(&mut connection).await.unwrap();
    let check = |arguments: &[&str]| {
        let url = redis.url();
        let output = program(&[&["check", "--redis-url", &*url], arguments].concat()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, told) = check(&[]);
    assert_eq!(status, 1);
    assert!(told.contains(&format!("{other:<20} counts")), "{told}");
    assert!(told.contains(&format!("in shard {}, there is no audit", keys[2].shard.number)), "{told}");
    assert!(!told.contains(&format!("{one:<20}")), "{told}");
    check(&["--repair", "--apply"]);
    assert_eq!(server.counts(&other).await, [4, 1, 0]);
}

#[tokio::test]
async fn adjustments_are_made_in_every_shard_and_all_or_none_in_one() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other] = apart();
    let near = together();
    let add = |skus: [&String; 2], mode: &str| {
        let adjustments: Vec<Value> =
            skus.iter().map(|sku| json!({ "sku": sku, "delta": 3, "create": true })).collect();
        json!({ "mode": mode, "adjustments": adjustments })
    };
    let path = "/api/inventory/adjust";
    let before = Snapshot::take(&mut redis.connection().await).await;
    let answer = server.post_with(path, add([&one, &other], "all"), Some("key")).await;
    answer.problem(409, "across_shards");
    assert_eq!(before.changed(&Snapshot::take(&mut redis.connection().await).await), [""; 0]);
    let first = server.post_with(path, add([&one, &other], "each"), Some("key")).await.ok();
    let again = server.post_with(path, add([&one, &other], "each"), Some("key")).await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(), first);
    server.post(path, add([&near[0], &near[1]], "all")).await.ok();
    let available = server.counts(&near[1]).await[0];
    assert!(available == 3 || available == 6);
    balance(&redis).await;
}

#[tokio::test]
async fn a_cart_is_held_and_settled_over_its_shards() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other, third] = apart();
    for sku in [&one, &other, &third] {
        server.seed(sku, 5).await;
    }
    // Not in the order of the shards: the answer has the order of the request.
    let items = [(&third, 1), (&one, 2), (&other, 3)];
    let first = hold(&server, "c", &items, Some("key")).await;
    assert!(!is_replay(&first));
    let first = first.ok();
    let skus: Vec<_> = first["reservations"].as_array().unwrap().iter().map(|record| &record["sku"]).collect();
    assert_eq!(skus, [&third, &one, &other]);
    let earliest = first["reservations"].as_array().unwrap().iter().map(|record| record["expiresAt"].as_str().unwrap());
    assert_eq!(first["expiresAt"], earliest.min().unwrap());
    let again = hold(&server, "c", &[items[1], items[0], items[2]], Some("key")).await;
    assert!(is_replay(&again));
    let (mut expected, mut found) = (ids(&first), ids(&again.ok()));
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(server.counts(&other).await, [2, 3, 0]);

    server.post("/api/carts/c/extend", json!({ "ttlSeconds": 900 })).await.ok();
    let sold = server.post_with("/api/carts/c/confirm", None, Some("pay")).await;
    assert!(!is_replay(&sold));
    assert_eq!(ids(&sold.ok()).len(), 3);
    // What is held since is not sold by a retry.
    hold(&server, "c", &[(&one, 1), (&other, 1)], Some("more")).await.ok();
    let again = server.post_with("/api/carts/c/confirm", None, Some("pay")).await;
    assert!(is_replay(&again));
    assert_eq!(ids(&again.ok()).len(), 3);
    assert_eq!(server.counts(&one).await, [2, 1, 2]);
    let back = server.post("/api/carts/c/release", None).await.ok();
    assert_eq!(ids(&back).len(), 2);
    assert_eq!(server.counts(&one).await, [3, 0, 2]);
    server.post("/api/carts/c/confirm", None).await.problem(409, "reservation_not_active");
    balance(&redis).await;
}

#[tokio::test]
async fn a_key_is_that_of_one_cart_in_all_shards() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other, third] = apart();
    for sku in [&one, &other, &third] {
        server.seed(sku, 5).await;
    }
    hold(&server, "c", &[(&one, 1), (&other, 1)], Some("key")).await.ok();
    // Fewer lines, more, others of the same shards, and of none of them.
    for items in [
        vec![(&one, 1)],
        vec![(&other, 1)],
        vec![(&one, 1), (&other, 1), (&third, 1)],
        vec![(&one, 2), (&other, 1)],
        vec![(&one, 1), (&other, 2)],
        vec![(&third, 1)],
    ] {
        hold(&server, "c", &items, Some("key")).await.problem(422, "idempotency_key_reused");
    }
    hold_for(&server, "c", &[(&one, 1), (&other, 1)], 601, Some("key")).await.problem(422, "idempotency_key_reused");
    hold(&server, "d", &[(&one, 1), (&other, 1)], Some("key")).await.ok();
    for sku in [&one, &other] {
        assert_eq!(server.counts(sku).await, [3, 2, 0]);
    }
    assert_eq!(server.counts(&third).await, [5, 0, 0]);
    balance(&redis).await;
}

/// When a shard refuses, what the others hold goes back, and a retry with the same key begins anew.
#[tokio::test]
async fn a_refused_cart_holds_nothing_and_may_be_tried_again() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other, third] = apart();
    for sku in [&one, &other] {
        server.seed(sku, 5).await;
    }
    let items = [(&one, 1), (&other, 1), (&third, 2)];
    for tried in 0..3 {
        let problem = hold(&server, "c", &items, Some("key")).await.problem(409, "insufficient_inventory");
        assert_eq!(problem["errors"], json!([{ "sku": third, "requested": 2, "available": 0, "code": "unknown_sku" }]));
        for sku in [&one, &other] {
            assert_eq!(server.counts(sku).await, [5, 0, 0], "{tried}");
        }
    }
    server.seed(&third, 2).await;
    let first = hold(&server, "c", &items, Some("key")).await;
    assert!(!is_replay(&first));
    let first = first.ok();
    let again = hold(&server, "c", &items, Some("key")).await;
    assert!(is_replay(&again));
    assert_eq!(again.ok(), first);
    assert_eq!(server.counts(&third).await, [0, 2, 0]);
    // Without a key, too.
    hold(&server, "d", &items, None).await.problem(409, "insufficient_inventory");
    assert_eq!(server.counts(&one).await, [4, 1, 0]);
    // What a client has released is not held again by a retry.
    server.release(&ids(&first)[0]).await.ok();
    let ended = hold(&server, "c", &items, Some("key")).await;
    assert!(is_replay(&ended));
    ended.problem(409, "reservation_not_active");
    assert_eq!((server.counts(&one).await, server.counts(&other).await), ([5, 0, 0], [4, 1, 0]));
    balance(&redis).await;
}

/// A damaged key in one shard is no reason to keep what the others hold.
#[tokio::test]
async fn a_shard_that_cannot_be_used_leaves_nothing_in_the_others() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other] = apart();
    server.seed(&one, 5).await;
    let mut connection = redis.connection().await;
    let keys = layout().stock(&Sku::parse(&other).unwrap());
    cmd("SET").arg(&keys.inventory).arg("no hash").exec_async(&mut connection).await.unwrap();
    hold(&server, "c", &[(&one, 1), (&other, 1)], Some("key")).await.problem(500, "internal");
    assert_eq!(server.counts(&one).await, [5, 0, 0]);
    cmd("DEL").arg(&keys.inventory).exec_async(&mut connection).await.unwrap();
    server.seed(&other, 5).await;
    hold(&server, "c", &[(&one, 1), (&other, 1)], Some("key")).await.ok();
    balance(&redis).await;
}

/// A server that dies between two shards: a retry with the same key finishes its work.
#[tokio::test]
async fn an_interrupted_hold_is_finished_by_a_retry() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other] = apart();
    for sku in [&one, &other] {
        server.seed(sku, 5).await;
    }
    let mut connection = redis.connection().await;
    let untouched = dump(&mut connection, shard_of(&other)).await;
    let items = [(&one, 1), (&other, 2)];
    let first = hold(&server, "c", &items, Some("key")).await.ok();
    bring_back(&mut connection, shard_of(&other), &untouched).await;
    assert_eq!((server.counts(&one).await, server.counts(&other).await), ([4, 1, 0], [5, 0, 0]));
    let again = hold(&server, "c", &items, Some("key")).await;
    assert!(!is_replay(&again));
    assert_eq!(ids(&again.ok()), ids(&first));
    assert_eq!((server.counts(&one).await, server.counts(&other).await), ([4, 1, 0], [3, 2, 0]));
    balance(&redis).await;
}

/// Confirms a part of a cart, as a server does that dies before the next shard.
async fn confirm_part(connection: &mut MultiplexedConnection, cart: &str, key: &str, sku: &str, id: &str) {
    let token = IdempotencyKey::parse(key).unwrap().cart_token(&CartId::parse(cart).unwrap());
    let keys = layout().stock(&Sku::parse(sku).unwrap());
    let reservation = keys.reservation(&ReservationId::parse(id).unwrap()).unwrap();
    let mut call = cmd("EVALSHA");
    call.arg(&Catalogue::embedded().get("confirm").unwrap().sha1).arg(6);
    call.arg(&keys.shard.audit).arg(&keys.shard.due).arg(&keys.shard.settings);
    call.arg(&keys.inventory).arg(&keys.active).arg(reservation).arg("all").arg(format!("{token}/2"));
    let replies: Vec<Vec<String>> = call.query_async(connection).await.unwrap();
    assert_eq!(replies[0][0], "CONFIRMED");
}

#[tokio::test]
async fn an_interrupted_confirm_is_finished_by_a_retry() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    let [one, other] = apart();
    for sku in [&one, &other] {
        server.seed(sku, 9).await;
    }
    let mut connection = redis.connection().await;
    // Of each cart, the first is sold by a server that dies then. Something is held for the cart afterwards.
    for cart in ["in-time", "late"] {
        let seconds = if cart == "late" { 1 } else { 600 };
        let held = hold_for(&server, cart, &[(&one, 1), (&other, 2)], seconds, None).await.ok();
        confirm_part(&mut connection, cart, "pay", &one, &ids(&held)[0]).await;
        sleep(Duration::from_millis(2)).await;
        hold(&server, cart, &[(&one, 1), (&other, 1)], None).await.ok();
    }
    let sold = server.post_with("/api/carts/in-time/confirm", None, Some("pay")).await;
    assert!(!is_replay(&sold));
    assert_eq!(ids(&sold.ok()).len(), 2);
    let again = server.post_with("/api/carts/in-time/confirm", None, Some("pay")).await;
    assert!(is_replay(&again));
    let counts = states(&server, "in-time").await;
    assert_eq!(
        (counts[&one].join(" "), counts[&other].join(" ")),
        ("confirmed active".into(), "confirmed active".into())
    );

    sleep(Duration::from_millis(1050)).await;
    let problem =
        server.post_with("/api/carts/late/confirm", None, Some("pay")).await.problem(409, "cart_partly_settled");
    assert_eq!(problem["reservations"][0]["sku"], json!(one));
    assert_eq!(problem["errors"][0]["sku"], json!(other));
    assert_eq!(
        (problem["errors"].as_array().unwrap().len(), problem["reservations"].as_array().unwrap().len()),
        (1, 1)
    );
    balance(&redis).await;
}

/// A cart in several shards is confirmed shard by shard: there must be time for the last.
#[tokio::test]
async fn a_cart_that_lapses_soon_is_not_begun() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other] = apart();
    for sku in [&one, &other] {
        server.seed(sku, 9).await;
    }
    hold_for(&server, "c", &[(&one, 1), (&other, 2)], 2, None).await.ok();
    let problem = server.post("/api/carts/c/confirm", None).await.problem(409, "cart_lapses_soon");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
    assert_eq!(server.counts(&one).await, [8, 1, 0]);
    server.post("/api/carts/c/extend", json!({ "ttlSeconds": 600 })).await.ok();
    server.post("/api/carts/c/confirm", None).await.ok();
    // In one shard there is nothing to wait for.
    hold_for(&server, "d", &[(&one, 1)], 2, None).await.ok();
    server.post("/api/carts/d/confirm", None).await.ok();
    balance(&redis).await;
}

/// In whichever shard that line is, and whether a sweep was faster or not: nothing is sold or extended in the others.
#[tokio::test]
async fn a_cart_with_a_line_that_has_lapsed_is_not_begun() {
    for sweep_interval in ["20", "60000"] {
        let redis = RedisServer::start();
        let server = Stockhold::start_with(&redis, &["--shards", "16", "--sweep-interval-ms", sweep_interval]);
        let skus @ [one, other] = &apart();
        for sku in skus {
            server.seed(sku, 9).await;
        }
        for (cart, lapsing, lasting) in [("low", one, other), ("high", other, one)] {
            let lapsed = ids(&hold_for(&server, cart, &[(lapsing, 1)], 1, None).await.ok());
            let kept = ids(&hold_for(&server, cart, &[(lasting, 1)], 600, None).await.ok());
            sleep(Duration::from_millis(1250)).await;
            let before = server.get(&format!("/api/reservations/{}", kept[0])).await.ok();
            for (verb, body) in [("confirm", None), ("extend", Some(json!({ "ttlSeconds": 900 })))] {
                let answer = server.post_with(&format!("/api/carts/{cart}/{verb}"), body, Some("key")).await;
                let line = json!({
                    "reservationId": lapsed[0], "sku": lapsing, "state": "released", "reason": "reservation_ttl_elapsed"
                });
                assert_eq!(answer.problem(409, "reservation_not_active")["errors"], json!([line]), "{cart} {verb}");
            }
            assert_eq!(server.get(&format!("/api/reservations/{}", kept[0])).await.ok(), before);
        }
        balance(&redis).await;
    }
}

/// Two carts that want the last units of the same SKUs: one gets all, and the other nothing.
#[tokio::test]
async fn of_two_carts_that_want_the_same_one_gets_it() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &SIXTEEN);
    let [one, other, third] = apart();
    for round in 0..20 {
        for sku in [&one, &other, &third] {
            server.seed(sku, 1).await;
        }
        let (a, b) = (format!("a-{round}"), format!("b-{round}"));
        let (up, down) = ([(&one, 1), (&other, 1), (&third, 1)], [(&third, 1), (&other, 1), (&one, 1)]);
        let (first, second) = tokio::join!(hold(&server, &a, &up, None), hold(&server, &b, &down, None));
        assert!((first.status == 200) != (second.status == 200), "{} {}", first.status, second.status);
        for sku in [&one, &other, &third] {
            assert_eq!(server.counts(sku).await, [0, 1, 0]);
        }
    }
    balance(&redis).await;
}
