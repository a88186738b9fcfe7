//! The program itself, started as a user starts it, and an HTTP client for it.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use uuid::Uuid;

use super::redis_server::RedisServer;
use super::{keys, tls};

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for a service that another node takes over.
const FAIL_OVER: Duration = Duration::from_secs(90);

/// A running `stockhold serve` on a free port; stopped on drop.
pub struct Stockhold {
    child: Child,
    /// What it printed: the address of Redis, if it started one, and the address on which it listens.
    pub printed: Vec<String>,
    pub address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body as JSON; null when there is none.
    pub body: Value,
}

impl Answer {
    /// The body. The request must have been answered with 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// The body. It must be a problem with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(!self.body[member].as_str().unwrap().is_empty(), "{member} in {}", self.body);
        }
        self.body
    }
}

/// The program, without any settings from this environment; it serves as many shards as [`keys::LAYOUT`] has, unless
/// `--shards` says otherwise.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockhold"));
    command.args(arguments);
    for name in ["PORT", "REDIS_URL", "RUST_LOG"] {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"STOCKHOLD_")) {
        command.env_remove(name);
    }
    // Tests that stop a server need not wait. Those that are about it say how long.
    command.env("STOCKHOLD_DRAIN_SECONDS", "0");
    // The server that the tests run on is also the one that the program starts.
    if let Some(server) = env::var_os("REDIS_SERVER") {
        command.env("STOCKHOLD_REDIS_SERVER", server);
    }
    if keys::LAYOUT.is_sharded() {
        command.env("STOCKHOLD_SHARDS", keys::shards().len().to_string());
    }
    // So that a Redis of the tests is trusted even where a test names it in another way than with `start`.
    if *tls::IS_EVERYWHERE {
        command.env("SSL_CERT_FILE", tls::OF_ALL_TESTS.join("ca.pem"));
    }
    command
}

/// Runs a command to its end; returns its exit status and its output, which is short. One that serves instead does not end,
/// and that is told.
pub fn run(command: &mut Command) -> (i32, String) {
    finish(command.stdout(Stdio::piped()))
}

/// The same for a command whose standard output goes elsewhere.
pub fn finish(command: &mut Command) -> (i32, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} does not end: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(5));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

impl Stockhold {
    /// Serves from `redis`.
    pub fn start(redis: &RedisServer) -> Self {
        Self::start_with(redis, &[])
    }

    /// Serves from `redis`, with more arguments.
    pub fn start_with(redis: &RedisServer, arguments: &[&str]) -> Self {
        let (url, ca) = (redis.url(), redis.ca());
        let trust = ca.as_ref().map(|ca| ["--redis-ca", ca.to_str().unwrap()]);
        let trust = trust.as_ref().map_or(&[][..], |trust| &trust[..]);
        Self::spawn(&[&["--port", "0", "--redis-url", &url], trust, arguments].concat())
    }

    /// Serves with only these arguments; `--port 0` should be among them.
    pub fn spawn(arguments: &[&str]) -> Self {
        Self::run(&mut program(arguments))
    }

    /// Runs a command that serves.
    pub fn run(command: &mut Command) -> Self {
        // Tests provoke its warnings. Only messages that should never appear belong in the output of the tests.
        let mut child = command.env("RUST_LOG", "error").stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {}", child.wait().unwrap())).unwrap();
            // With --log-format json it is an object.
            let line = match serde_json::from_str::<Value>(&line) {
                Ok(object) => object["message"].as_str().unwrap().to_owned(),
                Err(_) => line,
            };
            let address = line.strip_prefix("stockhold listens on http://").map(|address| address.parse().unwrap());
            printed.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { child, printed, address, client }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(self.url(path)), Bytes::new()).await
    }

    /// A POST of JSON, or of nothing.
    pub async fn post(&self, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.post_with(path, body, None).await
    }

    /// A POST with an `Idempotency-Key`.
    pub async fn post_with(&self, path: &str, body: impl Into<Option<Value>>, key: Option<&str>) -> Answer {
        let mut request = Request::post(self.url(path));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        match body.into() {
            Some(body) => self.send(request.header("content-type", "application/json"), body.to_string().into()).await,
            None => self.send(request, Bytes::new()).await,
        }
    }

    /// Any request.
    pub async fn send(&self, request: hyper::http::request::Builder, body: Bytes) -> Answer {
        self.attempt(request, body).await.unwrap()
    }

    /// Any request, to a server that may go away meanwhile.
    pub async fn attempt(&self, request: hyper::http::request::Builder, body: Bytes) -> Result<Answer, String> {
        let response = self.client.request(request.body(Full::new(body)).unwrap()).await;
        let (head, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn seed(&self, sku: &str, quantity: u64) -> Value {
        self.post("/api/inventory/seed", serde_json::json!({ "sku": sku, "quantity": quantity })).await.ok()
    }

    pub async fn stock(&self, sku: &str) -> Value {
        self.get(&format!("/api/inventory/{sku}")).await.ok()
    }

    /// The counts of a SKU: available, reserved, confirmed.
    pub async fn counts(&self, sku: &str) -> [u64; 3] {
        let stock = self.stock(sku).await;
        ["available", "reserved", "confirmed"].map(|name| stock[name].as_u64().unwrap())
    }

    /// Holds for ten minutes, and returns the reservation's id.
    pub async fn held(&self, sku: &str, quantity: u64) -> String {
        self.held_for(sku, quantity, 600).await
    }

    pub async fn held_for(&self, sku: &str, quantity: u64, ttl_seconds: u64) -> String {
        let body =
            serde_json::json!({ "cartId": "cart-1", "sku": sku, "quantity": quantity, "ttlSeconds": ttl_seconds });
        let record = self.post("/api/reservations/hold", body).await.ok();
        record["reservationId"].as_str().unwrap().to_owned()
    }

    pub async fn confirm(&self, id: &str) -> Answer {
        self.post(&format!("/api/reservations/{id}/confirm"), None).await
    }

    pub async fn release(&self, id: &str) -> Answer {
        self.post(&format!("/api/reservations/{id}/release"), None).await
    }

    /// The newest events of a SKU, newest first.
    pub async fn events(&self, sku: &str, limit: usize) -> Vec<Value> {
        let body = self.get(&format!("/api/audit?sku={sku}&limit={limit}")).await.ok();
        body["events"].as_array().unwrap().clone()
    }

    /// Repeats until the answer is 200. Any other answer must be a 503.
    pub async fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/readyz").await;
            if answer.status == 200 {
                return;
            }
            answer.problem(503, "unavailable");
            assert!(Instant::now() < deadline, "it does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(10));
        }
    }
}

/// Repeats a request with its key until the answer is definite.
pub async fn definite(server: &Stockhold, path: &str, body: impl Into<Option<Value>>) -> Answer {
    let body = body.into();
    let (deadline, key) = (Instant::now() + FAIL_OVER, Uuid::new_v4().to_string());
    loop {
        let answer = server.post_with(path, body.clone(), Some(&key)).await;
        if answer.status != 503 {
            return answer;
        }
        let problem = answer.problem(503, "unavailable");
        assert!(Instant::now() < deadline, "{problem}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It is told to stop and not killed: a private Redis would outlive it.
impl Drop for Stockhold {
    fn drop(&mut self) {
        let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if running(&mut self.child) {
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + PATIENCE;
            while running(&mut self.child) && Instant::now() < deadline {
                sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
