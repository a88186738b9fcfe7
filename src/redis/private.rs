//! A redis-server of our own, for a machine that has none running: a child process on loopback with its data kept on disk.
//!
//! It is started again when it dies, and stopped when the server stops. If the server itself was killed, the child lives
//! on; the next start finds it by its port and data folder, and takes over from it.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ::redis::{FromRedisValue, cmd};
use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::Redis;

/// How long it may take to load its data before the start is given up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to write its data out before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before it is started again after it died.
const RESTART_DELAY: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// Cuts off what a crash left half written: Redis would carry it out, half, at the start after the next one.
const TRIM: &str = include_str!("../../redis/trim-aof.sh");

/// What to start.
#[derive(Debug, Clone)]
pub struct PrivateRedisOptions {
    /// The program, looked up on `PATH` unless it is a path.
    pub program: PathBuf,
    /// The loopback port; 0 picks a free one.
    pub port: u16,
    /// Where its data is kept; created if missing.
    pub data_dir: PathBuf,
}

/// A running private redis-server.
pub struct PrivateRedis {
    url: String,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl PrivateRedis {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When there is no such program, the data folder is in use by another server, the port is taken, or it does not
    /// come up; the message says what to do.
    pub async fn start(mut options: PrivateRedisOptions) -> anyhow::Result<Self> {
        let folder = &options.data_dir;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the data folder {}", folder.display()))?;
        options.data_dir = folder.canonicalize()?;
        let lock = lock(&options.data_dir)?;
        take_over(&options).await?;
        if options.port == 0 {
            options.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        }
        let url = format!("redis://127.0.0.1:{}", options.port);
        let mut child = launch(&options).await?;
        await_answer(&mut child, &options, &url).await?;
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervise(child, options, stopped, lock));
        Ok(Self { url, stop, supervisor })
    }

    /// Where other programs on this machine reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets it write its data out and waits until it is gone.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.supervisor.await;
    }
}

/// Two servers on one data folder would lose data. The lock goes with the process, however that ends.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "the data folder {} is in use by another stockhold; name another with --data-dir (and --redis-port)",
            data_dir.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Stops the redis-server that a killed stockhold left behind. We hold the folder's lock, so it has no other owner.
async fn take_over(options: &PrivateRedisOptions) -> anyhow::Result<()> {
    let port = options.port;
    if port == 0 || TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() {
        return Ok(());
    }
    let redis = Redis::open(&format!("redis://127.0.0.1:{port}"))?;
    let reply = redis.call(cmd("CONFIG").arg("GET").arg("dir")).await;
    let settings = reply.ok().and_then(|reply| HashMap::<String, String>::from_redis_value(reply).ok());
    let folder = settings.as_ref().and_then(|settings| settings.get("dir"));
    if folder.map(Path::new) != Some(&options.data_dir) {
        bail!("port {port} is taken by another program; name a free one with --redis-port, or set REDIS_URL to use it");
    }
    warn!(port, "taking over from a redis-server that was left behind");
    let _ = redis.call(&cmd("SHUTDOWN")).await;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_err() {
        if Instant::now() > deadline {
            bail!("the redis-server that was left behind on port {port} does not stop");
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn launch(options: &PrivateRedisOptions) -> anyhow::Result<Child> {
    trim(options).await?;
    let mut command = Command::new(&options.program);
    command.args(["--bind", "127.0.0.1", "--port", &options.port.to_string(), "--protected-mode", "yes"]);
    command.arg("--dir").arg(&options.data_dir);
    command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
    command.args(["--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", "redis.log"]);
    // A group of its own: Ctrl-C must reach us first, so that what runs can finish.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(NOT_FOUND.replace("{}", &options.program.display().to_string())),
        _ => anyhow::Error::new(error).context(format!("cannot start {}", options.program.display())),
    })
}

/// Makes the append-only file fit to be appended to.
async fn trim(options: &PrivateRedisOptions) -> anyhow::Result<()> {
    // It is installed together with the server, and called alike.
    let name = options.program.file_name().unwrap_or_default().to_string_lossy().replace("server", "check-aof");
    let check = options.program.with_file_name(name);
    let trimmed = Command::new("/bin/sh").args(["-c", TRIM, "sh"]).arg(&options.data_dir).arg(check).output().await;
    let trimmed = trimmed.context("cannot run /bin/sh, which looks at the append-only file")?;
    for line in String::from_utf8_lossy(&trimmed.stderr).lines() {
        warn!("{line}");
    }
    Ok(())
}

const NOT_FOUND: &str = "\
{} was not found. Install Redis 7 or later, or point REDIS_URL at a Redis that runs:
  Debian, Ubuntu   apt-get install redis-server
  Fedora, RHEL     dnf install redis
  macOS            brew install redis
  Docker           docker run -p 6379:6379 redis:8 redis-server --appendonly yes
                   and then: REDIS_URL=redis://127.0.0.1:6379 stockhold";

async fn await_answer(child: &mut Child, options: &PrivateRedisOptions, url: &str) -> anyhow::Result<()> {
    let redis = Redis::open(url)?;
    let deadline = Instant::now() + START_TIMEOUT;
    // PING is answered with an error while the data is being loaded.
    while redis.call(&cmd("PING")).await.is_err() {
        let log = options.data_dir.join("redis.log");
        if let Some(status) = child.try_wait()? {
            bail!("redis-server stopped at once ({status}); see {}", log.display());
        }
        if Instant::now() > deadline {
            bail!("redis-server does not answer after {START_TIMEOUT:?}; see {}", log.display());
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Starts the child again when it dies, until told to stop.
async fn supervise(mut child: Child, options: PrivateRedisOptions, mut stopped: oneshot::Receiver<()>, _lock: File) {
    loop {
        tokio::select! {
            _ = &mut stopped => return end(child, &options).await,
            status = child.wait() => report(status),
        }
        child = loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = sleep(RESTART_DELAY) => {}
            }
            match launch(&options).await {
                Ok(child) => break child,
                Err(error) => error!("cannot start redis-server again: {error:#}"),
            }
        };
    }
}

fn report(status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => warn!(%status, "redis-server died; starting it again"),
        Err(error) => warn!(%error, "redis-server cannot be watched; starting it again"),
    }
}

async fn end(mut child: Child, options: &PrivateRedisOptions) {
    if let Ok(redis) = Redis::open(&format!("redis://127.0.0.1:{}", options.port)) {
        // It closes the connection instead of answering.
        let _ = redis.call(&cmd("SHUTDOWN")).await;
    }
    if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        warn!("redis-server does not stop; killing it");
        let _ = child.kill().await;
    }
    info!("redis-server stopped; its data is in {}", options.data_dir.display());
}
