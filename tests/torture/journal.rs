//! What the clients requested and what they were told, and whether the audit agrees.

use std::collections::{BTreeMap, HashMap};

use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::world::SEASONAL;

/// Entries read from the audit at once.
const PAGE: usize = 5000;

/// What one attempt was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is done, now or before.
    Done,
    /// It is done: the hold lapses then, epoch milliseconds.
    Until(u64),
    /// This attempt did nothing. Another attempt may.
    No,
    /// It is not done, and never will be.
    Never,
    /// This attempt did nothing: the stored data of the SKU is damaged.
    Damaged,
    /// The outcome is unknown.
    Unknown,
}

/// What all attempts of one operation were told.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    pub total: u32,
    done: bool,
    never: bool,
    unknown: bool,
    /// The expiries that extensions were told.
    until: Vec<u64>,
}

impl Attempts {
    pub fn note(&mut self, told: Told) {
        self.total += 1;
        match told {
            Told::Done => self.done = true,
            Told::Until(at) => {
                self.done = true;
                self.until.push(at);
            }
            Told::Never => self.never = true,
            Told::Unknown => self.unknown = true,
            Told::No | Told::Damaged => {}
        }
    }

    /// Whether it is still unknown if it was done.
    pub fn is_unknown(&self) -> bool {
        self.unknown && !self.done && !self.never
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether this number of events agrees with the answers.
    fn allow(&self, events: u32) -> bool {
        match self {
            Self { done: true, never: true, .. } => false,
            Self { done: true, .. } => events == 1,
            Self { never: true, .. } => events == 0,
            Self { unknown: true, .. } => events <= 1,
            _ => events == 0,
        }
    }
}

/// One purchase: a hold, the attempts to settle it, and those to return some of it.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: String,
    pub sku: &'static str,
    pub cart: String,
    pub quantity: u64,
    pub ttl_ms: u64,
    /// The time that each extension asks for.
    pub extension_ms: u64,
    pub hold: Attempts,
    pub extend: Attempts,
    pub confirm: Attempts,
    pub release: Attempts,
    /// The units that it shall hold later, and whether its buyer asks for that and then gives one unit back.
    pub changed_to: u64,
    pub changes: bool,
    pub change: Attempts,
    pub give_back: Attempts,
    /// The units that its buyer confirms, if not all; and whether the confirm comes late.
    pub sells: Option<u64>,
    pub late: bool,
    /// The units that come back after the sale, and whether they are on sale again.
    pub back: u64,
    pub restock: bool,
    pub returning: Attempts,
    /// Unknown outcomes that were retried, and those of them that were done.
    pub settled: u32,
    pub settled_as_done: u32,
}

impl Order {
    pub fn operations(&self) -> u64 {
        let Self { hold, extend, change, give_back, confirm, release, returning, .. } = self;
        [hold, extend, change, give_back, confirm, release, returning]
            .iter()
            .map(|attempts| u64::from(attempts.total))
            .sum()
    }

    pub fn attempts(&mut self, verb: &str) -> &mut Attempts {
        match verb {
            "hold" => &mut self.hold,
            "extend" => &mut self.extend,
            "change" => &mut self.change,
            "give_back" => &mut self.give_back,
            "confirm" | "sell" => &mut self.confirm,
            "return" => &mut self.returning,
            _ => &mut self.release,
        }
    }
}

/// Units that come, or go.
#[derive(Debug, Clone)]
pub struct Adjustment {
    /// The reason in the audit, and the key.
    pub name: String,
    pub sku: &'static str,
    pub delta: i64,
    pub attempts: Attempts,
}

/// A count anew of the seasonal SKU.
#[derive(Debug, Clone)]
pub struct Seeding {
    /// That of no other one.
    pub quantity: u64,
    pub attempts: Attempts,
}

/// What the audit has of an order.
#[derive(Debug, Default)]
struct Trace {
    events: BTreeMap<String, u32>,
    held_at: u64,
    extended_at: Vec<u64>,
    expired_at: u64,
    ended_at: u64,
    /// SKU and cart of all its events but its return.
    about: Option<[String; 2]>,
    /// What its events are, in their order, each with its quantity.
    quantities: Vec<(String, u64)>,
    /// SKU, cart, quantity and reason of its return.
    back: Option<[String; 4]>,
}

/// What the audit has of all orders.
#[derive(Debug, Default)]
pub struct Audited {
    pub events: u64,
    pub extensions: u64,
    pub sold_after_first_expiry: u64,
    pub carts_held: u64,
    pub carts_sold: u64,
    pub returns: u64,
    pub changes: u64,
    pub partial_sales: u64,
    pub late_sales: u64,
}

/// What the audit has of orders, by their reservations.
type Traces = HashMap<String, Trace>;

/// The adjustments of the audit, by their reasons: SKU and units.
type Adjusted = HashMap<String, Vec<(String, i64)>>;

/// Compares every order, every adjustment, every seed and every cart with the audit; panics at the first difference.
pub async fn compare(
    orders: &[Order],
    adjustments: &[Adjustment],
    seedings: &[Seeding],
    carts: &[Vec<Order>],
    redis: &mut MultiplexedConnection,
) -> Audited {
    let (mut traces, mut adjusted, seeded, events) = traces(redis).await;
    for seeding in seedings {
        let times = seeded.iter().filter(|quantity| **quantity == seeding.quantity).count() as u32;
        assert!(seeding.attempts.allow(times), "{seeding:?} was done {times} times");
    }
    let asked = |quantity: &u64| seedings.iter().any(|seeding| seeding.quantity == *quantity);
    assert!(seeded.iter().all(asked), "nobody asked for all of {seeded:?}");
    let mut audited = Audited { events, ..Audited::default() };
    for adjustment in adjustments {
        let made = adjusted.remove(&adjustment.name).unwrap_or_default();
        assert!(adjustment.attempts.allow(made.len() as u32), "{adjustment:?} and {made:?}");
        for (sku, units) in made {
            assert_eq!((&*sku, units), (adjustment.sku, adjustment.delta), "{adjustment:?}");
        }
    }
    assert!(adjusted.is_empty(), "nobody asked for {:?}", adjusted.iter().next());
    for lines in carts {
        let fate = assert_one_fate(lines, &traces);
        audited.carts_held += u64::from(fate.is_some_and(|trace| trace.held_at > 0));
        audited.carts_sold += u64::from(fate.is_some_and(|trace| trace.events.contains_key("confirm")));
    }
    for order in orders.iter().chain(carts.iter().flatten()) {
        let trace = traces.remove(&order.id).unwrap_or_default();
        let count = |event: &str| trace.events.get(event).copied().unwrap_or(0);
        assert!(order.hold.allow(count("hold")), "{order:?} and {trace:?}");
        let (late, sold) = (count("late_confirm"), count("confirm") + count("late_confirm"));
        assert!(order.confirm.allow(sold), "{order:?} and {trace:?}");
        assert!(u32::from(order.late) >= late, "{order:?} and {trace:?}");
        assert!(order.release.allow(count("release")), "{order:?} and {trace:?}");
        // What has expired may be sold late.
        let ends = count("confirm") + count("release") + count("expired");
        assert!(ends <= count("hold") && late <= count("expired"), "{order:?} and {trace:?}");
        audited.partial_sales += u64::from(count("partial_confirm"));
        audited.late_sales += u64::from(late);
        if let Some(about) = &trace.about {
            assert_eq!(about, &[order.sku.to_owned(), order.cart.clone()], "{order:?}");
        }
        assert!(order.change.allow(count("change")), "{order:?} and {trace:?}");
        assert!(order.give_back.allow(count("partial_release")), "{order:?} and {trace:?}");
        audited.changes += u64::from(count("change") + count("partial_release"));
        let mut held = order.quantity;
        for (event, quantity) in &trace.quantities {
            held = match &**event {
                "change" => order.changed_to,
                "partial_release" => held - 1,
                "partial_confirm" | "late_confirm" => order.sells.unwrap_or(held),
                _ => held,
            };
            assert_eq!(*quantity, held, "{event} of {order:?} and {trace:?}");
        }
        assert!(order.returning.allow(count("return")), "{order:?} and {trace:?}");
        assert!(count("return") <= sold, "{order:?} and {trace:?}");
        if let Some(back) = &trace.back {
            // These SKUs are not seeded again.
            let reason = if order.restock { "restocked" } else { "written_off" };
            let expected = [order.sku, &order.cart, &order.back.to_string(), reason].map(str::to_owned);
            assert_eq!(back, &expected, "{order:?}");
            audited.returns += 1;
        }
        // Expiry is exact: nothing is sold after its last expiry, and no hold ends before it.
        let expiries = expiries(order, &trace);
        let last = expiries.last().copied().unwrap_or_default();
        if count("confirm") == 1 {
            assert!(trace.ended_at < last, "{order:?} was confirmed too late: {trace:?}");
            audited.sold_after_first_expiry += u64::from(trace.ended_at >= expiries[0]);
        }
        if count("expired") == 1 {
            assert!(trace.expired_at >= last, "{order:?} expired too early: {trace:?}");
        }
        audited.extensions += u64::from(count("extend"));
    }
    assert!(traces.is_empty(), "nobody asked for {:?}", traces.iter().next());
    audited
}

/// The lines of a cart are held, extended and settled together, or none of them is. Each expires when its SKU is swept.
fn assert_one_fate<'a>(lines: &[Order], traces: &'a Traces) -> Option<&'a Trace> {
    let fate = |order: &Order| {
        let trace = traces.get(&order.id)?;
        let ended_at = if trace.events.contains_key("expired") { 0 } else { trace.ended_at };
        let count = |event: &str| trace.events.get(event).copied();
        Some((trace.held_at, &trace.extended_at, ended_at, ["hold", "confirm", "release"].map(count)))
    };
    let first = fate(&lines[0]);
    assert!(lines.iter().all(|order| fate(order) == first), "half a cart: {lines:?}");
    traces.get(&lines[0].id)
}

/// When the hold was to lapse: at first, and after each extension. What its buyer was told is among these times.
fn expiries(order: &Order, trace: &Trace) -> Vec<u64> {
    let Order { extend, ttl_ms, extension_ms, .. } = order;
    let extended = trace.extended_at.iter().map(|at| at + extension_ms);
    let expiries: Vec<u64> = [trace.held_at + ttl_ms].into_iter().chain(extended).collect();
    assert!(expiries.is_sorted_by(|one, next| one < next), "an expiry was brought forward: {order:?} and {trace:?}");
    assert!(extend.until.iter().all(|told| expiries.contains(told)), "{order:?} and {trace:?}");
    let most = if extend.unknown { extend.total as usize } else { extend.until.len() };
    assert!(trace.extended_at.len() <= most, "{order:?} and {trace:?}");
    expiries
}

async fn traces(redis: &mut MultiplexedConnection) -> (Traces, Adjusted, Vec<u64>, u64) {
    let (mut traces, mut adjusted, mut seeded) = (Traces::new(), Adjusted::new(), Vec::new());
    let (mut start, mut events) = ("-".to_owned(), 0);
    loop {
        let mut read = cmd("XRANGE");
        read.arg("inventory:audit").arg(&start).arg("+").arg("COUNT").arg(PAGE);
        let page: Vec<(String, HashMap<String, String>)> = read.query_async(redis).await.unwrap();
        let Some((last, _)) = page.last() else { return (traces, adjusted, seeded, events) };
        start = format!("({last}");
        for (_, mut event) in page {
            events += 1;
            let mut field = |name: &str| event.remove(name).unwrap();
            let id = field("reservationId");
            let kind = field("event");
            if kind == "adjust" {
                let units: i64 = field("quantity").parse().unwrap();
                let units = if field("state") == "removed" { -units } else { units };
                adjusted.entry(field("reason")).or_default().push((field("sku"), units));
            }
            if kind == "seed" && field("sku") == SEASONAL {
                seeded.push(field("quantity").parse().unwrap());
            }
            if id.is_empty() {
                continue;
            }
            let trace = traces.entry(id).or_default();
            if kind == "return" {
                trace.back = Some(["sku", "cartId", "quantity", "reason"].map(field));
                *trace.events.entry(kind).or_default() += 1;
                continue;
            }
            let at = field("happenedAt").parse().unwrap();
            match &*kind {
                "hold" => trace.held_at = at,
                "extend" => trace.extended_at.push(at),
                "change" => {}
                "expired" => trace.expired_at = at,
                _ => trace.ended_at = at,
            }
            let reason = field("reason");
            let is_told_apart = ["change", "confirm"].contains(&&*kind) && !reason.is_empty();
            let kind = if is_told_apart { reason } else { kind };
            *trace.events.entry(kind.clone()).or_default() += 1;
            trace.quantities.push((kind, field("quantity").parse().unwrap()));
            let about = ["sku", "cartId"].map(field);
            assert_eq!(trace.about.get_or_insert(about.clone()), &about);
        }
    }
}
