//! `make cluster`.

use redis::{Client, cmd};
use serde_json::json;

use crate::market::{key_of, sku};
use crate::support::playground::Playground;
use crate::support::stockhold::definite;

/// Whether a node has the slot of a key. Replicas, too, send callers to another node.
fn serves(port: u16, key: &str) -> bool {
    let mut connection = Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().unwrap();
    cmd("EXISTS").arg(key).query::<bool>(&mut connection).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_killed_in_the_playground() {
    let playground = Playground::new("cluster", 7, 0);
    let server = playground.start(&["--shards", "64"]);
    for number in 0..12 {
        let body = json!({ "sku": sku(number), "quantity": 5 });
        definite(&server, "/api/inventory/seed", Some(body)).await.ok();
    }
    // Not the first, which has two replicas: the spare one must come to the one that is promoted.
    let primary = playground.ports[1];
    assert!((0..12).any(|number| serves(primary, &key_of(number))));
    playground.kill(primary);
    for number in 0..12 {
        let body = json!({ "cartId": "cart-1", "sku": sku(number), "quantity": 2 });
        definite(&server, "/api/reservations/hold", Some(body)).await.ok();
    }
    playground.stop(server);
    // The old primary comes back as one, until the others tell it otherwise.
    let server = playground.start(&["--shards", "64"]);
    for number in 0..12 {
        assert_eq!(server.counts(&sku(number)).await, [3, 2, 0]);
    }
}
