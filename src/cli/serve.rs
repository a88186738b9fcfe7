//! `stockhold serve`: Redis first, then the scripts, then the port.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tracing::{info, warn};

use super::ServeArgs;
use crate::engine::{Engine, Error, Options, Retention};
use crate::http::{Access, Tokens};
use crate::redis::{PrivateRedis, PrivateRedisOptions, Redis, START_PATIENCE, default_maxmemory};
use crate::{http, keeper, sweeper};

/// Connections that may wait to be accepted. With the usual 128 a crowd that comes at once has to knock again after 1 s.
const BACKLOG: u32 = 4096;

/// Enough for every connection, and as many again for everything else.
const OPEN_FILES: u64 = 2 * http::MAX_CONNECTIONS as u64;

/// Pause before Redis is tried again at the start.
const RETRY_DELAY: Duration = Duration::from_millis(500);

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    if args.token_file.is_none() && !args.host.is_loopback() && !args.insecure_bind {
        bail!("{} (--host) is open to others: name a --token-file, or say --insecure-bind", args.host);
    }
    let access = Arc::new(match &args.token_file {
        Some(file) => Access::only_with(tokens(file)?),
        None => Access::open(),
    });
    // A shell's default of 1,024 open files is less than that many connections need.
    if let Err(error) = rlimit::increase_nofile_limit(OPEN_FILES) {
        warn!(%error, "cannot raise the limit of open files");
    }
    let private = match &args.redis_url {
        Some(_) => None,
        None => {
            let options = PrivateRedisOptions {
                program: args.redis_server.clone(),
                port: args.redis_port,
                data_dir: args.data_dir.clone(),
                maxmemory: args.redis_maxmemory.unwrap_or_else(default_maxmemory),
                start_patience: START_PATIENCE,
            };
            let Some(started) = stop.or(PrivateRedis::start(options)).await else { return Ok(()) };
            let private = started?;
            println!("Redis is at {}", private.url());
            Some(private)
        }
    };
    let url = args.redis_url.as_deref().or(private.as_ref().map(PrivateRedis::url)).expect("one of them is there");
    let served = serve(&args, access, url, stop).await;
    if let Some(private) = private {
        private.stop().await;
    }
    served
}

async fn serve(args: &ServeArgs, access: Arc<Access>, redis_url: &str, mut stop: Stop) -> anyhow::Result<()> {
    let redis = Redis::open(redis_url).context("REDIS_URL (--redis-url) is not a Redis URL")?;
    let retention = Retention { audit_max: args.audit_max, keep_ms: args.keep_seconds * 1000 };
    let address = redis.address();
    let options = Options { max_batch: args.max_batch as usize, replicas: args.durability.replicas };
    // One for the loops below, and one for each thread that serves, every one with a connection of its own.
    let engine = Engine::with(redis.clone(), retention, options);
    let Some(loaded) = stop.or(load(&engine, &address)).await else { return Ok(()) };
    loaded?;
    let listener = listen(SocketAddr::from((args.host, args.port)))
        .with_context(|| format!("cannot listen on {} port {} (--host, --port)", args.host, args.port))?;
    let hangup = signal(SignalKind::hangup())?;
    println!("stockhold listens on http://{}", listener.local_addr()?);
    info!(redis = address, "serving");
    let served_by = || Engine::with(redis.apart(), retention, options);
    tokio::select! {
        served = http::serve(listener, served_by, Arc::clone(&access), stop.wait()) => served?,
        () = sweeper::run(&engine, Duration::from_millis(args.sweep_interval_ms)) => {}
        () = keeper::run(&engine) => {}
        () = renew_on_hangup(&engine, &access, args.token_file.as_deref(), hangup) => {}
    }
    info!("stopped");
    Ok(())
}

/// Reads the tokens again, and loads and publishes this version's scripts, at every SIGHUP.
async fn renew_on_hangup(engine: &Engine, access: &Access, token_file: Option<&Path>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match token_file.map(tokens) {
            None => {}
            Some(Ok(tokens)) => {
                access.replace(tokens);
                info!("tokens read");
            }
            Some(Err(error)) => warn!("the tokens stay as they were: {error:#}"),
        }
        match engine.load_scripts().await {
            Ok(()) => info!("scripts loaded and published"),
            Err(error) => warn!(%error, "cannot load the scripts"),
        }
    }
    std::future::pending().await
}

fn tokens(file: &Path) -> anyhow::Result<Tokens> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown} (--token-file)"))?;
    if std::fs::metadata(file)?.permissions().mode() & 0o077 != 0 {
        warn!("others than its owner may read {shown} (--token-file)");
    }
    Tokens::parse(&text).map_err(|why| anyhow!("{shown} (--token-file): {why}"))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As after any restart: connections of the last run that linger must not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Loads the scripts, waiting for Redis as long as it takes to come up.
async fn load(engine: &Engine, address: &str) -> anyhow::Result<()> {
    let mut waiting = false;
    loop {
        match engine.load_scripts().await {
            Ok(()) => return Ok(()),
            Err(Error::Unavailable(why) | Error::Unknown(why)) => {
                if !std::mem::replace(&mut waiting, true) {
                    warn!(address, why, "waiting for Redis");
                }
                sleep(RETRY_DELAY).await;
            }
            Err(Error::Broken(why)) => bail!("the Redis at {address} cannot be used: {why}"),
        }
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        info!("stopping");
    }

    /// What `work` gives, or `None` when told to stop before that.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }
}
