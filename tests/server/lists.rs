//! Lists over HTTP: SKUs in alphabetical order, active reservations by expiry; page by page, each entry once.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::cmd;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::keys;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// No sweep within a test.
const NO_SWEEPER: [&str; 2] = ["--sweep-interval-ms", "60000"];

/// Puts SKUs on sale: `sku-0000` and so on, each with as many units as its number.
async fn fill(server: &Stockhold, count: u64) {
    for first in (0..count).step_by(100) {
        let sku = |number: u64| json!({ "sku": format!("sku-{number:04}"), "available": number, "create": true });
        let adjustments: Vec<_> = (first..count.min(first + 100)).map(sku).collect();
        server.post("/api/inventory/adjust", json!({ "adjustments": adjustments })).await.ok();
    }
}

/// A page, and what is told of the next one.
async fn page(server: &Stockhold, path: &str) -> (Vec<Value>, Option<String>) {
    let body = server.get(path).await.ok();
    let next = body.get("next").map(|next| next.as_str().unwrap().to_owned());
    assert_eq!(body["hasMore"], next.is_some(), "{path}");
    assert_eq!(body.as_object().unwrap().len(), if next.is_some() { 3 } else { 2 }, "{path}: {body}");
    (body["items"].as_array().unwrap().clone(), next)
}

/// All pages from here on: one field of each item, and how many pages there were.
async fn walk(server: &Stockhold, path: &str, field: &str) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let (items, next) = page(server, &format!("{path}{after}")).await;
        found.extend(items.iter().map(|item| item[field].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = next else { return (found, pages) };
        after = format!("&after={next}");
    }
}

#[tokio::test]
async fn skus_are_listed_in_order_and_in_pages() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    assert_eq!(page(&server, "/api/inventory").await, (vec![], None));
    fill(&server, 2300).await;
    let all: Vec<_> = (0..2300).map(|number| format!("sku-{number:04}")).collect();

    let (first, next) = page(&server, "/api/inventory").await;
    assert_eq!((first.len(), next.as_deref()), (50, Some("sku-0049")));
    let fields: Vec<_> = first[7].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["sku", "available", "reserved", "confirmed", "updatedAt", "version"]);
    let stock = server.stock("sku-0007").await;
    for field in fields {
        assert_eq!(first[7][field], stock[field], "{field}");
    }
    for (limit, pages) in [(1000, 3), (100, 23), (150, 16), (2300 / 4, 4)] {
        let walked = walk(&server, &format!("/api/inventory?limit={limit}"), "sku").await;
        assert_eq!(walked, (all.clone(), pages), "{limit} in a page");
    }
    let (last, next) = page(&server, "/api/inventory?after=sku-2298&limit=1").await;
    assert_eq!((last[0]["sku"].as_str(), next), (Some("sku-2299"), None), "nothing follows the last one");
    assert_eq!(page(&server, "/api/inventory?after=sku-2299").await, (vec![], None));
    assert_eq!(page(&server, "/api/inventory?after=sku-0&limit=1").await.0[0]["sku"], "sku-0000", "between two SKUs");
}

#[tokio::test]
async fn skus_that_run_out_are_found_with_bounded_work() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    fill(&server, 2300).await;
    server.post("/api/inventory/sku-2100/adjust", json!({ "available": 3 })).await.ok();
    server.held("sku-0008", 4).await;

    let low: Vec<_> = ["sku-0000", "sku-0001", "sku-0002", "sku-0003", "sku-0004", "sku-0008", "sku-2100"].into();
    let (found, pages) = walk(&server, "/api/inventory?availableBelow=5", "sku").await;
    assert_eq!(
        (found, pages),
        (low.iter().map(|sku| (*sku).to_owned()).collect(), 3),
        "1,000 SKUs are looked at for a page"
    );
    let (none, next) = page(&server, "/api/inventory?availableBelow=5&after=sku-0008").await;
    assert_eq!((none, next.as_deref()), (vec![], Some("sku-1008")), "none is found yet, and more follow");
    let (found, _) = walk(&server, "/api/inventory?availableBelow=5&limit=2", "sku").await;
    assert_eq!(found, low);
}

/// What `check` has to report does not keep the other SKUs from being listed.
#[tokio::test]
async fn damaged_skus_are_left_out() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    fill(&server, 5).await;
    let mut connection = redis.connection().await;
    let plant = async |connection: &mut redis::aio::MultiplexedConnection, words: &[&[u8]]| {
        cmd(std::str::from_utf8(words[0]).unwrap()).arg(&words[1..]).exec_async(connection).await.unwrap();
    };
    let inventory = |sku: &str| keys::inventory(sku).into_bytes();
    plant(&mut connection, &[b"HSET", &inventory("sku-0001"), b"available", b"many"]).await;
    plant(&mut connection, &[b"DEL", &inventory("sku-0002")]).await;
    plant(&mut connection, &[b"SET", &inventory("sku-0003"), b"text"]).await;
    let list = keys::skus_of("sku-0000").as_bytes();
    for name in [b"a:b".as_slice(), b"", b"sku-0000\xff", b"zz {", b"\xff\xfe"] {
        plant(&mut connection, &[b"ZADD", list, b"0", name]).await;
    }
    for limit in [1, 2, 3, 100] {
        let (found, _) = walk(&server, &format!("/api/inventory?limit={limit}"), "sku").await;
        assert_eq!(found, ["sku-0000", "sku-0004"], "{limit} in a page");
    }
    for shard in keys::shards() {
        cmd("DEL").arg(&shard.skus).exec_async(&mut connection).await.unwrap();
    }
    for name in 0..3000 {
        plant(&mut connection, &[b"ZADD", list, b"0", format!("no:{name}").as_bytes()]).await;
    }
    assert_eq!(page(&server, "/api/inventory").await, (vec![], None));
}

#[tokio::test]
async fn active_reservations_are_listed_by_expiry_and_in_pages() {
    const HOLDS: usize = 420;
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    assert_eq!(page(&server, "/api/reservations?sku=tea").await, (vec![], None), "it was never seeded");
    server.seed("tea", 10_000).await;
    assert_eq!(page(&server, "/api/reservations?sku=tea").await, (vec![], None));
    // Many lapse in the same millisecond: those that one call made.
    let mut connection = redis.connection().await;
    let sha1: String = cmd("HGET").arg("stockhold:scripts").arg("hold").query_async(&mut connection).await.unwrap();
    for _ in 0..HOLDS / 70 {
        let mut call = cmd("EVALSHA");
        call.arg(&sha1).arg(2 + 3 * 70).arg(keys::audit_of("tea")).arg(keys::due_of("tea"));
        for _ in 0..70 {
            call.arg(keys::inventory("tea")).arg(keys::active("tea")).arg(keys::reservation(keys::new_id("tea")));
        }
        call.arg("each");
        for _ in 0..70 {
            call.arg("c").arg(1).arg(600_000);
        }
        call.exec_async(&mut connection).await.unwrap();
    }
    let listed: Vec<String> =
        cmd("ZRANGE").arg(keys::active("tea")).arg(0).arg(-1).query_async(&mut connection).await.unwrap();
    assert_eq!(listed.len(), HOLDS);
    for (limit, pages) in [(1000, 1), (420, 1), (100, 5), (33, 13), (1, 420)] {
        let walked = walk(&server, &format!("/api/reservations?sku=tea&limit={limit}"), "reservationId").await;
        assert_eq!(walked, (listed.clone(), pages), "{limit} in a page");
    }
    let (first, next) = page(&server, "/api/reservations?sku=tea&state=active&limit=2").await;
    assert_eq!(first[0], server.get(&format!("/api/reservations/{}", listed[0])).await.ok());

    // The one that the next page follows, and the one that it begins with, are settled; another is extended.
    server.confirm(&listed[1]).await.ok();
    server.release(&listed[2]).await.ok();
    let extend = format!("/api/reservations/{}/extend", listed[3]);
    server.post(&extend, json!({ "ttlSeconds": 1200 })).await.ok();
    let path = format!("/api/reservations?sku=tea&limit=100&after={}", next.unwrap());
    let (found, after) = page(&server, &path).await;
    assert_eq!((found[0]["reservationId"].as_str(), found.len()), (Some(&*listed[4]), 100));
    let rest = format!("/api/reservations?sku=tea&limit=400&after={}", after.unwrap());
    let (rest, next) = page(&server, &rest).await;
    assert_eq!(
        (rest.last().unwrap()["reservationId"].as_str(), next),
        (Some(&*listed[3]), None),
        "it lapses later now"
    );
    let found: BTreeSet<_> =
        found.iter().chain(&rest).map(|record| record["reservationId"].as_str().unwrap()).collect();
    assert_eq!(found, listed[3..].iter().map(String::as_str).collect());
}

#[tokio::test]
async fn what_lapsed_and_what_is_damaged_is_not_listed() {
    let redis = RedisServer::start();
    let server = Stockhold::start_with(&redis, &NO_SWEEPER);
    server.seed("tea", 10).await;
    let mut connection = redis.connection().await;
    let lapsing = server.held_for("tea", 1, 1).await;
    let ids = [server.held("tea", 1).await, server.held("tea", 2).await, server.held("tea", 3).await];
    sleep(Duration::from_millis(1100)).await;
    cmd("DEL").arg(keys::reservation(&ids[0])).exec_async(&mut connection).await.unwrap();
    cmd("HDEL").arg(keys::reservation(&ids[1])).arg("cartId").exec_async(&mut connection).await.unwrap();
    cmd("ZADD").arg(keys::active("tea")).arg("9999999999999").arg("no id").exec_async(&mut connection).await.unwrap();
    for limit in [1, 50] {
        let (found, _) = walk(&server, &format!("/api/reservations?sku=tea&limit={limit}"), "reservationId").await;
        assert_eq!(found, ids[2..]);
    }
    let active: Vec<String> =
        cmd("ZRANGE").arg(keys::active("tea")).arg(0).arg(0).query_async(&mut connection).await.unwrap();
    assert_eq!(active, [lapsing], "a list sweeps nothing");
}
