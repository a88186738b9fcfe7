//! This project: `stockhold serve` as it is delivered, in a process of its own, on a Redis of its own.

use crate::http_client::{Buyer, Requester, get, hold, hold_for};
use crate::load::{Limit, Tally, closed_loop};
use crate::script_calls::{AMPLE, Scripts, keys};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

pub const NAME: &str = "stockhold";

pub struct Ours(Stockhold);

impl Ours {
    pub fn start(redis: &RedisServer, options: &[&str]) -> Self {
        Self(Stockhold::start_with(redis, options))
    }

    /// Ample stock of each SKU.
    pub async fn stock(redis: &RedisServer, skus: &[String]) {
        let skus: Vec<_> = skus.iter().map(|sku| keys(sku)).collect();
        Scripts::load(redis).await.seed(&skus, AMPLE).await;
    }

    pub async fn seed(&self, sku: &str, quantity: u64) {
        self.0.seed(sku, quantity).await;
    }

    pub async fn hold(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold(sku)).collect();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }

    /// Each hold lasts for so many seconds.
    pub async fn hold_for(&self, seconds: u64, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold_for(sku, seconds)).collect();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }

    pub async fn buy(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(Buyer::crowd(self.0.address, clients, skus).await, limit).await
    }

    pub async fn get(&self, clients: usize, target: &str, limit: Limit) -> Tally {
        let requests = [get(target)].into();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }
}
