//! What operators do with the scripts, and how the server restores them itself.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

/// Runs `stockhold scripts ...`; returns its exit status and what it printed.
fn scripts(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = program(&[&["scripts"], arguments].concat()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

fn on(redis: &RedisServer, what: &str) -> (i32, String) {
    scripts(&[what, "--redis-url", &redis.url()])
}

/// Name and SHA-1 of each script, from the committed list.
fn sums() -> Vec<(String, String)> {
    let sums = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/SHA1SUMS")).unwrap();
    let line = |line: &str| {
        let (sha1, file) = line.split_once("  ").unwrap();
        (file.strip_suffix(".lua").unwrap().to_owned(), sha1.to_owned())
    };
    sums.lines().map(line).collect()
}

async fn published(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    cmd("HGET").arg("stockhold:scripts").arg(name).query_async(connection).await.unwrap()
}

#[test]
fn list_names_every_script() {
    for arguments in [&[][..], &["list"]] {
        let (status, printed) = scripts(arguments);
        assert_eq!(status, 0);
        let lines: Vec<_> = printed.lines().skip(1).collect();
        assert_eq!(lines.len(), sums().len());
        for (line, (name, sha1)) in lines.iter().zip(sums()) {
            assert!(line.starts_with(&name) && line.contains(&sha1), "{line}");
        }
        assert!(printed.contains("audit due (inventory active reservation)+"), "{printed}");
        assert!(printed.contains("mode (cartId quantity ttlMs)+"), "{printed}");
    }
}

#[test]
fn export_writes_what_the_checksums_say() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new/folder");
    let (status, printed) = scripts(&["export", target.to_str().unwrap()]);
    assert_eq!((status, printed.as_str()), (0, ""));
    let lua = Path::new(env!("CARGO_MANIFEST_DIR")).join("lua");
    for name in sums().into_iter().map(|(name, _)| format!("{name}.lua")).chain(["SHA1SUMS".to_owned()]) {
        assert_eq!(std::fs::read(target.join(&name)).unwrap(), std::fs::read(lua.join(&name)).unwrap(), "{name}");
    }
    let manifest: Value = serde_json::from_slice(&std::fs::read(target.join("manifest.json")).unwrap()).unwrap();
    let listed: Value = serde_json::from_str(&scripts(&["list", "--json"]).1).unwrap();
    assert_eq!(manifest, listed);
    for (script, (name, sha1)) in manifest["scripts"].as_array().unwrap().iter().zip(sums()) {
        assert_eq!((&script["name"], &script["sha1"]), (&Value::from(name), &Value::from(sha1)));
        for part in ["keys", "arguments", "replies", "errors"] {
            let is_empty = script[part].as_array().unwrap().is_empty();
            assert_eq!(is_empty, part == "arguments" && script["name"] == "sweep", "{part} of {}", script["name"]);
        }
    }
    // A file has the name of the folder.
    let (status, printed) = scripts(&["export", target.join("hold.lua").to_str().unwrap()]);
    assert!(status == 1 && printed.contains("hold.lua"), "{printed}");
}

#[tokio::test]
async fn load_says_what_was_new_and_may_be_repeated() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    let (status, first) = on(&redis, "load");
    assert_eq!(status, 0);
    for (line, (name, sha1)) in first.lines().zip(sums()) {
        assert!(line.starts_with(&name) && line.ends_with(&format!("{sha1}  loaded, published")), "{line}");
        assert_eq!(published(&mut connection, &name).await, Some(sha1));
    }
    let (status, again) = on(&redis, "load");
    assert_eq!(status, 0);
    assert_eq!(
        again.lines().filter(|line| line.ends_with("  was loaded, was published")).count(),
        sums().len(),
        "{again}"
    );
}

#[tokio::test]
async fn verify_names_every_defect() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    let (status, nothing) = on(&redis, "verify");
    assert_eq!((status, nothing.matches("is not loaded").count()), (1, sums().len()), "{nothing}");
    assert_eq!(nothing.matches("is not published").count(), sums().len(), "{nothing}");
    on(&redis, "load");
    assert_eq!(on(&redis, "verify").0, 0);

    cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    let (status, flushed) = on(&redis, "verify");
    assert_eq!((status, flushed.matches("is not loaded").count()), (1, sums().len()), "{flushed}");
    assert!(!flushed.contains("published"), "{flushed}");
    on(&redis, "load");

    cmd("HSET").arg("stockhold:scripts").arg("hold").arg("abc").exec_async(&mut connection).await.unwrap();
    cmd("HDEL").arg("stockhold:scripts").arg("sweep").exec_async(&mut connection).await.unwrap();
    let (status, wrong) = on(&redis, "verify");
    let lines: Vec<_> = wrong.lines().collect();
    assert_eq!((status, lines.len()), (1, 3), "{wrong}");
    assert!(lines[0].starts_with("hold ") && lines[0].contains("is published as abc"), "{wrong}");
    assert!(lines[1].starts_with("sweep ") && lines[1].contains("is not published"), "{wrong}");
    let (_, repaired) = on(&redis, "load");
    assert!(repaired.contains("published, in place of abc"), "{repaired}");
    assert_eq!(on(&redis, "verify").0, 0);

    let (status, nobody) = scripts(&["verify", "--redis-url", "redis://:secret@127.0.0.1:1"]);
    assert!(status == 1 && nobody.contains("cannot reach Redis") && !nobody.contains("secret"), "{nobody}");
}

/// The script cache is not replicated: after a fail-over, callers would find no scripts.
#[tokio::test]
async fn replicas_are_loaded_and_verified_too() {
    // The replica follows it by its address, which no node of a cluster does.
    let primary = RedisServer::start_single(&[]);
    on(&primary, "load");
    let replica = RedisServer::start_single(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    eventually("the replica follows", || !on(&primary, "verify").1.contains("are loaded")).await;
    let (status, missing) = on(&primary, "verify");
    let lacks = format!("is missing on the replica 127.0.0.1:{}", replica.port());
    assert_eq!((status, missing.matches(&lacks).count()), (1, sums().len()), "{missing}");

    let (status, loaded) = on(&primary, "load");
    let line = format!("replica 127.0.0.1:{}: {all} of {all} loaded", replica.port(), all = sums().len());
    assert!(status == 0 && loaded.contains(&line), "{loaded}");
    assert_eq!(on(&primary, "verify").0, 0);
    for (name, sha1) in sums() {
        let known: Vec<bool> =
            cmd("SCRIPT").arg("EXISTS").arg(&sha1).query_async(&mut replica.connection().await).await.unwrap();
        assert_eq!(known, [true], "{name}");
    }
}

/// Callers by SHA-1 cannot load scripts. The server loads them, even when it has no requests.
#[tokio::test]
async fn the_server_restores_what_redis_has_lost() {
    let redis = RedisServer::start();
    let _server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    cmd("DEL").arg("stockhold:scripts").exec_async(&mut connection).await.unwrap();
    eventually("the scripts are back", || on(&redis, "verify").0 == 0).await;
}

/// Two versions side by side during a deploy: the older one does not replace what the newer one published.
#[tokio::test]
async fn an_older_server_does_not_take_the_names_back() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let mut connection = redis.connection().await;
    let newer = "0123456789abcdef0123456789abcdef01234567";
    cmd("HSET").arg("stockhold:scripts").arg("hold").arg(newer).exec_async(&mut connection).await.unwrap();
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.unwrap();
    server.seed("sku", 5).await;
    server.held("sku", 1).await;
    server.get("/readyz").await.ok();
    assert_eq!(published(&mut connection, "hold").await.as_deref(), Some(newer));

    // Unless it is told to.
    server.signal(Signal::SIGHUP);
    let deadline = Instant::now() + Duration::from_secs(20);
    while published(&mut connection, "hold").await.as_deref() == Some(newer) {
        assert!(Instant::now() < deadline, "SIGHUP publishes");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(on(&redis, "verify").0, 0);
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
