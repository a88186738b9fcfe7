//! Locks of a data folder: at most one stockhold and one redis-server run in it.
//!
//! There are two locks. The stockhold holds `lock`. The redis-server and its forks hold `redis.lock`: the redis-server
//! got the open file as its standard input. The system drops a lock when the last process that holds it ends, in any
//! way. So a redis-server that outlived its stockhold is found by the folder, on any port, frozen or not.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::holders::{self, Force};
use super::{POLL, STOP_TIMEOUT, answer};

/// How long a process that ends may take to release everything: its locks are released just before its ports.
const GRACE: Duration = Duration::from_secs(1);

/// A data folder that no other stockhold uses.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// The folder's lock for its redis-server.
pub(super) struct Claim(File);

impl Folder {
    /// Creates it if it is missing, and keeps other stockholds out.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot create the data folder {}", path.display()))?;
        let path = path.canonicalize()?;
        let lock = path.join("lock");
        let mut file = open(&lock)?;
        if !try_lock(&file)? {
            let owner = std::fs::read_to_string(&lock).unwrap_or_default();
            bail!(
                "the data folder {} is in use by another stockhold, process {}; stop that one, or name another folder with \
                 --data-dir (and another --redis-port)",
                path.display(),
                owner.trim()
            );
        }
        write(&mut file, std::process::id())?;
        Ok(Self { path, _lock: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock for a redis-server on `port`. Stops an earlier redis-server first, if there is one.
    pub(super) async fn claim(&self, port: u16) -> anyhow::Result<Claim> {
        let path = self.path.join("redis.lock");
        let file = open(&path)?;
        let held = !try_lock(&file)?;
        let recorded = std::fs::read_to_string(&path).ok().and_then(|port| port.trim().parse().ok());
        let mut asked = false;
        // Even without the lock: somebody may have started one in our folder by hand.
        for port in recorded.into_iter().filter(|recorded| *recorded != port).chain([port]) {
            if !is_free(port).unwrap_or(false) && answer::folder(port).await.as_ref() == Some(&self.path) {
                warn!(port, "taking over from a redis-server that was left behind");
                answer::shut_down(port).await;
                asked = true;
            }
        }
        let ended = !held || asked && within(STOP_TIMEOUT, || try_lock(&file)).await?;
        if !ended && !force_out(&file, asked).await? {
            bail!(
                "the data folder {} is in use by a redis-server that was left behind and cannot be stopped from here; end it \
                 (`lsof {}` names its process), or name another folder with --data-dir",
                self.path.display(),
                path.display()
            );
        }
        let patience = if asked { STOP_TIMEOUT } else { GRACE };
        if !within(patience, || is_free(port)).await? {
            let by = match answer::folder(port).await {
                Some(folder) => format!("a redis-server that keeps its data in {}", folder.display()),
                None => "another program".to_owned(),
            };
            bail!("port {port} is taken by {by}; name a free one with --redis-port, or set REDIS_URL to use it");
        }
        Ok(Claim(file))
    }
}

/// Ends the holders of the lock that do not answer, or do not end when asked. Returns whether we have the lock now.
async fn force_out(lock: &File, asked: bool) -> anyhow::Result<bool> {
    let forces = if asked { &[Force::Kill][..] } else { &[Force::Terminate, Force::Kill] };
    for &force in forces {
        if holders::end(lock, force)? == 0 {
            break;
        }
        warn!(?force, "ending a redis-server that was left behind");
        let ended = within(STOP_TIMEOUT, || {
            // Repeatedly, because it may fork.
            holders::end(lock, force)?;
            try_lock(lock)
        });
        if ended.await? {
            return Ok(true);
        }
    }
    within(GRACE, || try_lock(lock)).await
}

impl Claim {
    /// The lock as standard input for another process, which then holds it too.
    pub(super) fn share(&self) -> anyhow::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    /// The lock as standard input for the redis-server, which then holds it instead of us. Records its port.
    pub(super) fn hand_over(mut self, port: u16) -> anyhow::Result<Stdio> {
        // Recorded before it runs: we may be killed as soon as it runs.
        write(&mut self.0, port.into())?;
        Ok(self.0.into())
    }
}

/// Whether a port of loopback is free.
pub(super) fn is_free(port: u16) -> anyhow::Result<bool> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot use port {port} (--redis-port)")),
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    // Not truncated: the recorded number belongs to the holder of the lock.
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))
}

fn try_lock(file: &File) -> anyhow::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the data folder"),
    }
}

/// Records a number in a locked file.
fn write(file: &mut File, number: u32) -> anyhow::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{number}").context("cannot write to the data folder")
}

/// Tries at least once, until it is done or the time is over. Returns whether it is done.
async fn within(time: Duration, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let deadline = Instant::now() + time;
    while !done()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(POLL).await;
    }
    Ok(true)
}
