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

/// It has lost the others, or has not met them yet. Its answer may be the first.
#[tokio::test]
async fn a_node_that_knows_only_a_part_does_not_mislead() {
    let cluster = Cluster::start().await;
    let stranger = cluster.stranger().await;
    let places = format!("{},127.0.0.1:{}", cluster.address(0), stranger.port());
    let redis = cluster.open_url(&cluster.nodes[0].url_at(&places).replacen("://", "+cluster://", 1));
    for number in 0..50 {
        assert_eq!(redis.primaries().await.unwrap().len(), 3);
        assert_eq!(redis.nodes().await.unwrap().len(), 6);
        for key in ["{a}", "name-1", "name-2", "name-3"] {
            assert_eq!(redis.call(cmd("INCR").arg(key)).await.unwrap(), Value::Int(number + 1));
        }
        // A refresh is not repeated before.
        sleep(Duration::from_millis(21)).await;
    }
}
