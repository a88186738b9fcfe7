//! `stockhold serve`: Redis first, then the scripts, then the port.

use std::collections::BTreeSet;
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
use super::target::Target;
use crate::engine::{Change, Engine, Error, Impairment, Options, claim_layout};
use crate::http::{Access, Drain, Tokens};
use crate::keys::{self, Layout};
use crate::private_redis::{PrivateRedis, PrivateRedisOptions, START_PATIENCE, default_maxmemory};
use crate::redis::{Failure, Redis};
use crate::{http, reloader, sweeper};

/// Connections that may wait to be accepted. With the usual 128, many clients at once must retry after 1 s.
const BACKLOG: u32 = 4096;

/// Enough for every connection, and the same number again for everything else.
const OPEN_FILES: u64 = 2 * (http::MAX_CONNECTIONS + http::MAX_LISTENERS) as u64;

/// Pause at the start before Redis is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    if args.token_file.is_none() && !args.host.is_loopback() && !args.insecure_bind {
        bail!("{} (--host) is open to others: name a --token-file, or say --insecure-bind", args.host);
    }
    let access = Arc::new(access(&args)?);
    if args.token_file.is_none() && !args.host.is_loopback() {
        warn!(host = %args.host, "everybody who can connect may do everything: there is no token file (--token-file)");
    }
    // The default limit of a shell, 1,024 open files, is less than that many connections need.
    if let Err(error) = rlimit::increase_nofile_limit(OPEN_FILES) {
        warn!(%error, "cannot raise the limit of open files");
    }
    let (redis, private) = match args.target.named()? {
        Some(redis) => (redis, None),
        None => {
            let options = PrivateRedisOptions {
                program: args.redis_server.clone(),
                port: args.target.redis_port,
                data_dir: args.data_dir.clone(),
                maxmemory: args.redis_maxmemory.unwrap_or_else(default_maxmemory),
                start_patience: START_PATIENCE,
            };
            let Some(started) = stop.or(PrivateRedis::start(options)).await else { return Ok(()) };
            let private = started?;
            args.log_format.announce(format_args!("Redis is at {}", private.url()))?;
            (Redis::open(private.url())?, Some(private))
        }
    };
    let served = serve(&args, access, redis, stop).await;
    if let Some(private) = private {
        private.stop().await;
    }
    served
}

async fn serve(args: &ServeArgs, access: Arc<Access>, redis: Redis, mut stop: Stop) -> anyhow::Result<()> {
    warn_of_exposed_secrets(&args.target);
    let address = redis.address();
    let options = Options { max_batch: args.max_batch as usize, replicas: args.durability.replicas };
    // One engine for the loops below, and one for each serving thread. Each has its own connection.
    let engine = Engine::on(Layout::of(args.shards)?, redis.clone(), options);
    let start = async {
        refuse_misfit(engine.layout(), &redis, &address).await?;
        until_redis_is_up(&address, async || engine.check_version().await).await?;
        agree(engine.layout(), &redis, &address).await?;
        load(&engine, &address).await?;
        set(&engine, args.decisions.change()).await?;
        prove(&engine, &address).await
    };
    let Some(started) = stop.or(start).await else { return Ok(()) };
    started?;
    let listener = listen(SocketAddr::from((args.host, args.port)))
        .with_context(|| format!("cannot listen on {} port {} (--host, --port)", args.host, args.port))?;
    let hangup = signal(SignalKind::hangup())?;
    args.log_format.announce(format_args!("stockhold listens on http://{}", listener.local_addr()?))?;
    info!(redis = address, "serving");
    let served_by = || engine.with_own_connection();
    let keep_alive = Duration::from_secs(args.keep_alive_seconds);
    let drain = Arc::<Drain>::default();
    let shutdown = async {
        stop.wait().await;
        stop.drain(&drain, Duration::from_secs(args.drain_seconds)).await;
    };
    tokio::select! {
        served = http::serve(listener, served_by, Arc::clone(&access), keep_alive, Arc::clone(&drain), shutdown) => served?,
        () = sweeper::run(&engine, Duration::from_millis(args.sweep_interval_ms)) => {}
        () = reloader::run(&engine) => {}
        () = renew_on_hangup(args, &engine, &access, &redis, hangup) => {}
    }
    info!("stopped");
    Ok(())
}

/// Authorization: tokens and host names.
fn access(args: &ServeArgs) -> anyhow::Result<Access> {
    let access = match &args.token_file {
        Some(file) => Access::only_with(tokens(file)?),
        None => Access::open(),
    };
    // When everybody on this machine may do everything, a page in a browser of this machine must not: the host name of
    // its site can be made to resolve to this machine.
    let is_exposed = args.token_file.is_none() && args.host.is_loopback();
    let access = access.for_pages_of(&args.cors_origin);
    Ok(if is_exposed || !args.allowed_hosts.is_empty() { access.called(&args.allowed_hosts) } else { access })
}

/// At every SIGHUP, reads the tokens and the files for Redis again, and loads and publishes this version's scripts.
async fn renew_on_hangup(args: &ServeArgs, engine: &Engine, access: &Access, redis: &Redis, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        // Each new connection reads them anyway. This tells whether it will be able to.
        if let Err(error) = redis.read_files() {
            warn!("new connections to Redis will fail: {error}");
        }
        warn_of_exposed_secrets(&args.target);
        match args.token_file.as_deref().map(tokens) {
            None => {}
            Some(Ok(tokens)) => {
                access.replace(tokens);
                info!("tokens read");
            }
            Some(Err(error)) => warn!("the tokens stay as they were: {error:#}"),
        }
        match engine.load_scripts().await {
            Ok(None) => info!("scripts loaded and published"),
            Ok(Some(error)) => warn!(%error, "scripts loaded, but not published"),
            Err(error) => warn!(%error, "cannot load the scripts"),
        }
    }
    std::future::pending().await
}

fn warn_of_exposed_secrets(target: &Target) {
    target.exposed_secrets().for_each(|what| warn!("{what}"));
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
    // As after any restart: lingering connections of the last run must not block the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A cluster node accepts connections, and then refuses almost every call that is not for its slots, or has keys in several. A Redis that
/// lets this server in nowhere is refused too.
async fn refuse_misfit(layout: &Layout, redis: &Redis, address: &str) -> anyhow::Result<()> {
    if redis.is_cluster() && !layout.is_sharded() {
        bail!(
            "the Redis at {address} is a Redis Cluster, where one shard would be on one node: say how many shards the stock \
             shall have (--shards, STOCKHOLD_SHARDS); 64 is a good number, and it is fixed for good"
        );
    }
    let is_unnamed_node = async || {
        let asked =
            if redis.is_cluster() { redis.primaries().await.map(|_| false) } else { redis.is_cluster_node().await };
        match asked {
            // Waiting does not help: somebody has to change a setting first.
            Err(Failure::Barred(why)) => Err(Error::Broken(why)),
            answered => Ok(answered?),
        }
    };
    if until_redis_is_up(address, is_unnamed_node).await? {
        bail!(
            "the Redis at {address} is a node of a Redis Cluster: --redis-url must begin with redis+cluster:// (or \
             rediss+cluster:// for TLS) and name some of its nodes, so that all are found"
        );
    }
    Ok(())
}

/// Makes sure that the stock in Redis has as many shards as this server is to serve: with another number, it would look
/// for the keys of a SKU in the wrong place.
async fn agree(layout: &Layout, redis: &Redis, address: &str) -> anyhow::Result<()> {
    let moving = async || Ok(redis.hash_field(keys::LAYOUT, keys::LAYOUT_MOVING).await?);
    if let Some(source) = until_redis_is_up(address, moving).await? {
        bail!(
            "the stock in the Redis at {address} is not complete: its move from {source} was not finished; run stockhold move again"
        );
    }
    let stands = until_redis_is_up(address, async || claim_layout(redis, layout).await).await?;
    let [has, asked] = [&stands, layout].map(|layout| layout.shards().len());
    if has != asked {
        bail!(
            "the stock in the Redis at {address} has {has} shards ({}), and this server is to serve {asked} (--shards, \
             STOCKHOLD_SHARDS): the number is fixed for good. Start it with --shards {has}, or with another Redis",
            keys::LAYOUT
        );
    }
    Ok(())
}

/// Loads the scripts.
async fn load(engine: &Engine, address: &str) -> anyhow::Result<()> {
    if let Some(error) = until_redis_is_up(address, async || engine.load_scripts().await).await? {
        warn!(%error, "the scripts are loaded, but other services may not find them: they cannot be published");
    }
    Ok(())
}

/// Asks Redis for something, and waits until Redis is up, however long that takes.
async fn until_redis_is_up<T>(address: &str, ask: impl AsyncFn() -> Result<T, Error>) -> anyhow::Result<T> {
    let mut told = BTreeSet::new();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error @ (Error::Unavailable(_) | Error::Busy | Error::Unknown(_))) => {
                // Once for each reason, and not for each attempt.
                let error = error.to_string();
                if !told.contains(&error) {
                    warn!(address, error, "waiting for Redis");
                    told.insert(error);
                }
                sleep(RETRY_DELAY).await;
            }
            Err(Error::Broken(why)) => bail!("the Redis at {address} cannot be used: {why}"),
        }
    }
}

/// Stores what the operator has decided. If it cannot be written now, the earlier decision stays in force.
async fn set(engine: &Engine, change: Change) -> anyhow::Result<()> {
    match engine.set(change).await {
        Err(Error::Unavailable(why)) => warn!(why, "the settings stay as they were"),
        set => set?,
    }
    Ok(())
}

/// Makes sure that every operation can be carried out: a server that can never work must not look as if it works.
async fn prove(engine: &Engine, address: &str) -> anyhow::Result<()> {
    let found = engine.impairments().await;
    let (passing, lasting): (Vec<_>, Vec<_>) = found.iter().partition(|found| found.is_passing);
    if !lasting.is_empty() {
        let told = lasting.iter().map(|found| format!("\n  {}: {} ({})", found.what, found.why, found.cause));
        bail!("the Redis at {address} cannot be used:{}", told.collect::<String>());
    }
    for Impairment { what, why, cause, .. } in passing {
        warn!(what, why, cause, "impaired");
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// The first signal was SIGINT, of somebody at a terminal: no load balancer has to be told.
    is_interrupted: bool,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, is_interrupted: false })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => self.is_interrupted = true,
        }
        info!("stopping");
    }

    /// After the signal: lets load balancers notice it for this time, or until the next signal.
    async fn drain(&mut self, drain: &Drain, time: Duration) {
        drain.start();
        if self.is_interrupted || time.is_zero() {
            return;
        }
        info!(seconds = time.as_secs(), "draining: /readyz says so, and requests are served; another signal ends this");
        tokio::select! {
            () = sleep(time) => {}
            () = self.wait() => {}
        }
    }

    /// The result of `work`, or `None` when told to stop before that.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }
}
