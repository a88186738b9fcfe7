//! Redis as the compose file starts it: with the shipped users, and without loss by a restart.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Client;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

mod support;

use support::invariants::{History, assert_invariants};
use support::redis_server::{cut_short, free_ports};
use support::stockhold::{Stockhold, definite};

const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis that `redis/start.sh` started, with its data in a folder.
struct Started {
    child: Child,
    port: u16,
}

impl Started {
    async fn start(folder: &TempDir) -> Self {
        let port = free_ports(1)[0];
        let mut command = script("start.sh");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]);
        Self::run(command, folder, port).await
    }

    /// Starts one that has these lines in a file, from its first start on.
    async fn start_with(lines: &[String], folder: &TempDir, port: u16) -> Self {
        let mut command = script("start.sh");
        command.args([&format!("port {port}"), "bind 127.0.0.1", "loglevel warning"]).args(lines);
        command.env("CONFIG_FILE", folder.path().join("redis.conf"));
        Self::run(command, folder, port).await
    }

    async fn run(mut command: Command, folder: &TempDir, port: u16) -> Self {
        command.env("DATA_DIR", folder.path()).env("USERS_FILE", folder.path().join("users.acl"));
        for user in ["server", "caller", "deployer", "auditor", "admin"] {
            command.env(format!("{}_PASSWORD", user.to_uppercase()), format!("pw-{user}"));
        }
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let health = Client::open(format!("redis://health:any@127.0.0.1:{port}")).unwrap();
        while health.get_connection().is_err() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "it does not come up");
            sleep(Duration::from_millis(5)).await;
        }
        Self { child, port }
    }

    fn url(&self, user: &str) -> String {
        format!("redis://{user}:pw-{}@127.0.0.1:{}", user.trim_start_matches("stockhold-"), self.port)
    }

    async fn connect(&self, user: &str) -> redis::RedisResult<MultiplexedConnection> {
        Client::open(self.url(user)).unwrap().get_multiplexed_async_connection().await
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("redis").join(name))
}

fn folder() -> TempDir {
    // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
    tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap()
}

#[tokio::test]
async fn a_restart_loses_nothing_and_a_password_is_required() {
    let folder = folder();
    {
        let redis = Started::start(&folder).await;
        let server = Stockhold::spawn(&["--port", "0", "--redis-url", &redis.url("stockhold-server")]);
        server.seed("sku-1", 5).await;
        server.held("sku-1", 2).await;
        let nameless = Client::open(format!("redis://127.0.0.1:{}", redis.port)).unwrap();
        let refusal = nameless.get_connection().and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
        assert_eq!(refusal.unwrap_err().code(), Some("NOAUTH"));
    }
    // Killed, not stopped: what was answered is in the file by then.
    let mut redis = Started::start(&folder).await;
    let mut server = Stockhold::spawn(&["--port", "0", "--redis-url", &redis.url("stockhold-server")]);
    assert_eq!(server.counts("sku-1").await, [3, 2, 0]);

    // After a kill in the middle of a write, no half of that write returns.
    for (cut, counts) in [(100, [3, 2, 0]), (0, [2, 3, 0])] {
        server.held("sku-1", 1).await;
        drop((server, redis));
        cut_short(folder.path(), cut);
        redis = Started::start(&folder).await;
        server = Stockhold::spawn(&["--port", "0", "--redis-url", &redis.url("stockhold-server")]);
        assert_eq!(server.counts("sku-1").await, counts);
    }
    assert_invariants(&mut redis.connect("admin").await.unwrap(), History::Whole).await;
    for user in ["stockhold-caller", "stockhold-deployer", "admin"] {
        redis.connect(user).await.unwrap();
    }
    let users = std::fs::read_to_string(folder.path().join("users.acl")).unwrap();
    assert!(!users.contains("pw-"), "passwords are kept as hashes");
}

/// What the compose file has after the name of a service, up to the next one.
fn service(name: &str) -> &'static str {
    let file = include_str!("../docker-compose.yml").split("\nnetworks:\n").next().unwrap();
    let after = file.split_once(&format!("\n  {name}:")).unwrap_or_else(|| panic!("no service {name}")).1;
    let is_next = |line: &str| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  #");
    let end = after.lines().skip(1).find(|line| is_next(line)).map_or(after.len(), |line| after.find(line).unwrap());
    &after[..end]
}

/// The words of a service's command.
fn command_of(service: &str) -> Vec<&str> {
    service.lines().filter_map(|line| line.strip_prefix("      - ")).collect()
}

/// Its place in the network.
fn address_of(service: &str) -> &str {
    service.split_once("ipv4_address: ").unwrap().1.split_once(' ').unwrap().0
}

/// As the service `cluster` of the compose file does.
async fn until_cluster(nodes: &[String]) {
    let deadline = Instant::now() + PATIENCE * 3;
    loop {
        let mut command = script("create-cluster.sh");
        command.args(nodes).env("CLUSTER_USER", "admin").env("REDISCLI_AUTH", "pw-admin");
        if command.stderr(Stdio::null()).status().unwrap().success() {
            return;
        }
        assert!(Instant::now() < deadline, "they do not become a cluster");
        sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn the_nodes_are_those_of_the_cluster() {
    let nodes: Vec<&str> = (1..=7).map(|number| address_of(service(&format!("node-{number}")))).collect();
    let places: Vec<String> = nodes.iter().map(|node| format!("{node}:6379")).collect();
    assert!(command_of(service("cluster")).ends_with(&places.iter().map(String::as_str).collect::<Vec<_>>()));
    let server = service("sharded-server");
    let url = server.split_once('@').unwrap().1.lines().next().unwrap();
    assert!(url.split(',').count() > 1 && url.split(',').all(|node| nodes.contains(&node)), "{url}");
    let volumes = (1..=7).map(|number| format!("[\"node-{number}-data:/data\", \"./redis:/stockhold:ro\"]"));
    for (number, volumes) in (1..).zip(volumes) {
        assert!(service(&format!("node-{number}")).contains(&volumes), "{volumes}");
        assert!(service("cluster").contains(&format!("node-{number}: {{ condition: service_healthy }}")));
    }
    assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_are_a_cluster_that_goes_on_without_a_primary() {
    let lines: Vec<String> = command_of(service("node-1"))
        .into_iter()
        .skip_while(|word| *word != "/stockhold/start.sh")
        .skip(1)
        .map(|line| line.replace("${ADMIN_PASSWORD:-try-admin}", "pw-admin"))
        .collect();
    assert!(lines.contains(&"cluster-enabled yes".to_owned()), "{lines:?}");
    let folders: Vec<TempDir> = (0..7).map(|_| folder()).collect();
    let mut nodes = Vec::new();
    for (folder, port) in folders.iter().zip(free_ports(7)) {
        nodes.push(Started::start_with(&lines, folder, port).await);
    }
    let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    until_cluster(&places).await;
    let url = nodes[0].url("stockhold-server").replacen("redis://", "redis+cluster://", 1);
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &url, "--shards", "64"]);
    let skus: Vec<String> = (0..12).map(|number| format!("sku-{number}")).collect();
    let hold = async || {
        for sku in &skus {
            let body = json!({ "cartId": "cart-1", "sku": sku, "quantity": 1 });
            definite(&server, "/api/reservations/hold", body).await.ok();
        }
    };
    for sku in &skus {
        definite(&server, "/api/inventory/seed", json!({ "sku": sku, "quantity": 5 })).await.ok();
    }
    // It is one already, and stays as it is.
    until_cluster(&places).await;
    hold().await;

    let killed = nodes.remove(1).port;
    hold().await;
    nodes.insert(1, Started::start_with(&lines, &folders[1], killed).await);
    until_cluster(&places).await;
    hold().await;
    for sku in &skus {
        assert_eq!(server.counts(sku).await, [2, 3, 0], "{sku}");
    }
    for node in &nodes {
        let mut connection = node.connect("admin").await.unwrap();
        let denied: redis::Value = redis::cmd("ACL").arg("LOG").query_async(&mut connection).await.unwrap();
        assert_eq!(denied, redis::Value::Array(vec![]), "{}", node.port);
    }
}
