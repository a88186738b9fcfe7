//! The redis-server that the program starts when no Redis is given.

mod loading;
mod memory;
mod orphans;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, InfoDict, RedisResult};
use stockhold::scripts::Catalogue;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::{RedisServer, cut_short};
use crate::support::stockhold::{Stockhold, program};

/// Serves with a private Redis in `folder`, on free ports.
fn start(folder: &Path) -> Stockhold {
    start_on("0", folder)
}

fn start_on(redis_port: &str, folder: &Path) -> Stockhold {
    Stockhold::spawn(&["--port", "0", "--redis-port", redis_port, "--data-dir", folder.to_str().unwrap()])
}

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of its Redis, as it printed for other programs.
fn redis_url(server: &Stockhold) -> String {
    server.printed[0].strip_prefix("Redis is at ").unwrap().to_owned()
}

fn redis_port(server: &Stockhold) -> String {
    redis_url(server).rsplit(':').next().unwrap().to_owned()
}

fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE))
}

async fn connect(url: &str) -> MultiplexedConnection {
    Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&patient()).await.unwrap()
}

/// The process that answers at this address.
async fn process_id(url: &str) -> Pid {
    asked_for_process_id(url).await.unwrap()
}

/// The same for a Redis that may be missing or about to end.
async fn asked_for_process_id(url: &str) -> RedisResult<Pid> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection_with_config(&patient()).await?;
    let info: InfoDict = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    Ok(Pid::from_raw(info.get("process_id").unwrap()))
}

/// Waits until everything that Redis has answered is in its file. While the disk is slow to sync, `everysec` delays the
/// write.
async fn written(url: &str) {
    let connection = connect(url).await;
    let pending = async || -> usize {
        let info: InfoDict = redis::cmd("INFO").arg("persistence").query_async(&mut connection.clone()).await.unwrap();
        info.get("aof_buffer_length").unwrap()
    };
    until(async || pending().await == 0).await;
}

async fn setting(url: &str, name: &str) -> String {
    let [_, value]: [String; 2] =
        redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connect(url).await).await.unwrap();
    value
}

/// A program that runs lines of shell and then becomes redis-server, with its arguments.
fn wrapped(folder: &Path, lines: &str) -> PathBuf {
    let path = folder.join("wrapped-redis-server");
    let redis = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    fs::write(&path, format!("#!/bin/sh\nset -- {redis} \"$@\"\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The program while it starts, which may take long or fail; told to stop on drop.
struct Starting {
    child: Child,
    logged: Receiver<String>,
}

impl Starting {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, logged) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, logged }
    }

    /// The next line of its log that contains these words.
    fn logs(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.logged.recv_timeout(deadline - Instant::now()).unwrap();
            if line.contains(words) {
                return line;
            }
        }
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Signal::SIGTERM);
        }
    }
}

/// Repeats until it is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it does not come to be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
    let mut server = start(&data);
    server.seed("sku", 5).await;
    server.held("sku", 2).await;
    let url = redis_url(&server);
    let mut connection = Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let published: usize = redis::cmd("HLEN").arg("stockhold:scripts").query_async(&mut connection).await.unwrap();
    assert_eq!(published, Catalogue::embedded().current().count());
    for (name, value) in [("appendonly", "yes"), ("maxmemory-policy", "noeviction"), ("bind", "127.0.0.1")] {
        assert_eq!(setting(&url, name).await, value, "{name}");
    }

    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(!redis_answers(&url).await, "Redis ends with the server");

    let server = start(&data);
    assert_eq!(server.counts("sku").await, [3, 2, 0]);
}

#[tokio::test]
async fn half_a_transaction_in_its_file_is_never_carried_out() {
    let folder = folder();
    let reopen = |mut server: Stockhold, cut| {
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
        cut_short(folder.path(), cut);
        start(folder.path())
    };
    let server = start(folder.path());
    server.seed("sku", 5).await;
    server.held("sku", 2).await;
    let server = reopen(server, 100);
    server.held("sku", 1).await;
    let server = reopen(server, 0);
    assert_eq!(server.counts("sku").await, [4, 1, 0]);
    let client = Client::open(redis_url(&server)).unwrap();
    assert_invariants(&mut client.get_multiplexed_async_connection().await.unwrap(), History::Whole).await;
}

/// The program that checks its file has the same name with another word in it. Without that word, it would be the
/// server itself.
#[tokio::test]
async fn the_program_may_have_any_name() {
    let folder = folder();
    let any_name = folder.path().join("redis");
    fs::rename(wrapped(folder.path(), "echo started >> \"$0.log\"\nexec \"$@\""), &any_name).unwrap();
    let data = folder.path().join("data");
    for starts in 1..=2 {
        let data = ["--data-dir", data.to_str().unwrap(), "--redis-server", any_name.to_str().unwrap()];
        let server = Stockhold::spawn(&[&["--port", "0", "--redis-port", "0"], &data[..]].concat());
        drop(server);
        assert_eq!(fs::read_to_string(any_name.with_extension("log")).unwrap(), "started\n".repeat(starts));
    }
}

#[tokio::test]
async fn is_started_again_when_it_dies() {
    let folder = folder();
    let server = start(folder.path());
    server.seed("sku", 5).await;
    let client = Client::open(redis_url(&server)).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    written(&redis_url(&server)).await;
    // It dies without a chance to write its data.
    let died: redis::RedisResult<()> = redis::cmd("DEBUG").arg("SEGFAULT").query_async(&mut connection).await;
    if died.as_ref().is_err_and(|error| error.code().is_some()) {
        // Where DEBUG is not allowed, a shutdown is just as unexpected.
        let _: redis::RedisResult<()> = redis::cmd("SHUTDOWN").arg("NOW").query_async(&mut connection).await;
    }
    server.wait_until_ready().await;
    assert_eq!(server.counts("sku").await, [5, 0, 0]);
}

#[tokio::test]
async fn one_folder_has_one_server() {
    let folder = folder();
    let server = start(folder.path());
    server.seed("sku", 5).await;
    let other = program(&["--port", "0", "--redis-port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    let said = failure(other);
    let owner = format!("in use by another stockhold, process {};", server.id());
    assert!(said.contains(&owner) && said.contains("--data-dir"), "{said}");
    assert_eq!(server.counts("sku").await, [5, 0, 0]);
}

#[tokio::test]
async fn a_taken_port_is_reported() {
    let folder = folder();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = folder.path().to_str().unwrap();
    let said = failure(program(&["--port", "0", "--redis-port", &port, "--data-dir", data]));
    assert!(said.contains(&port) && said.contains("--redis-port"), "{said}");

    let other = RedisServer::start_plain();
    let said = failure(program(&["--port", "0", "--redis-port", &other.port().to_string(), "--data-dir", data]));
    assert!(said.contains(other.folder().to_str().unwrap()) && said.contains("REDIS_URL"), "{said}");
    assert!(redis_answers(&other.url()).await);

    let said = failure(program(&["--port", &port, "--redis-port", "0", "--data-dir", data]));
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
}

#[tokio::test]
async fn without_a_redis_server_it_tells_how_to_get_one() {
    let folder = folder();
    let mut command = program(&["--port", "0", "--redis-port", "0", "--data-dir", folder.path().to_str().unwrap()]);
    command.env("PATH", "/nowhere").env_remove("STOCKHOLD_REDIS_SERVER");
    let said = failure(command);
    for hint in ["apt-get install redis-server", "dnf install redis", "brew install redis", "docker run", "REDIS_URL"] {
        assert!(said.contains(hint), "{said}");
    }
}

/// If it is told to stop while it still waits for a Redis, it stops.
#[tokio::test]
async fn waits_for_a_redis_that_is_not_there_yet() {
    let mut waiting = Starting::spawn(program(&["--port", "0", "--redis-url", "redis://:secret@127.0.0.1:1"]));
    let said = waiting.logs("waiting for Redis");
    assert!(waiting.end(Signal::SIGTERM).success());
    let logged: Vec<String> = std::iter::once(said).chain(waiting.logged.iter()).collect();
    assert!(!logged.concat().contains("secret"), "{logged:?}");
}

/// What a program prints when it fails.
fn failure(mut command: Command) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
