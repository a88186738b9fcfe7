//! The world of the torture: the stock, the state that all clients share, and the random choices for a purchase.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use stockhold::keys::{IdempotencyKey, ReservationId, Sku};
use tokio::sync::Mutex;
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::journal::{Adjustment, Attempts, Order, Seeding};
use super::proxy::Proxy;
use crate::support::stockhold::Stockhold;

/// Two SKUs that everybody wants, one with units without end and one that is soon sold out; and others.
pub const HOT: [&str; 2] = ["hot", "scarce"];
pub const COLD: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];
/// The SKU that is counted anew again and again.
pub const SEASONAL: &str = "seasonal";
/// The SKU whose keys are damaged. Only the buyers of that fault use it.
pub const BROKEN: &str = "broken";
pub const UNITS: [(&str, u64); 3] = [("hot", 1_000_000_000), ("scarce", 300), (BROKEN, 1_000_000_000)];
pub const COLD_UNITS: u64 = 5_000;

/// The maximum duration of a request, in any situation: a server that answers later hangs.
pub const STUCK: Duration = Duration::from_secs(20);

/// Of 100: requests that are repeated, and those of them that are repeated at the same time.
const REPEATED: u32 = 30;
const AT_ONCE: u32 = 50;

/// What all clients share.
pub struct World {
    /// The server that runs now.
    pub server: RwLock<Arc<Stockhold>>,
    pub proxy: Proxy,
    pub closing: AtomicBool,
    /// Finished operations; they show that the test makes progress.
    pub operations: AtomicU64,
    pub orders: Mutex<Vec<Order>>,
    pub adjustments: Mutex<Vec<Adjustment>>,
    /// The orders of each cart.
    pub carts: Mutex<Vec<Vec<Order>>>,
    pub seedings: Mutex<Vec<Seeding>>,
    pub seed: u64,
}

impl World {
    pub async fn server(&self) -> Arc<Stockhold> {
        // A restart takes a moment. If it takes longer than this, the server does not start.
        Arc::clone(&*timeout(STUCK, self.server.read()).await.expect("no server"))
    }

    pub fn is_open(&self) -> bool {
        !self.closing.load(Ordering::Relaxed)
    }

    pub async fn file(&self, orders: impl IntoIterator<Item = Order>) {
        let orders: Vec<_> = orders.into_iter().collect();
        let operations: u64 = orders.iter().map(Order::operations).sum();
        self.operations.fetch_add(operations, Ordering::Relaxed);
        self.orders.lock().await.extend(orders);
    }

    pub async fn file_cart(&self, lines: Vec<Order>) {
        self.operations.fetch_add(lines[0].operations(), Ordering::Relaxed);
        self.carts.lock().await.push(lines);
    }

    pub async fn file_adjustment(&self, adjustment: Adjustment) {
        self.operations.fetch_add(adjustment.attempts.total.into(), Ordering::Relaxed);
        self.adjustments.lock().await.push(adjustment);
    }
}

/// How often the buyer of more than one unit changes the quantity, of 100.
const CHANGED: u32 = 40;

/// How often a buyer confirms one unit only, and how often late, of 100.
const CHOSEN: u32 = 12;

/// A new order of a random SKU.
pub fn order(rng: &mut Rng, name: &str, shortest_ms: u64) -> Order {
    let sku = if rng.u32(..100) < 60 { HOT[rng.usize(..HOT.len())] } else { COLD[rng.usize(..COLD.len())] };
    let quantity = rng.u64(1..4);
    let ttl_ms = if rng.u32(..100) < 30 { shortest_ms.max(rng.u64(1..200)) } else { 5000 };
    let extension_ms = shortest_ms.max(rng.u64(1..8000));
    // Readers count the units of the hot SKUs: none of them leaves the books.
    let (changes, restock) = (quantity > 1 && rng.u32(..100) < CHANGED, HOT.contains(&sku) || rng.bool());
    // Of the scarce units, most shall be there again and again.
    let (sells, late) = (rng.u32(..100) < CHOSEN && sku != "scarce", rng.u32(..100) < CHOSEN && sku != "scarce");
    let sells = sells.then_some(1);
    let back = if changes || sells.is_some() { 1 } else { rng.u64(1..=quantity) };
    let changed_to = quantity + rng.u64(1..3);
    Order { extension_ms, back, restock, changed_to, changes, sells, late, ..order_of(sku, name, quantity, ttl_ms) }
}

/// A new order. Its id comes from its name as an `Idempotency-Key`, so it is known whatever happens to the request.
pub fn order_of(sku: &'static str, name: &str, quantity: u64, ttl_ms: u64) -> Order {
    let key = IdempotencyKey::parse(name).unwrap();
    Order {
        id: ReservationId::of_hold(&key, &Sku::parse(sku).unwrap(), 0).to_string(),
        sku,
        cart: format!("cart-{name}"),
        quantity,
        ttl_ms,
        extension_ms: 0,
        hold: Attempts::default(),
        extend: Attempts::default(),
        confirm: Attempts::default(),
        release: Attempts::default(),
        changed_to: quantity,
        changes: false,
        change: Attempts::default(),
        give_back: Attempts::default(),
        sells: None,
        late: false,
        back: 1,
        restock: true,
        returning: Attempts::default(),
        settled: 0,
        settled_as_done: 0,
    }
}

/// How an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Once,
    Again,
    AtOnce,
}

pub fn manner(rng: &mut Rng) -> Manner {
    match (rng.u32(..100) < REPEATED, rng.u32(..100) < AT_ONCE) {
        (false, _) => Manner::Once,
        (true, false) => Manner::Again,
        (true, true) => Manner::AtOnce,
    }
}

/// How often a hold is extended before it is settled, of 100; and the longest time that its customer then takes.
const EXTENDED: u32 = 25;
const TYPING_MS: u64 = 250;

/// How often what was sold comes back, of 100.
const RETURNED: u32 = 40;

/// Whether an order that was sold, as far as its buyer knows, comes back.
pub fn comes_back(rng: &mut Rng, order: &Order) -> bool {
    (order.confirm.is_done() || order.confirm.is_unknown()) && rng.u32(..100) < RETURNED
}

/// For how long its customer still types after an extension; `None` if there is no extension.
pub fn typing(rng: &mut Rng) -> Option<Duration> {
    (rng.u32(..100) < EXTENDED).then(|| Duration::from_millis(rng.u64(..TYPING_MS)))
}

/// How long a buyer whose confirm is late waits before it: often until after the expiry. `None` if it is not late.
pub fn lateness(order: &Order) -> Option<Duration> {
    (order.late && order.ttl_ms <= 1000).then(|| Duration::from_millis(order.ttl_ms + 10))
}

/// How an order is settled: confirmed, released, both at once, or left to expire; some are extended at the same time. A
/// scarce SKU is seldom confirmed.
pub fn verbs(rng: &mut Rng, order: &Order) -> &'static [&'static str] {
    if order.late || order.sells.is_some() {
        return &["sell"];
    }
    let sells = if order.sku == "hot" { 30 } else { 1 };
    match rng.u32(..100) {
        at if at < sells => &["confirm"],
        at if at < 70 => &["release"],
        at if at < 73 => &["confirm", "release"],
        at if at < 76 => &["confirm", "extend"],
        _ => &[],
    }
}
