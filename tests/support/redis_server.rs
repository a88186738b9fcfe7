//! A real redis-server for one test: private port, private folder, gone when dropped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, cmd};
use stockhold::redis::{Files, Redis};
use tempfile::TempDir;

use super::tls;

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Each port was free a moment before, so even one lost race is rare.
const PORT_TRIES: usize = 10;

/// Whether every Redis of the tests is a Redis Cluster of one node.
pub static IS_CLUSTER: LazyLock<bool> = LazyLock::new(|| std::env::var_os("REDIS_CLUSTER").is_some_and(|on| on == "1"));

/// What a node writes about a cluster of itself alone, which has all slots: it is started with this.
const ALONE: &str = "00000000000000000000000000000000deadbeef :0@0 myself,master - 0 0 1 connected 0-16383\n\
    vars currentEpoch 1 lastVoteEpoch 0\n";

/// Cuts the end off the append-only file of a stopped Redis, as a crash in the middle of a write does.
pub fn cut_short(folder: &Path, bytes: u64) {
    let files = fs::read_dir(folder.join("appendonlydir")).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|path| path.to_str().unwrap().ends_with(".incr.aof")).max().unwrap();
    let file = File::options().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

/// A running redis-server that stores nothing on disk and is killed on drop.
///
/// `REDIS_SERVER` names the command (default `redis-server`), so the same tests run against other servers. With `REDIS_TLS=1` each of
/// them speaks TLS only, and with `REDIS_CLUSTER=1` each is a Redis Cluster of one node, unless a test says otherwise.
pub struct RedisServer {
    process: Child,
    port: u16,
    folder: TempDir,
    /// The folder with its certificate, if it speaks TLS.
    tls: Option<PathBuf>,
    is_cluster: bool,
    extra_args: Vec<String>,
    environment: Vec<(String, String)>,
}

impl RedisServer {
    /// Starts a server that evicts nothing and persists nothing.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further options of redis-server, such as `["--maxmemory", "5mb"]`.
    pub fn start_with(extra_args: &[&str]) -> Self {
        Self::start_by(tls::OF_ALL.clone(), *IS_CLUSTER && !extra_args.contains(&"--cluster-enabled"), extra_args)
    }

    /// Starts a server that is never a cluster, for a test of what a cluster has not: databases, replicas by address, a stock
    /// without shards.
    pub fn start_single(extra_args: &[&str]) -> Self {
        Self::start_by(tls::OF_ALL.clone(), false, extra_args)
    }

    /// Starts a server that is always a cluster of one node.
    pub fn start_cluster(extra_args: &[&str]) -> Self {
        Self::start_by(tls::OF_ALL.clone(), true, extra_args)
    }

    /// Starts a server that never speaks TLS, for a test that reads what is sent. It is no cluster either.
    pub fn start_plain() -> Self {
        Self::start_by(None, false, &[])
    }

    /// Starts a server that speaks TLS only, with the certificates in a folder: `ca.pem`, `server.pem`, `server.key`. It is no cluster.
    pub fn start_with_tls(certificates: &Path, extra_args: &[&str]) -> Self {
        Self::start_by(Some(certificates.to_owned()), false, extra_args)
    }

    pub(super) fn start_by(tls: Option<PathBuf>, is_cluster: bool, extra_args: &[&str]) -> Self {
        // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
        let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
        let extra_args: Vec<String> = extra_args.iter().map(|arg| (*arg).to_owned()).collect();
        for _ in 0..PORT_TRIES {
            let port = free_port();
            if let Some(process) = launch(port, folder.path(), tls.as_deref(), is_cluster, &extra_args, &[]) {
                return Self { process, port, folder, tls, is_cluster, extra_args, environment: Vec::new() };
            }
        }
        panic!("another process took the port {PORT_TRIES} times");
    }

    /// The address of the server, as a `redis://` or `rediss://` URL; that of a cluster begins with `redis+cluster://` or
    /// `rediss+cluster://`.
    pub fn url(&self) -> String {
        self.url_at(&format!("127.0.0.1:{}", self.port))
    }

    /// The same for a client that says who it is.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url_at(&format!("{user}:{password}@127.0.0.1:{}", self.port))
    }

    /// The same for another address that leads to the server.
    pub fn url_at(&self, address: &str) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let cluster = if self.is_cluster { "+cluster" } else { "" };
        format!("{scheme}{cluster}://{address}/")
    }

    /// The URL of its socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", socket(self.folder.path()).display())
    }

    /// The file of the authority that vouches for the server, if it speaks TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|folder| folder.join("ca.pem"))
    }

    /// Tells an example of `clients/` where the server is, and whom to trust.
    pub fn tell<'a>(&self, example: &'a mut Command) -> &'a mut Command {
        if let Some(ca) = self.ca() {
            example.env("REDIS_CA", &ca).env("NODE_EXTRA_CA_CERTS", &ca);
        }
        example.env("REDIS_URL", self.url())
    }

    /// A client of this crate for a URL that leads to the server.
    pub fn open(&self, url: &str) -> Redis {
        Redis::open_with(url, Files { ca: self.ca(), ..Files::default() }).unwrap()
    }

    /// The loopback port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder where it keeps its data, if it was told to keep any.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new connection. It waits longer for an answer than the client's default of 500 ms, which a busy machine exceeds.
    pub async fn connection(&self) -> MultiplexedConnection {
        let patient =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        // Through the socket, which reaches it even in another network.
        let client = Client::open(self.socket_url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
    }

    /// Waits until a replica follows it and has reported.
    pub async fn until_followed(&self) {
        let mut connection = self.connection().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // There must be data to follow.
            cmd("SET").arg("probe").arg(1).exec_async(&mut connection).await.unwrap();
            cmd("DEL").arg("probe").exec_async(&mut connection).await.unwrap();
            let following: u32 = cmd("WAIT").arg(1).arg(100).query_async(&mut connection).await.unwrap();
            if following == 1 {
                return;
            }
            assert!(Instant::now() < deadline, "no replica follows");
        }
    }

    /// Ends the server as a power cut does: without a warning. Nothing is stored on disk by default, so its data is
    /// gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Kills the server if it still runs, and starts an empty one on the same port with the same options.
    pub fn restart(&mut self) {
        self.kill();
        let (folder, tls) = (self.folder.path(), self.tls.as_deref());
        self.process = launch(self.port, folder, tls, self.is_cluster, &self.extra_args, &self.environment)
            .unwrap_or_else(|| panic!("another process took port {} while the server was down", self.port));
    }

    /// Sets variables of its environment, for the next start and later ones.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.environment = environment;
    }

    /// Freezes the server: connections stay open, and nothing is answered until [`Self::continue_process`].
    pub fn stop_process(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen server continue. It carries out now what was sent meanwhile.
    pub fn continue_process(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // SIGKILL ends a frozen process too. A process that already ended is not a failure.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

/// A port that is free now.
pub(super) fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Ports that are free now, none of them twice. Each leaves room for the second port of a cluster's node, 10,000 above.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut listeners = Vec::new();
    while listeners.len() < count {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        if listener.local_addr().unwrap().port() <= u16::MAX - 10_000 {
            listeners.push(listener);
        }
    }
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Starts the process and waits until it answers, and as a cluster serves its slots, which takes Redis two seconds; `None` when another
/// process holds the port.
fn launch(
    port: u16,
    folder: &Path,
    tls: Option<&Path>,
    is_cluster: bool,
    extra_args: &[String],
    environment: &[(String, String)],
) -> Option<Child> {
    let command = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let trim = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/trim-aof.sh");
    let program = Path::new(&command);
    let check = program.file_name().unwrap().to_str().unwrap().replace("server", "check-aof");
    let trimmed = Command::new(trim).arg(folder).arg(program.with_file_name(check)).stderr(Stdio::null()).status();
    assert!(trimmed.unwrap().success());
    let socket = socket(folder);
    let log_path = folder.join("redis.log");
    let log = File::create(&log_path).unwrap();
    let mut process = Command::new(&command)
        .args(listening(port, tls))
        .args(["--bind", "127.0.0.1", "--daemonize", "no", "--loglevel", "warning"])
        .args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"])
        .arg("--dir")
        .arg(folder)
        .arg("--unixsocket")
        .arg(&socket)
        .args(if is_cluster { cluster(folder) } else { &[] })
        .args(extra_args)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run `{command}`: {error}. Install it (Debian: apt-get install redis-server) \
                 or name another with REDIS_SERVER=/path/to/redis-server"
            )
        });

    let deadline = Instant::now() + PATIENCE;
    // The socket is in our own folder: another test's server may have won the race for the port.
    while !(answers(&socket) && (!is_cluster || serves_slots(&log_path))) {
        if let Some(status) = process.try_wait().unwrap() {
            let log = fs::read_to_string(&log_path).unwrap();
            assert!(log.contains("Address already in use"), "`{command}` ended at its start with {status}:\n{log}");
            return None;
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            panic!("`{command}` does not answer after {PATIENCE:?}:\n{}", fs::read_to_string(&log_path).unwrap());
        }
        sleep(Duration::from_millis(2));
    }
    Some(process)
}

/// Makes the server a cluster of one node that has all slots: with what it knows from an earlier start, if there was one. The notices in
/// its log tell when it serves them.
fn cluster(folder: &Path) -> &'static [&'static str] {
    let known = folder.join("nodes.conf");
    if !known.exists() {
        fs::write(known, ALONE).unwrap();
    }
    &["--cluster-enabled", "yes", "--loglevel", "notice"]
}

/// Whether a node serves its slots. Its log says so, also to those who have no password.
fn serves_slots(log: &Path) -> bool {
    fs::read_to_string(log).unwrap().contains("Cluster state changed: ok")
}

/// What it listens to, on which port.
pub(super) fn listening(port: u16, tls: Option<&Path>) -> Vec<String> {
    let port = port.to_string();
    let Some(folder) = tls else { return vec!["--port".to_owned(), port] };
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(file);
    let options = [
        ("--port", "0"),
        ("--tls-port", &port),
        ("--tls-ca-cert-file", &ca),
        ("--tls-cert-file", &certificate),
        ("--tls-key-file", &key),
        ("--tls-auth-clients", "no"),
        ("--tls-replication", "yes"),
        ("--tls-cluster", "yes"),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}

/// Whether the server behind the socket accepts commands. A server that asks for a password first does.
fn answers(socket: &Path) -> bool {
    let ping = || -> io::Result<[u8; 5]> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ping().is_ok_and(|answer| &answer == b"+PONG" || &answer == b"-NOAU")
}
