//! Sides take turns in short slices, so that a noisy machine hurts them alike; what is compared is the sum of the slices.

use std::pin::Pin;
use std::time::Duration;

use indicatif::ProgressBar;
use redis::cmd;

use crate::load::{Limit, Tally};
use crate::side::nodes::Nodes;
use crate::side::postgres::Cluster;
use crate::support::redis_server::RedisServer;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Slices of each side.
    pub rounds: usize,
    /// Length of a slice.
    pub slice: Duration,
    /// A first impression: scenarios with a size of their own make it smaller, too.
    pub quick: bool,
}

/// What works for a side.
pub enum Database<'a> {
    Redis(&'a RedisServer),
    Nodes(&'a Nodes),
    Postgres(&'a Cluster),
}

impl<'a> From<&'a RedisServer> for Database<'a> {
    fn from(redis: &'a RedisServer) -> Self {
        Self::Redis(redis)
    }
}

impl<'a> From<&'a Nodes> for Database<'a> {
    fn from(nodes: &'a Nodes) -> Self {
        Self::Nodes(nodes)
    }
}

impl<'a> From<&'a Cluster> for Database<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self::Postgres(cluster)
    }
}

/// One of those that are compared: a way to run a slice, and the database that works for it.
pub struct Side<'a> {
    name: String,
    database: Database<'a>,
    prepare: Box<dyn Fn() -> Running<'a, ()> + 'a>,
    slice: Box<dyn Fn(Limit) -> Running<'a, Tally> + 'a>,
}

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

impl<'a> Side<'a> {
    pub fn new<F>(name: impl Into<String>, database: impl Into<Database<'a>>, slice: impl Fn(Limit) -> F + 'a) -> Self
    where
        F: Future<Output = Tally> + 'a,
    {
        Self {
            name: name.into(),
            database: database.into(),
            prepare: Box::new(|| Box::pin(async {})),
            slice: Box::new(move |limit| Box::pin(slice(limit))),
        }
    }

    /// What is done before each slice; it does not count.
    pub fn prepared<F>(self, prepare: impl Fn() -> F + 'a) -> Self
    where
        F: Future<Output = ()> + 'a,
    {
        Self { prepare: Box::new(move || Box::pin(prepare())), ..self }
    }
}

/// A slice, or several put together.
#[derive(Debug, Clone)]
pub struct Slice {
    pub tally: Tally,
    /// Time that the database had the processor.
    pub database_cpu: Duration,
}

impl Slice {
    /// The database's processor time per accepted operation, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.database_cpu.as_secs_f64() * 1e6 / self.tally.accepted as f64
    }
}

/// The slices of one side.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub slices: Vec<Slice>,
}

impl Series {
    pub fn total(&self) -> Slice {
        let mut total = Slice { tally: Tally::new(), database_cpu: Duration::ZERO };
        for slice in &self.slices {
            total.tally.add(&slice.tally);
            total.database_cpu += slice.database_cpu;
        }
        total
    }
}

/// Slices of `effort` seconds: first one of half the length for each side, which is thrown away, then side by side.
pub async fn alternate<const N: usize>(effort: Effort, sides: [Side<'_>; N], bar: &ProgressBar) -> [Series; N] {
    take_turns(effort.rounds, Limit::For(effort.slice / 2), Limit::For(effort.slice), sides, bar).await
}

/// The same with a warm-up and slices that end by other limits than time.
pub async fn take_turns<const N: usize>(
    rounds: usize,
    warm_up: Limit,
    limit: Limit,
    sides: [Side<'_>; N],
    bar: &ProgressBar,
) -> [Series; N] {
    let scenario = bar.message();
    for side in &sides {
        (side.prepare)().await;
        (side.slice)(warm_up.clone()).await;
    }
    let mut series = sides.each_ref().map(|side| Series { name: side.name.clone(), slices: Vec::new() });
    for round in 1..=rounds {
        for (side, series) in sides.iter().zip(&mut series) {
            bar.set_message(format!("{scenario}: {}, round {round} of {rounds}", side.name));
            (side.prepare)().await;
            let before = side.database.cpu().await;
            let tally = (side.slice)(limit.clone()).await;
            series.slices.push(Slice { tally, database_cpu: side.database.cpu().await - before });
        }
    }
    bar.set_message(scenario);
    series
}

impl Database<'_> {
    /// Processor time that it has used since its start, in user and system mode.
    async fn cpu(&self) -> Duration {
        match self {
            Self::Redis(redis) => cpu_of_one(redis).await,
            Self::Nodes(nodes) => cpu_of(&nodes.0).await.into_iter().sum(),
            Self::Postgres(cluster) => cluster.cpu(),
        }
    }
}

/// Processor time that each of them has used since its start.
pub async fn cpu_of(servers: &[RedisServer]) -> Vec<Duration> {
    let mut used = Vec::with_capacity(servers.len());
    for redis in servers {
        used.push(cpu_of_one(redis).await);
    }
    used
}

async fn cpu_of_one(redis: &RedisServer) -> Duration {
    let info = cmd("INFO").arg("cpu").query_async::<String>(&mut redis.connection().await).await;
    let info = info.expect("Redis answers INFO");
    let seconds = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok());
        Duration::from_secs_f64(value.unwrap_or_else(|| panic!("INFO has {name}")))
    };
    seconds("used_cpu_user") + seconds("used_cpu_sys")
}
