//! `make sentinel`.

use serde_json::json;

use crate::support::playground::Playground;
use crate::support::stockhold::definite;

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_killed_in_the_playground() {
    let playground = Playground::new("sentinel", 3, 3);
    let server = playground.start(&[]);
    let body = json!({ "sku": "tea", "quantity": 5 });
    definite(&server, "/api/inventory/seed", Some(body)).await.ok();
    playground.kill(playground.ports[0]);
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 2 });
    definite(&server, "/api/reservations/hold", Some(body)).await.ok();
    playground.stop(server);
    // The old master comes back as one, until the sentinels tell it otherwise.
    let server = playground.start(&[]);
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
}
