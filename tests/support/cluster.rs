//! A real Redis Cluster for one test: three primaries, each with a replica, and more nodes when a test adds them.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, ToRedisArgs, cmd};
use stockhold::redis::{Files, Redis};
use tokio::time::sleep;

use super::redis_server::RedisServer;

/// How long a busy machine may need for what takes a second on an idle one.
const PATIENCE: Duration = Duration::from_secs(40);

const PRIMARIES: usize = 3;

/// What every node is started with. A replica may always take over, however long it has not heard of its primary.
const OPTIONS: [&str; 8] = [
    "--cluster-enabled",
    "yes",
    "--cluster-replica-validity-factor",
    "0",
    "--repl-diskless-sync-delay",
    "0",
    "--cluster-allow-replica-migration",
    "no",
];

/// A cluster, killed on drop.
pub struct Cluster {
    /// The three primaries, their replicas in the same order, then what was added.
    pub nodes: Vec<RedisServer>,
    /// Of each node.
    ids: Vec<String>,
    options: Vec<String>,
}

impl Cluster {
    /// Starts one that replaces a primary about a second after its last sign of life.
    pub async fn start() -> Self {
        Self::start_with(&["--cluster-node-timeout", "1000"]).await
    }

    /// Starts one with options of redis-server.
    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_by(options, RedisServer::start_with).await
    }

    /// Starts one, each node of it in a special way.
    pub async fn start_by(options: &[&str], start: impl Fn(&[&str]) -> RedisServer) -> Self {
        let all_options: Vec<&str> = OPTIONS.iter().chain(options).copied().collect();
        let nodes: Vec<RedisServer> = (0..2 * PRIMARIES).map(|_| start(&all_options)).collect();
        let options = all_options.iter().map(|option| (*option).to_owned()).collect();
        let mut cluster = Self { nodes, ids: Vec::new(), options };
        for node in 0..cluster.nodes.len() {
            let id = cluster.ask(node, &["CLUSTER", "MYID"]).await;
            cluster.ids.push(id);
            cluster.tell(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]).await;
            if node < PRIMARIES {
                let [first, end] = [node, node + 1].map(|part| part * 16384 / PRIMARIES);
                let range = [first.to_string(), (end - 1).to_string()];
                cluster.tell(node, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            }
        }
        for node in 1..cluster.nodes.len() {
            cluster.introduce(node).await;
        }
        cluster.until_all_know(2 * PRIMARIES).await;
        for replica in PRIMARIES..2 * PRIMARIES {
            cluster.follow(replica, replica - PRIMARIES).await;
        }
        cluster.until_sound().await;
        cluster
    }

    /// Its URL, which names all primaries of the beginning.
    pub fn url(&self) -> String {
        self.url_of(&[0, 1, 2])
    }

    /// A URL that names some of its nodes.
    pub fn url_of(&self, nodes: &[usize]) -> String {
        let places: Vec<String> = nodes.iter().map(|node| self.address(*node)).collect();
        self.nodes[0].url_at(&places.join(",")).replacen("://", "+cluster://", 1)
    }

    /// Host and port of a node.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node].port())
    }

    /// A client of this crate.
    pub fn open(&self) -> Redis {
        self.open_url(&self.url())
    }

    pub fn open_url(&self, url: &str) -> Redis {
        Redis::open_with(url, Files { ca: self.nodes[0].ca(), ..Files::default() }).unwrap()
    }

    /// A connection to one node.
    pub async fn connection(&self, node: usize) -> MultiplexedConnection {
        self.nodes[node].connection().await
    }

    /// Sends a command to one node.
    pub async fn ask<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> T {
        let answer = cmd(words[0]).arg(&words[1..]).query_async(&mut self.connection(node).await).await;
        answer.unwrap_or_else(|error| panic!("node {node}: {words:?}: {error}"))
    }

    pub async fn tell(&self, node: usize, words: &[&str]) {
        self.ask(node, words).await
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> u16 {
        self.ask(0, &["CLUSTER", "KEYSLOT", key]).await
    }

    /// The primary of a key's slot, as `witness` sees it.
    pub async fn owner(&self, witness: usize, key: &str) -> usize {
        let slot: u16 = self.ask(witness, &["CLUSTER", "KEYSLOT", key]).await;
        let ranges: Vec<(u16, u16, Vec<redis::Value>)> = self.slots(witness).await;
        let (_, _, owner) = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap();
        let id = String::from_redis_value_ref(&owner[2]).unwrap();
        self.ids.iter().position(|known| *known == id).unwrap()
    }

    async fn slots(&self, witness: usize) -> Vec<(u16, u16, Vec<redis::Value>)> {
        let ranges: Vec<Vec<redis::Value>> = self.ask(witness, &["CLUSTER", "SLOTS"]).await;
        let range = |range: Vec<redis::Value>| {
            let [first, last] = [0, 1].map(|at| u16::from_redis_value_ref(&range[at]).unwrap());
            (first, last, FromRedisValue::from_redis_value_ref(&range[2]).unwrap())
        };
        ranges.into_iter().map(range).collect()
    }

    /// How many calls a node has answered with this error.
    pub async fn refusals(&self, node: usize, code: &str) -> u64 {
        let info: String = self.ask(node, &["INFO", "errorstats"]).await;
        let line =
            info.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{code}:count=")).map(str::to_owned));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// Starts another node. It is a primary that has no slots.
    pub async fn add(&mut self) -> usize {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.nodes.push(RedisServer::start_with(&options));
        let node = self.nodes.len() - 1;
        let id = self.ask(node, &["CLUSTER", "MYID"]).await;
        self.ids.push(id);
        self.introduce(node).await;
        self.until_all_know(self.nodes.len()).await;
        self.until_sound().await;
        node
    }

    /// Starts a node that has never met the others, and has some slots.
    pub async fn stranger(&self) -> RedisServer {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let node = RedisServer::start_with(&options);
        let mut take = cmd("CLUSTER");
        take.arg(&["ADDSLOTSRANGE", "0", "8000"]).exec_async(&mut node.connection().await).await.unwrap();
        node
    }

    /// Makes all others forget a node, which has no slots any more.
    pub async fn forget(&self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.tell(other, &["CLUSTER", "FORGET", &self.ids[node]]).await;
        }
    }

    async fn introduce(&self, node: usize) {
        let port = self.nodes[0].port().to_string();
        self.tell(node, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    }

    pub async fn follow(&self, replica: usize, primary: usize) {
        self.until("it can follow", async || {
            let mut follow = cmd("CLUSTER");
            follow.arg("REPLICATE").arg(&self.ids[primary]);
            follow.exec_async(&mut self.connection(replica).await).await.is_ok()
        })
        .await;
    }

    /// Waits until all nodes say that all is well, know the same, and all replicas follow.
    pub async fn until_sound(&self) {
        self.until("all is well", async || {
            for node in 0..self.nodes.len() {
                let info: String = self.ask(node, &["CLUSTER", "INFO"]).await;
                let replication: String = self.ask(node, &["INFO", "replication"]).await;
                let known: String = self.ask(node, &["CLUSTER", "NODES"]).await;
                let follows = !replication.contains("role:slave") || replication.contains("master_link_status:up");
                let replicas = known.lines().filter(|line| line.contains("slave")).count();
                if !(info.contains("cluster_state:ok") && follows && replicas == PRIMARIES) || known.contains("fail") {
                    return false;
                }
            }
            true
        })
        .await;
    }

    async fn until_all_know(&self, count: usize) {
        self.until("all nodes know each other", async || {
            let mut do_all = true;
            for node in 0..count {
                let known: String = self.ask(node, &["CLUSTER", "NODES"]).await;
                do_all &= known.lines().count() == count && !known.contains("handshake");
                // On a busy machine, an introduction may take longer than a node waits for its end.
                if node > 0 && known.lines().count() == 1 {
                    self.introduce(node).await;
                }
            }
            do_all
        })
        .await;
    }

    /// Waits until a node is the primary of a key's slot, as `witness` sees it.
    pub async fn until_owner(&self, witness: usize, key: &str, node: usize) {
        self.until("the slot has moved", async || self.owner(witness, key).await == node).await;
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so().await {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes a slot from its owner, and gives it to nobody.
    pub async fn take_away(&self, slot: u16) {
        let has_it =
            async |node| self.slots(node).await.iter().any(|(first, last, _)| (*first..=*last).contains(&slot));
        // Nodes that have not yet heard of it tell it to others again.
        self.until("nobody has the slot", async || {
            let mut is_gone = true;
            for node in 0..self.nodes.len() {
                if has_it(node).await {
                    self.tell(node, &["CLUSTER", "DELSLOTS", &slot.to_string()]).await;
                    is_gone = false;
                }
            }
            is_gone
        })
        .await;
    }

    /// Begins to move a slot: from now on, new keys in it are for the other node.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.tell(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await;
        self.tell(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await;
    }

    /// Moves some keys of a slot.
    pub async fn move_keys(&self, from: usize, to: usize, keys: impl ToRedisArgs) {
        let port = self.nodes[to].port().to_string();
        let mut move_them = cmd("MIGRATE");
        move_them.arg("127.0.0.1").arg(port).arg("").arg(0).arg(20_000).arg("KEYS").arg(keys);
        move_them.exec_async(&mut self.connection(from).await).await.unwrap();
    }

    /// The keys that a node has in a slot.
    pub async fn keys_in(&self, node: usize, slot: u16) -> Vec<String> {
        self.ask(node, &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10000"]).await
    }

    /// Ends the move of a slot, whose keys have all been moved.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        for node in [to, from] {
            self.tell(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]).await;
        }
    }

    /// Moves a slot with all that is in it.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to).await;
        self.move_all(slot, from, to).await;
    }

    /// Moves the keys that are left in a slot that is being moved, and ends the move.
    pub async fn move_all(&self, slot: u16, from: usize, to: usize) {
        loop {
            let keys = self.keys_in(from, slot).await;
            if keys.is_empty() {
                break;
            }
            self.move_keys(from, to, keys).await;
        }
        self.end_move(slot, from, to).await;
    }
}
