//! Which node a call goes to.

use std::collections::BTreeSet;

use redis::{Value, cmd, pipe};
use stockhold::redis::{Failure, Redis};

use crate::support::cluster::Cluster;
use crate::support::redis_server::RedisServer;
use crate::support::tls::Authority;

/// Names for which each node has some.
fn names() -> Vec<String> {
    (0..30).map(|number| format!("name-{number}")).collect()
}

#[tokio::test]
async fn calls_go_to_the_node_that_has_the_key() {
    let cluster = Cluster::start().await;
    // One node is enough to find the others, also a replica.
    for url in [cluster.url(), cluster.url_of(&[1]), cluster.url_of(&[4])] {
        let redis = cluster.open_url(&url);
        for name in names() {
            redis.set_fields(&name, &[("name", name.clone())]).await.unwrap();
        }
    }
    let mut owners = BTreeSet::new();
    for name in names() {
        let owner = cluster.owner(0, &name).await;
        assert!(cluster.ask::<bool>(owner, &["EXISTS", &name]).await, "{name}");
        owners.insert(owner);
    }
    assert_eq!(owners, BTreeSet::from([0, 1, 2]));
    for node in 0..6 {
        assert_eq!(cluster.refusals(node, "MOVED").await, 0, "node {node} was asked for what it has not");
    }
}

#[tokio::test]
async fn replies_of_many_slots_come_in_the_order_of_the_keys() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    for name in names() {
        redis.set_fields(&name, &[("name", name.clone())]).await.unwrap();
    }
    let value = |name: &String| Some(name.clone());
    let hashes = redis.hashes(names()).await.unwrap();
    assert_eq!(
        hashes.iter().map(|hash| hash.get("name").cloned()).collect::<Vec<_>>(),
        Vec::from_iter(names().iter().map(value))
    );
    let (hashes, now_ms) = redis.hashes_now(names()).await.unwrap();
    assert_eq!(
        hashes.iter().map(|hash| hash.get("name").cloned()).collect::<Vec<_>>(),
        Vec::from_iter(names().iter().map(value))
    );
    assert!(now_ms > 1_700_000_000_000);

    // One that is no hash, among others.
    cluster.open().call(cmd("DEL").arg("name-7")).await.unwrap();
    redis.call(cmd("SET").arg("name-7").arg("text")).await.unwrap();
    let fields = redis.fields(&names(), &["name", "other"]).await.unwrap();
    for (name, fields) in names().iter().zip(fields) {
        assert_eq!(fields, [value(name).filter(|name| name != "name-7"), None]);
    }
    let mut each = pipe();
    for name in names() {
        each.cmd("HGET").arg(name).arg("name").cmd("TIME");
    }
    let outcomes = redis.each(each).await.unwrap();
    assert_eq!(outcomes.len(), 2 * names().len());
    for (name, pair) in names().iter().zip(outcomes.chunks(2)) {
        match &pair[0] {
            Err(Failure::Refused { code, .. }) if name == "name-7" => assert_eq!(code, "WRONGTYPE"),
            outcome => assert_eq!(*outcome.as_ref().unwrap(), Value::BulkString(name.as_bytes().to_vec())),
        }
        assert!(matches!(pair[1], Ok(Value::Array(_))));
    }
}

#[tokio::test]
async fn what_concerns_one_slot_goes_there_as_a_whole() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    redis.set_fields("{7}:hash", &[("field", "value".to_owned())]).await.unwrap();
    redis.call(cmd("ZADD").arg("{7}:scores").arg(5).arg("member")).await.unwrap();
    let members = [("member".to_owned(), "{7}:hash".to_owned()), ("other".to_owned(), "{7}:none".to_owned())];
    let looks = redis.looks("{7}:scores", &members).await.unwrap();
    assert_eq!(looks[0].fields.as_ref().unwrap()["field"], "value");
    assert_eq!((looks[0].score.as_deref(), looks[1].score.as_deref()), (Some("5"), None));
    let look = redis.index_look("member", "{7}:scores", "{7}:scores", "{7}:list").await.unwrap();
    assert_eq!((look.bound, look.lowest, look.listed), (Some(5.0), Some(5.0), false));
    let hash = redis.hash("{7}:hash").await.unwrap();
    assert_eq!(hash.fields["field"], "value");
    let [own, others] = [redis.now_ms("{7}:hash").await.unwrap(), redis.now_ms("name-1").await.unwrap()];
    assert!(own >= hash.now_ms && others >= hash.now_ms);

    let refused = redis.pipeline(pipe().cmd("GET").arg("name-1").cmd("GET").arg("name-2")).await.unwrap_err();
    assert!(matches!(&refused, Failure::Refused { code, .. } if code == "CROSSSLOT"), "{refused}");
    let refused = redis.call(&cmd("TIME")).await.unwrap_err();
    assert!(refused.to_string().contains("TIME has no key"), "{refused}");
    assert!(redis.each(pipe()).await.unwrap().is_empty());
}

#[tokio::test]
async fn nodes_can_be_called_one_by_one() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let addresses = |nodes: Vec<Redis>| nodes.iter().map(Redis::address).collect::<BTreeSet<_>>();
    let expected = |nodes: std::ops::Range<usize>| nodes.map(|node| cluster.address(node)).collect::<BTreeSet<_>>();
    assert_eq!(addresses(redis.primaries().await.unwrap()), expected(0..3));
    assert_eq!(addresses(redis.replicas().await.unwrap()), expected(3..6));
    assert_eq!(addresses(redis.nodes().await.unwrap()), expected(0..6));
    assert_eq!(redis.address(), [0, 1, 2].map(|node| cluster.address(node)).join(","));
    assert!(redis.is_cluster_node().await.unwrap());
    for name in names() {
        redis.call(cmd("SET").arg(name).arg(1)).await.unwrap();
    }
    let mut found = BTreeSet::new();
    for node in redis.primaries().await.unwrap() {
        assert_eq!(node.health().await.unwrap().role, "master");
        found.extend(node.scan(0).await.unwrap().1);
    }
    assert_eq!(found, names().into_iter().collect());
    // A Redis that is no cluster is its only node.
    let alone = RedisServer::start();
    let redis = alone.open(&alone.url());
    assert_eq!(addresses(redis.primaries().await.unwrap()), addresses(redis.nodes().await.unwrap()));
    assert_eq!(redis.address(), format!("127.0.0.1:{}", alone.port()));
}

#[tokio::test]
async fn a_part_without_a_node_is_not_passed_over() {
    let cluster =
        Cluster::start_with(&["--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"]).await;
    let redis = cluster.open();
    redis.call(cmd("SET").arg("name-1").arg(1)).await.unwrap();
    let slot = cluster.slot("name-1").await;
    let missing = format!("no node of the cluster has slot {slot}");
    // A message between nodes that is late brings the slot back.
    cluster
        .until("it is told", async || {
            cluster.take_away(slot).await;
            let primaries = redis.primaries().await.err().map(|failure| failure.to_string());
            let call = redis.call(cmd("GET").arg("name-1")).await.err().map(|failure| failure.to_string());
            primaries.is_some_and(|why| why.contains(&missing))
                && call.is_some_and(|why| why.contains(&missing) || why.contains("CLUSTERDOWN"))
        })
        .await;
    // The others are there.
    for name in ["name-2", "name-3", "name-4"] {
        redis.call(cmd("SET").arg(name).arg(1)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_cluster_is_told() {
    let alone = RedisServer::start();
    let url = alone.url().replacen("://", "+cluster://", 1);
    let failure = alone.open(&url).call(cmd("GET").arg("name")).await.unwrap_err();
    assert!(failure.to_string().contains("cluster support disabled"), "{failure}");
    let failure = Redis::open("redis+cluster://127.0.0.1:1").unwrap().call(cmd("GET").arg("name")).await.unwrap_err();
    assert!(matches!(failure, Failure::Unreachable(_)), "{failure}");
}

/// The certificate of each node is for the name that it announces, and not for the address that its redirections name.
#[tokio::test]
async fn a_node_is_called_by_the_name_that_it_announces() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("an authority"));
    authority.write(folder.path());
    authority.issue(&["localhost"]).write(folder.path(), "server");
    let options = ["--cluster-node-timeout", "1000", "--cluster-announce-hostname", "localhost"];
    let cluster = Cluster::start_by(&options, |options| RedisServer::start_with_tls(folder.path(), options)).await;
    let seed = format!("rediss+cluster://localhost:{}", cluster.nodes[0].port());
    let redis = cluster.open_url(&seed);
    for name in names() {
        redis.call(cmd("SET").arg(&name).arg(1)).await.unwrap();
    }
    let (from, slot) = (cluster.owner(0, "name-1").await, cluster.slot("name-1").await);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to).await;
    cluster.move_keys(from, to, "name-1").await;
    redis.call(cmd("INCR").arg("name-1")).await.unwrap();
    assert!(cluster.refusals(from, "ASK").await > 0);
    cluster.end_move(slot, from, to).await;
    redis.call(cmd("INCR").arg("name-1")).await.unwrap();
    assert!(cluster.refusals(from, "MOVED").await > 0);
    let names: BTreeSet<String> = redis.nodes().await.unwrap().iter().map(Redis::address).collect();
    assert_eq!(names, (0..6).map(|node| format!("localhost:{}", cluster.nodes[node].port())).collect());
}
