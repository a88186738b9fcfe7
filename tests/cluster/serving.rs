//! The server and the commands on a cluster: a stock in shards, on several nodes.

use serde_json::{Value, json};
use stockhold::keys::{Layout, Sku};

use crate::support::cluster::Cluster;
use crate::support::invariants::{History, assert_invariants};
use crate::support::stockhold::{Stockhold, program, run};

const SHARDS: u16 = 64;

fn serve(cluster: &Cluster, arguments: &[&str]) -> Stockhold {
    let url = cluster.url();
    Stockhold::spawn(&[&["--port", "0", "--redis-url", &url, "--shards", "64"], arguments].concat())
}

fn names() -> Vec<String> {
    (0..40).map(|number| format!("sku-{number}")).collect()
}

/// What a command prints, and its exit status.
fn told(cluster: &Cluster, arguments: &[&str]) -> (i32, String) {
    let url = cluster.url();
    let output = program(&[arguments, &["--redis-url", &url]].concat()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

async fn balance(cluster: &Cluster) {
    for primary in 0..3 {
        assert_invariants(&mut cluster.connection(primary).await, History::Whole).await;
    }
}

#[tokio::test]
async fn a_shop_on_three_nodes_is_one_shop() {
    let cluster = Cluster::start().await;
    let server = serve(&cluster, &[]);
    server.wait_until_ready().await;
    for sku in names() {
        server.seed(&sku, 9).await;
        let (sold, back) = (server.held(&sku, 1).await, server.held(&sku, 1).await);
        server.held(&sku, 2).await;
        server.confirm(&sold).await.ok();
        server.release(&back).await.ok();
        assert_eq!(server.counts(&sku).await, [6, 2, 1]);
    }
    let items: Vec<Value> = names().iter().map(|sku| json!({ "sku": sku, "quantity": 1 })).collect();
    let held = server.post_with("/api/carts/c/hold", json!({ "items": items }), Some("key")).await.ok();
    assert_eq!(held["reservations"].as_array().unwrap().len(), 40);
    assert_eq!(server.get("/api/carts/c").await.ok()["reservations"].as_array().unwrap().len(), 40);
    server.post_with("/api/carts/c/confirm", None, Some("pay")).await.ok();
    let listed = server.get("/api/inventory?limit=100").await.ok();
    let mut expected = names();
    expected.sort();
    let listed: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|item| item["sku"].as_str().unwrap()).collect();
    assert_eq!(listed, expected);
    let events = server.get("/api/audit?limit=1000").await.ok();
    assert_eq!(events["events"].as_array().unwrap().len(), 40 * 8);
    balance(&cluster).await;

    // Each node has a third of it.
    let layout = Layout::sharded(SHARDS).unwrap();
    let mut of_node = [0; 3];
    for sku in names() {
        let keys = layout.stock(&Sku::parse(&sku).unwrap());
        of_node[cluster.owner(0, &keys.inventory).await] += 1;
    }
    assert!(of_node.iter().all(|skus| *skus > 3), "{of_node:?}");

    let (status, text) = told(&cluster, &["check"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("40 SKUs, 320 events"), "{text}");
    assert_eq!(told(&cluster, &["settings", "--keep-seconds", "60"]).0, 0);
    let keys = layout.stock(&Sku::parse("sku-7").unwrap());
    let owner = cluster.owner(0, &keys.inventory).await;
    let (status, text) = told(&cluster, &["keys", "sku-7"]);
    assert_eq!(status, 0, "{text}");
    let slot = cluster.slot(&keys.inventory).await;
    for line in [
        format!("shard       {} of 64", keys.shard.number),
        format!("slot        {slot}"),
        format!("node        {}", cluster.address(owner)),
        format!("inventory   {}", keys.inventory),
        format!("active      {}", keys.active),
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
    let id = server.held("sku-7", 1).await;
    let (_, text) = told(&cluster, &["keys", &id]);
    assert!(text.contains(&format!("reservation {{{}}}:reservation:{id}", keys.shard.number)), "{text}");
}

#[tokio::test]
async fn what_lapses_on_any_node_is_swept() {
    let cluster = Cluster::start().await;
    let server = serve(&cluster, &["--sweep-interval-ms", "50"]);
    for sku in names() {
        server.seed(&sku, 5).await;
        for _ in 0..3 {
            server.held_for(&sku, 1, 1).await;
        }
    }
    let layout = Layout::sharded(SHARDS).unwrap();
    for sku in names() {
        let keys = layout.stock(&Sku::parse(&sku).unwrap());
        let owner = cluster.owner(0, &keys.inventory).await;
        let swept = async || cluster.ask::<u64>(owner, &["ZCARD", &keys.active]).await == 0;
        cluster.until("all is swept", swept).await;
    }
    balance(&cluster).await;
}

#[tokio::test]
async fn a_server_that_does_not_fit_is_told_what_to_do() {
    let cluster = Cluster::start().await;
    let refused = |arguments: &[&str]| {
        let (status, text) = run(&mut program(&[&["serve", "--port", "0"], arguments].concat()));
        assert_eq!(status, 1);
        text
    };
    let (url, node) = (cluster.url(), cluster.nodes[0].url());
    let text = refused(&["--redis-url", &url]);
    assert!(text.contains("--shards") && text.contains("64 is a good number"), "{text}");
    let text = refused(&["--redis-url", &node, "--shards", "64"]);
    assert!(text.contains("redis+cluster://"), "{text}");
}

/// While a node is away, what is on the others is sold, and readiness says what is wrong.
#[tokio::test]
async fn the_other_nodes_sell_while_one_is_away() {
    // Nobody takes over within the test.
    let cluster = Cluster::start_with(&["--cluster-node-timeout", "60000"]).await;
    let server = serve(&cluster, &["--sweep-interval-ms", "50"]);
    let layout = Layout::sharded(SHARDS).unwrap();
    let mut of_node = vec![Vec::new(); 3];
    for sku in names() {
        server.seed(&sku, 9).await;
        let keys = layout.stock(&Sku::parse(&sku).unwrap());
        of_node[cluster.owner(0, &keys.inventory).await].push(sku);
    }
    cluster.nodes[1].stop_process();
    for sku in of_node[0].iter().chain(&of_node[2]) {
        let id = server.held(sku, 1).await;
        server.confirm(&id).await.ok();
    }
    server.get(&format!("/api/inventory/{}", of_node[1][0])).await.problem(503, "unavailable");
    server.get("/readyz").await.problem(503, "unavailable");
    // What lapses on the others is swept.
    let id = server.held_for(&of_node[2][0], 1, 1).await;
    let key = layout.stock(&Sku::parse(&of_node[2][0]).unwrap()).active;
    let swept = async || {
        let left: Option<f64> = cluster.ask(2, &["ZSCORE", &key, &id]).await;
        left.is_none()
    };
    cluster.until("it is swept", swept).await;
    cluster.nodes[1].continue_process();
    server.wait_until_ready().await;
    server.held(&of_node[1][0], 1).await;
    balance(&cluster).await;
}
