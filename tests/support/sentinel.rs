//! A master, two replicas and three sentinels that watch them: real processes, gone when dropped.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, TlsCertificates, cmd};
use tempfile::TempDir;
use tokio::time::sleep;

use super::redis_server::{RedisServer, free_port, listening};
use super::tls;

/// How long a busy machine may need for what takes seconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each port was free a moment before, so even one lost race is rare.
const PORT_TRIES: usize = 10;

/// The name of the master.
pub const NAME: &str = "shop";

/// A running sentinel, killed on drop.
pub struct Sentinel {
    process: Child,
    port: u16,
    tls: Option<PathBuf>,
    folder: TempDir,
    password: Option<String>,
}

impl Sentinel {
    /// Starts one that watches the Redis at a loopback port and needs `quorum` sentinels to call it down; `more` are lines of its
    /// configuration.
    pub async fn start(redis: &RedisServer, quorum: usize, more: &[&str]) -> Self {
        let tls = redis.ca().map(|ca| ca.parent().unwrap().to_owned());
        let password = more.iter().find_map(|line| line.strip_prefix("requirepass ")).map(str::to_owned);
        for _ in 0..PORT_TRIES {
            // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
            let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
            let port = free_port();
            let mut lines = vec![
                format!("dir {}", folder.path().display()),
                "bind 127.0.0.1".to_owned(),
                format!("sentinel monitor {NAME} 127.0.0.1 {} {quorum}", redis.port()),
                format!("sentinel down-after-milliseconds {NAME} 1000"),
                format!("sentinel failover-timeout {NAME} 10000"),
            ];
            let listening = listening(port, tls.as_deref());
            lines.extend(listening.chunks(2).map(|pair| format!("{} {}", pair[0].trim_start_matches("--"), pair[1])));
            lines.extend(more.iter().map(|line| (*line).to_owned()));
            fs::write(folder.path().join("sentinel.conf"), lines.join("\n") + "\n").unwrap();
            let process = launch(folder.path());
            let mut sentinel = Self { process, port, tls: tls.clone(), folder, password: password.clone() };
            if sentinel.answers().await {
                return sentinel;
            }
        }
        panic!("another process took the port {PORT_TRIES} times");
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new connection.
    pub async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let patience = Some(Duration::from_secs(5));
        let patient = AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let place = format!("{password}{}", self.address());
        let client = match &self.tls {
            None => Client::open(format!("redis://{place}"))?,
            Some(folder) => {
                let root_cert = Some(fs::read(folder.join("ca.pem")).unwrap());
                Client::build_with_tls(format!("rediss://{place}"), TlsCertificates { client_tls: None, root_cert })?
            }
        };
        client.get_multiplexed_async_connection_with_config(&patient).await
    }

    /// The port of the master that it names.
    pub async fn named(&self) -> u16 {
        let mut connection = self.connection().await.unwrap();
        let mut ask = cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(NAME);
        let (_, port): (String, u16) = ask.query_async(&mut connection).await.unwrap();
        port
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was, with what it knew.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = launch(self.folder.path());
        assert!(self.answers().await, "another process took port {} while the sentinel was down", self.port);
    }

    /// Freezes it: connections stay open, and nothing is answered.
    pub fn stop_process(&self) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), Signal::SIGSTOP).unwrap();
    }

    /// Waits until it answers; false when another process holds the port.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = || fs::read_to_string(self.folder.path().join("sentinel.log")).unwrap();
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(log().contains("Address already in use"), "the sentinel ended with {status}:\n{}", log());
                return false;
            }
            if self.connection().await.is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "the sentinel does not answer:\n{}", log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether it knows two replicas and two other sentinels, and could lead a fail-over.
    async fn knows_all(&self) -> bool {
        let mut connection = self.connection().await.unwrap();
        let ask = |what: &str| {
            let mut ask = cmd("SENTINEL");
            ask.arg(what).arg(NAME);
            ask
        };
        let master: HashMap<String, String> = ask("MASTER").query_async(&mut connection).await.unwrap();
        let replicas: Vec<HashMap<String, String>> = ask("REPLICAS").query_async(&mut connection).await.unwrap();
        let follows =
            |replica: &HashMap<String, String>| replica["flags"] == "slave" && replica["master-link-status"] == "ok";
        let quorum: RedisResult<String> = ask("CKQUORUM").query_async(&mut connection).await;
        let in_sync = replicas.iter().filter(|replica| follows(replica)).count();
        (in_sync, &*master["num-other-sentinels"], &*master["flags"]) == (2, "2", "master") && quorum.is_ok()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // SIGKILL ends a frozen process too. A process that already ended is not a failure.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(folder: &Path) -> Child {
    let command = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let log = File::create(folder.join("sentinel.log")).unwrap();
    let mut process = Command::new(command);
    process.arg(folder.join("sentinel.conf")).arg("--sentinel");
    process.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// A master that is watched, and what watches it.
pub struct Watched {
    /// The first is the master at the beginning.
    pub redis: Vec<RedisServer>,
    pub sentinels: Vec<Sentinel>,
}

impl Watched {
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// With more options of redis-server, and more lines for the sentinels.
    pub async fn start_with(options: &[&str], lines: &[&str]) -> Self {
        Self::start_by(tls::OF_ALL.clone(), options, lines).await
    }

    /// All of them speak TLS only.
    pub async fn start_with_tls() -> Self {
        Self::start_by(Some(tls::OF_ALL_TESTS.clone()), &[], &[]).await
    }

    async fn start_by(tls: Option<PathBuf>, options: &[&str], lines: &[&str]) -> Self {
        // The master does not wait for more replicas before the first one may copy it.
        let options = [&["--repl-diskless-sync-delay", "0"], options].concat();
        let master = RedisServer::start_by(tls.clone(), false, &options);
        let port = master.port().to_string();
        let follow = [&options[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let mut redis = vec![master];
        redis.extend([0; 2].map(|_| RedisServer::start_by(tls.clone(), false, &follow)));
        let mut watched = Self { redis, sentinels: Vec::new() };
        for _ in 0..3 {
            watched.sentinels.push(Sentinel::start(&watched.redis[0], 2, lines).await);
        }
        watched.until_ready().await;
        watched
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        for sentinel in &self.sentinels {
            while !sentinel.knows_all().await {
                assert!(Instant::now() < deadline, "a sentinel does not know all");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// The URL of the master: with these words before its sentinels, such as `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        let scheme = if self.redis[0].ca().is_some() { "rediss" } else { "redis" };
        let sentinels: Vec<_> = self.sentinels.iter().map(Sentinel::address).collect();
        format!("{scheme}+sentinel://{user}{}/?master={NAME}", sentinels.join(","))
    }

    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// What tells a command where Redis is, and whom to trust.
    pub fn arguments(&self) -> Vec<String> {
        self.trusting(self.url())
    }

    /// The same for another URL.
    pub fn trusting(&self, url: String) -> Vec<String> {
        let mut arguments = vec!["--redis-url".to_owned(), url];
        if let Some(ca) = self.redis[0].ca() {
            arguments.extend(["--redis-ca".to_owned(), ca.to_str().unwrap().to_owned()]);
        }
        arguments
    }

    /// Which of the servers is the master, once all of these sentinels say so and it is not `old`.
    pub async fn until_master_is_not(&self, old: usize, sentinels: &[usize]) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut named = Vec::new();
            for sentinel in sentinels {
                named.push(self.sentinels[*sentinel].named().await);
            }
            named.dedup();
            let at = |port: u16| self.redis.iter().position(|redis| redis.port() == port);
            if let [port] = named[..]
                && let Some(new) = at(port).filter(|new| *new != old)
            {
                return new;
            }
            assert!(Instant::now() < deadline, "no fail-over: {named:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
