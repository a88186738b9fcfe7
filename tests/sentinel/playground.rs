//! `make sentinel`: what a newcomer tries first.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::market::definite;
use crate::support::stockhold::{Stockhold, program};

/// Starts all of it, and the server.
fn start(folder: &Path, ports: &[String]) -> Stockhold {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/playground.sh");
    let server = program(&["serve", "--port", "0"]);
    let mut command = Command::new(script);
    command.arg(folder).arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("REDIS_PORTS", ports[..3].join(" ")).env("SENTINEL_PORTS", ports[3..].join(" "));
    Stockhold::run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_killed_in_the_playground() {
    // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
    let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
    let listeners = [0; 6].map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let ports = listeners.map(|listener| listener.local_addr().unwrap().port().to_string());
    let mut server = start(folder.path(), &ports);
    let body = json!({ "sku": "tea", "quantity": 5 });
    definite(&server, "/api/inventory/seed", Some(body)).await.ok();
    let pid = fs::read_to_string(folder.path().join(format!("redis-{}/redis.pid", ports[0]))).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    let body = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 2 });
    definite(&server, "/api/reservations/hold", Some(body)).await.ok();

    // As with Ctrl-C, which a shell cannot catch where it is ignored, as by tests in the background.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(143));
    for port in &ports {
        assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "{port} is still in use");
    }
    // The old master comes back as one, until the sentinels tell it otherwise.
    let server = start(folder.path(), &ports);
    assert_eq!(server.counts("tea").await, [3, 2, 0]);
}
