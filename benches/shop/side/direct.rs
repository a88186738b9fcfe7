//! A service that calls the `hold` script itself: `EVALSHA` pipelined on one connection, no HTTP.

use stockhold::keys::{ReservationId, StockKeys};

use crate::load::{Caller, Limit, Tally, Verdict, closed_loop};
use crate::script_calls::{AMPLE, Item, Scripts, TTL_MS, held, keys};
use crate::support::redis_server::RedisServer;

pub const NAME: &str = "EVALSHA";

pub struct Direct {
    scripts: Scripts,
    sku: StockKeys,
}

impl Direct {
    /// With ample stock of one SKU.
    pub async fn start(redis: &RedisServer) -> Self {
        let mut scripts = Scripts::load(redis).await;
        let sku = keys(super::HOT);
        scripts.seed(std::slice::from_ref(&sku), AMPLE).await;
        Self { scripts, sku }
    }

    /// So many calls in flight, of so many items each.
    pub async fn hold(&self, in_flight: usize, items: usize, limit: Limit) -> Tally {
        let service = || Service { scripts: self.scripts.clone(), sku: self.sku.clone(), items };
        closed_loop((0..in_flight).map(|_| service()).collect(), limit).await
    }
}

struct Service {
    scripts: Scripts,
    sku: StockKeys,
    items: usize,
}

impl Caller for Service {
    async fn call(&mut self) -> Verdict {
        let items: Vec<Item> = (0..self.items).map(|_| Item { stock: &self.sku, id: ReservationId::mint(0) }).collect();
        let call = self.scripts.hold(&items, TTL_MS);
        match self.scripts.connection.send_packed_command(&call).await {
            Ok(reply) if held(&reply) == self.items => Verdict::Accepted(self.items as u64),
            Ok(_) => Verdict::SoldOut,
            Err(_) => Verdict::Failed,
        }
    }
}
