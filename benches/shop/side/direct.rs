//! A service that calls the `hold` script itself: `EVALSHA` pipelined on one connection, no HTTP.

use std::sync::Arc;

use stockhold::keys::{ReservationId, StockKeys};

use crate::load::{Caller, Limit, Tally, Verdict, closed_loop};
use crate::script_calls::{AMPLE, Item, Scripts, TTL_MS, held, keys};
use crate::support::redis_server::RedisServer;

pub const NAME: &str = "EVALSHA";

pub struct Direct {
    scripts: Scripts,
    skus: Arc<[StockKeys]>,
}

impl Direct {
    /// With ample stock of one SKU.
    pub async fn start(redis: &RedisServer) -> Self {
        Self::of(redis, [keys(super::HOT)].into()).await
    }

    /// With ample stock of this number of SKUs.
    pub async fn of_many(redis: &RedisServer, skus: usize) -> Self {
        Self::of(redis, (1..=skus).map(|number| keys(&format!("sku-{number}"))).collect()).await
    }

    async fn of(redis: &RedisServer, skus: Arc<[StockKeys]>) -> Self {
        let mut scripts = Scripts::load(redis).await;
        scripts.seed(&skus, AMPLE).await;
        Self { scripts, skus }
    }

    /// `in_flight` calls at a time, of `items` items each. The items of a call are of different SKUs, if there are any.
    pub async fn hold(&self, in_flight: usize, items: usize, limit: Limit) -> Tally {
        let skus = self.skus.len();
        let service = |first| Service { scripts: self.scripts.clone(), skus: Arc::clone(&self.skus), items, first };
        closed_loop((0..in_flight).map(|number| service(number * skus / in_flight)).collect(), limit).await
    }
}

struct Service {
    scripts: Scripts,
    skus: Arc<[StockKeys]>,
    items: usize,
    /// The place of the SKU that the next call begins with.
    first: usize,
}

impl Caller for Service {
    async fn call(&mut self) -> Verdict {
        let skus = (self.first..).map(|place| &self.skus[place % self.skus.len()]);
        let items: Vec<Item> = skus.take(self.items).map(|stock| Item { stock, id: ReservationId::mint(0) }).collect();
        self.first += self.items;
        let call = self.scripts.hold(&items, TTL_MS);
        match self.scripts.connection.send_packed_command(&call).await {
            Ok(reply) if held(&reply) == self.items => Verdict::Accepted(self.items as u64),
            Ok(_) => Verdict::SoldOut,
            Err(_) => Verdict::Failed,
        }
    }
}
