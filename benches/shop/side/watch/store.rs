//! The algorithm. Each attempt takes two round trips for a hold and three for a confirm.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, pipe};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::script_calls::connect;
use crate::side::served::{self, Outcome, Record};

/// How often it is tried before the client is told to come again.
const ATTEMPTS: usize = 5;

type Fields = HashMap<String, String>;

/// A pool of connections: what a connection watches is its own, so no two requests may share one.
pub struct Store {
    idle: Mutex<Vec<MultiplexedConnection>>,
    permits: Semaphore,
}

/// A connection out of the pool, given back on drop.
struct Lease<'a> {
    connection: Option<MultiplexedConnection>,
    store: &'a Store,
    _permit: SemaphorePermit<'a>,
}

impl Store {
    pub async fn open(redis_url: &str, connections: usize) -> Self {
        let mut idle = Vec::with_capacity(connections);
        for _ in 0..connections {
            idle.push(connect(redis_url).await);
        }
        Self { idle: Mutex::new(idle), permits: Semaphore::new(connections) }
    }

    async fn lease(&self) -> Lease<'_> {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lease { connection, store: self, _permit: permit }
    }
}

impl served::Store for Store {
    type Error = RedisError;

    async fn hold(&self, cart: &str, sku: &str, quantity: u64, ttl_ms: u64) -> RedisResult<Outcome> {
        let mut lease = self.lease().await;
        let redis = lease.connection();
        let inventory = format!("inventory:{sku}");
        for _ in 0..ATTEMPTS {
            let stock = watch(redis, &inventory).await?;
            let available = number(&stock, "available");
            if available < quantity {
                unwatch(redis).await?;
                return Ok(Outcome::Insufficient { available });
            }
            let record = Record::new(cart, sku, quantity, ttl_ms);
            let counts = [available - quantity, number(&stock, "reserved") + quantity, number(&stock, "confirmed")];
            let mut writes = pipe();
            write_hold(writes.atomic(), &record, counts);
            if exec(redis, &writes).await? {
                return Ok(Outcome::Done(record));
            }
        }
        Ok(Outcome::Contention)
    }

    /// All SKUs are watched and read in one round trip, and written in another.
    async fn hold_cart(&self, cart: &str, lines: &[(String, u64)], ttl_ms: u64) -> RedisResult<Outcome> {
        let mut lease = self.lease().await;
        let redis = lease.connection();
        let keys: Vec<_> = lines.iter().map(|(sku, _)| format!("inventory:{sku}")).collect();
        for _ in 0..ATTEMPTS {
            let mut reads = pipe();
            reads.cmd("WATCH").arg(&keys).ignore();
            for key in &keys {
                reads.cmd("HGETALL").arg(key);
            }
            let stocks: Vec<Fields> = reads.query_async(redis).await?;
            let mut writes = pipe();
            writes.atomic();
            let mut records = Vec::with_capacity(lines.len());
            for ((sku, quantity), stock) in lines.iter().zip(&stocks) {
                let available = number(stock, "available");
                if available < *quantity {
                    unwatch(redis).await?;
                    return Ok(Outcome::Insufficient { available });
                }
                let record = Record::new(cart, sku, *quantity, ttl_ms);
                let counts = [available - quantity, number(stock, "reserved") + quantity, number(stock, "confirmed")];
                write_hold(&mut writes, &record, counts);
                records.push(record);
            }
            if exec(redis, &writes).await? {
                return Ok(Outcome::Held(records));
            }
        }
        Ok(Outcome::Contention)
    }

    async fn confirm(&self, id: &str) -> RedisResult<Outcome> {
        let mut lease = self.lease().await;
        let redis = lease.connection();
        let reservation = format!("reservation:{id}");
        for _ in 0..ATTEMPTS {
            let mut stored = watch(redis, &reservation).await?;
            let (Some(cart), Some(sku)) = (stored.remove("cartId"), stored.remove("sku")) else {
                unwatch(redis).await?;
                return Ok(Outcome::NotFound);
            };
            let now = served::now_ms();
            let expires_at = number(&stored, "expiresAt");
            let state = stored.remove("state").unwrap_or_default();
            if state != "active" || expires_at <= now {
                unwatch(redis).await?;
                return Ok(Outcome::NotActive { state });
            }
            let quantity = number(&stored, "quantity");
            let created_at = number(&stored, "createdAt");
            let inventory = format!("inventory:{sku}");
            let stock = watch(redis, &inventory).await?;
            let record = Record {
                id: id.to_owned(),
                cart,
                sku,
                quantity,
                state: "confirmed",
                expires_at,
                created_at,
                updated_at: now,
            };
            let counts = [
                number(&stock, "available"),
                number(&stock, "reserved") - quantity,
                number(&stock, "confirmed") + quantity,
            ];
            let mut writes = pipe();
            writes.atomic();
            set_counts(&mut writes, &inventory, counts, now);
            writes.cmd("HSET").arg(&reservation).arg("state").arg("confirmed").arg("updatedAt").arg(now).ignore();
            writes.cmd("ZREM").arg(format!("{inventory}:active")).arg(id).ignore();
            append_event(&mut writes, "confirm", &record, counts);
            if exec(redis, &writes).await? {
                return Ok(Outcome::Done(record));
            }
        }
        Ok(Outcome::Contention)
    }
}

impl Lease<'_> {
    fn connection(&mut self) -> &mut MultiplexedConnection {
        self.connection.as_mut().expect("there are as many connections as permits")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.store.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}

/// Watches a hash and reads it, in one round trip.
async fn watch(redis: &mut MultiplexedConnection, key: &str) -> RedisResult<Fields> {
    let (fields,) = pipe().cmd("WATCH").arg(key).ignore().cmd("HGETALL").arg(key).query_async(redis).await?;
    Ok(fields)
}

async fn unwatch(redis: &mut MultiplexedConnection) -> RedisResult<()> {
    redis::cmd("UNWATCH").exec_async(redis).await
}

/// Whether the writes took place: not if something that is watched has changed.
async fn exec(redis: &mut MultiplexedConnection, writes: &Pipeline) -> RedisResult<bool> {
    let done: Option<()> = writes.query_async(redis).await?;
    Ok(done.is_some())
}

/// All that a hold changes; the counts are available, reserved and confirmed after it.
pub fn write_hold(writes: &mut Pipeline, record: &Record, counts: [u64; 3]) {
    let Record { id, cart, sku, quantity, state, expires_at, created_at, updated_at } = record;
    let inventory = format!("inventory:{sku}");
    set_counts(writes, &inventory, counts, *updated_at);
    writes.cmd("HSET").arg(format!("reservation:{id}")).arg("cartId").arg(cart).arg("sku").arg(sku);
    writes.arg("quantity").arg(quantity).arg("state").arg(state).arg("reason").arg("").arg("expiresAt").arg(expires_at);
    writes.arg("createdAt").arg(created_at).arg("updatedAt").arg(updated_at).ignore();
    writes.cmd("ZADD").arg(format!("{inventory}:active")).arg(expires_at).arg(id).ignore();
    append_event(writes, "hold", record, counts);
}

fn set_counts(writes: &mut Pipeline, inventory: &str, [available, reserved, confirmed]: [u64; 3], now: u64) {
    writes.cmd("HSET").arg(inventory).arg("available").arg(available).arg("reserved").arg(reserved);
    writes.arg("confirmed").arg(confirmed).arg("updatedAt").arg(now).ignore();
}

fn append_event(writes: &mut Pipeline, event: &str, record: &Record, [available, reserved, confirmed]: [u64; 3]) {
    writes.cmd("XADD").arg("inventory:audit").arg("*");
    writes.arg("event").arg(event).arg("reservationId").arg(&record.id).arg("cartId").arg(&record.cart);
    writes.arg("sku").arg(&record.sku).arg("quantity").arg(record.quantity).arg("state").arg(record.state);
    writes.arg("reason").arg("").arg("happenedAt").arg(record.updated_at).arg("available").arg(available);
    writes.arg("reserved").arg(reserved).arg("confirmed").arg(confirmed).ignore();
}

fn number(fields: &Fields, name: &str) -> u64 {
    fields.get(name).and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
