//! Calls of the scripts without the server, as another service makes them: `EVALSHA` with keys and arguments.

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Value, cmd, pipe};
use stockhold::keys::{Layout, ReservationId, Sku, StockKeys};
use stockhold::scripts::Catalogue;

use crate::support::redis_server::RedisServer;

/// What no scenario uses up.
pub const AMPLE: u64 = 1_000_000_000;

/// As long as a hold over HTTP lasts by default.
pub const TTL_MS: u64 = 600_000;

/// Items that a call of `hold` takes, at most.
const MAX_ITEMS: usize = 100;

/// Calls that are sent in one go while data is made.
const CALLS_IN_FLIGHT: usize = 10;

/// A connection to Redis with all scripts loaded.
#[derive(Clone)]
pub struct Scripts {
    pub connection: MultiplexedConnection,
    hold: String,
    seed: String,
}

impl Scripts {
    pub async fn load(redis: &RedisServer) -> Self {
        let catalogue = Catalogue::embedded();
        let mut connection = connect(&redis.url()).await;
        for script in catalogue.current() {
            let load = cmd("SCRIPT").arg("LOAD").arg(script.source).exec_async(&mut connection).await;
            load.expect("Redis takes the script");
        }
        Self { connection, hold: sha1(&catalogue, "hold"), seed: sha1(&catalogue, "seed") }
    }

    /// Puts units of SKUs on sale that have no holds.
    pub async fn seed(&mut self, skus: &[StockKeys], quantity: u64) {
        let mut calls = pipe();
        for StockKeys { shard, inventory, active } in skus {
            let call = calls.cmd("EVALSHA").arg(&self.seed).arg(6);
            call.arg(&shard.audit).arg(&shard.due).arg(&shard.skus).arg(&shard.settings).arg(inventory).arg(active);
            call.arg(quantity).ignore();
        }
        calls.exec_async(&mut self.connection).await.expect("the SKUs are seeded");
    }

    /// A call that holds one unit for each item.
    pub fn hold(&self, items: &[&StockKeys], ttl_ms: u64) -> Cmd {
        let mut call = cmd("EVALSHA");
        let shard = &items[0].shard;
        call.arg(&self.hold).arg(2 + 3 * items.len()).arg(&shard.audit).arg(&shard.due);
        for item in items {
            call.arg(&item.inventory).arg(&item.active).arg(Layout::unsharded().reservation(&ReservationId::mint(0)));
        }
        call.arg("each");
        for _ in items {
            call.arg("cart-12345").arg(1).arg(ttl_ms);
        }
        call
    }

    /// Makes a hold for each item, many in one call.
    pub async fn fill(&mut self, items: &[&StockKeys], ttl_ms: u64) {
        for chunk in items.chunks(MAX_ITEMS * CALLS_IN_FLIGHT) {
            let mut calls = pipe();
            for items in chunk.chunks(MAX_ITEMS) {
                calls.add_command(self.hold(items, ttl_ms));
            }
            let replies: Vec<Value> = calls.query_async(&mut self.connection).await.expect("the holds are made");
            let made: usize = replies.iter().map(held).sum();
            assert_eq!(made, chunk.len(), "every unit is there to be held");
        }
    }
}

fn sha1(catalogue: &Catalogue, script: &str) -> String {
    catalogue.get(script).expect("the catalogue has it").sha1.clone()
}

/// How many items of a reply were held.
pub fn held(reply: &Value) -> usize {
    let Value::Array(items) = reply else { return 0 };
    let is_held = |item: &&Value| matches!(item, Value::Array(parts) if matches!(&parts[0], Value::BulkString(word) if word == b"HELD"));
    items.iter().filter(is_held).count()
}

/// The keys of a SKU.
pub fn keys(sku: &str) -> StockKeys {
    Layout::unsharded().stock(&Sku::parse(sku).expect("a good SKU"))
}

/// A connection that waits for nothing but the answer: no Nagle, and time enough on a busy machine.
pub async fn connect(url: &str) -> MultiplexedConnection {
    let info = url.into_connection_info().expect("a Redis URL");
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let client = Client::open(info).expect("a Redis URL");
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis accepts connections")
}

/// Redis's clock, epoch milliseconds.
pub async fn now_ms(redis: &mut MultiplexedConnection) -> u64 {
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(redis).await.expect("Redis has a clock");
    seconds * 1000 + micros / 1000
}
