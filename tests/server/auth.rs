//! Bearer tokens: who has none is told how to get in, who may read cannot write, and tokens are changed without a gap.

use std::fs;
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

const READS: [&str; 4] =
    ["/api/inventory/sku-1", "/api/audit", "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002", "/nowhere"];
const WRITES: [&str; 5] = [
    "/api/inventory/seed",
    "/api/reservations/hold",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/confirm",
    "/api/reservations/018f3b9e-5c1a-8000-9f10-0242ac120002/release",
    "/nowhere",
];

/// A shop that lets in who has a token of its file.
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

    /// Asks with these `Authorization` headers.
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

/// What the answer says of how to be let in.
#[track_caller]
fn challenge(answer: Answer, status: u16, code: &str) -> String {
    let challenge = answer.headers["www-authenticate"].to_str().unwrap().to_owned();
    answer.problem(status, code);
    challenge
}

#[tokio::test]
async fn without_a_good_token_nothing_is_done_or_told() {
    let shop = Guarded::open();
    let unknown = bearer("writer-writer-writer-0");
    let basic = format!("Basic {WRITER}");
    let (reader, writer) = (bearer(READER), bearer(WRITER));
    let none: [&[&str]; 5] = [&[], &[&basic], &["Bearer"], &[""], &[&reader, &writer]];
    for (method, paths) in [("GET", &READS[..]), ("POST", &WRITES[..]), ("DELETE", &READS[..])] {
        for path in paths {
            for authorization in none {
                let answer = shop.ask(method, path, authorization).await;
                assert_eq!(challenge(answer, 401, "unauthorized"), r#"Bearer realm="stockhold""#);
            }
            for token in [unknown.as_str(), &bearer("# who is who")] {
                let challenge = challenge(shop.ask(method, path, &[token]).await, 401, "unauthorized");
                assert_eq!(challenge, r#"Bearer realm="stockhold", error="invalid_token""#, "{token:?}");
            }
        }
    }
    for free in ["/livez", "/readyz"] {
        shop.ask("GET", free, &[]).await.ok();
    }
    shop.ask("GET", "/api/inventory/sku-1", &[&writer]).await.problem(404, "unknown_sku");
}

#[tokio::test]
async fn a_token_to_read_reads_and_one_to_write_does_both() {
    let shop = Guarded::open();
    let (reader, writer) = (bearer(READER), format!("bEARER {WRITER}"));
    for path in WRITES {
        let challenge = challenge(shop.ask("POST", path, &[&reader]).await, 403, "insufficient_scope");
        assert_eq!(challenge, r#"Bearer realm="stockhold", error="insufficient_scope", scope="write""#);
    }
    shop.ask("POST", "/api/inventory/seed", &[&writer]).await.ok();
    for token in [&reader, &writer] {
        assert_eq!(shop.ask("GET", "/api/inventory/sku-1", &[token]).await.ok()["available"], 5);
    }
}

#[tokio::test]
async fn tokens_are_changed_without_a_gap() {
    let shop = Guarded::open();
    let works = async |token: &str| shop.ask("POST", "/api/inventory/seed", &[&bearer(token)]).await.status == 200;
    let eventually = async |token: &str, expected: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while works(token).await != expected {
            assert!(Instant::now() < deadline, "{token} never comes to {expected}");
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(works(WRITER).await && !works(NEXT_WRITER).await);
    write_tokens(&shop.file, &format!("write {WRITER}\nwrite {NEXT_WRITER}\n"));
    shop.server.signal(Signal::SIGHUP);
    eventually(NEXT_WRITER, true).await;
    assert!(works(WRITER).await, "both are good at once");

    // A file with a defect changes nothing.
    write_tokens(&shop.file, &format!("write {NEXT_WRITER}\nwrite short\n"));
    shop.server.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(200)).await;
    assert!(works(WRITER).await && works(NEXT_WRITER).await);

    write_tokens(&shop.file, &format!("write {NEXT_WRITER}\n"));
    shop.server.signal(Signal::SIGHUP);
    eventually(WRITER, false).await;
    assert!(works(NEXT_WRITER).await);
}

#[test]
fn a_server_that_others_reach_wants_tokens_or_to_be_told() {
    let refused =
        program(&["--host", "0.0.0.0", "--port", "0", "--redis-url", "redis://127.0.0.1:1"]).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("--token-file") && told.contains("--insecure-bind"), "{told}");
    let redis = RedisServer::start();
    Stockhold::start_with(&redis, &["--host", "0.0.0.0", "--insecure-bind"]);
}

#[test]
fn a_file_with_a_defect_is_refused_without_showing_it() {
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
