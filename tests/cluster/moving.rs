//! Slots that move from one node to another while calls arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis::{Value, cmd, pipe};
use stockhold::redis::Redis;
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;

/// The slot of a key, the node that has it, and another primary.
async fn places(cluster: &Cluster, key: &str) -> (u16, usize, usize) {
    let from = cluster.owner(0, key).await;
    (cluster.slot(key).await, from, (from + 1) % 3)
}

async fn incr(redis: &Redis, key: &str) -> i64 {
    match redis.call(cmd("INCR").arg(key)).await.unwrap() {
        Value::Int(count) => count,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_follows_its_slot_and_the_next_knows_where_it_is() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    assert_eq!(incr(&redis, "{a}").await, 1);
    cluster.move_slot(slot, from, to).await;
    for count in 2..10 {
        assert_eq!(incr(&redis, "{a}").await, count);
    }
    assert_eq!(cluster.refusals(from, "MOVED").await, 1);
    // What one connection has learned, all others of this process know.
    assert_eq!(incr(&redis.with_own_connection(), "{a}").await, 10);
    assert_eq!(cluster.refusals(from, "MOVED").await, 1);
}

/// Scripts in one pipeline: those that were carried out are not sent again.
#[tokio::test]
async fn only_what_was_refused_is_sent_again() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    // Another slot of the same node.
    let mut stay = String::new();
    for number in 0.. {
        stay = format!("{{stays-{number}}}");
        if cluster.owner(0, &stay).await == from {
            break;
        }
    }
    let mut calls = pipe();
    for number in 0..50 {
        calls.cmd("INCR").arg(format!("{{a}}{number}")).cmd("INCR").arg(format!("{stay}{number}"));
    }
    // The map is known, and then the slot moves.
    incr(&redis, "{a}").await;
    cluster.move_slot(slot, from, to).await;
    for outcome in redis.each(calls).await.unwrap() {
        assert_eq!(outcome.unwrap(), Value::Int(1));
    }
    assert!(cluster.refusals(from, "MOVED").await >= 50);
    for number in 0..50 {
        assert_eq!(incr(&redis, &format!("{{a}}{number}")).await, 2);
        assert_eq!(incr(&redis, &format!("{stay}{number}")).await, 2);
    }
}

/// A pipeline keeps its order, and a command without a key goes where the one before it went.
#[tokio::test]
async fn a_pipeline_follows_its_slot_as_a_whole() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    redis.set_fields("{a}hash", &[("version", "1".to_owned())]).await.unwrap();
    redis.call(cmd("ZADD").arg("{a}set").arg(1).arg("member")).await.unwrap();
    let read = async || redis.lowest_while("{a}set", 10, "{a}hash", "version").await.unwrap();
    let expected = (vec!["member".to_owned()], Some("1".to_owned()));
    assert_eq!(read().await, expected);
    cluster.begin_move(slot, from, to).await;
    for key in ["{a}hash", "{a}set"] {
        cluster.move_keys(from, to, key).await;
        assert_eq!(read().await, expected, "{key} has moved");
        assert_eq!(redis.hash("{a}hash").await.unwrap().fields["version"], "1");
    }
    let looks = redis.looks("{a}set", &[("member".to_owned(), "{a}hash".to_owned())]).await.unwrap();
    assert_eq!(looks[0].score.as_deref(), Some("1"));
    cluster.end_move(slot, from, to).await;
    assert_eq!(read().await, expected);
    let mut write = pipe();
    let replies = redis.pipeline(write.cmd("INCR").arg("{a}count").cmd("WAIT").arg(1).arg(5000)).await.unwrap();
    assert_eq!(replies, [Value::Int(1), Value::Int(1)]);
    assert!(cluster.refusals(from, "ASK").await > 0);
}

/// What follows a refused command is sent again after it, so that its reply is no older.
#[tokio::test]
async fn a_pipeline_keeps_its_order_when_one_command_is_refused() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    for key in ["{a}first", "{a}moved", "{a}last"] {
        incr(&redis, key).await;
    }
    cluster.begin_move(slot, from, to).await;
    cluster.move_keys(from, to, "{a}moved").await;
    let mut calls = pipe();
    calls.cmd("INCR").arg("{a}first").cmd("INCR").arg("{a}moved").cmd("INCR").arg("{a}last");
    let replies = redis.pipeline(&calls).await.unwrap();
    assert_eq!(replies, [Value::Int(2), Value::Int(2), Value::Int(3)]);
}

#[tokio::test]
async fn calls_for_a_slot_that_is_moved_under_load_are_done_once() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    let (closing, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (redis, closing, done) = (redis.clone(), Arc::clone(&closing), Arc::clone(&done));
        callers.spawn(async move {
            let mut keys = Vec::new();
            while !closing.load(Ordering::Relaxed) {
                let key = format!("{{a}}{caller}-{}", keys.len());
                // A new key is for the other node, and one that was just made may have been moved.
                assert_eq!(incr(&redis, &key).await, 1);
                assert_eq!(incr(&redis, &key).await, 2);
                keys.push(key);
                done.fetch_add(1, Ordering::Relaxed);
            }
            keys
        });
    }
    let more = async || {
        let before = done.load(Ordering::Relaxed);
        cluster.until("calls go on", async || done.load(Ordering::Relaxed) > before + 100).await;
    };
    more().await;
    for (from, to) in [(from, to), (to, from), (from, to)] {
        cluster.begin_move(slot, from, to).await;
        more().await;
        for keys in cluster.keys_in(from, slot).await.chunks(20) {
            cluster.move_keys(from, to, keys).await;
        }
        more().await;
        cluster.move_all(slot, from, to).await;
        more().await;
    }
    closing.store(true, Ordering::Relaxed);
    let keys: Vec<String> = callers.join_all().await.concat();
    for key in &keys {
        assert_eq!(incr(&redis, key).await, 3, "{key}");
    }
    assert!(cluster.refusals(from, "ASK").await > 0 && cluster.refusals(to, "ASK").await > 0);
}

#[tokio::test]
async fn a_call_whose_keys_are_apart_waits_until_they_are_together() {
    let cluster = Cluster::start().await;
    let redis = cluster.open();
    let (slot, from, to) = places(&cluster, "{a}").await;
    for key in ["{a}1", "{a}2"] {
        incr(&redis, key).await;
    }
    cluster.begin_move(slot, from, to).await;
    cluster.move_keys(from, to, "{a}1").await;
    let patient = redis.with_call_timeout(std::time::Duration::from_secs(30));
    let call = tokio::spawn(async move { patient.call(cmd("MGET").arg(&["{a}1", "{a}2"])).await });
    cluster.until("it was refused", async || cluster.refusals(from, "TRYAGAIN").await > 2).await;
    cluster.move_all(slot, from, to).await;
    let one = Value::BulkString(b"1".to_vec());
    assert_eq!(call.await.unwrap().unwrap(), Value::Array(vec![one.clone(), one]));
    // Without an end of the move, the refusal is the answer.
    cluster.begin_move(slot, to, from).await;
    cluster.move_keys(to, from, "{a}1").await;
    let refused = redis.call(cmd("MGET").arg(&["{a}1", "{a}2"])).await.unwrap_err();
    assert!(refused.to_string().contains("TRYAGAIN"), "{refused}");
}
