//! A Redis Cluster on this machine: primaries alone, so that what is measured is their work.

use std::time::{Duration, Instant};

use redis::{FromRedisValue, cmd};

use crate::support::redis_server::RedisServer;

const SLOTS: usize = 16384;
const PATIENCE: Duration = Duration::from_secs(20);

/// The primaries; killed on drop.
pub struct Nodes(pub Vec<RedisServer>);

impl Nodes {
    /// Starts primaries, each with its share of the slots.
    pub async fn start(count: usize) -> Self {
        let nodes = Self((0..count).map(|_| RedisServer::start_with(&["--cluster-enabled", "yes"])).collect());
        for (node, redis) in nodes.0.iter().enumerate() {
            let [first, end] = [node, node + 1].map(|part| part * SLOTS / count);
            ask::<()>(redis, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(end - 1).to_string()]).await;
            ask::<()>(redis, &["CLUSTER", "MEET", "127.0.0.1", &nodes.0[0].port().to_string()]).await;
        }
        let deadline = Instant::now() + PATIENCE;
        for redis in &nodes.0 {
            while !ask::<String>(redis, &["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
                assert!(Instant::now() < deadline, "the nodes do not become a cluster");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        nodes
    }

    pub fn url(&self) -> String {
        self.0[0].url().replacen("://", "+cluster://", 1)
    }
}

async fn ask<T: FromRedisValue>(redis: &RedisServer, words: &[&str]) -> T {
    let answer = cmd(words[0]).arg(&words[1..]).query_async(&mut redis.connection().await).await;
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}
