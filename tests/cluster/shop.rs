//! A shop whose cluster breaks and changes while buyers buy: nothing is sold twice, no unit is lost, and every acknowledged
//! request is in the books.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::market::{Market, key_of, sku};
use crate::support::cluster::Cluster;
use crate::support::stockhold::Stockhold;

/// The SKU whose node breaks.
const SKU: usize = 1;

fn serve(cluster: &Cluster, arguments: &[&str]) -> Stockhold {
    let url = cluster.url();
    Stockhold::spawn(&[&["--port", "0", "--redis-url", &url, "--shards", "64"], arguments].concat())
}

/// A second replica: with the first one promoted, `wait:1` finds it.
async fn one_more_replica(cluster: &mut Cluster, primary: usize) -> usize {
    let replica = cluster.add().await;
    cluster.follow(replica, primary).await;
    cluster
        .until("it follows", async || {
            let info: String = cluster.ask(replica, &["INFO", "replication"]).await;
            info.contains("master_link_status:up")
        })
        .await;
    replica
}

/// The primary of the SKU breaks, and one of its replicas takes over. In the end it must have another one: `wait:1` waits
/// for that.
async fn survives(replicas: usize, node_timeout: &str, break_it: impl AsyncFnOnce(&mut Cluster, usize)) {
    let mut cluster = Cluster::start_with(&["--cluster-node-timeout", node_timeout]).await;
    let primary = cluster.owner(0, &key_of(SKU)).await;
    let mut followers = vec![primary + 3];
    if replicas > 1 {
        followers.push(one_more_replica(&mut cluster, primary).await);
    }
    let market = Market::open(serve(&cluster, &["--durability", "wait:1"])).await;
    let witness = (primary + 1) % 3;
    break_it(&mut cluster, primary).await;
    cluster
        .until("a replica has taken over", async || followers.contains(&cluster.owner(witness, &key_of(SKU)).await))
        .await;
    let longest = market.until_all_are_served().await;
    println!("served {longest:?} after the promotion");
    let promoted = cluster.owner(witness, &key_of(SKU)).await;
    let mut primaries: Vec<usize> = (0..3).filter(|node| *node != primary).collect();
    primaries.push(promoted);
    market.close(&cluster, &primaries).await;
}

#[tokio::test]
async fn a_primary_that_is_killed_is_replaced() {
    survives(2, "1000", async |cluster, primary| cluster.nodes[primary].kill()).await;
}

#[tokio::test]
async fn a_primary_that_freezes_for_good_is_replaced() {
    survives(2, "1000", async |cluster, primary| cluster.nodes[primary].stop_process()).await;
}

#[tokio::test]
async fn a_primary_hands_over() {
    survives(2, "5000", async |cluster, primary| cluster.tell(primary + 3, &["CLUSTER", "FAILOVER"]).await).await;
}

/// An operator who forces a fail-over may choose a replica that lacks what another one has confirmed. Here there is one.
#[tokio::test]
async fn a_replica_takes_over_by_force() {
    survives(1, "5000", async |cluster, primary| cluster.tell(primary + 3, &["CLUSTER", "FAILOVER", "FORCE"]).await)
        .await;
}

/// Too short for a fail-over: each call is executed once at most, and what had no reply is found out.
#[tokio::test]
async fn a_primary_that_freezes_for_a_moment_loses_nothing() {
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "15000"]).await;
    let primary = cluster.owner(0, &key_of(SKU)).await;
    let market = Market::open(serve(&cluster, &[])).await;
    let mut others = Vec::new();
    for number in 0..12 {
        if cluster.owner(0, &key_of(number)).await != primary {
            others.push(number);
        }
    }
    for _ in 0..3 {
        cluster.nodes[primary].stop_process();
        let (begun, mut reads) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(1500) {
            market.server.counts(&sku(others[reads % others.len()])).await;
            reads += 1;
        }
        println!("{reads} reads from the other nodes meanwhile");
        cluster.nodes[primary].continue_process();
        market.until_all_are_served().await;
    }
    market.close(&cluster, &[0, 1, 2]).await;
}

/// The slots of some SKUs move from node to node while they are sold.
#[tokio::test]
async fn slots_move_while_their_skus_are_sold() {
    let cluster = Cluster::start().await;
    let market = Market::open(serve(&cluster, &[])).await;
    for number in 0..6 {
        let (key, from) = (key_of(number), cluster.owner(0, &key_of(number)).await);
        let (to, slot) = ((from + 1) % 3, cluster.slot(&key).await);
        cluster.begin_move(slot, from, to).await;
        // Buyers meet a slot that is moving, some of it here and some there.
        let keys = cluster.keys_in(from, slot).await;
        for some in keys.chunks(keys.len() / 3 + 1) {
            cluster.move_keys(from, to, some).await;
            sleep(Duration::from_millis(30)).await;
        }
        cluster.move_all(slot, from, to).await;
        market.until_all_are_served().await;
    }
    market.close(&cluster, &[0, 1, 2]).await;
}

/// A node joins and gets slots, and goes again.
#[tokio::test]
async fn a_node_joins_and_leaves() {
    let mut cluster = Cluster::start().await;
    let market = Market::open(serve(&cluster, &[])).await;
    let joined = cluster.add().await;
    let mut moved = Vec::new();
    for number in [0, 1, 4, 7] {
        let (from, slot) = (cluster.owner(0, &key_of(number)).await, cluster.slot(&key_of(number)).await);
        if from != joined {
            cluster.move_slot(slot, from, joined).await;
            moved.push((slot, from));
        }
    }
    market.until_all_are_served().await;
    for (slot, from) in moved {
        cluster.move_slot(slot, joined, from).await;
    }
    cluster.forget(joined).await;
    cluster.nodes[joined].kill();
    market.until_all_are_served().await;
    market.close(&cluster, &[0, 1, 2]).await;
}
