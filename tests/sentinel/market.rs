//! Buyers who want to know what became of each request, and the books that follow from their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::sentinel::Watched;
use crate::support::stockhold::{Stockhold, definite};

const BUYERS: usize = 8;
const PLENTY: u64 = 1_000_000;
/// So few that buyers compete for them.
const FEW: u64 = 30;
const SKUS: [(&str, u64); 2] = [("tea", PLENTY), ("cake", FEW)];
const PATIENCE: Duration = Duration::from_secs(90);
/// Answers that show that the service is back.
const MANY: usize = 100;

/// A shop that is open.
pub struct Market {
    pub server: Arc<Stockhold>,
    closing: Arc<AtomicBool>,
    /// Requests that had a definite answer.
    answered: Arc<AtomicUsize>,
    buyers: JoinSet<Vec<Deal>>,
}

/// A hold of one unit, and its end.
struct Deal {
    sku: &'static str,
    id: String,
    state: &'static str,
}

pub fn serve(watched: &Watched, arguments: &[&str]) -> Stockhold {
    let place = watched.arguments();
    let place: Vec<_> = place.iter().map(String::as_str).collect();
    Stockhold::spawn(&[&["--port", "0"], &place[..], arguments].concat())
}

impl Market {
    /// Puts the goods on sale, and lets buyers in.
    pub async fn open(server: Stockhold) -> Self {
        let server = Arc::new(server);
        for (sku, quantity) in SKUS {
            let body = json!({ "sku": sku, "quantity": quantity });
            definite(&server, "/api/inventory/seed", Some(body)).await.ok();
        }
        let (closing, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut buyers = JoinSet::new();
        for number in 0..BUYERS {
            buyers.spawn(buy(number, Arc::clone(&server), Arc::clone(&closing), Arc::clone(&answered)));
        }
        let market = Self { server, closing, answered, buyers };
        market.until_busy().await;
        market
    }

    /// Waits until many more requests have had a definite answer.
    pub async fn until_busy(&self) {
        let (deadline, before) = (Instant::now() + PATIENCE, self.answered.load(Ordering::Relaxed));
        while self.answered.load(Ordering::Relaxed) < before + MANY {
            assert!(Instant::now() < deadline, "the service is not back");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets each buyer find out about the last request, and checks the books of the Redis that is the master now.
    pub async fn close(self, master: &RedisServer) {
        self.closing.store(true, Ordering::Relaxed);
        let deals = self.buyers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
        for (sku, quantity) in SKUS {
            let units = |state: &str| deals.iter().filter(|deal| deal.sku == sku && deal.state == state).count() as u64;
            let (active, confirmed) = (units("active"), units("confirmed"));
            assert!(active + confirmed <= quantity, "oversold: {active} and {confirmed} of {quantity} {sku}");
            let expected = [quantity - active - confirmed, active, confirmed];
            assert_eq!(self.server.counts(sku).await, expected, "{sku}");
        }
        for Deal { id, state, .. } in &deals {
            let record = self.server.get(&format!("/api/reservations/{id}")).await.ok();
            assert_eq!(record["state"], *state, "{id} was acknowledged");
        }
        assert_invariants(&mut master.connection().await, History::Whole).await;
        println!("{} deals, all of them in the books", deals.len());
    }
}

/// Buys until the shop closes. Of what is held, some is sold, some is given back and some is left.
async fn buy(number: usize, server: Arc<Stockhold>, closing: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<Deal> {
    let mut deals = Vec::new();
    for turn in number.. {
        if closing.load(Ordering::Relaxed) {
            break;
        }
        let sku = SKUS[turn % SKUS.len()].0;
        let body = json!({ "cartId": format!("cart-{number}"), "sku": sku, "quantity": 1 });
        let answer = definite(&server, "/api/reservations/hold", Some(body)).await;
        answered.fetch_add(1, Ordering::Relaxed);
        if answer.status == 409 {
            assert_eq!(sku, "cake", "{}", answer.body);
            answer.problem(409, "insufficient_inventory");
            continue;
        }
        let id = answer.ok()["reservationId"].as_str().unwrap().to_owned();
        let (end, state) = [("release", "released"), ("confirm", "confirmed"), ("release", "released"), ("", "active")]
            [turn / SKUS.len() % 4];
        if !end.is_empty() {
            let path = format!("/api/reservations/{id}/{end}");
            definite(&server, &path, None).await.ok();
            answered.fetch_add(1, Ordering::Relaxed);
        }
        deals.push(Deal { sku, id, state });
    }
    deals
}
