//! Nodes that join and leave.

use std::time::Duration;

use redis::{Value, cmd};
use stockhold::redis::Redis;
use tokio::time::sleep;

use crate::support::cluster::Cluster;

#[tokio::test]
async fn nodes_join_and_leave() {
    let mut cluster = Cluster::start().await;
    let redis = cluster.open();
    let count = async |redis: &Redis, expected| {
        assert_eq!(redis.call(cmd("INCR").arg("{a}")).await.unwrap(), Value::Int(expected));
    };
    count(&redis, 1).await;
    let (slot, from) = (cluster.slot("{a}").await, cluster.owner(0, "{a}").await);

    let new = cluster.add().await;
    assert_eq!(redis.nodes().await.unwrap().len(), 7, "a node without slots is a node");
    assert_eq!(redis.primaries().await.unwrap().len(), 3, "and has nothing yet");
    cluster.move_slot(slot, from, new).await;
    count(&redis, 2).await;
    cluster.until_owner(0, "{a}", new).await;
    assert_eq!(redis.primaries().await.unwrap().len(), 4);

    cluster.move_slot(slot, new, from).await;
    count(&redis, 3).await;
    cluster.until_owner(0, "{a}", from).await;
    cluster.until_sound().await;
    cluster.forget(new).await;
    cluster.nodes[new].kill();
    for expected in 4..20 {
        count(&redis, expected).await;
    }
    cluster.until("it is gone", async || redis.nodes().await.unwrap().len() == 6).await;
    assert_eq!(redis.primaries().await.unwrap().len(), 3);
}

/// The nodes that the URL names may be gone one day.
#[tokio::test]
async fn the_others_are_known_when_the_named_one_is_gone() {
    let mut cluster = Cluster::start().await;
    let named = cluster.owner(0, "{a}").await;
    let redis = cluster.open_url(&cluster.url_of(&[named]));
    redis.call(cmd("INCR").arg("{a}")).await.unwrap();
    cluster.nodes[named].kill();
    cluster.until_owner((named + 1) % 3, "{a}", named + 3).await;
    cluster.until("service is back", async || redis.call(cmd("INCR").arg("{a}")).await.is_ok()).await;
    assert_eq!(redis.primaries().await.unwrap().len(), 3);
}

/// It answers questions as before, and is not believed while others know more.
#[tokio::test]
async fn a_node_that_has_lost_the_others_does_not_mislead() {
    let cluster = Cluster::start().await;
    let lost = cluster.owner(0, "{a}").await;
    let redis = cluster.open_url(&cluster.url_of(&[lost, (lost + 1) % 3]));
    redis.call(cmd("INCR").arg("{a}")).await.unwrap();
    cluster.isolate(lost).await;
    let know_all = async || {
        for _ in 0..50 {
            assert_eq!(redis.primaries().await.unwrap().len(), 3);
            assert_eq!(redis.nodes().await.unwrap().len(), 6);
            // A refresh is not repeated before.
            sleep(Duration::from_millis(21)).await;
        }
    };
    know_all().await;
    cluster.tell(lost + 3, &["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    cluster.until_owner((lost + 1) % 3, "{a}", lost + 3).await;
    for _ in 0..50 {
        redis.with_own_connection().call(cmd("INCR").arg("{a}")).await.unwrap();
    }
    know_all().await;
}
