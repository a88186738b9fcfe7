//! Counts anew: a SKU is seeded again and again, each time once, however often that is requested.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::journal::{Attempts, Seeding, Told};
use super::world::{Manner, SEASONAL, STUCK, World, manner};

const PAUSE: Duration = Duration::from_millis(50);

/// Seeds until it is stopped. Its key and its quantity are those of no other seed.
pub async fn seed(world: Arc<World>) {
    let mut rng = Rng::with_seed(world.seed ^ 2);
    for quantity in 1_u64.. {
        if !world.is_open() {
            return;
        }
        let mut seeding = Seeding { quantity, attempts: Attempts::default() };
        match manner(&mut rng) {
            Manner::AtOnce => {
                let (one, other) = tokio::join!(ask(&world, &seeding), ask(&world, &seeding));
                seeding.attempts.note(one);
                seeding.attempts.note(other);
            }
            manner => {
                for _ in 0..if manner == Manner::Again { 2 } else { 1 } {
                    let told = ask(&world, &seeding).await;
                    seeding.attempts.note(told);
                }
            }
        }
        while seeding.attempts.is_unknown() {
            let told = ask(&world, &seeding).await;
            seeding.attempts.note(told);
            if told == Told::No {
                break;
            }
        }
        world.seedings.lock().await.push(seeding);
        sleep(PAUSE).await;
    }
}

async fn ask(world: &World, seeding: &Seeding) -> Told {
    let Seeding { quantity, .. } = seeding;
    let server = world.server().await;
    let request = Request::post(server.url("/api/inventory/seed"));
    let request = request.header("idempotency-key", format!("season-{quantity}"));
    let request = request.header("content-type", "application/json");
    let body = json!({ "sku": SEASONAL, "quantity": quantity }).to_string();
    let answer = timeout(STUCK, server.attempt(request, Bytes::from(body))).await;
    let Ok(answer) = answer.unwrap_or_else(|_| panic!("{seeding:?} hangs")) else {
        // The server went away, before or after it carried out the request.
        return Told::Unknown;
    };
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    match (answer.status.as_u16(), text("outcome")) {
        (200, _) => {
            assert_eq!(answer.body["available"], *quantity, "{seeding:?} answered {answer:?}");
            Told::Done
        }
        (503, "none") => Told::No,
        (503, "unknown") => Told::Unknown,
        _ => panic!("{seeding:?} answered {answer:?}"),
    }
}
