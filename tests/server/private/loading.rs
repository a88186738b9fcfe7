//! A redis-server with much to load: the program waits for it as long as it gives answers, and no longer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use redis::pipe;
use stockhold::private_redis::{PrivateRedis, PrivateRedisOptions, START_PATIENCE};
use tokio::time::timeout;

use super::{PATIENCE, Starting, asked_for_process_id, connect, folder, process_id, program, start, until, wrapped};

const KEYS: usize = 15_000;
/// Microseconds for each key: all together take longer than the patience in the test that sets one.
const DELAY: usize = 350;

fn options(program: PathBuf, data: &Path, start_patience: Duration) -> PrivateRedisOptions {
    PrivateRedisOptions { program, port: 0, data_dir: data.to_owned(), maxmemory: 0, start_patience }
}

fn plain() -> PathBuf {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()).into()
}

/// A redis-server that takes a given time for each key of the file that it loads.
fn slow(folder: &Path) -> PathBuf {
    wrapped(folder, &format!("exec \"$@\" --key-load-delay {DELAY}"))
}

/// Leaves a file with many commands.
async fn fill(data: &Path) {
    let redis = PrivateRedis::start(options(plain(), data, START_PATIENCE)).await.unwrap();
    let mut writes = pipe();
    for key in 0..KEYS {
        writes.cmd("SET").arg(key).arg(key).ignore();
    }
    writes.exec_async(&mut connect(redis.url()).await).await.unwrap();
    redis.stop().await;
}

async fn size(url: &str) -> usize {
    redis::cmd("DBSIZE").query_async(&mut connect(url).await).await.unwrap()
}

#[tokio::test]
async fn is_waited_for_while_it_loads() {
    let folder = folder();
    let data = folder.path().join("data");
    fill(&data).await;
    let patience = Duration::from_secs(3);
    assert!(Duration::from_micros((KEYS * DELAY) as u64) > patience, "it takes longer to load than silence is borne");
    let redis = PrivateRedis::start(options(slow(folder.path()), &data, patience)).await.unwrap();
    assert_eq!(size(redis.url()).await, KEYS);

    // The same when it is restarted.
    kill(process_id(redis.url()).await, Signal::SIGKILL).unwrap();
    until(async || asked_for_process_id(redis.url()).await.is_ok()).await;
    let again = process_id(redis.url()).await;
    let connection = connect(redis.url()).await;
    until(async || redis::cmd("PING").exec_async(&mut connection.clone()).await.is_ok()).await;
    assert_eq!(size(redis.url()).await, KEYS);
    assert_eq!(process_id(redis.url()).await, again, "it was not given up meanwhile");
    redis.stop().await;
}

#[tokio::test]
async fn is_given_up_when_it_never_answers() {
    let folder = folder();
    let data = folder.path().join("data");
    let frozen = wrapped(folder.path(), "kill -STOP $$\nexec \"$@\"");
    let patience = Duration::from_millis(300);
    let started = timeout(PATIENCE, PrivateRedis::start(options(frozen, &data, patience))).await.unwrap();
    let error = started.err().unwrap();
    let said = format!("{error:#}");
    assert!(said.contains("does not answer") && said.contains("redis.log"), "{said}");

    let redis = PrivateRedis::start(options(plain(), &data, START_PATIENCE)).await.unwrap();
    assert_eq!(size(redis.url()).await, 0);
    redis.stop().await;
}

#[tokio::test]
async fn is_not_waited_for_when_it_ends() {
    let folder = folder();
    let data = folder.path().join("data");
    let broken = wrapped(folder.path(), "exec \"$@\" --no-such-option 1");
    let error = PrivateRedis::start(options(broken, &data, START_PATIENCE)).await.err().unwrap();
    let said = format!("{error:#}");
    assert!(said.contains("ended before it was ready") && said.contains("redis.log"), "{said}");
}

/// It reports its progress. If it is told to stop during the load, it stops. If it is killed, the next start takes
/// over.
#[tokio::test]
async fn tells_how_far_it_is() {
    let folder = folder();
    let data = folder.path().join("data");
    fill(&data).await;
    let slow = slow(folder.path());
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let arguments = ["--port", "0", "--redis-port", "0", "--data-dir", data.to_str().unwrap(), "--redis-server"];
        let mut command = program(&arguments);
        command.arg(&slow);
        let mut starting = Starting::spawn(command);
        let told = starting.logs("redis-server loads its data: ");
        assert!(told.contains(" %, about ") && told.contains(" s to go"), "{told}");
        assert_eq!(starting.end(signal).success(), signal == Signal::SIGTERM);
    }
    let server = start(&data);
    server.seed("sku", 1).await;
    assert_eq!(server.counts("sku").await, [1, 0, 0]);
}
