//! Another way to hold stock, behind the same HTTP server, in a process of its own, and with the same JSON: only the
//! algorithm differs.

mod http;
mod store;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::http_client::{Buyer, CartHolder, Held, Requester, Settler, hold};
use crate::load::{Limit, Tally, closed_loop};

pub use http::serve;
pub use store::{Outcome, Record, Store, now_ms};

/// What the server prints before its address.
const LISTENS: &str = "listens on ";

/// A process that serves; killed on drop.
pub struct Served {
    process: Child,
    address: SocketAddr,
}

impl Served {
    /// Starts this program with a command that serves.
    pub fn start(arguments: &[&str]) -> Self {
        let this_program = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(this_program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let line = lines.next().expect("the server starts").expect("it prints text");
        let address = line.strip_prefix(LISTENS).expect("it tells its address").parse().expect("an address");
        Self { process, address }
    }

    pub async fn hold(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold(sku)).collect();
        closed_loop(Requester::crowd(self.address, clients, &requests).await, limit).await
    }

    pub async fn buy(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(Buyer::crowd(self.address, clients, skus).await, limit).await
    }

    /// Each cart holds a unit of five SKUs.
    pub async fn hold_carts(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(CartHolder::crowd(self.address, clients, skus).await, limit).await
    }

    pub async fn confirm(&self, clients: usize, held: &Held, limit: Limit) -> Tally {
        closed_loop(Settler::crowd(self.address, clients, held).await, limit).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that already ended is no reason to fail.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
