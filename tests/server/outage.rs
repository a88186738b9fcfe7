//! Redis flushed, restarted, frozen or gone: correct answers meanwhile, and recovery without a restart of the server.

use std::time::{Duration, Instant};

use redis::cmd;
use serde_json::json;
use tokio::time::sleep;

use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

/// A Redis whose data survives a kill.
fn durable() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

#[tokio::test]
async fn a_flushed_script_cache_is_not_noticed() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    let mut flush = async || cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();

    flush().await;
    server.seed("sku", 5).await;
    flush().await;
    let id = server.held("sku", 2).await;
    flush().await;
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
    flush().await;
    server.get(&format!("/api/reservations/{id}")).await.ok();
    flush().await;
    server.confirm(&id).await.ok();
    let other = server.held("sku", 1).await;
    flush().await;
    server.release(&other).await.ok();
    flush().await;
    assert_eq!(server.events("sku", 10).await.len(), 5);
    flush().await;
    server.get("/readyz").await.ok();
}

/// Flushes during many requests: after each flush the scripts are loaded once, and no request is done twice.
#[tokio::test]
async fn flushes_under_load_lose_nothing() {
    let redis = RedisServer::start();
    let server = std::sync::Arc::new(Stockhold::start(&redis));
    server.seed("sku", 400).await;
    let mut connection = redis.connection().await;
    let flushes = tokio::spawn(async move {
        for _ in 0..200 {
            cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    });
    let mut buyers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let server = std::sync::Arc::clone(&server);
        buyers.spawn(async move {
            let mut held = 0;
            for _ in 0..25 {
                let body = json!({ "cartId": "c", "sku": "sku", "quantity": 1 });
                let answer = server.post("/api/reservations/hold", body).await;
                // A flush may also come between the load and the second call.
                if answer.status == 200 {
                    held += 1;
                } else {
                    assert_eq!(answer.problem(503, "unavailable")["outcome"], "none");
                }
            }
            held
        });
    }
    let held: u64 = buyers.join_all().await.into_iter().sum();
    flushes.await.unwrap();
    assert_eq!(server.counts("sku").await, [400 - held, held, 0]);
}

#[tokio::test]
async fn a_restart_of_redis_is_a_503_at_most() {
    let mut redis = durable();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let id = server.held("sku", 2).await;

    redis.kill();
    for _ in 0..3 {
        let body = json!({ "cartId": "c", "sku": "sku", "quantity": 1 });
        let answer = server.post("/api/reservations/hold", body).await;
        assert_eq!(answer.headers["retry-after"], "1");
        answer.problem(503, "unavailable");
    }
    server.get("/readyz").await.problem(503, "unavailable");
    server.get("/livez").await.ok();
    redis.restart();

    // No waiting: the very next request finds the new Redis, without scripts, and with the old stock.
    server.confirm(&id).await.ok();
    server.get("/readyz").await.ok();
    assert_eq!(server.counts("sku").await, [3, 0, 2]);
}

/// There is not even a 503 when no request arrives while Redis is down.
#[tokio::test]
async fn a_restart_between_two_requests_is_not_noticed() {
    let mut redis = durable();
    let server = Stockhold::start(&redis);
    server.seed("sku", 50).await;
    for held in 1..=5 {
        redis.restart();
        server.held("sku", 1).await;
        assert_eq!(server.counts("sku").await, [50 - held, held, 0]);
    }
}

#[tokio::test]
async fn a_frozen_redis_makes_the_outcome_unknown_and_the_key_settles_it() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let body = json!({ "cartId": "c", "sku": "sku", "quantity": 2 });

    redis.stop_process();
    let asked = Instant::now();
    let answer = server.post_with("/api/reservations/hold", body.clone(), Some("order-1")).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "the call is bounded");
    let problem = answer.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "unknown");
    // A read changes nothing, so its outcome is certain.
    let problem = server.get("/api/inventory/sku").await.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "none");
    redis.continue_process();

    server.wait_until_ready().await;
    // Redis carried out the hold when it continued. It was held once, however often it is requested.
    server.post_with("/api/reservations/hold", body, Some("order-1")).await.ok();
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
}

/// The connection breaks between request and reply: the outcome is unknown, and the answer says so.
#[tokio::test]
async fn a_redis_that_dies_before_it_answers_makes_the_outcome_unknown() {
    let mut redis = durable();
    let server = std::sync::Arc::new(Stockhold::start(&redis));
    server.seed("sku", 5).await;
    redis.stop_process();
    let asking = tokio::spawn({
        let server = std::sync::Arc::clone(&server);
        async move { server.post("/api/inventory/seed", json!({ "sku": "sku", "quantity": 7 })).await }
    });
    let reading = tokio::spawn({
        let server = std::sync::Arc::clone(&server);
        async move { server.get("/api/inventory/sku").await }
    });
    sleep(Duration::from_millis(200)).await;
    redis.kill();
    // The seed reads before it writes. It did not reach the first write, so its outcome is certain.
    for answer in [asking.await.unwrap(), reading.await.unwrap()] {
        assert_eq!(answer.problem(503, "unavailable")["outcome"], "none");
    }
    redis.restart();
    assert_eq!(server.counts("sku").await, [5, 0, 0]);
    // The connection for sales has recovered, too.
    server.wait_until_ready().await;

    redis.stop_process();
    let body = json!({ "cartId": "c", "sku": "sku", "quantity": 2 });
    let asking = tokio::spawn({
        let (server, body) = (std::sync::Arc::clone(&server), body.clone());
        async move { server.post_with("/api/reservations/hold", body, Some("order-1")).await }
    });
    sleep(Duration::from_millis(200)).await;
    redis.kill();
    assert_eq!(asking.await.unwrap().problem(503, "unavailable")["outcome"], "unknown");
    redis.restart();
    server.post_with("/api/reservations/hold", body, Some("order-1")).await.ok();
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
}

/// Wrong credentials stay wrong: the server says so and ends.
#[tokio::test]
async fn wrong_credentials_are_reported() {
    let right = ["--requirepass", "right"];
    for redis in [RedisServer::start_single(&right), RedisServer::start_cluster(&right)] {
        let url = redis.url_as("", "wrong");
        let output = program(&["--port", "0", "--redis-url", &url, "--shards", "16"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("WRONGPASS") && !said.contains("wrong@"), "{said}");
    }
}

#[tokio::test]
async fn readiness_follows_the_settings_of_redis() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    server.get("/readyz").await.ok();

    let mut set = async |name: &str, value: &str| {
        cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut connection).await.unwrap();
    };
    set("maxmemory-policy", "allkeys-lru").await;
    server.get("/readyz").await.problem(503, "unavailable");
    set("maxmemory-policy", "noeviction").await;
    server.get("/readyz").await.ok();
}

#[tokio::test]
async fn readiness_follows_the_role_of_redis() {
    // A node of a cluster refuses to be made a replica in this way.
    let redis = RedisServer::start_single(&[]);
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    let replicate = async |connection: &mut redis::aio::MultiplexedConnection, host: &str, port: &str| {
        cmd("REPLICAOF").arg(host).arg(port).exec_async(connection).await.unwrap();
    };
    replicate(&mut connection, "127.0.0.1", "1").await;
    server.get("/readyz").await.problem(503, "unavailable");
    let body = json!({ "sku": "sku", "quantity": 5 });
    let problem = server.post("/api/inventory/seed", body).await.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "none");
    replicate(&mut connection, "NO", "ONE").await;
    server.wait_until_ready().await;
    server.seed("sku", 5).await;
}

/// When memory is full, no new hold is made, and existing holds are settled.
#[tokio::test]
async fn full_memory_refuses_holds_and_allows_settling() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let (one, other) = (server.held("sku", 1).await, server.held("sku", 1).await);
    let mut connection = redis.connection().await;
    cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").exec_async(&mut connection).await.unwrap();

    let body = json!({ "cartId": "c", "sku": "sku", "quantity": 1 });
    let problem = server.post("/api/reservations/hold", body).await.problem(503, "unavailable");
    assert_eq!(problem["outcome"], "none");
    server.confirm(&one).await.ok();
    server.release(&other).await.ok();
    assert_eq!(server.counts("sku").await, [4, 0, 1]);
}

/// Data that no script wrote is not served as if it were valid. The client does not see Redis's own words.
#[tokio::test]
async fn damage_is_an_error_not_an_answer() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    let mut connection = redis.connection().await;
    cmd("HSET").arg(keys::inventory("sku")).arg("available").arg("6").exec_async(&mut connection).await.unwrap();
    let problem = server.get("/api/inventory/sku").await.problem(500, "internal");
    assert!(!problem.to_string().contains("BADKEY"), "{problem}");
    cmd("SET").arg(keys::inventory("text")).arg("6").exec_async(&mut connection).await.unwrap();
    server.get("/api/inventory/text").await.problem(500, "internal");
    server.get("/livez").await.ok();
}

/// A value that is not text stays so: a client that waits and retries would do so forever. It does not affect other
/// requests.
#[tokio::test]
async fn a_value_that_is_not_text_is_a_permanent_error() {
    const NO_TEXT: &[u8] = b"c\xff";
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("sku", 5).await;
    server.seed("other", 5).await;
    let id = server.held("sku", 2).await;
    let mut connection = redis.connection().await;
    let mut set = async |words: &[&[u8]]| {
        cmd(str::from_utf8(words[0]).unwrap()).arg(&words[1..]).exec_async(&mut connection).await.unwrap();
    };
    let [record, inventory] = [keys::reservation(&id), keys::inventory("sku")];
    set(&[b"HSET", record.as_bytes(), b"cartId", NO_TEXT]).await;
    set(&[b"XADD", keys::audit_of("sku").as_bytes(), b"*", b"event", b"hold", b"sku", b"sku", b"cartId", NO_TEXT])
        .await;
    let internal = |answer: crate::support::stockhold::Answer| {
        assert!(!answer.headers.contains_key("retry-after"), "{answer:?}");
        answer.problem(500, "internal");
    };
    internal(server.get(&format!("/api/reservations/{id}")).await);
    internal(server.confirm(&id).await);
    internal(server.release(&id).await);
    internal(server.get("/api/audit").await);

    // The events of the SKUs are those that the scripts linked.
    assert_eq!(server.events("sku", 10).await.len(), 2);
    let held = server.held("other", 1).await;
    server.confirm(&held).await.ok();
    assert_eq!(server.events("other", 10).await.len(), 3);
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
    server.get("/readyz").await.ok();

    set(&[b"HSET", inventory.as_bytes(), b"updatedAt", NO_TEXT]).await;
    internal(server.get("/api/inventory/sku").await);
    set(&[b"HSET", inventory.as_bytes(), b"lastEvent", NO_TEXT]).await;
    internal(server.get("/api/audit?sku=sku").await);
    assert_eq!(server.counts("other").await, [4, 0, 1]);
}

/// A SKU that cannot be swept does not stop the sweeping of others.
#[tokio::test]
async fn damage_of_one_sku_does_not_stop_the_sweeper() {
    let [sku, damaged] = keys::in_one_shard(["sku", "damaged"]);
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "20", "--log", "off"]);
    let mut connection = redis.connection().await;
    // More than one page of the due list, and all of them before the sound SKU.
    for stuck in 0..150 {
        for member in [format!("no sku {stuck}"), format!("never-seeded-{stuck}")] {
            cmd("ZADD").arg(keys::due_of(sku)).arg(1).arg(member).exec_async(&mut connection).await.unwrap();
        }
    }
    server.seed(damaged, 5).await;
    cmd("HSET").arg(keys::inventory(damaged)).arg("reserved").arg("1").exec_async(&mut connection).await.unwrap();
    cmd("ZADD").arg(keys::due_of(damaged)).arg(3).arg(damaged).exec_async(&mut connection).await.unwrap();
    server.seed(sku, 5).await;
    let id = server.held_for(sku, 2, 1).await;
    let held = Instant::now();
    loop {
        let state: String =
            cmd("HGET").arg(keys::reservation(&id)).arg("state").query_async(&mut connection).await.unwrap();
        if state == "released" {
            break;
        }
        assert!(held.elapsed() < Duration::from_secs(20), "never released");
        sleep(Duration::from_millis(20)).await;
    }
}
