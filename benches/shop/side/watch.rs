//! The way of the well-known tutorial: `WATCH`, read, check, `MULTI`, write, `EXEC`, and again if somebody was faster.
//!
//! It stands behind the same HTTP server, in a process of its own, and gives the same JSON, so that only the algorithm
//! differs.

mod server;
mod store;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use redis::pipe;

use crate::http_client::{Buyer, Held, Id, Requester, Settler, hold};
use crate::load::{Limit, Tally, closed_loop};
use crate::script_calls::{CART, TTL_MS, connect};
use crate::support::redis_server::RedisServer;

pub use server::{WatchServer, run};
use store::{Record, now_ms, write_hold};

pub const NAME: &str = "WATCH";

/// What the server prints before its address.
const LISTENS: &str = "listens on ";

/// Holds that are sent in one go while data is made.
const HOLDS_IN_FLIGHT: usize = 1000;

pub struct Watch {
    process: Child,
    address: SocketAddr,
}

impl Watch {
    /// For so many clients.
    pub fn start(redis: &RedisServer, clients: usize) -> Self {
        let this_program = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(this_program)
            .args(["watch-server", "--redis-url", &redis.url(), "--connections", &clients.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let line = lines.next().expect("the server starts").expect("it prints text");
        let address = line.strip_prefix(LISTENS).expect("it tells its address").parse().expect("an address");
        Self { process, address }
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

    /// So many holds of a unit, of each SKU in turn, while nobody else is at it.
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
                let record = Record::new(CART, &skus[number], 1, now_ms(), TTL_MS);
                let [available, reserved, _] = &mut stocks[number];
                (*available, *reserved) = (*available - 1, *reserved + 1);
                write_hold(&mut writes, &record, stocks[number]);
                ids.push(record.id.as_bytes().try_into().expect("a UUID as text"));
            }
            writes.exec_async(&mut connection).await.expect("the holds are made");
        }
        ids
    }

    pub async fn hold(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold(sku)).collect();
        closed_loop(Requester::crowd(self.address, clients, &requests).await, limit).await
    }

    pub async fn buy(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(Buyer::crowd(self.address, clients, skus).await, limit).await
    }

    pub async fn confirm(&self, clients: usize, held: &Held, limit: Limit) -> Tally {
        closed_loop(Settler::crowd(self.address, clients, held).await, limit).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // One that already ended is no reason to fail.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
