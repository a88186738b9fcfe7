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

use crate::http_client::{Buyer, Requester, hold};
use crate::load::{Limit, Tally, closed_loop};
use crate::script_calls::connect;
use crate::support::redis_server::RedisServer;

pub use server::{WatchServer, run};

pub const NAME: &str = "WATCH";

/// What the server prints before its address.
const LISTENS: &str = "listens on ";

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

    pub async fn hold(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold(sku)).collect();
        closed_loop(Requester::crowd(self.address, clients, &requests).await, limit).await
    }

    pub async fn buy(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(Buyer::crowd(self.address, clients, skus).await, limit).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // One that already ended is no reason to fail.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
