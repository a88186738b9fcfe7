//! Deliveries and losses: units of the cold SKUs come and go, each once, however often and by whatever way it is
//! requested.

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::json;
use stockhold::keys::{IdempotencyKey, OperationId, Sku};
use tokio::time::timeout;

use super::journal::{Adjustment, Attempts, Told};
use super::sha_client::Caller;
use super::world::{COLD, Manner, STUCK, World, manner};

/// Units that come and go in a few of a hundred turns of a client.
pub const IN_A_HUNDRED: u32 = 4;

/// A change of a random SKU. Its name is its key, and its reason in the audit.
fn adjustment(rng: &mut Rng, name: &str) -> Adjustment {
    let delta = rng.i64(1..4) * if rng.bool() { 1 } else { -1 };
    let sku = COLD[rng.usize(..COLD.len())];
    Adjustment { name: format!("adjust-{name}"), sku, delta, attempts: Attempts::default() }
}

/// One over HTTP.
pub async fn adjust_over_http(world: &World, rng: &mut Rng, name: &str) {
    let mut adjustment = adjustment(rng, name);
    match manner(rng) {
        Manner::AtOnce => {
            let (one, other) = tokio::join!(over_http(world, &adjustment), over_http(world, &adjustment));
            adjustment.attempts.note(one);
            adjustment.attempts.note(other);
        }
        manner => {
            for _ in 0..if manner == Manner::Again { 2 } else { 1 } {
                let told = over_http(world, &adjustment).await;
                adjustment.attempts.note(told);
            }
        }
    }
    // Some clients retry until they know the outcome or are refused; the others never come back.
    let mut is_persistent = rng.bool();
    while is_persistent && adjustment.attempts.is_unknown() {
        let told = over_http(world, &adjustment).await;
        adjustment.attempts.note(told);
        is_persistent = told != Told::No;
    }
    world.file_adjustment(adjustment).await;
}

/// One by SHA. A repeat goes over HTTP: it is the same operation.
pub async fn adjust_by_sha(world: &World, caller: &mut Caller, rng: &mut Rng, name: &str) {
    let mut adjustment = adjustment(rng, name);
    let manner = manner(rng);
    let told = match manner {
        Manner::AtOnce => {
            let (one, other) = tokio::join!(by_sha(caller, &adjustment), over_http(world, &adjustment));
            adjustment.attempts.note(other);
            one
        }
        _ => by_sha(caller, &adjustment).await,
    };
    adjustment.attempts.note(told);
    if manner == Manner::Again {
        let told = over_http(world, &adjustment).await;
        adjustment.attempts.note(told);
    }
    world.file_adjustment(adjustment).await;
}

async fn over_http(world: &World, adjustment: &Adjustment) -> Told {
    let Adjustment { name, sku, delta, .. } = adjustment;
    let server = world.server().await;
    let request = Request::post(server.url(&format!("/api/inventory/{sku}/adjust")));
    let request = request.header("idempotency-key", name).header("content-type", "application/json");
    let body = json!({ "delta": delta, "reason": name }).to_string();
    let answer = timeout(STUCK, server.attempt(request, Bytes::from(body))).await;
    let Ok(answer) = answer.unwrap_or_else(|_| panic!("{adjustment:?} hangs")) else {
        // The server went away, before or after it carried out the request.
        return Told::Unknown;
    };
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    match (answer.status.as_u16(), text("code"), text("outcome")) {
        (200, ..) => {
            assert_eq!(text("sku"), *sku, "{adjustment:?} answered {answer:?}");
            Told::Done
        }
        (409, "insufficient_inventory", _) | (503, "unavailable", "none") => Told::No,
        (503, "unavailable", "unknown") => Told::Unknown,
        _ => panic!("{adjustment:?} answered {answer:?}"),
    }
}

async fn by_sha(caller: &mut Caller, adjustment: &Adjustment) -> Told {
    let Adjustment { name, sku, delta, .. } = adjustment;
    let key = IdempotencyKey::parse(name).unwrap();
    let operation = OperationId::from_idempotency_key(&key, &Sku::parse(sku).unwrap(), 0);
    let keys = [
        "inventory:audit".to_owned(),
        "stockhold:skus".to_owned(),
        "stockhold:settings".to_owned(),
        format!("inventory:{sku}"),
        format!("inventory:{sku}:active"),
        format!("operation:{operation}"),
    ];
    let args = ["each", "add", &delta.to_string(), "", "", name, "once"].map(str::to_owned);
    match caller.evalsha("adjust", &keys, &args, false).await {
        Ok(replies) => match &*replies[0][0] {
            "ADJUSTED" | "REPLAYED" => Told::Done,
            "INSUFFICIENT" => Told::No,
            _ => panic!("{adjustment:?} answered {replies:?}"),
        },
        Err(told) => told,
    }
}
