//! A backup is restored as docs/operations.md says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};
use crate::tool::free_port;

#[tokio::test]
async fn a_backup_is_restored_into_a_private_redis() {
    let handbook = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let section = handbook.split("## Back up and restore").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks: Vec<&str> = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [backup, restore] = blocks[..] else { panic!("{blocks:?}") };
    let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
    let shell = |commands: &str, port: u16| {
        let commands = commands.replace("6390", &port.to_string());
        let output = Command::new("sh").args(["-euc", &commands]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
    };

    let redis = RedisServer::start_plain();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    server.held("tea", 2).await;
    server.held_for("tea", 1, 1).await;
    let id = server.held("tea", 1).await;
    server.confirm(&id).await.ok();
    shell(backup, redis.port());
    // Lost with what happens after the backup.
    server.held("tea", 1).await;
    drop((server, redis));

    tokio::time::sleep(Duration::from_millis(1100)).await;
    let port = free_port();
    let (prepare, serve) = restore.split_once("stockhold serve ").unwrap();
    shell(prepare, port);
    let data = folder.path().join(serve.trim().strip_prefix("--data-dir ").unwrap());
    let redis_port = port.to_string();
    let arguments = ["--port", "0", "--redis-port", &redis_port, "--data-dir", data.to_str().unwrap()];
    let server = Stockhold::spawn(&arguments);
    // Two are held, one was sold, and one has lapsed.
    assert_eq!(server.counts("tea").await, [2, 2, 1]);
    let checked = program(&["check", "--redis-port", &redis_port]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    drop(server);
    // It is in the file now.
    let server = Stockhold::spawn(&arguments);
    assert_eq!(server.counts("tea").await, [2, 2, 1]);
}
