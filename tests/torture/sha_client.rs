//! A client that calls the scripts by SHA, many items at a time, and recovers as `lua/README.md` says.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, cmd};
use stockhold::keys::{IdempotencyKey, OperationId, ReservationId};
use tokio::time::sleep;

use super::adjuster::{IN_A_HUNDRED, adjust_by_sha};
use super::carts::{self, buy_cart_by_sha};
use super::journal::{Order, Told};
use super::ruler::{self, rule_by_sha};
use super::world::{BROKEN, Manner, STUCK, World, comes_back, lateness, manner, order, typing, verbs};

const ITEMS: usize = 20;
/// How long it waits for a reply that may be lost.
const REPLY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Buys until it is stopped.
pub async fn buy(world: Arc<World>, number: u64) {
    let mut rng = Rng::with_seed(world.seed ^ (number << 32) ^ 1);
    let mut caller = Caller::new(&world);
    for turn in 0_u64.. {
        if !world.is_open() {
            return;
        }
        if rng.u32(..100) < IN_A_HUNDRED {
            adjust_by_sha(&world, &mut caller, &mut rng, &format!("sha-{number}-{turn}")).await;
        }
        if rng.u32(..100) < ruler::IN_A_HUNDRED {
            rule_by_sha(&mut caller, &mut rng).await;
        }
        if rng.u32(..100) < carts::IN_A_HUNDRED {
            buy_cart_by_sha(&world, &mut caller, &mut rng, &format!("sha-{number}-{turn}")).await;
        }
        let count = rng.usize(1..=ITEMS);
        let mut orders: Vec<Order> =
            (0..count).map(|item| order(&mut rng, &format!("sha-{number}-{turn}-{item}"), 1)).collect();
        let mode = if rng.bool() { "each" } else { "all" };
        make(&mut caller, &mut rng, &mut orders, mode, "hold").await;
        for order in orders.iter_mut().filter(|order| order.changes) {
            if order.hold.is_done() || order.hold.is_unknown() {
                for verb in ["change", "give_back"] {
                    for _ in 0..if manner(&mut rng) == Manner::Once { 1 } else { 2 } {
                        let told = caller.change(order, verb).await;
                        order.attempts(verb).note(told);
                    }
                }
            }
        }
        if let Some(typing) = typing(&mut rng) {
            let is_held = |order: &Order| order.hold.is_done() || order.hold.is_unknown();
            let (mut held, others) = orders.into_iter().partition::<Vec<_>, _>(is_held);
            if !held.is_empty() {
                make(&mut caller, &mut rng, &mut held, mode, "extend").await;
                sleep(typing).await;
            }
            orders = others;
            orders.extend(held);
        }
        if let Some(lateness) = orders.iter().filter_map(lateness).max() {
            sleep(lateness).await;
        }
        for order in orders.iter_mut().filter(|order| order.late || order.sells.is_some()) {
            if order.hold.is_done() || order.hold.is_unknown() {
                for _ in 0..if manner(&mut rng) == Manner::Once { 1 } else { 2 } {
                    let told = caller.sell(order).await;
                    order.confirm.note(told);
                }
            }
        }
        for verb in ["confirm", "release"] {
            let (mut some, others) = orders.into_iter().partition::<Vec<_>, _>(|order| {
                (order.hold.is_done() || order.hold.is_unknown()) && verbs(&mut rng, order).contains(&verb)
            });
            if !some.is_empty() {
                make(&mut caller, &mut rng, &mut some, "each", verb).await;
            }
            orders = others;
            orders.extend(some);
        }
        for order in &mut orders {
            if comes_back(&mut rng, order) {
                for _ in 0..if manner(&mut rng) == Manner::Once { 1 } else { 2 } {
                    let told = caller.take_back(order).await;
                    order.returning.note(told);
                }
            }
        }
        world.file(orders).await;
    }
}

async fn make(caller: &mut Caller, rng: &mut Rng, orders: &mut [Order], mode: &str, verb: &'static str) {
    let times = if manner(rng) == Manner::Once { 1 } else { 2 };
    for _ in 0..times {
        let told = caller.call(verb, mode, orders).await;
        for (order, told) in orders.iter_mut().zip(told) {
            order.attempts(verb).note(told);
        }
    }
}

pub struct Caller {
    url: String,
    /// With the SHA-1s that were published when the connection was opened.
    open: Option<(MultiplexedConnection, HashMap<String, String>)>,
}

impl Caller {
    pub fn new(world: &World) -> Self {
        Self { url: world.proxy.url(), open: None }
    }

    /// Repeats the call until the outcome of one order is known.
    pub async fn until_known(&mut self, verb: &str, order: &mut Order) -> Told {
        let begun = Instant::now();
        loop {
            let told = self.call(verb, "each", slice::from_ref(order)).await[0];
            order.attempts(verb).note(told);
            if matches!(told, Told::Done | Told::Never) {
                return told;
            }
            assert!(begun.elapsed() < STUCK, "{verb} of {order:?} was told {told:?}");
        }
    }

    pub async fn call(&mut self, verb: &str, mode: &str, orders: &[Order]) -> Vec<Told> {
        let of_shard: &[&str] = match verb {
            "hold" => &["inventory:audit", "stockhold:due"],
            _ => &["inventory:audit", "stockhold:due", "stockhold:settings"],
        };
        let mut keys: Vec<String> = of_shard.iter().map(|key| (*key).to_owned()).collect();
        for Order { sku, id, .. } in orders {
            keys.extend([format!("inventory:{sku}"), format!("inventory:{sku}:active"), format!("reservation:{id}")]);
        }
        let mut args = vec![mode.to_owned()];
        for Order { cart, quantity, ttl_ms, extension_ms, .. } in orders {
            match verb {
                "hold" => args.extend([cart.clone(), quantity.to_string(), ttl_ms.to_string()]),
                "extend" => args.push(extension_ms.to_string()),
                _ => args.push(cart.clone()),
            }
        }
        match self.evalsha(verb, &keys, &args, orders.iter().any(|order| order.sku == BROKEN)).await {
            Ok(replies) => {
                assert_eq!(replies.len(), orders.len(), "{replies:?}");
                replies.iter().zip(orders).map(|(reply, order)| understand(reply, order, verb)).collect()
            }
            Err(told) => vec![told; orders.len()],
        }
    }

    /// Confirms an order with its choice.
    async fn sell(&mut self, order: &Order) -> Told {
        let Order { id, sku, cart, sells, late, .. } = order;
        let keys = [
            "inventory:audit".to_owned(),
            "stockhold:due".to_owned(),
            "stockhold:settings".to_owned(),
            format!("inventory:{sku}"),
            format!("inventory:{sku}:active"),
            format!("reservation:{id}"),
        ];
        let if_expired = if *late { "reacquire" } else { "" };
        let args = [cart.clone(), sells.map_or(String::new(), |units| units.to_string()), if_expired.to_owned()];
        match self.evalsha("sell", &keys, &args, *sku == BROKEN).await {
            Ok(replies) => understand(&replies[0], order, "sell"),
            Err(told) => told,
        }
    }

    /// Changes the quantity of an order. A repeat is the same operation.
    async fn change(&mut self, order: &Order, verb: &str) -> Told {
        let Order { id, sku, cart, changed_to, .. } = order;
        let key = IdempotencyKey::parse(&format!("{cart}-{verb}")).unwrap();
        let operation = OperationId::of_change(&key, ReservationId::parse(id).unwrap());
        let keys = [
            "inventory:audit".to_owned(),
            "stockhold:due".to_owned(),
            "stockhold:settings".to_owned(),
            format!("operation:{operation}"),
            format!("inventory:{sku}"),
            format!("inventory:{sku}:active"),
            format!("reservation:{id}"),
        ];
        let (how, quantity) = if verb == "change" { ("set", *changed_to) } else { ("release", 1) };
        let args = [how.to_owned(), quantity.to_string(), "once".to_owned()];
        match self.evalsha("change", &keys, &args, *sku == BROKEN).await {
            Ok(replies) => understand(&replies[0], order, verb),
            Err(told) => told,
        }
    }

    /// Returns what comes back of an order. A repeat is the same operation.
    async fn take_back(&mut self, order: &Order) -> Told {
        let Order { id, sku, cart, back, restock, .. } = order;
        let key = IdempotencyKey::parse(cart).unwrap();
        let operation = OperationId::of_return(&key, ReservationId::parse(id).unwrap());
        let keys = [
            "inventory:audit".to_owned(),
            "stockhold:settings".to_owned(),
            format!("operation:{operation}"),
            format!("inventory:{sku}"),
            format!("reservation:{id}"),
        ];
        let restock = if *restock { "restock" } else { "write_off" };
        let args = [back.to_string(), restock.to_owned(), "once".to_owned()];
        match self.evalsha("return", &keys, &args, *sku == BROKEN).await {
            Ok(replies) => understand(&replies[0], order, "return"),
            Err(told) => told,
        }
    }

    /// One call of a script, and its replies or what follows from an error.
    pub async fn evalsha(
        &mut self,
        script: &str,
        keys: &[String],
        args: &[String],
        may_be_damaged: bool,
    ) -> Result<Vec<Vec<String>>, Told> {
        let Some((connection, shas)) = self.connection().await else {
            sleep(PAUSE).await;
            return Err(Told::No);
        };
        let mut call = cmd("EVALSHA");
        call.arg(shas.get(script)).arg(keys.len()).arg(keys).arg(args);
        let error: RedisError = match call.query_async(connection).await {
            Ok(replies) => return Ok(replies),
            Err(error) => error,
        };
        self.open = None;
        sleep(PAUSE).await;
        Err(match error.code() {
            // An error reply: nothing was done. The scripts are loaded again, Redis finishes loading, or memory is
            // freed.
            Some("NOSCRIPT" | "LOADING" | "BUSY" | "OOM") => Told::No,
            Some("BADKEY" | "WRONGTYPE") if may_be_damaged => Told::Damaged,
            Some(_) => panic!("{script} answered {error}"),
            None => Told::Unknown,
        })
    }

    async fn connection(&mut self) -> Option<&mut (MultiplexedConnection, HashMap<String, String>)> {
        if self.open.is_none() {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(REPLY)).set_response_timeout(Some(REPLY));
            let client = Client::open(&*self.url).unwrap();
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
            let shas: HashMap<String, String> =
                cmd("HGETALL").arg("stockhold:scripts").query_async(&mut connection).await.ok()?;
            self.open = Some((connection, shas));
        }
        self.open.as_mut()
    }
}

fn understand(reply: &[String], order: &Order, verb: &str) -> Told {
    match (verb, &*reply[0]) {
        ("hold", "HELD" | "REPLAYED")
        | ("confirm", "CONFIRMED" | "REPLAYED")
        | ("release", "RELEASED" | "REPLAYED") => Told::Done,
        ("return", "RETURNED" | "REPLAYED") | ("change" | "give_back", "CHANGED" | "REPLAYED") => Told::Done,
        ("sell", "CONFIRMED" | "REPLAYED") => Told::Done,
        ("sell", "INSUFFICIENT" | "UNSEEN" | "CART_LIMIT" | "NOT_FOUND") => Told::No,
        ("sell", "NOT_ACTIVE" | "EXPIRED") => Told::Never,
        ("change", "INSUFFICIENT" | "UNSEEN" | "CART_LIMIT") | ("change" | "give_back", "NOT_FOUND") => Told::No,
        ("change" | "give_back", "NOT_ACTIVE" | "EXPIRED") => Told::Never,
        // It may be sold yet: by a call that is still on its way.
        ("return", "NOT_SOLD" | "NOT_FOUND") => Told::No,
        ("extend", "EXTENDED") => Told::Until(reply[6].parse().unwrap()),
        ("hold", "INSUFFICIENT" | "BY_CART") | ("hold" | "extend", "WITHDRAWN") => Told::No,
        ("extend" | "confirm" | "release", "NOT_FOUND") => Told::No,
        ("extend" | "confirm" | "release", "NOT_ACTIVE" | "EXPIRED") => Told::Never,
        _ => panic!("{verb} of {order:?} answered {reply:?}"),
    }
}
