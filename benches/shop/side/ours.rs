//! This project: `stockhold serve` as it is delivered, in a process of its own, on a Redis of its own.

use crate::http_client::{Buyer, CartHolder, Held, Id, Requester, Settler, adjust, get, hold, hold_for};
use crate::load::{Limit, Tally, closed_loop};
use crate::script_calls::{AMPLE, Scripts, TTL_MS, keys};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

pub const NAME: &str = "stockhold";

pub struct Ours(Stockhold);

impl Ours {
    pub fn start(redis: &RedisServer, options: &[&str]) -> Self {
        Self(Stockhold::start_with(redis, options))
    }

    /// On the Redis of a URL.
    pub fn at(url: &str, options: &[&str]) -> Self {
        Self(Stockhold::spawn(&[&["--port", "0", "--redis-url", url], options].concat()))
    }

    /// Ample stock of each SKU.
    pub async fn stock(redis: &RedisServer, skus: &[String]) {
        let skus: Vec<_> = skus.iter().map(|sku| keys(sku)).collect();
        Scripts::load(redis).await.seed(&skus, AMPLE).await;
    }

    /// Makes this number of holds of a unit, of each SKU in turn.
    pub async fn fill(redis: &RedisServer, skus: &[String], holds: usize) -> Vec<Id> {
        let skus: Vec<_> = skus.iter().map(|sku| keys(sku)).collect();
        let named: Vec<_> = skus.iter().cycle().take(holds).collect();
        let ids = Scripts::load(redis).await.fill(&named, TTL_MS).await;
        ids.iter().map(|id| id.to_string().as_bytes().try_into().expect("a UUID as text")).collect()
    }

    pub async fn seed(&self, sku: &str, quantity: u64) {
        self.0.seed(sku, quantity).await;
    }

    pub async fn hold(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold(sku)).collect();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }

    /// Each hold lasts for this number of seconds.
    pub async fn hold_for(&self, seconds: u64, clients: usize, skus: &[String], limit: Limit) -> Tally {
        let requests = skus.iter().map(|sku| hold_for(sku, seconds)).collect();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }

    pub async fn buy(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(Buyer::crowd(self.0.address, clients, skus).await, limit).await
    }

    /// Each cart holds a unit of five SKUs.
    pub async fn hold_carts(&self, clients: usize, skus: &[String], limit: Limit) -> Tally {
        closed_loop(CartHolder::crowd(self.0.address, clients, skus).await, limit).await
    }

    /// One client adds a unit and takes one away, without a pause.
    pub async fn adjust(&self, sku: &str, limit: Limit) -> Tally {
        let requests = [adjust(sku, 1), adjust(sku, -1)].into();
        closed_loop(Requester::crowd(self.0.address, 1, &requests).await, limit).await
    }

    pub async fn confirm(&self, clients: usize, held: &Held, limit: Limit) -> Tally {
        closed_loop(Settler::crowd(self.0.address, clients, held).await, limit).await
    }

    pub async fn get(&self, clients: usize, target: &str, limit: Limit) -> Tally {
        let requests = [get(target)].into();
        closed_loop(Requester::crowd(self.0.address, clients, &requests).await, limit).await
    }
}
