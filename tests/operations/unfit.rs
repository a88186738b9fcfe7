//! A Redis on which stockhold cannot work: each reason has its own message.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, cmd};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};
use crate::tool::{self, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// Another redis-server than that of the tests.
struct Other {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Other {
    fn start(redis_server: &Path, folder: TempDir) -> Self {
        let port = free_port();
        let mut command = Command::new(redis_server);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]).current_dir(&folder);
        let process = command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
            panic!("cannot start {}: {error}. tests/servers.sh target/servers brings it", redis_server.display())
        });
        let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while client.get_connection().is_err() {
            assert!(Instant::now() < deadline, "it does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, port, _folder: folder }
    }

    /// What a server says that must not serve from it.
    fn refuses(&self) -> String {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let ended = program(&["--port", "0", "--redis-url", &url]).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{said}");
        said
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap()
}

#[test]
fn too_old() {
    let redis_6 = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/redis-6/redis-server");
    let other = Other::start(&redis_6, folder());
    let said = other.refuses();
    let address = format!("the Redis at 127.0.0.1:{} cannot be used: it is Redis 6.", other.port);
    assert!(said.contains(&address) && said.contains("Redis 7.0 or later is needed"), "{said}");
}

/// Some servers that speak the protocol of Redis have no such function. A copy of redis-server, in which it has another
/// name, is one of them.
#[cfg(target_os = "linux")]
#[test]
fn without_acl_check_cmd() {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let original = fs::canonicalize(tool::command("redis-server").get_program()).unwrap();
    let mut bytes = fs::read(original).unwrap();
    let name = b"acl_check_cmd";
    let places: Vec<usize> = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty(), "redis-server is not the program itself");
    for at in places {
        bytes[at] = b'A';
    }
    let copy = folder.path().join("redis-server");
    fs::write(&copy, bytes).unwrap();
    File::open(&copy).unwrap().set_permissions(Permissions::from_mode(0o755)).unwrap();
    let said = Other::start(&copy, folder).refuses();
    assert!(said.contains("  hold: this Redis has no redis.acl_check_cmd"), "{said}");
}

/// Waits for a readiness with this status, and a cause in which these words are; empty when it is ready.
async fn until(server: &Stockhold, status: u16, words: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.get("/readyz").await;
        if answer.status == status && answer.body.to_string().contains(words) {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "{}", answer.body);
        sleep(Duration::from_millis(20)).await;
    }
}

async fn run(connection: &mut MultiplexedConnection, command: &str) {
    let mut words = command.split(' ');
    let mut command = cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).exec_async(connection).await.unwrap();
}

#[tokio::test]
async fn with_too_few_replicas() {
    const TOO_FEW: &str = "too few replicas follow Redis for --durability";
    let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let server = Stockhold::start_with(&primary, &["--durability", "wait:1"]);
    let body = until(&server, 503, TOO_FEW).await;
    let impaired = body["impaired"].as_array().unwrap();
    assert_eq!((impaired.len(), &impaired[0]["what"]), (1, &"redis".into()), "{body}");
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    primary.until_followed().await;
    until(&server, 200, "ready").await;
    // It is still connected, and reports nothing.
    replica.stop_process();
    until(&server, 503, TOO_FEW).await;
    replica.continue_process();
    until(&server, 200, "ready").await;
    drop(replica);
    until(&server, 503, TOO_FEW).await;
    // One that does not ask for replicas does not care.
    let other = Stockhold::start(&primary);
    until(&other, 200, "ready").await;
}

#[tokio::test]
async fn that_evicts_or_is_a_replica() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    for (spoil, repair, why) in [
        ("CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET maxmemory-policy noeviction", "Redis may evict stock"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "Redis is a replica"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "fewer replicas than it needs"),
    ] {
        run(&mut connection, spoil).await;
        until(&server, 503, why).await;
        run(&mut connection, repair).await;
        until(&server, 200, "ready").await;
    }
}
