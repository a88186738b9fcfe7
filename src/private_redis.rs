//! A private redis-server, for a machine where none runs: a child process on loopback with its data kept on disk.
//!
//! It is restarted when it dies, and stopped when the server stops. If the server itself was killed, the child
//! continues to run. The next start on the same folder finds it, stops it and takes over.

mod answer;
mod folder;
mod holders;
mod memory;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use folder::{Claim, Folder};
pub use memory::default_maxmemory;

/// How long a starting redis-server may give no answer before the start fails. While it loads its data it does answer,
/// and may take as long as it needs.
pub const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to write its data to disk before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before it is restarted after it died. The pause doubles after each failure, up to the second value.
const RESTART_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
const POLL: Duration = Duration::from_millis(20);
/// A port that is free now may be taken a moment later.
const PORT_TRIES: usize = 5;

/// Removes what a crash left half written: otherwise Redis would apply half of it two starts later.
const TRIM: &str = include_str!("../redis/trim-aof.sh");

/// What to start.
#[derive(Debug, Clone)]
pub struct PrivateRedisOptions {
    /// The program, looked up on `PATH` unless it is a path.
    pub program: PathBuf,
    /// The loopback port; 0 picks a free one.
    pub port: u16,
    /// Where its data is kept; created if missing.
    pub data_dir: PathBuf,
    /// Bytes of memory that it may use; above that it refuses holds. 0 for no limit. See [`default_maxmemory`].
    pub maxmemory: u64,
    /// How long it may give no answer at all during its start; see [`START_PATIENCE`].
    pub start_patience: Duration,
}

/// A running private redis-server.
pub struct PrivateRedis {
    url: String,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl PrivateRedis {
    /// Starts it and waits until it has loaded its data, however long that takes.
    ///
    /// # Errors
    /// When there is no such program, another server uses the data folder, the port is taken, the process ends, or it
    /// does not answer. The message says what to do.
    pub async fn start(options: PrivateRedisOptions) -> anyhow::Result<Self> {
        let folder = Folder::open(&options.data_dir)?;
        let picks_port = options.port == 0;
        let mut server = Server { options, folder };
        let mut tries = 0..PORT_TRIES;
        let child = loop {
            if picks_port {
                server.options.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            }
            match server.start().await {
                Err(_) if picks_port && tries.next().is_some() && !folder::is_free(server.options.port)? => {}
                started => break started?,
            }
        };
        let url = format!("redis://127.0.0.1:{}", server.options.port);
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervise(child, server, stopped));
        Ok(Self { url, stop, supervisor })
    }

    /// The address for other programs on this machine.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets it write its data to disk and waits until it has ended.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.supervisor.await;
    }
}

/// The settings for the first start and for restarts.
struct Server {
    options: PrivateRedisOptions,
    folder: Folder,
}

impl Server {
    /// Starts the process, and waits until it has loaded its data.
    async fn start(&self) -> anyhow::Result<Child> {
        let claim = self.folder.claim(self.options.port).await?;
        self.trim(&claim).await?;
        let mut child = self.launch(claim)?;
        let log = self.folder.path().join("redis.log");
        tokio::select! {
            status = child.wait() => bail!("redis-server ended before it was ready ({}); see {}", status?, log.display()),
            ready = answer::until_ready(self.options.port, self.folder.path(), self.options.start_patience) => {
                ready.with_context(|| format!("redis-server was given up; see {}", log.display()))?;
            }
        }
        Ok(child)
    }

    fn launch(&self, claim: Claim) -> anyhow::Result<Child> {
        let PrivateRedisOptions { program, port, maxmemory, .. } = &self.options;
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--protected-mode", "yes"]);
        command.arg("--dir").arg(self.folder.path());
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]);
        command.args(["--maxmemory", &maxmemory.to_string(), "--maxmemory-policy", "noeviction"]);
        command.args(["--daemonize", "no", "--logfile", "redis.log"]);
        // In a separate process group: Ctrl-C must reach us first, so that running requests can finish.
        command.process_group(0).kill_on_drop(true);
        command.stdin(claim.hand_over(*port)?).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!(NOT_FOUND.replace("{}", &program.display().to_string())),
            _ => anyhow::Error::new(error).context(format!("cannot start {}", program.display())),
        })
    }

    /// Repairs the append-only file so that Redis can append to it.
    async fn trim(&self, claim: &Claim) -> anyhow::Result<()> {
        // It is installed together with the server, under a similar name. If the name of the server does not contain
        // `server`, this must not run the server itself.
        let program = &self.options.program;
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let check = match name.replace("server", "check-aof") {
            same if same == name => PathBuf::from("redis-check-aof"),
            check => program.with_file_name(check),
        };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", TRIM, "sh"]).arg(self.folder.path()).arg(check);
        // It changes the file, so it holds the lock too.
        let trimmed = command.stdin(claim.share()?).output().await;
        let trimmed = trimmed.context("cannot run /bin/sh, which looks at the append-only file")?;
        for line in String::from_utf8_lossy(&trimmed.stderr).lines() {
            warn!("{line}");
        }
        Ok(())
    }

    async fn start_again(&self) -> Child {
        let [mut delay, longest] = RESTART_DELAYS;
        loop {
            sleep(delay).await;
            match self.start().await {
                Ok(child) => return child,
                Err(error) => error!("cannot start redis-server again: {error:#}"),
            }
            delay = longest.min(delay * 2);
        }
    }

    async fn end(&self, mut child: Child) {
        answer::shut_down(self.options.port).await;
        if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            warn!("redis-server does not stop; killing it");
            let _ = child.kill().await;
        }
        info!("redis-server stopped; its data is in {}", self.folder.path().display());
    }
}

const NOT_FOUND: &str = "\
{} was not found. Install Redis 7 or later, or point REDIS_URL at a Redis that runs:
  Debian, Ubuntu   apt-get install redis-server
  Fedora, RHEL     dnf install redis
  macOS            brew install redis
  Docker           docker run -p 6379:6379 redis:8 redis-server --appendonly yes
                   and then: REDIS_URL=redis://127.0.0.1:6379 stockhold";

/// Restarts the child when it dies, until told to stop.
async fn supervise(mut child: Child, server: Server, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut stopped => return server.end(child).await,
            status = child.wait() => report(status),
            () = memory::watch(server.options.port) => {}
        }
        child = tokio::select! {
            // A child that still starts is killed on drop. While it loads its data it has nothing to write.
            _ = &mut stopped => return,
            child = server.start_again() => child,
        };
    }
}

fn report(status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => warn!(%status, "redis-server died; starting it again"),
        Err(error) => warn!(%error, "redis-server cannot be watched; starting it again"),
    }
}
