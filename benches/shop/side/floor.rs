//! The floor: what `hold` writes, with the same fields and sizes, as a pipelined `MULTI`. It checks nothing and decides
//! nothing; no way to hold a unit and to leave the same record of it can cost Redis less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value, pipe};
use stockhold::keys::{Layout, ReservationId, StockKeys};

use crate::load::{Caller, Limit, Tally, Verdict, closed_loop};
use crate::script_calls::{AMPLE, Scripts, TTL_MS, keys};
use crate::support::redis_server::RedisServer;

pub const NAME: &str = "bare writes";

pub struct Floor {
    connection: MultiplexedConnection,
    held: Arc<AtomicU64>,
}

impl Floor {
    /// On the same stock that the script starts from.
    pub async fn start(redis: &RedisServer) -> Self {
        let mut scripts = Scripts::load(redis).await;
        scripts.seed(&[keys(super::HOT)], AMPLE).await;
        Self { connection: scripts.connection, held: Arc::new(AtomicU64::new(0)) }
    }

    pub async fn write(&self, in_flight: usize, limit: Limit) -> Tally {
        let writer = || Writer {
            connection: self.connection.clone(),
            sku: super::HOT.to_owned(),
            keys: keys(super::HOT),
            held: Arc::clone(&self.held),
        };
        closed_loop((0..in_flight).map(|_| writer()).collect(), limit).await
    }
}

struct Writer {
    connection: MultiplexedConnection,
    sku: String,
    keys: StockKeys,
    held: Arc<AtomicU64>,
}

impl Writer {
    /// In the order of `hold.lua`. A SKU that is listed as due stays so, and is not listed again.
    fn writes(&self) -> Pipeline {
        let id = ReservationId::mint(0);
        let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis() as u64;
        let (now, expires, available, version) = (now_ms, now_ms + TTL_MS, AMPLE - held, held + 1);
        // Only its size matters: the id that XADD gives is not known yet.
        let event_id = format!("{now}-0");
        let mut writes = pipe();
        writes.atomic();
        writes.cmd("XADD").arg(&self.keys.shard.audit).arg("*");
        writes.arg("event").arg("hold").arg("reservationId").arg(id.to_string()).arg("cartId").arg("cart-12345");
        writes.arg("sku").arg(&self.sku).arg("quantity").arg(1).arg("state").arg("active").arg("reason").arg("");
        writes.arg("happenedAt").arg(now).arg("available").arg(available).arg("reserved").arg(held);
        writes.arg("confirmed").arg(0).arg("version").arg(version).arg("previous").arg(&event_id);
        writes.cmd("HSET").arg(Layout::unsharded().reservation(&id).expect("any id")).arg("cartId").arg("cart-12345");
        writes.arg("sku").arg(&self.sku).arg("quantity").arg(1).arg("state").arg("active");
        writes.arg("expiresAt").arg(expires).arg("createdAt").arg(now);
        writes.cmd("ZADD").arg(&self.keys.active).arg(expires).arg(id.to_string());
        writes
            .cmd("HSET")
            .arg(&self.keys.inventory)
            .arg("available")
            .arg(available)
            .arg("reserved")
            .arg(held)
            .arg("confirmed")
            .arg(0);
        writes.arg("updatedAt").arg(now).arg("version").arg(version).arg("lastEvent").arg(&event_id);
        writes
    }
}

impl Caller for Writer {
    async fn call(&mut self) -> Verdict {
        match self.writes().query_async::<Value>(&mut self.connection).await {
            Ok(_) => Verdict::Accepted(1),
            Err(_) => Verdict::Failed,
        }
    }
}
