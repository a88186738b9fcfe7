//! The scripts are where they are called, and no call finds out that they are not.

use std::sync::Arc;

use redis::cmd;
use stockhold::engine::Engine;
use stockhold::keys::{Layout, OperationId, Shard, Sku};
use stockhold::redis::{Failure, Redis};
use stockhold::reloader;
use stockhold::scripts::{Catalogue, Reply, Scripts, State};
use tokio::task::JoinHandle;

use crate::support::cluster::Cluster;

fn layout() -> Layout {
    Layout::sharded(16).unwrap()
}

fn scripts(redis: &Redis) -> Scripts {
    Scripts::new(Catalogue::embedded(), redis.clone())
}

/// Seeds a SKU by its script.
pub async fn seed(scripts: &Scripts, sku: &str) -> Result<Vec<Reply>, Failure> {
    let stock = layout().stock(&Sku::parse(sku).unwrap());
    let Shard { audit, due, skus, settings, .. } = &*stock.shard;
    let operation = stock.shard.operation(&OperationId::mint());
    let keys = [audit, due, skus, settings, &operation, &stock.inventory, &stock.active].map(String::as_str);
    scripts.call("seed", &keys, &["5", ""]).await
}

/// The key of a SKU.
pub fn key(sku: &str) -> String {
    layout().stock(&Sku::parse(sku).unwrap()).inventory
}

/// A SKU whose node is this one.
async fn sku_on(cluster: &Cluster, node: usize) -> String {
    for number in 0.. {
        let sku = format!("tea-{number}");
        if cluster.owner(0, &key(&sku)).await == node {
            return sku;
        }
    }
    unreachable!()
}

/// Whether a node has all scripts.
pub async fn has_all(cluster: &Cluster, node: usize) -> bool {
    let mut exists = cmd("SCRIPT");
    exists.arg("EXISTS");
    for script in Catalogue::embedded().iter() {
        exists.arg(&script.sha1);
    }
    let flags: Vec<bool> = exists.query_async(&mut cluster.connection(node).await).await.unwrap();
    flags.into_iter().all(|flag| flag)
}

/// How often scripts have been loaded into a node.
async fn loads(cluster: &Cluster, node: usize) -> u64 {
    let info: String = cluster.ask(node, &["INFO", "commandstats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_script|load:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

fn start_reloader(redis: &Redis) -> JoinHandle<()> {
    let engine = Arc::new(Engine::new(redis.clone()));
    tokio::spawn(async move { reloader::run(&engine).await })
}

#[tokio::test]
async fn all_nodes_get_the_scripts_and_one_publishes_them() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let scripts = scripts(&redis);
    assert!(!scripts.state().await.unwrap().iter().any(State::is_usable));
    scripts.load().await.unwrap();
    assert!(scripts.state().await.unwrap().iter().all(State::is_usable));
    for node in 0..6 {
        assert!(has_all(&cluster, node).await, "node {node}");
    }
    let owner = cluster.owner(0, "stockhold:scripts").await;
    let published: usize = cluster.ask(owner, &["HLEN", "stockhold:scripts"]).await;
    assert_eq!(published, Catalogue::embedded().current().count());
    for sku in ["tea", "coffee", "milk", "sugar", "salt"] {
        assert_eq!(seed(&scripts, sku).await.unwrap()[0].parts()[0], "SEEDED");
    }
    assert!(!scripts.restore().await.unwrap(), "nothing is missing");

    // One node has lost them: it is the one that gets them again.
    for lost in [1, 4] {
        cluster.tell(lost, &["SCRIPT", "FLUSH"]).await;
        let mut before = Vec::new();
        for node in 0..6 {
            before.push(loads(&cluster, node).await);
        }
        let is_usable = scripts.state().await.unwrap().iter().all(State::is_usable);
        assert_eq!(is_usable, lost == 4, "a replica is not called");
        assert!(scripts.restore().await.unwrap());
        for (node, before) in before.into_iter().enumerate() {
            assert_eq!(loads(&cluster, node).await > before, node == lost, "node {node} of which {lost} had lost them");
        }
    }
}

#[tokio::test]
async fn a_call_loads_them_on_the_node_that_lacks_them() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let scripts = scripts(&redis);
    scripts.load().await.unwrap();
    let skus = [sku_on(&cluster, 0).await, sku_on(&cluster, 1).await, sku_on(&cluster, 2).await];
    for sku in &skus {
        seed(&scripts, sku).await.unwrap();
    }
    for lost in [2, 1] {
        cluster.tell(lost, &["SCRIPT", "FLUSH"]).await;
        let untouched = [loads(&cluster, 0).await, loads(&cluster, 3 - lost).await];
        assert_eq!(seed(&scripts, &skus[lost]).await.unwrap()[0].parts()[0], "SEEDED");
        assert!(has_all(&cluster, lost).await);
        assert_eq!([loads(&cluster, 0).await, loads(&cluster, 3 - lost).await], untouched);
    }
    // The same for calls to several nodes at once.
    for lost in [0, 1] {
        cluster.tell(lost, &["SCRIPT", "FLUSH"]).await;
    }
    let stocks = skus.each_ref().map(|sku| layout().stock(&Sku::parse(sku).unwrap()));
    let keys: Vec<Vec<&str>> = stocks.iter().map(|stock| vec![&*stock.inventory, &*stock.active]).collect();
    for replies in scripts.call_each(&redis, "inventory", &keys, &["0"]).await.unwrap() {
        assert_eq!(replies.unwrap()[0].parts()[0], "STOCK");
    }
    assert!(has_all(&cluster, 0).await && has_all(&cluster, 1).await);
}

/// Before anybody calls them there.
#[tokio::test]
async fn promoted_and_new_nodes_have_them() {
    let mut cluster = Cluster::start().await;
    let redis = cluster.open();
    let reloader = start_reloader(&redis);
    for node in 0..6 {
        cluster.until("all nodes have them", async || has_all(&cluster, node).await).await;
    }
    let scripts = scripts(&redis);
    let sku = sku_on(&cluster, 0).await;
    seed(&scripts, &sku).await.unwrap();

    cluster.tell(3, &["CLUSTER", "FAILOVER"]).await;
    cluster.until_owner(1, &key(&sku), 3).await;
    cluster.until_sound().await;
    seed(&scripts, &sku).await.unwrap();

    let new = cluster.add().await;
    cluster.until("the new node has them", async || has_all(&cluster, new).await).await;
    cluster.move_slot(cluster.slot(&key(&sku)).await, 3, new).await;
    assert_eq!(seed(&scripts, &sku).await.unwrap()[0].parts()[0], "SEEDED");
    // A node that joins as a replica, too.
    let replica = cluster.add().await;
    cluster.follow(replica, new).await;
    cluster.until("the new replica has them", async || has_all(&cluster, replica).await).await;
    for node in 0..8 {
        assert_eq!(cluster.refusals(node, "NOSCRIPT").await, 0, "node {node} was called without them");
    }
    reloader.abort();
}

/// One part that is away does not keep the others from having them.
#[tokio::test]
async fn a_frozen_node_does_not_keep_the_others_from_having_them() {
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
    let redis = cluster.open();
    let reloader = start_reloader(&redis);
    cluster.until("they are loaded", async || has_all(&cluster, 1).await).await;
    let frozen = cluster.owner(0, "stockhold:scripts").await;
    cluster.nodes[frozen].stop_process();
    let lost = (frozen + 1) % 3;
    cluster.tell(lost, &["SCRIPT", "FLUSH"]).await;
    cluster.until("they are back", async || has_all(&cluster, lost).await).await;
    cluster.nodes[frozen].continue_process();
    reloader.abort();
}

/// A replica that is away does not keep a server from its start.
#[tokio::test]
async fn a_frozen_replica_is_loaded_later() {
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
    let redis = cluster.open();
    let scripts = scripts(&redis);
    cluster.nodes[4].stop_process();
    scripts.load().await.unwrap();
    assert!(scripts.state().await.unwrap().iter().all(State::is_usable));
    scripts.restore().await.unwrap_err();
    cluster.nodes[4].continue_process();
    cluster.until_sound().await;
    scripts.restore().await.unwrap();
    assert!(has_all(&cluster, 4).await);
}

#[tokio::test]
async fn the_node_that_wrote_waits_for_its_replica() {
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
    let redis = cluster.open();
    let scripts = scripts(&redis).wait_for_replicas(1);
    scripts.load().await.unwrap();
    let [with, without] = [sku_on(&cluster, 0).await, sku_on(&cluster, 1).await];
    for sku in [&with, &without] {
        seed(&scripts, sku).await.unwrap();
    }
    cluster.nodes[4].stop_process();
    seed(&scripts, &with).await.unwrap();
    let failure = seed(&scripts, &without).await.unwrap_err();
    assert!(matches!(&failure, Failure::NoReply(why) if why.contains("of 1 replicas have it")), "{failure}");
    cluster.nodes[4].continue_process();
}
