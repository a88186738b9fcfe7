//! The faults, and how long it takes after each until buyers are served again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use nix::sys::signal::Signal;
use redis::{InfoDict, cmd};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::clock::Clock;
use super::orphan;
use super::proxy::ProxyMode;
use super::world::{STUCK, World};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    RedisKilled,
    RedisKilledAndLate,
    RedisFrozen,
    RedisPaused,
    ScriptsFlushed,
    ClientsKilled,
    Proxy(&'static str),
    ServerKilled,
    ServerStopped,
    ServerHungUp,
    Readers,
    Damage,
    MemoryFull,
    ClockSteps,
    ServedElsewhere,
}

/// All kinds with their weights. Faults after which Redis has to load its data are less frequent.
const KINDS: [(Fault, u32); 21] = [
    (Fault::RedisKilled, 1),
    (Fault::RedisKilledAndLate, 1),
    (Fault::RedisFrozen, 4),
    (Fault::RedisPaused, 4),
    (Fault::ScriptsFlushed, 4),
    (Fault::ClientsKilled, 4),
    (Fault::Proxy("resets before it sends"), 4),
    (Fault::Proxy("resets after it sent"), 4),
    (Fault::Proxy("cuts replies"), 4),
    (Fault::Proxy("delays"), 4),
    (Fault::Proxy("is a black hole"), 4),
    (Fault::Proxy("swallows replies"), 4),
    (Fault::Proxy("refuses connections"), 4),
    (Fault::ServerKilled, 2),
    (Fault::ServerStopped, 2),
    (Fault::ServerHungUp, 3),
    (Fault::Readers, 2),
    (Fault::Damage, 2),
    (Fault::MemoryFull, 2),
    (Fault::ClockSteps, 1),
    (Fault::ServedElsewhere, 1),
];

/// The number of calls that may find a script missing at once: each client has a few in progress.
const CROWD: u64 = 200;

/// What was injected, and the results.
#[derive(Debug, Default)]
pub struct Statistics {
    /// For each kind, how long each recovery took: from the end of the fault to the first answer to a buyer.
    pub recoveries: BTreeMap<Fault, Vec<Duration>>,
    /// Large reads that were answered, and those that were refused for lack of a place.
    pub reads: u64,
    pub reads_refused: u64,
    /// Attempts that were told of damage.
    pub damaged: u64,
}

pub struct FaultInjector {
    pub world: Arc<World>,
    pub redis: RedisServer,
    pub rng: Rng,
    pub statistics: Statistics,
    /// Redis's clock, where it can be set.
    pub clock: Option<Clock>,
}

impl FaultInjector {
    /// Injects every kind once, and then random kinds, until the time is over.
    pub async fn run(&mut self, until: Instant) {
        let mut first: Vec<Fault> = self.kinds().map(|(fault, _)| fault).collect();
        self.rng.shuffle(&mut first);
        while !first.is_empty() || Instant::now() < until {
            let fault = first.pop().unwrap_or_else(|| self.any());
            let pause = Duration::from_millis(self.rng.u64(20..150));
            sleep(pause).await;
            self.inject(fault).await;
            let missing = self.calls_without_script().await;
            let recovery = self.until_served().await;
            let missing = self.calls_without_script().await - missing;
            assert!(missing < CROWD, "{missing} calls found no script after {fault:?}, and nobody had loaded it");
            self.statistics.recoveries.entry(fault).or_default().push(recovery);
        }
    }

    /// All kinds that are possible on this machine.
    fn kinds(&self) -> impl Iterator<Item = (Fault, u32)> + use<> {
        let has_clock = self.clock.is_some();
        KINDS.into_iter().filter(move |(fault, _)| *fault != Fault::ClockSteps || has_clock)
    }

    /// How often a fault was injected so far.
    pub fn times(&self, fault: Fault) -> usize {
        self.statistics.recoveries.get(&fault).map_or(0, Vec::len)
    }

    fn any(&mut self) -> Fault {
        let all: u32 = self.kinds().map(|(_, weight)| weight).sum();
        let mut at = self.rng.u32(..all);
        for (fault, weight) in self.kinds() {
            if at < weight {
                return fault;
            }
            at -= weight;
        }
        unreachable!("the weights add up")
    }

    /// Injects a fault, and waits for its end.
    async fn inject(&mut self, fault: Fault) {
        let length = Duration::from_millis(self.rng.u64(10..200));
        match fault {
            Fault::RedisKilled => self.redis.restart(),
            Fault::RedisKilledAndLate => {
                self.redis.kill();
                sleep(length).await;
                self.redis.restart();
            }
            Fault::RedisFrozen => {
                // Sometimes longer than any call waits.
                let length = if self.rng.u32(..10) == 0 { Duration::from_millis(1200) } else { length };
                self.redis.stop_process();
                sleep(length).await;
                self.redis.continue_process();
            }
            Fault::RedisPaused => self.tell_redis(&["CLIENT", "PAUSE", &length.as_millis().to_string(), "ALL"]).await,
            Fault::ScriptsFlushed => {
                for _ in 0..20 {
                    self.tell_redis(&["SCRIPT", "FLUSH"]).await;
                    sleep(Duration::from_millis(2)).await;
                }
                // The server loads what it needs: no buyer notices that it was lost.
                self.until_served().await;
                for _ in 0..5 {
                    self.tell_redis(&["SCRIPT", "FLUSH"]).await;
                    let answer = hold_of_nothing(&*self.world.server().await).await.unwrap();
                    assert_eq!(answer.status, 409, "after a flush: {:?}", answer.body);
                }
            }
            Fault::ClientsKilled => {
                for _ in 0..10 {
                    self.tell_redis(&["CLIENT", "KILL", "TYPE", "normal"]).await;
                    sleep(Duration::from_millis(5)).await;
                }
            }
            Fault::Proxy(what) => {
                let mode = match what {
                    "resets before it sends" => ProxyMode::ResetBeforeSend,
                    "resets after it sent" => ProxyMode::ResetAfterSend,
                    "cuts replies" => ProxyMode::CutReply,
                    "delays" => ProxyMode::Delay,
                    "is a black hole" => ProxyMode::BlackHole,
                    "swallows replies" => ProxyMode::SwallowReplies,
                    _ => ProxyMode::Refuse,
                };
                self.world.proxy.set(mode, Duration::from_millis(self.rng.u64(1..50)));
                sleep(length).await;
                self.world.proxy.set(ProxyMode::Pass, Duration::ZERO);
            }
            Fault::ServerKilled => self.restart_server(Signal::SIGKILL).await,
            Fault::ServerStopped => self.restart_server(Signal::SIGTERM).await,
            Fault::ServerHungUp => self.world.server().await.signal(Signal::SIGHUP),
            Fault::Readers => self.read_much().await,
            Fault::Damage => self.damage().await,
            Fault::MemoryFull => self.fill_memory().await,
            Fault::ServedElsewhere => orphan::serve_elsewhere().await,
            Fault::ClockSteps => self.step_clock().await,
        }
    }

    pub async fn tell_redis(&self, words: &[&str]) {
        cmd(words[0]).arg(&words[1..]).exec_async(&mut self.redis.connection().await).await.unwrap();
    }

    /// The number of such calls since Redis started. The first one loads the scripts, and those that arrived with it
    /// wait for that.
    async fn calls_without_script(&self) -> u64 {
        let info: InfoDict =
            cmd("INFO").arg("errorstats").query_async(&mut self.redis.connection().await).await.unwrap();
        let count = info.get::<String>("errorstat_NOSCRIPT");
        count.map_or(0, |count| count.strip_prefix("count=").unwrap().parse().unwrap())
    }

    pub async fn restart_server(&self, signal: Signal) {
        let mut running = self.world.server.write().await;
        running.signal(signal);
        let url = self.world.proxy.url();
        *running = tokio::task::spawn_blocking(move || Arc::new(serve(&url))).await.unwrap();
    }

    /// How long it takes until a hold is decided again, and the stock read. New buyers come all the time: one that waits
    /// without success does not delay the next.
    async fn until_served(&self) -> Duration {
        let healed = Instant::now();
        let mut buyers = JoinSet::new();
        let mut refusal = None;
        loop {
            let server = self.world.server().await;
            buyers.spawn(async move {
                let hold =
                    Request::post(server.url("/api/reservations/hold")).header("content-type", "application/json");
                let body = r#"{"cartId":"cart","sku":"never-seeded","quantity":1}"#;
                let held = server.attempt(hold, Bytes::from_static(body.as_bytes())).await?;
                if held.status != 409 {
                    return Ok(held);
                }
                server.attempt(Request::get(server.url("/api/inventory/hot?active=0")), Bytes::new()).await
            });
            match timeout(Duration::from_millis(20), buyers.join_next()).await {
                Ok(Some(Ok(Ok(answer)))) if answer.status == 200 => return healed.elapsed(),
                Ok(Some(Ok(Ok(answer)))) => refusal = Some(answer.body),
                _ => {}
            }
            assert!(healed.elapsed() < STUCK, "nobody is served: {refusal:?}");
        }
    }
}

/// Wants a SKU that was never seeded: when the script decides, the answer is a 409, and no unit is held.
async fn hold_of_nothing(server: &Stockhold) -> Result<Answer, String> {
    let hold = Request::post(server.url("/api/reservations/hold")).header("content-type", "application/json");
    let body = r#"{"cartId":"cart","sku":"never-seeded","quantity":1}"#;
    server.attempt(hold, Bytes::from_static(body.as_bytes())).await
}

/// A server behind the proxy, on any free port: another connection may use the last server's port by now.
pub fn serve(redis: &str) -> Stockhold {
    Stockhold::spawn(&[
        "--redis-url",
        redis,
        "--port",
        "0",
        "--audit-max",
        "0",
        "--keep-seconds",
        "60",
        "--sweep-interval-ms",
        "100",
        "--log",
        "off",
    ])
}
