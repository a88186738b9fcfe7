//! The commands beside `serve`.

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

#[tokio::test]
async fn ready_tells_by_its_exit_status() {
    let mut redis = RedisServer::start();
    let shop = Stockhold::start(&redis);
    let port = shop.address.port().to_string();
    let ready = |port: &str| program(&["ready", "--port", port]).output().unwrap();
    let yes = ready(&port);
    assert_eq!((yes.status.code(), yes.stdout.as_slice()), (Some(0), &b"{\"status\":\"ready\"}\n"[..]));
    redis.kill();
    assert_eq!(ready(&port).status.code(), Some(1));
    drop(shop);
    let nobody = ready(&port);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("/readyz"));
}

#[test]
fn settings_have_limits() {
    for bad in [
        &["--sweep-interval-ms", "0"][..],
        &["--audit-max", "-1"],
        &["--keep-seconds", "forever"],
        &["--host", "example"],
        &["--port", "65536"],
        &["--redis-maxmemory", "4"],
        &["--redis-maxmemory", "15mb"],
        &["--redis-maxmemory", "1tb"],
        &["--redis-maxmemory", "+1gb"],
        &["--redis-maxmemory", "99999999999gb"],
    ] {
        assert_eq!(program(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
    let bad_url = program(&["--redis-url", "http://:secret@localhost"]).output().unwrap();
    let said = String::from_utf8(bad_url.stderr).unwrap();
    assert!(bad_url.status.code() == Some(1) && said.contains("--redis-url") && !said.contains("secret"), "{said}");
}

#[test]
fn help_names_every_setting() {
    let help = String::from_utf8(program(&["--help"]).output().unwrap().stdout).unwrap();
    for word in [
        "serve",
        "scripts",
        "ready",
        "PORT",
        "BIND_ADDRESS",
        "REDIS_URL",
        "REDIS_SERVER",
        "REDIS_PORT",
        "REDIS_MAXMEMORY",
        "DATA_DIR",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
}
