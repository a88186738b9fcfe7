//! Buyers of a shop on a cluster who want to know what became of each request, and the books that follow from their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockhold::keys::{Layout, Sku};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::cluster::Cluster;
use crate::support::invariants::{History, assert_invariants};
use crate::support::stockhold::{Stockhold, definite};

const BUYERS: usize = 8;
const SKUS: usize = 12;
/// Every third SKU has so few that buyers compete for them.
const FEW: u64 = 40;
const PLENTY: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(90);

/// A shop that is open.
pub struct Market {
    pub server: Arc<Stockhold>,
    closing: Arc<AtomicBool>,
    /// By SKU: requests that had a definite answer.
    served: Arc<[AtomicUsize; SKUS]>,
    buyers: JoinSet<Vec<Deal>>,
}

/// A hold of one unit, and its end.
struct Deal {
    sku: usize,
    id: String,
    state: &'static str,
}

pub fn sku(number: usize) -> String {
    format!("sku-{number}")
}

/// A key of a SKU, for its slot.
pub fn key_of(number: usize) -> String {
    Layout::sharded(64).unwrap().stock(&Sku::parse(&sku(number)).unwrap()).inventory
}

fn quantity(number: usize) -> u64 {
    if number.is_multiple_of(3) { FEW } else { PLENTY }
}

impl Market {
    /// Puts the goods on sale, and lets buyers in.
    pub async fn open(server: Stockhold) -> Self {
        let server = Arc::new(server);
        for number in 0..SKUS {
            let body = json!({ "sku": sku(number), "quantity": quantity(number) });
            definite(&server, "/api/inventory/seed", Some(body)).await.ok();
        }
        let (closing, served) = (Arc::<AtomicBool>::default(), Arc::<[AtomicUsize; SKUS]>::default());
        let mut buyers = JoinSet::new();
        for number in 0..BUYERS {
            let buyer = Buyer { server: Arc::clone(&server), served: Arc::clone(&served) };
            buyers.spawn(buyer.buy(number, Arc::clone(&closing)));
        }
        let market = Self { server, closing, served, buyers };
        market.until_all_are_served().await;
        market
    }

    /// Waits until requests for every SKU had a definite answer that came after now. Returns how long the longest wait was.
    pub async fn until_all_are_served(&self) -> Duration {
        let (start, before) = (Instant::now(), self.served.each_ref().map(|served| served.load(Ordering::Relaxed)));
        let mut longest = Duration::ZERO;
        for (number, before) in before.into_iter().enumerate() {
            while self.served[number].load(Ordering::Relaxed) < before + 10 {
                assert!(start.elapsed() < PATIENCE, "{} is not sold again", sku(number));
                longest = start.elapsed();
                sleep(Duration::from_millis(5)).await;
            }
        }
        longest
    }

    /// Lets each buyer find out about the last request, and checks the books on all nodes that have a part of them.
    pub async fn close(self, cluster: &Cluster, primaries: &[usize]) {
        self.closing.store(true, Ordering::Relaxed);
        let deals = self.buyers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        let mut states: BTreeMap<(usize, &str), u64> = BTreeMap::new();
        for deal in &deals {
            *states.entry((deal.sku, deal.state)).or_default() += 1;
        }
        for number in 0..SKUS {
            let units = |state| states.get(&(number, state)).copied().unwrap_or_default();
            let (active, confirmed) = (units("active"), units("confirmed"));
            assert!(active + confirmed <= quantity(number), "oversold: {active} and {confirmed} of {}", sku(number));
            let expected = [quantity(number) - active - confirmed, active, confirmed];
            assert_eq!(self.server.counts(&sku(number)).await, expected, "{}", sku(number));
        }
        for Deal { id, state, .. } in &deals {
            let record = self.server.get(&format!("/api/reservations/{id}")).await.ok();
            assert_eq!(record["state"], *state, "{id} was acknowledged");
        }
        for node in primaries {
            assert_invariants(&mut cluster.connection(*node).await, History::Whole).await;
        }
        println!("{} deals, all of them in the books", deals.len());
    }
}

struct Buyer {
    server: Arc<Stockhold>,
    served: Arc<[AtomicUsize; SKUS]>,
}

impl Buyer {
    /// Buys until the shop closes, single units and carts. Of what is held, some is sold, some is given back and some is
    /// left.
    async fn buy(self, number: usize, closing: Arc<AtomicBool>) -> Vec<Deal> {
        let mut deals = Vec::new();
        for turn in number.. {
            if closing.load(Ordering::Relaxed) {
                break;
            }
            let (end, state) =
                [("release", "released"), ("confirm", "confirmed"), ("release", "released"), ("", "active")]
                    [turn / SKUS % 4];
            if turn % 5 == 0 {
                self.buy_cart(&format!("cart-{number}-{turn}"), turn, end, state, &mut deals).await;
                continue;
            }
            let of = turn % SKUS;
            let body = json!({ "cartId": format!("buyer-{number}"), "sku": sku(of), "quantity": 1 });
            let answer = definite(&self.server, "/api/reservations/hold", Some(body)).await;
            self.is_served(of);
            if answer.status == 409 {
                assert!(quantity(of) == FEW, "{}", answer.body);
                answer.problem(409, "insufficient_inventory");
                continue;
            }
            let id = answer.ok()["reservationId"].as_str().unwrap().to_owned();
            if !end.is_empty() {
                definite(&self.server, &format!("/api/reservations/{id}/{end}"), None).await.ok();
                self.is_served(of);
            }
            deals.push(Deal { sku: of, id, state });
        }
        deals
    }

    /// Three SKUs, most often of three shards.
    async fn buy_cart(&self, cart: &str, turn: usize, end: &str, state: &'static str, deals: &mut Vec<Deal>) {
        let numbers = [turn, turn + 1, turn + 5].map(|number| number % SKUS);
        let items: Vec<Value> = numbers.iter().map(|number| json!({ "sku": sku(*number), "quantity": 1 })).collect();
        let body = json!({ "items": items, "ttlSeconds": 600 });
        let answer = definite(&self.server, &format!("/api/carts/{cart}/hold"), Some(body)).await;
        if answer.status == 409 {
            answer.problem(409, "insufficient_inventory");
            return;
        }
        let held = answer.ok();
        if !end.is_empty() {
            definite(&self.server, &format!("/api/carts/{cart}/{end}"), None).await.ok();
        }
        let ids =
            held["reservations"].as_array().unwrap().iter().map(|record| record["reservationId"].as_str().unwrap());
        deals.extend(numbers.into_iter().zip(ids).map(|(sku, id)| Deal { sku, id: id.to_owned(), state }));
    }

    fn is_served(&self, number: usize) {
        self.served[number].fetch_add(1, Ordering::Relaxed);
    }
}
