//! Calls of the scripts without the server, as another service makes them: `EVALSHA` with keys and arguments.

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Value, cmd, pipe};
use stockhold::keys::{Layout, OperationId, ReservationId, Sku, StockKeys};
use stockhold::scripts::Catalogue;

use crate::support::redis_server::RedisServer;

/// What no scenario uses up.
pub const AMPLE: u64 = 1_000_000_000;

/// The cart that every hold is for.
pub const CART: &str = "cart-12345";

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
    confirm: String,
    hold: String,
    seed: String,
}

/// A reservation of one unit, and what it is of.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub stock: &'a StockKeys,
    pub id: ReservationId,
}

impl Scripts {
    pub async fn load(redis: &RedisServer) -> Self {
        let catalogue = Catalogue::embedded();
        let mut connection = connect(&redis.url()).await;
        for script in catalogue.current() {
            let load = cmd("SCRIPT").arg("LOAD").arg(script.source).exec_async(&mut connection).await;
            load.expect("Redis takes the script");
        }
        let [confirm, hold, seed] = ["confirm", "hold", "seed"].map(|script| sha1(&catalogue, script));
        Self { connection, confirm, hold, seed }
    }

    /// Puts units of SKUs on sale that have no holds.
    pub async fn seed(&mut self, skus: &[StockKeys], quantity: u64) {
        let mut calls = pipe();
        for StockKeys { shard, inventory, active } in skus {
            let call = calls.cmd("EVALSHA").arg(&self.seed).arg(7);
            call.arg(&shard.audit).arg(&shard.due).arg(&shard.skus).arg(&shard.settings);
            call.arg(shard.operation(&OperationId::mint())).arg(inventory).arg(active);
            call.arg(quantity).arg("").ignore();
        }
        calls.exec_async(&mut self.connection).await.expect("the SKUs are seeded");
    }

    /// A call that holds one unit for each item.
    pub fn hold(&self, items: &[Item], ttl_ms: u64) -> Cmd {
        let mut call = cmd("EVALSHA");
        let shard = &items[0].stock.shard;
        call.arg(&self.hold).arg(2 + 3 * items.len()).arg(&shard.audit).arg(&shard.due);
        name(&mut call, items);
        call.arg("each");
        for _ in items {
            call.arg(CART).arg(1).arg(ttl_ms);
        }
        call
    }

    /// A call that confirms each item, without a token.
    fn confirm(&self, items: &[Item]) -> Cmd {
        let mut call = cmd("EVALSHA");
        let shard = &items[0].stock.shard;
        call.arg(&self.confirm).arg(3 + 3 * items.len()).arg(&shard.audit).arg(&shard.due).arg(&shard.settings);
        name(&mut call, items);
        call.arg("each").arg(vec![""; items.len()]);
        call
    }

    /// Makes a hold of each SKU that is named, many in one call, and gives the ids in this order.
    pub async fn fill(&mut self, skus: &[&StockKeys], ttl_ms: u64) -> Vec<ReservationId> {
        let items: Vec<Item> = skus.iter().map(|stock| Item { stock, id: ReservationId::mint(0) }).collect();
        for chunk in items.chunks(MAX_ITEMS * CALLS_IN_FLIGHT) {
            self.make(chunk.chunks(MAX_ITEMS).map(|items| self.hold(items, ttl_ms)), "HELD", chunk.len()).await;
        }
        items.iter().map(|item| item.id).collect()
    }

    /// Confirms all items, many in one call.
    pub async fn confirm_all(&mut self, items: &[Item<'_>]) {
        for chunk in items.chunks(MAX_ITEMS * CALLS_IN_FLIGHT) {
            self.make(chunk.chunks(MAX_ITEMS).map(|items| self.confirm(items)), "CONFIRMED", chunk.len()).await;
        }
    }

    /// Sends the calls in one go; this number of items must come to `outcome`.
    async fn make(&self, calls: impl Iterator<Item = Cmd>, outcome: &str, items: usize) {
        let mut pipeline = pipe();
        for call in calls {
            pipeline.add_command(call);
        }
        let replies: Vec<Value> = pipeline.query_async(&mut self.connection.clone()).await.expect("Redis answers");
        let made: usize = replies.iter().map(|reply| count(reply, outcome)).sum();
        assert_eq!(made, items, "every item is {outcome}");
    }
}

fn sha1(catalogue: &Catalogue, script: &str) -> String {
    catalogue.get(script).expect("the catalogue has it").sha1.clone()
}

/// The three keys of each item.
fn name(call: &mut Cmd, items: &[Item]) {
    for Item { stock, id } in items {
        call.arg(&stock.inventory).arg(&stock.active).arg(Layout::unsharded().reservation(id).expect("any id"));
    }
}

/// How many items of a reply were held.
pub fn held(reply: &Value) -> usize {
    count(reply, "HELD")
}

/// How many items of a reply came to this.
fn count(reply: &Value, outcome: &str) -> usize {
    let Value::Array(items) = reply else { return 0 };
    let word = |item: &Value| match item {
        Value::Array(parts) => matches!(&parts[0], Value::BulkString(word) if word == outcome.as_bytes()),
        _ => false,
    };
    items.iter().filter(|item| word(item)).count()
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
