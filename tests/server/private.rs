//! The redis-server that the program starts when it is given none.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::Client;
use stockhold::scripts::Catalogue;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::cut_short;
use crate::support::stockhold::{Stockhold, program};

/// Serves with a private Redis in `folder`, on free ports.
fn start(folder: &Path) -> Stockhold {
    start_on("0", folder)
}

fn start_on(redis_port: &str, folder: &Path) -> Stockhold {
    Stockhold::spawn(&["--port", "0", "--redis-port", redis_port, "--data-dir", folder.to_str().unwrap()])
}

/// Where its Redis is, as it printed for other services.
fn redis_url(shop: &Stockhold) -> String {
    shop.printed[0].strip_prefix("Redis is at ").unwrap().to_owned()
}

fn redis_port(shop: &Stockhold) -> String {
    redis_url(shop).rsplit(':').next().unwrap().to_owned()
}

async fn redis_answers(url: &str) -> bool {
    Client::open(url).unwrap().get_multiplexed_async_connection().await.is_ok()
}

/// A temporary folder under /tmp, where a server in a chroot sees it too.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap()
}

#[tokio::test]
async fn keeps_its_data_and_ends_with_the_server() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut shop = start(&data);
    shop.seed("sku", 5).await;
    shop.held("sku", 2).await;
    let url = redis_url(&shop);
    let mut connection = Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let published: usize = redis::cmd("HLEN").arg("stockhold:scripts").query_async(&mut connection).await.unwrap();
    assert_eq!(published, Catalogue::embedded().current().count());
    for (name, value) in [("appendonly", "yes"), ("maxmemory-policy", "noeviction"), ("bind", "127.0.0.1")] {
        let set: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await.unwrap();
        assert_eq!(set, [name, value]);
    }

    shop.signal(Signal::SIGTERM);
    assert!(shop.wait().success());
    assert!(!redis_answers(&url).await, "Redis ends with the server");

    let shop = start(&data);
    assert_eq!(shop.counts("sku").await, [3, 2, 0]);
}

#[tokio::test]
async fn half_a_transaction_in_its_file_is_never_carried_out() {
    let folder = folder();
    let reopen = |mut shop: Stockhold, cut| {
        shop.signal(Signal::SIGTERM);
        assert!(shop.wait().success());
        cut_short(folder.path(), cut);
        start(folder.path())
    };
    let shop = start(folder.path());
    shop.seed("sku", 5).await;
    shop.held("sku", 2).await;
    let shop = reopen(shop, 100);
    shop.held("sku", 1).await;
    let shop = reopen(shop, 0);
    assert_eq!(shop.counts("sku").await, [4, 1, 0]);
    let client = Client::open(redis_url(&shop)).unwrap();
    assert_invariants(&mut client.get_multiplexed_async_connection().await.unwrap(), History::Whole).await;
}

#[tokio::test]
async fn is_started_again_when_it_dies() {
    let folder = folder();
    let shop = start(folder.path());
    shop.seed("sku", 5).await;
    let client = Client::open(redis_url(&shop)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // It dies without a chance to write anything out.
    let died: redis::RedisResult<()> = redis::cmd("DEBUG").arg("SEGFAULT").query_async(&mut connection).await;
    if died.as_ref().is_err_and(|error| error.code().is_some()) {
        // Where DEBUG is not allowed, a shutdown is as unexpected.
        let _: redis::RedisResult<()> = redis::cmd("SHUTDOWN").arg("NOW").query_async(&mut connection).await;
    }
    shop.wait_until_ready().await;
    assert_eq!(shop.counts("sku").await, [5, 0, 0]);
}

#[tokio::test]
async fn one_folder_has_one_server() {
    let folder = folder();
    let shop = start(folder.path());
    shop.seed("sku", 5).await;
    let other = program(&["--port", "0", "--redis-port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    let said = failure(other);
    assert!(said.contains("in use by another stockhold") && said.contains("--data-dir"), "{said}");
    assert_eq!(shop.counts("sku").await, [5, 0, 0]);
}

#[tokio::test]
async fn a_server_that_was_killed_is_taken_over_from() {
    let folder = folder();
    let mut shop = start(folder.path());
    shop.seed("sku", 5).await;
    let port = redis_port(&shop);
    shop.signal(Signal::SIGKILL);
    assert!(!shop.wait().success());

    let shop = start_on(&port, folder.path());
    assert_eq!(redis_port(&shop), port);
    assert_eq!(shop.counts("sku").await, [5, 0, 0]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_to_be() {
    let folder = folder();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = folder.path().to_str().unwrap();
    let said = failure(program(&["--port", "0", "--redis-port", &port, "--data-dir", data]));
    assert!(said.contains(&port) && said.contains("--redis-port"), "{said}");

    let said = failure(program(&["--port", &port, "--redis-port", "0", "--data-dir", data]));
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
}

#[tokio::test]
async fn without_a_redis_server_it_tells_how_to_get_one() {
    let folder = folder();
    let mut command = program(&["--port", "0", "--redis-port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    command.env("PATH", "/nowhere").env_remove("REDIS_SERVER");
    let said = failure(command);
    for hint in ["apt-get install redis-server", "dnf install redis", "brew install redis", "docker run", "REDIS_URL"] {
        assert!(said.contains(hint), "{said}");
    }
}

/// Told to stop while it still waits for a Redis, it stops.
#[tokio::test]
async fn waits_for_a_redis_that_is_not_there_yet() {
    let mut waiting = program(&["--port", "0", "--redis-url", "redis://:secret@127.0.0.1:1"]);
    let mut child = waiting.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    assert!(said.contains("waiting for Redis") && !said.contains("secret"), "{said}");

    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(!rest.concat().contains("secret"), "{rest:?}");
}

/// What a program says on its way to failing.
fn failure(mut command: Command) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
