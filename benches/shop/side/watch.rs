//! The way of the well-known tutorial: `WATCH`, read, check, `MULTI`, write, `EXEC`, and again if somebody was faster.

mod store;

use std::sync::Arc;

use clap::Args;
use redis::{cmd, pipe};

use super::served::{Record, Served, serve};
use crate::http_client::Id;
use crate::script_calls::{CART, TTL_MS, connect};
use crate::support::redis_server::RedisServer;
use store::{Store, write_hold};

pub const NAME: &str = "WATCH";

/// Holds that are sent in one go while data is made.
const HOLDS_IN_FLIGHT: usize = 1000;

/// The options of the process that serves.
#[derive(Debug, Args)]
pub struct WatchServer {
    #[arg(long)]
    redis_url: String,
    /// Connections to Redis: as many as there will be clients, so that none waits for one.
    #[arg(long)]
    connections: usize,
}

/// Serves until the process is killed.
pub fn run(options: &WatchServer) {
    serve(async {
        let store = Arc::new(Store::open(&options.redis_url, options.connections).await);
        move || Arc::clone(&store)
    });
}

/// For this number of clients.
pub fn start(redis: &RedisServer, clients: usize) -> Served {
    Served::start(&["watch-server", "--redis-url", &redis.url(), "--connections", &clients.to_string()])
}

/// Units of each SKU.
pub async fn stock(redis: &RedisServer, skus: &[String], quantity: u64) {
    let mut stock = pipe();
    for sku in skus {
        let counts = [("sku", &**sku), ("available", &quantity.to_string()), ("reserved", "0"), ("confirmed", "0")];
        stock.hset_multiple(format!("inventory:{sku}"), &counts).ignore();
    }
    stock.exec_async(&mut connect(&redis.url()).await).await.expect("the SKUs are stocked");
}

/// How many transactions were carried out since Redis was started, and how many were aborted because something that they
/// watched had changed.
pub async fn transactions(redis: &RedisServer, events_each: u64) -> [u64; 2] {
    let stats = cmd("INFO").arg("commandstats").query_async::<String>(&mut redis.connection().await).await;
    let stats = stats.expect("Redis answers INFO");
    let calls = |command: &str| {
        let rest = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(":calls="));
        rest.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let done = calls("xadd") / events_each;
    [done, calls("exec") - done]
}

/// Makes this number of holds of a unit, of each SKU in turn, without other clients.
pub async fn fill(redis: &RedisServer, skus: &[String], holds: usize) -> Vec<Id> {
    let mut connection = connect(&redis.url()).await;
    let mut read = pipe();
    for sku in skus {
        read.cmd("HMGET").arg(format!("inventory:{sku}")).arg(&["available", "reserved", "confirmed"]);
    }
    let mut stocks: Vec<[u64; 3]> = read.query_async(&mut connection).await.expect("the SKUs are stocked");
    let mut ids = Vec::with_capacity(holds);
    while ids.len() < holds {
        let mut writes = pipe();
        for _ in ids.len()..holds.min(ids.len() + HOLDS_IN_FLIGHT) {
            let number = ids.len() % skus.len();
            let record = Record::new(CART, &skus[number], 1, TTL_MS);
            let [available, reserved, _] = &mut stocks[number];
            (*available, *reserved) = (*available - 1, *reserved + 1);
            write_hold(&mut writes, &record, stocks[number]);
            ids.push(record.id.as_bytes().try_into().expect("a UUID as text"));
        }
        writes.exec_async(&mut connection).await.expect("the holds are made");
    }
    ids
}
