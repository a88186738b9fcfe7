//! The commands beside `serve`.

use std::path::Path;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

#[test]
fn scripts_prints_the_published_sums() {
    let output = program(&["scripts"]).output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let sums = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("lua/SHA1SUMS")).unwrap();
    assert_eq!(printed.lines().count(), 7);
    for (line, sum) in printed.lines().zip(sums.lines()) {
        let (sha1, file) = sum.split_once("  ").unwrap();
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), file.strip_suffix(".lua"));
        assert_eq!(words.next(), Some(sha1));
        assert!(words.count() > 5, "{line}");
    }
}

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
    for word in
        ["serve", "scripts", "ready", "PORT", "BIND_ADDRESS", "REDIS_URL", "REDIS_SERVER", "REDIS_PORT", "DATA_DIR"]
    {
        assert!(help.contains(word), "{word} in {help}");
    }
}
