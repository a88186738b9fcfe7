//! Bearer tokens: a client without one is told how to authenticate, a read token cannot write, and tokens are changed
//! without a gap.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Bytes;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold, program};

const READER: &str = "reader-reader-reader-1";
const WRITER: &str = "writer-writer-writer-1";
const NEXT_WRITER: &str = "writer-writer-writer-2";

const READS: [&str; 6] = [
    "/api/inventory",
    "/api/inventory/sku-1",
    "/api/audit",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002",
    "/api/carts/c",
    "/nowhere",
];
const WRITES: [&str; 10] = [
    "/api/inventory/seed",
    "/api/reservations/hold",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/confirm",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/release",
    "/api/carts/c/hold",
    "/api/carts/c/confirm",
    "/api/carts/c/extend",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/return",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/change",
    "/nowhere",
];

/// A server that accepts the tokens of a file.
struct Guarded {
    server: Stockhold,
    file: PathBuf,
    _redis: RedisServer,
    _folder: TempDir,
}

impl Guarded {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        write_tokens(&file, &format!("# who is who\nread {READER}\n\nwrite {WRITER}\n"));
        let redis = RedisServer::start();
        let server = Stockhold::start_with(&redis, &["--token-file", file.to_str().unwrap()]);
        Self { server, file, _redis: redis, _folder: folder }
    }

    /// Sends a request with these `Authorization` headers.
    async fn ask(&self, method: &str, path: &str, authorization: &[&str]) -> Answer {
        let mut request = Request::builder().method(method).uri(self.server.url(path));
        for value in authorization {
            request = request.header("authorization", *value);
        }
        let body = if method == "POST" { r#"{"sku":"sku-1","quantity":5}"# } else { "" };
        self.server.send(request.header("content-type", "application/json"), Bytes::from(body)).await
    }
}

fn write_tokens(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The `WWW-Authenticate` header of a refusal.
#[track_caller]
fn challenge(answer: Answer, status: u16, code: &str) -> String {
    let challenge = answer.headers["www-authenticate"].to_str().unwrap().to_owned();
    answer.problem(status, code);
    challenge
}

#[tokio::test]
async fn without_a_valid_token_nothing_is_done_or_shown() {
    let guarded = Guarded::open();
    let unknown = bearer("writer-writer-writer-0");
    let basic = format!("Basic {WRITER}");
    let (reader, writer) = (bearer(READER), bearer(WRITER));
    let none: [&[&str]; 5] = [&[], &[&basic], &["Bearer"], &[""], &[&reader, &writer]];
    for (method, paths) in [("GET", &READS[..]), ("POST", &WRITES[..]), ("DELETE", &READS[..])] {
        for path in paths {
            for authorization in none {
                let answer = guarded.ask(method, path, authorization).await;
                assert_eq!(challenge(answer, 401, "unauthorized"), r#"Bearer realm="stockhold""#);
            }
            for token in [unknown.as_str(), &bearer("# who is who")] {
                let challenge = challenge(guarded.ask(method, path, &[token]).await, 401, "unauthorized");
                assert_eq!(challenge, r#"Bearer realm="stockhold", error="invalid_token""#, "{token:?}");
            }
        }
    }
    for free in ["/livez", "/readyz"] {
        guarded.ask("GET", free, &[]).await.ok();
    }
    guarded.ask("GET", "/api/inventory/sku-1", &[&writer]).await.problem(404, "unknown_sku");
}

#[tokio::test]
async fn a_read_token_reads_and_a_write_token_does_both() {
    let guarded = Guarded::open();
    let (reader, writer) = (bearer(READER), format!("bEARER {WRITER}"));
    for path in WRITES {
        let challenge = challenge(guarded.ask("POST", path, &[&reader]).await, 403, "insufficient_scope");
        assert_eq!(challenge, r#"Bearer realm="stockhold", error="insufficient_scope", scope="write""#);
    }
    guarded.ask("POST", "/api/inventory/seed", &[&writer]).await.ok();
    for token in [&reader, &writer] {
        assert_eq!(guarded.ask("GET", "/api/inventory/sku-1", &[token]).await.ok()["available"], 5);
    }
}

#[tokio::test]
async fn tokens_are_changed_without_a_gap() {
    let guarded = Guarded::open();
    let works = async |token: &str| guarded.ask("POST", "/api/inventory/seed", &[&bearer(token)]).await.status == 200;
    let eventually = async |token: &str, expected: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while works(token).await != expected {
            assert!(Instant::now() < deadline, "{token} never comes to {expected}");
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(works(WRITER).await && !works(NEXT_WRITER).await);
    write_tokens(&guarded.file, &format!("write {WRITER}\nwrite {NEXT_WRITER}\n"));
    guarded.server.signal(Signal::SIGHUP);
    eventually(NEXT_WRITER, true).await;
    assert!(works(WRITER).await, "both are good at once");

    // A file with an invalid line changes nothing.
    write_tokens(&guarded.file, &format!("write {NEXT_WRITER}\nwrite short\n"));
    guarded.server.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(200)).await;
    assert!(works(WRITER).await && works(NEXT_WRITER).await);

    write_tokens(&guarded.file, &format!("write {NEXT_WRITER}\n"));
    guarded.server.signal(Signal::SIGHUP);
    eventually(WRITER, false).await;
    assert!(works(NEXT_WRITER).await);
}

#[test]
fn a_server_on_other_addresses_needs_tokens_or_a_flag() {
    let refused =
        program(&["--host", "0.0.0.0", "--port", "0", "--redis-url", "redis://127.0.0.1:1"]).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("--token-file") && told.contains("--insecure-bind"), "{told}");
    let redis = RedisServer::start();
    Stockhold::start_with(&redis, &["--host", "0.0.0.0", "--insecure-bind"]);
}

/// Statuses of reads, a write and probes that name a host.
async fn statuses(server: &Stockhold, host: &str) -> [u16; 5] {
    let requests = [
        ("GET", "/api/inventory/tea"),
        ("POST", "/api/inventory/seed"),
        ("GET", "/nowhere"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
    ];
    let mut statuses = [0; 5];
    for (status, (method, path)) in statuses.iter_mut().zip(requests) {
        let request = Request::builder().method(method).uri(server.url(path)).header("host", host);
        let body = if method == "POST" { r#"{"sku":"tea","quantity":7}"# } else { "" };
        let answer = server.send(request.header("content-type", "application/json"), Bytes::from(body)).await;
        *status = answer.status.as_u16();
        if *status == 421 {
            answer.problem(421, "host_not_allowed");
        }
    }
    statuses
}

const SERVED: [u16; 5] = [200, 200, 404, 200, 200];
const MISDIRECTED: [u16; 5] = [421, 421, 421, 200, 200];

/// A web page of an attacker, whose host name resolves to this machine: the browser sends that name.
#[tokio::test]
async fn a_server_on_loopback_accepts_only_loopback_names() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    for host in
        ["localhost", "LocalHost:8080", "localhost.", "127.0.0.1", "127.8.9.1:80", "[::1]:8080", "[::ffff:127.0.0.1]"]
    {
        assert_eq!(statuses(&server, host).await, SERVED, "{host}");
    }
    server.seed("tea", 5).await;
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "0.0.0.0",
        "[2001:db8::1]",
        "localhost@evil.example",
        "evil.example@localhost",
        "::1",
        "localhost:http",
        "",
    ] {
        assert_eq!(statuses(&server, host).await, MISDIRECTED, "{host}");
    }
    assert_eq!(server.counts("tea").await, [5, 0, 0]);

    // Every way to name the host is checked. A client that names none is not a browser.
    for (head, status) in [
        ("GET http://evil.example/api/audit HTTP/1.1\r\nhost: localhost\r\n", 421),
        ("GET http://localhost/api/audit HTTP/1.1\r\nhost: localhost\r\n", 200),
        ("GET /api/audit HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n", 421),
        ("GET /api/audit HTTP/1.0\r\n", 200),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        write!(stream, "{head}connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer[9..12], status.to_string(), "{head}: {answer}");
    }
}

#[tokio::test]
async fn the_names_of_a_server_can_be_listed() {
    let redis = RedisServer::start();
    Stockhold::start(&redis).seed("tea", 5).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    write_tokens(&file, &format!("write {WRITER}\n"));
    let file = file.to_str().unwrap();
    let everywhere = ["--host", "0.0.0.0", "--insecure-bind"];
    let listed = ["--allowed-hosts", "shop.example,10.0.0.7, [2001:db8::1]"];
    // Names are checked on loopback without tokens, and whenever there is a list. The names of loopback are always
    // accepted.
    for (arguments, is_bound) in [
        (vec![], true),
        (everywhere.to_vec(), false),
        ([&everywhere[..], &listed].concat(), true),
        (listed.to_vec(), true),
        (vec!["--allowed-hosts", "*"], false),
    ] {
        let server = Stockhold::start_with(&redis, &arguments);
        for (host, is_listed) in [
            ("shop.example", true),
            ("SHOP.example:80", true),
            ("10.0.0.7:8080", true),
            ("[2001:db8:0::1]:80", true),
            ("www.shop.example", false),
        ] {
            let is_served = !is_bound || is_listed && arguments.contains(&"--allowed-hosts");
            assert_eq!(
                statuses(&server, host).await,
                if is_served { SERVED } else { MISDIRECTED },
                "{arguments:?} {host}"
            );
        }
        assert_eq!(statuses(&server, "localhost").await, SERVED);
    }
    // A page of an attacker has no token. With a list, the name is checked first.
    for (arguments, status) in [(&[][..], 401), (&listed, 421)] {
        let server = Stockhold::start_with(&redis, &[&["--token-file", file], arguments].concat());
        assert_eq!(statuses(&server, "evil.example").await, [status, status, status, 200, 200]);
    }
}

#[test]
fn an_invalid_token_file_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    write_tokens(&file, "write secret-secret-secret\nadmin secret-secret-secret\n");
    for (file, expected) in
        [(&file, "line 2: must begin with read or write"), (&folder.path().join("none"), "cannot read")]
    {
        let refused = program(&["--token-file", file.to_str().unwrap()]).output().unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(told.contains(expected) && !told.contains("secret-secret"), "{told}");
    }
}
