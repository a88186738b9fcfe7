//! Redis as the compose file starts it: with the shipped users, and without loss by a restart.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Client;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::sleep;

mod support;

use support::invariants::{History, assert_invariants};
use support::redis_server::cut_short;
use support::stockhold::Stockhold;

const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis that `redis/start.sh` started, with its data in a folder.
struct Started {
    child: Child,
    port: u16,
}

impl Started {
    async fn start(folder: &TempDir) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/start.sh");
        let mut command = Command::new(script);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]);
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

#[tokio::test]
async fn a_restart_loses_nothing_and_a_password_is_required() {
    let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
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
