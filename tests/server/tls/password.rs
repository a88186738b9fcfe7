//! A password in a file, which changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::Secured;
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

/// Changes the password of a user, and ends its connections.
async fn change_password(connection: &mut MultiplexedConnection, user: &str, password: &str) {
    let rules = ["SETUSER", user, "on", "resetpass", &format!(">{password}"), "~*", "+@all"];
    cmd("ACL").arg(&rules).exec_async(connection).await.unwrap();
    cmd("CLIENT").arg(&["KILL", "USER", user]).exec_async(connection).await.unwrap();
}

/// As a service does whose passwords are valid for a quarter of an hour.
#[tokio::test]
async fn a_password_is_changed_without_a_restart() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    change_password(&mut connection, "shop", "first").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    // Only the line, whatever ends it; and a password needs no percent-encoding here.
    fs::write(&file, "first\r\nnot this\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = redis.url_at(&format!("shop@127.0.0.1:{}", redis.port()));
    let (path, ca) = (file.to_str().unwrap(), redis.ca());
    let trust = ca.as_ref().map(|ca| ["--redis-ca", ca.to_str().unwrap()]);
    let arguments = ["--redis-url", &url, "--redis-password-file", path];
    let arguments = [&arguments[..], trust.as_ref().map_or(&[], |trust| &trust[..])].concat();
    let server = Stockhold::spawn(&[&["--port", "0"], &arguments[..]].concat());
    server.seed("tea", 5).await;

    change_password(&mut connection, "shop", "p/a:s@s w#rd").await;
    // The password in the file is wrong now: nothing is done, which is safe to repeat.
    let refusal = server.get("/api/inventory/tea").await.problem(503, "unavailable");
    assert_eq!(refusal["outcome"], "none");
    assert!(!refusal.to_string().contains("WRONGPASS"), "what Redis said is for the log: {refusal}");
    server.get("/readyz").await.problem(503, "unavailable");

    fs::write(&file, "p/a:s@s w#rd").unwrap();
    assert_eq!(server.counts("tea").await, [5, 0, 0]);
    server.wait_until_ready().await;
    let checked = program(&[&["check"], &arguments[..]].concat()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[tokio::test]
async fn secrets_that_others_may_read_are_reported() {
    let secured = Secured::start(&["--requirepass", "s3cret", "--tls-auth-clients", "yes"]);
    let (url, ca, password) = (secured.redis.url(), secured.ca(), secured.file("password", "s3cret"));
    let [certificate, key] = secured.client();
    let how =
        [["--redis-url", &url], ["--redis-ca", &ca], ["--redis-cert", &certificate], ["--redis-key", &key]].concat();
    let how = [&how[..], &["--redis-password-file", &password]].concat();
    let set = |file: &str, mode: u32| fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    for (password_mode, key_mode) in [(0o600, 0o600), (0o640, 0o600), (0o600, 0o604)] {
        set(&password, password_mode);
        set(&key, key_mode);
        let output = program(&[&["settings"], &how[..]].concat()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        for (file, setting, mode) in
            [(&password, "--redis-password-file", password_mode), (&key, "--redis-key", key_mode)]
        {
            let warning = format!("others than its owner may read {file} ({setting})");
            assert_eq!(said.contains(&warning), mode != 0o600, "{said}");
        }
    }
}

/// A server logs what it reads again at a SIGHUP, and no secret at any level.
#[tokio::test]
async fn secrets_are_never_logged() {
    let secured = Secured::start(&["--requirepass", "s3cret"]);
    let (url, ca, password) = (secured.redis.url(), secured.ca(), secured.file("password", "s3cret"));
    let arguments = ["--port", "0", "--redis-url", &url, "--redis-ca", &ca, "--redis-password-file", &password];
    let log = secured.folder.path().join("log");
    let mut command = program(&[&arguments[..], &["--log", "trace"]].concat());
    let mut server = Stockhold::run(command.stderr(Stdio::from(fs::File::create(&log).unwrap())));
    server.seed("tea", 5).await;
    let logged = || fs::read_to_string(&log).unwrap();
    let warning = "others than its owner may read";
    assert!(!logged().contains(warning), "{}", logged());
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    hang_up(&server, || logged().contains(warning)).await;
    fs::remove_file(&password).unwrap();
    hang_up(&server, || logged().contains("new connections to Redis will fail: cannot read")).await;
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(logged().contains("serving") && !logged().contains("s3cret"), "{}", logged());
}

/// Sends SIGHUP, and waits until it had an effect.
async fn hang_up(server: &Stockhold, is_done: impl Fn() -> bool) {
    kill(Pid::from_raw(server.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_done() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn the_help_shows_no_secret() {
    let mut command = program(&["serve", "--help"]);
    let output = command.env("STOCKHOLD_REDIS_URL", "redis://:s3cret@127.0.0.1").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("STOCKHOLD_REDIS_PASSWORD_FILE") && !help.contains("s3cret"), "{help}");
}
