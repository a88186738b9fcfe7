//! A redis-server that outlived its stockhold: the next start on the folder stops it, on any port and in any state.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};

use super::{
    asked_for_process_id, connect, failure, folder, process_id, program, redis_answers, redis_port, redis_url, start,
    start_on, until, wrapped, written,
};
use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// Ends the server as a power cut would, but not its Redis. Returns the address of that Redis.
fn orphan(mut server: Stockhold) -> String {
    server.signal(Signal::SIGKILL);
    assert!(!server.wait().success());
    redis_url(&server)
}

/// The same, and its Redis is frozen. If it were frozen first, the kernel would wake it at the end of its parent.
async fn frozen_orphan(server: Stockhold) -> String {
    let process = process_id(&redis_url(&server)).await;
    let left = orphan(server);
    kill(process, Signal::SIGSTOP).unwrap();
    left
}

/// Whether nothing listens there: a frozen process gives no answer, but it listens.
fn is_gone(url: &str) -> bool {
    std::net::TcpStream::connect(url.strip_prefix("redis://").unwrap()).is_err()
}

/// The one unit of a SKU is sold once, and the books have nothing else.
async fn sells_the_last_unit_once(server: Stockhold, folder: &Path) {
    server.held("sku", 1).await;
    let another = serde_json::json!({ "cartId": "cart-2", "sku": "sku", "quantity": 1 });
    server.post("/api/reservations/hold", another).await.problem(409, "insufficient_inventory");
    drop(server);
    let server = start(folder);
    assert_eq!(server.counts("sku").await, [0, 1, 0]);
    assert_invariants(&mut connect(&redis_url(&server)).await, History::Whole).await;
}

#[tokio::test]
async fn is_found_on_whichever_port_it_is() {
    for same_port in [true, false] {
        let folder = folder();
        let server = start(folder.path());
        server.seed("sku", 1).await;
        let port = redis_port(&server);
        let left = orphan(server);
        let process = process_id(&left).await;
        let server = start_on(if same_port { &port } else { "0" }, folder.path());
        if same_port {
            assert_eq!(redis_url(&server), left);
            assert_ne!(process_id(&left).await, process);
        } else {
            assert!(is_gone(&left));
        }
        sells_the_last_unit_once(server, folder.path()).await;
    }
}

#[tokio::test]
async fn is_woken_to_end_if_it_is_frozen() {
    for same_port in [true, false] {
        let folder = folder();
        let server = start(folder.path());
        server.seed("sku", 1).await;
        let port = redis_port(&server);
        let left = frozen_orphan(server).await;
        let server = start_on(if same_port { &port } else { "0" }, folder.path());
        assert!(same_port || is_gone(&left));
        // It wrote its data, and was not killed.
        let log = std::fs::read_to_string(folder.path().join("redis.log")).unwrap();
        assert!(log.contains("Received SIGTERM"), "{log}");
        sells_the_last_unit_once(server, folder.path()).await;
    }
}

#[tokio::test]
async fn is_found_after_it_was_started_again() {
    let folder = folder();
    let server = start(folder.path());
    server.seed("sku", 1).await;
    written(&redis_url(&server)).await;
    kill(process_id(&redis_url(&server)).await, Signal::SIGKILL).unwrap();
    server.wait_until_ready().await;
    let left = orphan(server);
    let server = start(folder.path());
    assert!(is_gone(&left));
    sells_the_last_unit_once(server, folder.path()).await;
}

#[tokio::test]
async fn nothing_is_left_when_both_are_killed() {
    let folder = folder();
    let server = start(folder.path());
    server.seed("sku", 1).await;
    let process = process_id(&redis_url(&server)).await;
    written(&redis_url(&server)).await;
    let left = orphan(server);
    kill(process, Signal::SIGKILL).unwrap();
    let server = start_on(left.rsplit(':').next().unwrap(), folder.path());
    sells_the_last_unit_once(server, folder.path()).await;
}

/// A process between us and Redis: when it ends, Redis may still run.
#[tokio::test]
async fn is_found_behind_a_program_that_died() {
    let folder = folder();
    let program = wrapped(folder.path(), "echo $$ > \"$0.pid\"\n\"$@\"\nexit 1");
    let data = folder.path().join("data");
    let arguments = ["--port", "0", "--redis-port", "0", "--data-dir", data.to_str().unwrap()];
    let server = Stockhold::spawn(&[&arguments[..], &["--redis-server", program.to_str().unwrap()]].concat());
    server.seed("sku", 1).await;
    let url = redis_url(&server);
    let process = process_id(&url).await;
    let between: i32 = std::fs::read_to_string(program.with_extension("pid")).unwrap().trim().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(between), Signal::SIGKILL).unwrap();
    until(async || asked_for_process_id(&url).await.is_ok_and(|now| now != process)).await;
    server.wait_until_ready().await;
    sells_the_last_unit_once(server, &data).await;
}

/// Like a redis-server that is stuck in the kernel, or in an endless script.
#[tokio::test]
async fn is_killed_if_it_does_not_end() {
    let folder = folder();
    let program = wrapped(folder.path(), "trap '' TERM\n\"$@\"\nwhile :; do sleep 1; done");
    let data = folder.path().join("data");
    let arguments = ["--port", "0", "--redis-port", "0", "--data-dir", data.to_str().unwrap()];
    let server = Stockhold::spawn(&[&arguments[..], &["--redis-server", program.to_str().unwrap()]].concat());
    server.seed("sku", 1).await;
    let left = orphan(server);
    let server = start(&data);
    assert!(is_gone(&left));
    sells_the_last_unit_once(server, &data).await;
}

/// The recorded number may belong to another program by now.
#[tokio::test]
async fn others_are_left_alone() {
    let folder = folder();
    let server = start(folder.path());
    server.seed("sku", 1).await;
    let left = frozen_orphan(server).await;

    let record = folder.path().join("redis.lock");
    let other = RedisServer::start_plain();
    std::fs::write(&record, other.port().to_string()).unwrap();
    let reads_it = File::open(&record).unwrap();
    let mut reader = Command::new("sleep").arg("1000").stdin(Stdio::from(reads_it)).spawn().unwrap();

    let server = start(folder.path());
    assert!(is_gone(&left));
    assert!(redis_answers(&other.url()).await);
    assert!(reader.try_wait().unwrap().is_none());
    reader.kill().unwrap();
    reader.wait().unwrap();
    sells_the_last_unit_once(server, folder.path()).await;
}

/// The lock is held, but no process can be identified as a redis-server of the folder.
#[tokio::test]
async fn one_that_cannot_be_stopped_keeps_the_server_from_starting() {
    let folder = folder();
    let record = folder.path().join("redis.lock");
    let lock = File::create(&record).unwrap();
    lock.lock().unwrap();
    let start = || program(&["--port", "0", "--redis-port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    let said = failure(start());
    for words in ["cannot be stopped", &format!("lsof {}", record.display()), "--data-dir"] {
        assert!(said.contains(words), "{said}");
    }
}
