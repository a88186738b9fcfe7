//! What the clients requested and what they were told, and whether the audit agrees.

use std::collections::{BTreeMap, HashMap};

use redis::aio::MultiplexedConnection;
use redis::cmd;

/// Entries read from the audit at once.
const PAGE: usize = 5000;

/// What one attempt was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is done, now or before.
    Done,
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
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempts {
    pub total: u32,
    done: bool,
    never: bool,
    unknown: bool,
}

impl Attempts {
    pub fn note(&mut self, told: Told) {
        self.total += 1;
        match told {
            Told::Done => self.done = true,
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

/// One purchase: a hold, and the attempts to settle it.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: String,
    pub sku: &'static str,
    pub cart: String,
    pub quantity: u64,
    pub ttl_ms: u64,
    pub hold: Attempts,
    pub confirm: Attempts,
    pub release: Attempts,
    /// Unknown outcomes that were retried, and those of them that were done.
    pub settled: u32,
    pub settled_as_done: u32,
}

impl Order {
    pub fn operations(&self) -> u64 {
        u64::from(self.hold.total + self.confirm.total + self.release.total)
    }

    pub fn attempts(&mut self, verb: &str) -> &mut Attempts {
        match verb {
            "hold" => &mut self.hold,
            "confirm" => &mut self.confirm,
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

/// What the audit has of an order.
#[derive(Debug, Default)]
struct Trace {
    events: BTreeMap<String, u32>,
    held_at: u64,
    ended_at: u64,
    /// SKU, cart and quantity of all its events.
    about: Option<[String; 3]>,
}

/// What the audit has of orders, by their reservations.
type Traces = HashMap<String, Trace>;

/// The adjustments of the audit, by their reasons: SKU and units.
type Adjusted = HashMap<String, Vec<(String, i64)>>;

/// Compares every order and every adjustment with the audit; panics at the first difference.
pub async fn compare(orders: &[Order], adjustments: &[Adjustment], redis: &mut MultiplexedConnection) -> u64 {
    let (mut traces, mut adjusted, events) = traces(redis).await;
    for adjustment in adjustments {
        let made = adjusted.remove(&adjustment.name).unwrap_or_default();
        assert!(adjustment.attempts.allow(made.len() as u32), "{adjustment:?} and {made:?}");
        for (sku, units) in made {
            assert_eq!((&*sku, units), (adjustment.sku, adjustment.delta), "{adjustment:?}");
        }
    }
    assert!(adjusted.is_empty(), "nobody asked for {:?}", adjusted.iter().next());
    for order in orders {
        let trace = traces.remove(&order.id).unwrap_or_default();
        let count = |event: &str| trace.events.get(event).copied().unwrap_or(0);
        assert!(order.hold.allow(count("hold")), "{order:?} and {trace:?}");
        assert!(order.confirm.allow(count("confirm")), "{order:?} and {trace:?}");
        assert!(order.release.allow(count("release")), "{order:?} and {trace:?}");
        let ends = count("confirm") + count("release") + count("expired");
        assert!(ends <= count("hold"), "{order:?} and {trace:?}");
        if let Some(about) = &trace.about {
            assert_eq!(about, &[order.sku.to_owned(), order.cart.clone(), order.quantity.to_string()], "{order:?}");
        }
        // Expiry is exact: nothing is sold after its time, and no hold ends before its time.
        let age = trace.ended_at.saturating_sub(trace.held_at);
        if count("confirm") == 1 {
            assert!(age < order.ttl_ms, "{order:?} was confirmed after {age} ms");
        }
        if count("expired") == 1 {
            assert!(age >= order.ttl_ms, "{order:?} expired after {age} ms");
        }
    }
    assert!(traces.is_empty(), "nobody asked for {:?}", traces.iter().next());
    events
}

async fn traces(redis: &mut MultiplexedConnection) -> (Traces, Adjusted, u64) {
    let (mut traces, mut adjusted) = (Traces::new(), Adjusted::new());
    let (mut start, mut events) = ("-".to_owned(), 0);
    loop {
        let mut read = cmd("XRANGE");
        read.arg("inventory:audit").arg(&start).arg("+").arg("COUNT").arg(PAGE);
        let page: Vec<(String, HashMap<String, String>)> = read.query_async(redis).await.unwrap();
        let Some((last, _)) = page.last() else { return (traces, adjusted, events) };
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
            if id.is_empty() {
                continue;
            }
            let trace = traces.entry(id).or_default();
            let at = field("happenedAt").parse().unwrap();
            if kind == "hold" {
                trace.held_at = at;
            } else {
                trace.ended_at = at;
            }
            *trace.events.entry(kind).or_default() += 1;
            let about = ["sku", "cartId", "quantity"].map(field);
            assert_eq!(trace.about.get_or_insert(about.clone()), &about);
        }
    }
}
