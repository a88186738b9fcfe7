//! What may become better by waiting: the server says what it waits for, and goes on when it has come.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::thread;

use super::{Secured, nowhere, text};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

/// A server that waits, stopped on drop.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server, and reads what it says until it says this.
fn waits(arguments: &[&str], words: &str) -> Waiting {
    let mut child = program(&[&["--port", "0"], arguments].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    while !said.contains(words) {
        assert!(log.read_line(&mut said).unwrap() > 0, "it ended, and did not say {words:?}: {said}");
    }
    // Or it could not log any more.
    thread::spawn(move || log.lines().for_each(drop));
    assert!(said.contains("waiting for Redis"), "{said}");
    assert!(child.try_wait().unwrap().is_none(), "it ended: {said}");
    Waiting(child)
}

#[test]
fn a_redis_with_tls_at_a_plain_url() {
    let secured = Secured::start(&[]);
    let url = format!("redis://127.0.0.1:{}", secured.redis.port());
    waits(&["--redis-url", &url], "if it speaks TLS there, --redis-url must begin with rediss://");
}

/// It answers with an error, and the server ends; or it waits for more, and so does the server.
#[test]
fn a_plain_redis_at_a_url_with_tls() {
    let plain = RedisServer::start_plain();
    let url = plain.url().replace("redis://", "rediss://");
    let mut child = program(&["--port", "0", "--redis-url", &url]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let _waiting = Waiting(child);
    assert!(said.contains("does not speak TLS there"), "{said}");
}

#[test]
fn a_socket_that_is_not_there() {
    waits(&["--redis-url", &format!("unix://{}", text(&nowhere()))], "No such file");
}

/// Another service, or a proxy in front of a Redis that is not up.
#[test]
fn silence_instead_of_a_handshake() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    waits(
        &["--redis-url", &format!("rediss://{address}")],
        "no answer to the TLS handshake, perhaps because it does not speak",
    );
    waits(&["--redis-url", &format!("redis://{address}")], "a connection, but no answer within");
    thread::spawn(move || listener.incoming().for_each(drop));
    let words = "it closed the connection during the TLS handshake, perhaps because it does not speak TLS there";
    waits(&["--redis-url", &format!("rediss://{address}")], words);
}

/// Nothing listens there at first, then a Redis that loads its data could, and at last it is up.
#[tokio::test]
async fn a_redis_that_comes_later() {
    let mut secured = Secured::start(&[]);
    secured.redis.kill();
    let (url, ca) = (secured.redis.url(), secured.ca());
    let arguments = ["--redis-url", &url, "--redis-ca", &ca];
    drop(waits(&arguments, "Connection refused"));
    let arguments = [&["--port", "0"], &arguments[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let starting = tokio::task::spawn_blocking(move || {
        Stockhold::spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    secured.redis.restart();
    starting.await.unwrap().seed("tea", 5).await;
}
