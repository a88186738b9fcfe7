//! A million SKUs in 256 shards on three primaries: how even they are spread, what they take, and how long it takes to sweep
//! what has lapsed on a tenth of them, and to check all of them.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use redis::cmd;
use stockhold::engine::{Engine, Hold, HoldRequest, Options, Quantity, Rounds, SeedQuantity, Ttl};
use stockhold::keys::{CartId, Layout, Sku};
use stockhold::redis::Redis;
use tokio::time::{Duration, sleep};

use super::Bench;
use crate::report::{Figure, Row, Target, Unit};
use crate::side::nodes::Nodes;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::program;

const SHARDS: u16 = 256;
const IN_FLIGHT: usize = 256;
/// Every tenth SKU has a hold that lapses.
const HELD: usize = 10;

pub async fn run(bench: &mut Bench) {
    let skus = if bench.effort.quick { 50_000 } else { 1_000_000 };
    let nodes = Nodes::start(3).await;
    let redis = Redis::open(&nodes.url()).expect("the URL of a cluster").with_call_timeout(Duration::from_secs(10));
    let layout = Layout::sharded(SHARDS).expect("a number of shards");
    let engine = Engine::on(layout, redis, Options::default());
    engine.load_scripts().await.expect("the scripts can be loaded");
    let empty = used(&nodes).await;
    let seed = |number| {
        let engine = &engine;
        async move {
            let quantity = SeedQuantity::new(100).expect("a quantity");
            engine.seed(&sku(number), quantity, None).await.expect("a seed");
        }
    };
    stream::iter(0..skus).map(seed).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    let full = used(&nodes).await;
    let row = |what: &str, value| Row::of("million", what, value);
    let taken: u64 = full.iter().zip(&empty).map(|(full, empty)| full - empty).sum();
    let bytes = Figure::new("memory of Redis", taken as f64 / skus as f64, Unit::Bytes);
    bench.report.add(row(&format!("a SKU with its first event, {skus} of them"), bytes));
    let mut keys = Vec::new();
    for node in &nodes.0 {
        keys.push(ask::<u64>(node, "DBSIZE").await as f64);
    }
    let (most, mean) = (keys.iter().copied().fold(0.0, f64::max), keys.iter().sum::<f64>() / keys.len() as f64);
    let fullest = row("keys on the fullest of three primaries", Figure::new("its keys", most, Unit::Count));
    let fullest = fullest.against(Figure::new("their mean", mean, Unit::Count)).ratio(most / mean);
    bench.report.add(fullest.target(Target::RatioAtMost(1.15)));

    let hold = |number| {
        let engine = &engine;
        async move {
            let request = HoldRequest {
                cart: CartId::parse("cart").expect("a cart"),
                sku: sku(number),
                quantity: Quantity::new(1).expect("a quantity"),
                ttl: Some(Ttl::new(1).expect("a time")),
                metadata: None,
                idempotency_key: None,
            };
            assert!(matches!(engine.hold(request).await, Ok(Hold::Held(_))));
        }
    };
    stream::iter((0..skus).step_by(HELD)).map(hold).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    sleep(Duration::from_millis(1100)).await;
    let (started, mut rounds, mut expired) = (Instant::now(), Rounds::default(), 0);
    while expired < skus.div_ceil(HELD) as u64 {
        expired += engine.sweep_due(&mut rounds).await.expect("a sweep").expired;
    }
    let time = Figure::new("stockhold", started.elapsed().as_secs_f64(), Unit::Seconds);
    bench.report.add(row(&format!("a sweep of {expired} lapsed holds of as many SKUs"), time));

    let started = Instant::now();
    let url = nodes.url();
    // The number of shards is written by a server; here there is none.
    let layout = cmd("HSET").arg("stockhold:layout").arg("shards").arg(SHARDS).to_owned();
    tell(&nodes, &layout).await;
    let output = tokio::task::spawn_blocking(move || program(&["check", "--redis-url", &url]).output()).await;
    let output = output.expect("it does not panic").expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let time = Figure::new("stockhold", started.elapsed().as_secs_f64(), Unit::Seconds);
    bench.report.add(row(&format!("a check of {skus} SKUs"), time));
}

fn sku(number: usize) -> Sku {
    Sku::parse(&format!("sku-{number:07}")).expect("a SKU")
}

/// Sends a command to the node that takes it.
async fn tell(nodes: &Nodes, command: &redis::Cmd) {
    for node in &nodes.0 {
        if command.exec_async(&mut node.connection().await).await.is_ok() {
            return;
        }
    }
    panic!("no node takes it");
}

async fn used(nodes: &Nodes) -> Vec<u64> {
    let mut used = Vec::new();
    for node in &nodes.0 {
        let info: String = cmd("INFO").arg("memory").query_async(&mut node.connection().await).await.expect("INFO");
        let bytes = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.push(bytes.expect("INFO has used_memory"));
    }
    used
}

async fn ask<T: redis::FromRedisValue>(node: &RedisServer, word: &str) -> T {
    cmd(word).query_async(&mut node.connection().await).await.expect("Redis answers")
}
