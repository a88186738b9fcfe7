//! A client over HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::adjuster::{IN_A_HUNDRED, adjust_over_http};
use super::carts::{self, buy_cart_over_http};
use super::journal::{Order, Told};
use super::ruler::{self, rule_over_http};
use super::world::{BROKEN, Manner, STUCK, World, comes_back, lateness, manner, order, typing, verbs};
use crate::support::stockhold::Answer;

const PAUSE: Duration = Duration::from_millis(5);

/// The server accepts whole seconds only.
const SHORTEST_MS: u64 = 1000;

/// Buys until it is stopped.
pub async fn buy(world: Arc<World>, number: u64) {
    let mut rng = Rng::with_seed(world.seed ^ (number << 32));
    for turn in 0_u64.. {
        if !world.is_open() {
            return;
        }
        let name = format!("http-{number}-{turn}");
        if rng.u32(..100) < IN_A_HUNDRED {
            adjust_over_http(&world, &mut rng, &name).await;
        }
        if rng.u32(..100) < ruler::IN_A_HUNDRED {
            rule_over_http(&world, &mut rng).await;
        }
        if rng.u32(..100) < carts::IN_A_HUNDRED {
            buy_cart_over_http(&world, &mut rng, &name).await;
        }
        let mut order = order(&mut rng, &name, SHORTEST_MS);
        order.ttl_ms = order.ttl_ms.div_ceil(1000) * 1000;
        order.extension_ms = order.extension_ms.div_ceil(1000) * 1000;
        // Some clients retry until they know the outcome; the others never come back.
        let is_persistent = rng.bool();
        make(&world, &mut rng, &mut order, &name, "hold").await;
        if is_persistent {
            settle(&world, &mut order, &name, "hold").await;
        }
        if order.hold.is_done() || order.hold.is_unknown() {
            let changes: &[&str] = if order.changes { &["change", "give_back"] } else { &[] };
            for verb in changes {
                make(&world, &mut rng, &mut order, &name, verb).await;
                if is_persistent {
                    settle(&world, &mut order, &name, verb).await;
                }
            }
            if let Some(typing) = typing(&mut rng) {
                make(&world, &mut rng, &mut order, &name, "extend").await;
                if is_persistent {
                    settle(&world, &mut order, &name, "extend").await;
                }
                sleep(typing).await;
            }
            if let Some(lateness) = lateness(&order) {
                sleep(lateness).await;
            }
            let both = verbs(&mut rng, &order);
            if let [first, second] = both {
                let (one, other) = tokio::join!(ask(&world, &order, &name, first), ask(&world, &order, &name, second));
                order.attempts(first).note(one);
                order.attempts(second).note(other);
            } else {
                for verb in both {
                    make(&world, &mut rng, &mut order, &name, verb).await;
                }
            }
            for verb in both.iter().filter(|_| is_persistent) {
                settle(&world, &mut order, &name, verb).await;
            }
            if comes_back(&mut rng, &order) {
                make(&world, &mut rng, &mut order, &name, "return").await;
                if is_persistent {
                    settle(&world, &mut order, &name, "return").await;
                }
            }
        }
        world.file([order]).await;
    }
}

async fn make(world: &World, rng: &mut Rng, order: &mut Order, name: &str, verb: &str) {
    match manner(rng) {
        Manner::AtOnce => {
            let (one, other) = tokio::join!(ask(world, order, name, verb), ask(world, order, name, verb));
            order.attempts(verb).note(one);
            order.attempts(verb).note(other);
        }
        manner => {
            let told = ask(world, order, name, verb).await;
            order.attempts(verb).note(told);
            if manner == Manner::Again {
                let told = ask(world, order, name, verb).await;
                order.attempts(verb).note(told);
            }
        }
    }
}

/// Retries what has an unknown outcome, until it is known or refused.
async fn settle(world: &World, order: &mut Order, name: &str, verb: &str) {
    if !order.attempts(verb).is_unknown() {
        return;
    }
    order.settled += 1;
    while order.attempts(verb).is_unknown() {
        let told = ask(world, order, name, verb).await;
        order.attempts(verb).note(told);
        if told == Told::No {
            return;
        }
    }
    order.settled_as_done += u32::from(order.attempts(verb).is_done());
}

/// Repeats a request that must succeed, until it has.
pub async fn until_done(world: &World, order: &mut Order, name: &str, verb: &str) {
    let begun = Instant::now();
    loop {
        let told = ask(world, order, name, verb).await;
        order.attempts(verb).note(told);
        if told == Told::Done {
            return;
        }
        assert!(told != Told::Never && begun.elapsed() < STUCK, "{verb} of {order:?} was told {told:?}");
        sleep(PAUSE).await;
    }
}

pub async fn ask(world: &World, order: &Order, name: &str, verb: &str) -> Told {
    let server = world.server().await;
    let (path, body) = match verb {
        "hold" => {
            let Order { cart, sku, quantity, ttl_ms, .. } = order;
            let ttl = ttl_ms / 1000;
            let body = json!({ "cartId": cart, "sku": sku, "quantity": quantity, "ttlSeconds": ttl });
            ("/api/reservations/hold".to_owned(), Bytes::from(body.to_string()))
        }
        "extend" => {
            let body = json!({ "ttlSeconds": order.extension_ms / 1000 });
            (format!("/api/reservations/{}/extend", order.id), Bytes::from(body.to_string()))
        }
        "sell" => {
            let mut body = json!({});
            if let Some(units) = order.sells {
                body["quantity"] = json!(units);
            }
            if order.late {
                body["ifExpired"] = json!("reacquire");
            }
            (format!("/api/reservations/{}/confirm", order.id), Bytes::from(body.to_string()))
        }
        "change" => {
            let body = json!({ "quantity": order.changed_to });
            (format!("/api/reservations/{}/change", order.id), Bytes::from(body.to_string()))
        }
        "give_back" => {
            (format!("/api/reservations/{}/release", order.id), Bytes::from(json!({ "quantity": 1 }).to_string()))
        }
        "return" => {
            let body = json!({ "quantity": order.back, "restock": order.restock });
            (format!("/api/reservations/{}/return", order.id), Bytes::from(body.to_string()))
        }
        verb => (format!("/api/reservations/{}/{verb}", order.id), Bytes::new()),
    };
    // A change and another one of the same reservation have different keys.
    let key = if ["change", "give_back"].contains(&verb) { format!("{name}-{verb}") } else { name.to_owned() };
    let mut request = Request::post(server.url(&path)).header("idempotency-key", key);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let answer = timeout(STUCK, server.attempt(request, body)).await;
    match answer.unwrap_or_else(|_| panic!("{verb} of {order:?} hangs")) {
        Ok(answer) => understand(&answer, order, verb),
        // The server went away, before or after it carried out the request.
        Err(_) => Told::Unknown,
    }
}

pub fn epoch_ms(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().unwrap().as_millisecond().try_into().unwrap()
}

fn understand(answer: &Answer, order: &Order, verb: &str) -> Told {
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    match (answer.status.as_u16(), text("code"), text("outcome")) {
        (200, ..) => {
            let record = [text("reservationId"), text("cartId"), text("sku")];
            assert_eq!(record, [&*order.id, &*order.cart, order.sku], "{}", answer.body);
            if verb == "extend" { Told::Until(epoch_ms(text("expiresAt"))) } else { Told::Done }
        }
        (409, "insufficient_inventory" | "cart_limit_reached" | "cart_full", _) => Told::No,
        (409, "reservation_not_active", _) if verb != "hold" => Told::Never,
        // It may be sold yet: by a request that is still on its way.
        (409, "reservation_not_confirmed", _) if verb == "return" => Told::No,
        // It was held, and its units have gone back since.
        (409, "reservation_not_active", _) if answer.headers.contains_key("idempotent-replayed") => Told::Done,
        (404, "unknown_reservation", _) if verb != "hold" => Told::No,
        (500, "internal", _) if order.sku == BROKEN => Told::Damaged,
        (503, "unavailable", "none") => Told::No,
        (503, "unavailable", "unknown") => Told::Unknown,
        _ => panic!("{verb} of {order:?} answered {answer:?}"),
    }
}
