//! A Redis that speaks TLS: whom the server trusts, who it says it is, and what it says when it does not get in.

mod password;
mod refused;
mod waiting;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};
use crate::support::tls::Authority;

/// A Redis with an authority and certificates of its own.
struct Secured {
    redis: RedisServer,
    authority: Authority,
    folder: TempDir,
}

impl Secured {
    /// A Redis with a certificate for this machine.
    fn start(options: &[&str]) -> Self {
        Self::start_as(&["127.0.0.1", "localhost"], [1975, 4096], options)
    }

    /// A Redis with a certificate for these names, valid for some years.
    fn start_as(names: &[&str], years: [i32; 2], options: &[&str]) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("an authority"));
        authority.write(folder.path());
        authority.issue_for_years(names, years).write(folder.path(), "server");
        Self { redis: RedisServer::start_with_tls(folder.path(), options), authority, folder }
    }

    fn ca(&self) -> String {
        text(&self.redis.ca().unwrap())
    }

    /// A certificate for a client, and its key.
    fn client(&self) -> [String; 2] {
        self.authority.issue(&["shop"]).write(self.folder.path(), "client").map(|path| text(&path))
    }

    /// Writes a file next to the certificates, which only its owner may read.
    fn file(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        text(&path)
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Sells something, and checks the books.
async fn sell(server: &Stockhold, redis: &RedisServer) {
    server.seed("tea", 5).await;
    let id = server.held("tea", 2).await;
    server.confirm(&id).await.ok();
    assert_eq!(server.counts("tea").await, [3, 0, 2]);
    assert_invariants(&mut redis.connection().await, History::Whole).await;
}

#[tokio::test]
async fn a_server_trusts_the_authority_that_it_is_told_to() {
    let secured = Secured::start(&[]);
    let server = Stockhold::start(&secured.redis);
    sell(&server, &secured.redis).await;
    let (url, ca) = (secured.redis.url(), secured.ca());
    let by_variables = [("STOCKHOLD_REDIS_URL", &url), ("STOCKHOLD_REDIS_CA", &ca)];
    let server = Stockhold::run(program(&["--port", "0"]).envs(by_variables));
    sell(&server, &secured.redis).await;
}

/// By name, and without being told whom: the authority is one of the system's.
#[tokio::test]
async fn a_server_trusts_the_authorities_of_the_system() {
    let secured = Secured::start(&[]);
    let url = secured.redis.url_at(&format!("localhost:{}", secured.redis.port()));
    let mut command = program(&["--port", "0", "--redis-url", &url]);
    let server = Stockhold::run(command.env("SSL_CERT_FILE", secured.ca()));
    sell(&server, &secured.redis).await;
}

#[tokio::test]
async fn a_server_shows_a_certificate() {
    for options in [&["--tls-auth-clients", "yes"][..], &["--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2"]] {
        let secured = Secured::start(options);
        let [certificate, key] = secured.client();
        let url = secured.redis.url();
        let trust = ["--redis-url", &url, "--redis-ca", &secured.ca()];
        let proof = ["--redis-cert", &certificate, "--redis-key", &key];
        let server = Stockhold::spawn(&[&["--port", "0"], &trust[..], &proof[..]].concat());
        server.seed("tea", 5).await;
        assert_eq!(server.counts("tea").await, [5, 0, 0]);
        for command in [&["check"][..], &["settings"], &["scripts", "verify"]] {
            let output = program(&[command, &trust[..], &proof[..]].concat()).output().unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A replica is reached as its primary is: with TLS, by the same authority and password.
#[tokio::test]
async fn replicas_are_reached_by_tls_too() {
    let primary = Secured::start(&["--requirepass", "secret"]);
    let options = ["--replicaof", "127.0.0.1", &primary.redis.port().to_string(), "--masterauth", "secret"];
    let options = [&options[..], &["--requirepass", "secret"]].concat();
    let replica = RedisServer::start_with_tls(primary.folder.path(), &options);
    let password = primary.file("password", "secret\n");
    let (url, ca) = (primary.redis.url(), primary.ca());
    let how = ["--redis-url", &url, "--redis-ca", &ca, "--redis-password-file", &password];
    let address = format!("replica 127.0.0.1:{}: ", replica.port());
    // It is among the replicas once it has reported.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let output = program(&[&["scripts", "load"], &how[..]].concat()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        if said.contains(&address) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
    }
    assert!(program(&[&["scripts", "verify"], &how[..]].concat()).output().unwrap().status.success());
}

/// Renewed files are used by the next connection. Until they are right, nothing is done, and that is said.
#[tokio::test]
async fn renewed_certificates_are_read_without_a_restart() {
    let mut secured = Secured::start(&["--tls-auth-clients", "yes"]);
    let [certificate, key] = secured.client();
    let (url, ca) = (secured.redis.url(), secured.ca());
    let server = Stockhold::spawn(
        &[
            ["--port", "0"],
            ["--redis-url", &url],
            ["--redis-ca", &ca],
            ["--redis-cert", &certificate],
            ["--redis-key", &key],
        ]
        .concat(),
    );
    let renewed = secured.authority.issue(&["shop"]);
    fs::write(&certificate, &renewed.certificate).unwrap();
    secured.redis.kill();
    server.get("/api/inventory/tea").await.problem(503, "unavailable");
    secured.redis.restart();
    let refusal = server.post("/api/inventory/seed", json!({ "sku": "tea", "quantity": 5 })).await;
    assert_eq!(refusal.problem(503, "unavailable")["outcome"], "none", "the key is not yet that of the certificate");
    fs::write(&key, &renewed.key).unwrap();
    server.seed("tea", 5).await;
}

/// Where a file is that is not there.
fn nowhere() -> PathBuf {
    PathBuf::from("/nowhere/at/all")
}
