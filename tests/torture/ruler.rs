//! Rules of the cold SKUs that come and go: a limit for each cart, units that are kept back. No units move by them, and
//! the same rules again change nothing: whether a request was carried out does not matter.

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::timeout;

use super::journal::Told;
use super::sha_client::Caller;
use super::world::{COLD, STUCK, World};

/// Clients that set rules in a hundred turns.
pub const IN_A_HUNDRED: u32 = 2;

struct Rules {
    sku: &'static str,
    per_cart: Option<u32>,
    safety_stock: Option<u32>,
}

/// Of a random SKU. Often none: with a limit for each cart, single holds by SHA are refused.
fn rules(rng: &mut Rng) -> Rules {
    let sku = COLD[rng.usize(..COLD.len())];
    let per_cart = (rng.u32(..4) == 0).then(|| rng.u32(1..5));
    let safety_stock = rng.bool().then(|| rng.u32(1..10));
    Rules { sku, per_cart, safety_stock }
}

pub async fn rule_over_http(world: &World, rng: &mut Rng) {
    let Rules { sku, per_cart, safety_stock } = rules(rng);
    let mut body = json!({});
    if let Some(units) = per_cart {
        body["perCart"] = units.into();
    }
    if let Some(units) = safety_stock {
        body["safetyStock"] = units.into();
    }
    let server = world.server().await;
    let request = Request::put(server.url(&format!("/api/inventory/{sku}/rules")));
    let request = request.header("content-type", "application/json");
    let answer = timeout(STUCK, server.attempt(request, Bytes::from(body.to_string()))).await;
    if let Ok(answer) = answer.unwrap_or_else(|_| panic!("the rules of {sku} hang")) {
        assert!([200, 503].contains(&answer.status.as_u16()), "{answer:?}");
    }
}

pub async fn rule_by_sha(caller: &mut Caller, rng: &mut Rng) {
    let Rules { sku, per_cart, safety_stock } = rules(rng);
    let keys = ["inventory:audit".to_owned(), format!("inventory:{sku}")];
    let text = |units: Option<u32>| units.map_or(String::new(), |units| units.to_string());
    match caller.evalsha("rules", &keys, &[text(per_cart), text(safety_stock), String::new()], false).await {
        Ok(replies) => assert_eq!(replies[0][0], "RULED", "{sku}"),
        Err(told) => assert!([Told::No, Told::Unknown].contains(&told), "the rules of {sku}: {told:?}"),
    }
}
