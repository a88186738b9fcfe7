//! The users of `redis/users.acl` on a cluster: each can do its work, also while a slot moves.

use redis::cmd;
use stockhold::redis::{Failure, Redis};
use stockhold::scripts::{Catalogue, Scripts};

use crate::scripts::{has_all, key, seed};
use crate::support::cluster::Cluster;
use crate::support::stockhold::program;

const FILE: &str = include_str!("../../redis/users.acl");
const PASSWORD: &str = "for-this-test-only";

/// A cluster with the users on all nodes.
async fn guarded() -> Cluster {
    let cluster = Cluster::start().await;
    for node in 0..cluster.nodes.len() {
        for line in FILE.lines() {
            let words: Vec<&str> = line.split(' ').skip(1).collect();
            cluster.tell(node, &[&["ACL", "SETUSER"], &words[..]].concat()).await;
            cluster.tell(node, &["ACL", "SETUSER", words[0], &format!(">{PASSWORD}")]).await;
        }
    }
    cluster
}

fn url(cluster: &Cluster, user: &str) -> String {
    cluster.url().replacen("://", &format!("://{user}:{PASSWORD}@"), 1)
}

async fn assert_no_denials(cluster: &Cluster) {
    for node in 0..cluster.nodes.len() {
        let log: redis::Value = cluster.ask(node, &["ACL", "LOG"]).await;
        assert_eq!(log, redis::Value::Array(vec![]), "node {node}");
    }
}

#[tokio::test]
async fn the_server_finds_its_way() {
    let cluster = guarded().await;
    let redis = cluster.open_url(&url(&cluster, "stockhold-server"));
    let scripts = Scripts::new(Catalogue::embedded(), redis.clone()).wait_for_replicas(1);
    scripts.load().await.unwrap();
    assert!(!scripts.restore().await.unwrap());
    let tea = key("tea");
    let (slot, from) = (cluster.slot(&tea).await, cluster.owner(0, &tea).await);
    let to = (from + 1) % 3;
    seed(&scripts, "tea").await.unwrap();
    cluster.begin_move(slot, from, to).await;
    cluster.move_keys(from, to, &tea).await;
    assert!(redis.hash(&tea).await.unwrap().fields.contains_key("available"));
    assert!(cluster.refusals(from, "ASK").await > 0);
    cluster.move_all(slot, from, to).await;
    seed(&scripts, "tea").await.unwrap();
    assert!(redis.hash(&tea).await.unwrap().fields.contains_key("available"));
    for node in redis.primaries().await.unwrap() {
        assert_eq!(node.health().await.unwrap().role, "master");
    }
    assert_no_denials(&cluster).await;
}

#[tokio::test]
async fn the_deployer_loads_into_all_nodes() {
    let cluster = guarded().await;
    for (step, said) in [("load", " loaded, published"), ("verify", "scripts are loaded and published")] {
        let mut command = program(&["scripts", step, "--redis-url", &url(&cluster, "stockhold-deployer")]);
        if let Some(ca) = cluster.nodes[0].ca() {
            command.arg("--redis-ca").arg(ca);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{step}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(said), "{step}: {output:?}");
    }
    for node in 0..6 {
        assert!(has_all(&cluster, node).await, "node {node}");
    }
    assert_no_denials(&cluster).await;
}

#[tokio::test]
async fn the_auditor_sees_all_nodes() {
    let cluster = guarded().await;
    let scripts = Scripts::new(Catalogue::embedded(), cluster.open());
    scripts.load().await.unwrap();
    let skus = ["tea", "coffee", "milk", "sugar", "salt"];
    for sku in skus {
        seed(&scripts, sku).await.unwrap();
    }
    let redis = cluster.open_url(&url(&cluster, "stockhold-auditor"));
    let mut seen = 0;
    for node in redis.primaries().await.unwrap() {
        let (next, keys) = node.scan(0).await.unwrap();
        assert_eq!(next, 0);
        seen += keys.iter().filter(|found| skus.iter().any(|sku| **found == key(sku))).count();
    }
    assert_eq!(seen, skus.len());
    let tea = key("tea");
    let member = ("x".to_owned(), tea.replace("inventory:tea", "reservation:x"));
    let looks = redis.looks(&format!("{tea}:active"), &[member]).await.unwrap();
    assert_eq!((looks.len(), looks[0].score.as_ref()), (1, None));
    let (slot, from) = (cluster.slot(&tea).await, cluster.owner(0, &tea).await);
    cluster.begin_move(slot, from, (from + 1) % 3).await;
    cluster.move_keys(from, (from + 1) % 3, &tea).await;
    assert!(redis.hash(&tea).await.unwrap().fields.contains_key("available"));
    assert!(cluster.refusals(from, "ASK").await > 0);
    assert_no_denials(&cluster).await;
}

/// Nobody may follow a slot that is moved: that is told, and not where it would lead.
#[tokio::test]
async fn a_user_without_the_right_to_ask_is_told() {
    let cluster = guarded().await;
    for node in 0..6 {
        cluster.tell(node, &["ACL", "SETUSER", "stockhold-server", "-asking"]).await;
    }
    let redis: Redis = cluster.open_url(&url(&cluster, "stockhold-server"));
    let tea = key("tea");
    let (slot, from) = (cluster.slot(&tea).await, cluster.owner(0, &tea).await);
    cluster.begin_move(slot, from, (from + 1) % 3).await;
    let refused = redis.call(cmd("HGETALL").arg(&tea)).await.unwrap_err();
    assert!(refused.to_string().contains("NOPERM") && refused.to_string().contains("asking"), "{refused}");
}

/// One node lets a user in no more: waiting does not help, and the other nodes are used as before.
#[tokio::test]
async fn a_node_that_does_not_let_the_user_in_is_told() {
    let cluster = guarded().await;
    let redis = cluster.open_url(&url(&cluster, "stockhold-server"));
    let tea = key("tea");
    let owner = cluster.owner(0, &tea).await;
    let mut other = String::new();
    for number in 0.. {
        other = key(&format!("cup-{number}"));
        if cluster.owner(0, &other).await != owner {
            break;
        }
    }
    redis.hash(&tea).await.unwrap();
    cluster.tell(owner, &["ACL", "SETUSER", "stockhold-server", "off"]).await;
    let killed: u64 = cluster.ask(owner, &["CLIENT", "KILL", "USER", "stockhold-server"]).await;
    assert!(killed > 0);
    cluster
        .until("it is told", async || {
            let refused = redis.hash(&tea).await.err();
            refused.is_some_and(|refused| match refused {
                Failure::Barred(why) => why.contains(&cluster.address(owner)) && why.contains("WRONGPASS"),
                _ => false,
            })
        })
        .await;
    redis.hash(&other).await.unwrap();
    // Its replica does.
    cluster.tell(owner + 3, &["CLUSTER", "FAILOVER"]).await;
    cluster.until("it is served again", async || redis.hash(&tea).await.is_ok()).await;
    let stranger = cluster.open_url(&cluster.url().replacen("://", "://nobody:wrong@", 1));
    let refused = stranger.hash(&tea).await.unwrap_err();
    assert!(matches!(refused, Failure::Barred(_)), "{refused}");
}
