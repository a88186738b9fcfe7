//! Many buyers during every kind of fault. Afterwards, the audit must agree with everything that they were told.
//!
//! `TORTURE_SECONDS` sets the duration (as `make torture SECONDS=...` does), `SEED` the random choices. The timing
//! depends on the machine: the same seed gives the same plan, not the same run.

#[path = "../support/mod.rs"]
mod support;

mod adjuster;
mod carts;
mod clock;
mod damage;
mod faults;
mod http_client;
mod journal;
mod memory;
mod orphan;
mod proxy;
mod readers;
mod ruler;
mod seeder;
mod sha_client;
mod world;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Mutex, RwLock};
use tokio::task::JoinSet;

use clock::Clock;
use faults::{FaultInjector, Statistics};
use journal::{Audited, Order};
use proxy::Proxy;
use support::invariants::{History, assert_invariants};
use support::redis_server::RedisServer;
use world::{COLD, COLD_UNITS, UNITS, World};

const HTTP_CLIENTS: u64 = 24;
const SHA_CLIENTS: u64 = 8;
const SHORT_SECONDS: u64 = 8;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a whole number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_was_told_what_happened() {
    let seconds = setting("TORTURE_SECONDS").unwrap_or(SHORT_SECONDS);
    let seed = setting("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("torture: {seconds} s, SEED={seed}");

    let options = ["--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];
    let redis = RedisServer::start_with(&options);
    let proxy = Proxy::start(redis.port()).await;
    let server = faults::serve(&proxy.url());
    for (sku, units) in UNITS.into_iter().chain(COLD.map(|sku| (sku, COLD_UNITS))) {
        server.seed(sku, units).await;
    }
    let world = Arc::new(World {
        server: RwLock::new(Arc::new(server)),
        proxy,
        closing: AtomicBool::new(false),
        operations: AtomicU64::new(0),
        orders: Mutex::new(Vec::new()),
        adjustments: Mutex::new(Vec::new()),
        carts: Mutex::new(Vec::new()),
        seedings: Mutex::new(Vec::new()),
        seed,
    });
    let mut clients = JoinSet::new();
    for number in 0..HTTP_CLIENTS {
        clients.spawn(http_client::buy(Arc::clone(&world), number));
    }
    for number in 0..SHA_CLIENTS {
        clients.spawn(sha_client::buy(Arc::clone(&world), number));
    }

    clients.spawn(seeder::seed(Arc::clone(&world)));

    let started = Instant::now();
    let (rng, statistics, clock) = (Rng::with_seed(seed), Statistics::default(), Clock::find());
    if clock.is_none() {
        let is_needed = cfg!(target_os = "linux") && setting("TORTURE_SECONDS").is_some();
        assert!(!is_needed, "there is no libfaketime: install it (Debian: apt-get install faketime)");
        println!("the clock goes on as it is: there is no libfaketime");
    }
    let mut injector = FaultInjector { world: Arc::clone(&world), redis, rng, statistics, clock };
    injector.run(started + Duration::from_secs(seconds)).await;
    world.closing.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let took = started.elapsed();

    drop(world);
    let FaultInjector { redis, statistics, world, .. } = injector;
    let orders = std::mem::take(&mut *world.orders.lock().await);
    let adjustments = std::mem::take(&mut *world.adjustments.lock().await);
    let carts = std::mem::take(&mut *world.carts.lock().await);
    let seedings = std::mem::take(&mut *world.seedings.lock().await);

    // No server sweeps while the books are read, and no command that was still on its way arrives.
    drop(Arc::into_inner(world).unwrap());
    let mut connection = redis.connection().await;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec_async(&mut connection).await.unwrap();
    let audited = journal::compare(&orders, &adjustments, &seedings, &carts, &mut connection).await;
    assert_invariants(&mut connection, History::Whole).await;

    let of_carts: u64 = carts.iter().map(|lines| lines[0].operations()).sum();
    let operations: u64 = orders.iter().map(Order::operations).sum::<u64>() + of_carts;
    let faults: usize = statistics.recoveries.values().map(Vec::len).sum();
    let kinds = statistics.recoveries.len();
    let Audited { events, extensions, sold_after_first_expiry, carts_held, carts_sold, .. } = audited;
    let Audited { returns, changes, partial_sales, late_sales, .. } = audited;
    println!("{operations} operations in {took:.0?}, {events} events, {faults} faults of {kinds} kinds");
    println!("{changes} holds were changed, or a part of them was released");
    println!("{partial_sales} holds were sold in part, {late_sales} after they had expired");
    println!("{returns} sales were returned, or a part of them");
    println!("{extensions} extensions; {sold_after_first_expiry} holds were sold after their first expiry");
    let settled: u32 = orders.iter().map(|order| order.settled).sum();
    let done: u32 = orders.iter().map(|order| order.settled_as_done).sum();
    println!("{settled} unknown outcomes were asked for again: {done} done, the others not");
    let made = adjustments.iter().filter(|adjustment| adjustment.attempts.is_done()).count();
    println!("{made} of {} adjustments were made, each once", adjustments.len());
    println!("{carts_held} of {} carts were held, and {carts_sold} sold, each as a whole", carts.len());
    let seeded = seedings.iter().filter(|seeding| seeding.attempts.is_done()).count();
    println!("{seeded} of {} seeds were made, each once", seedings.len());
    let Statistics { reads, reads_refused, damaged, .. } = &statistics;
    println!("{reads} large reads were answered, {reads_refused} refused; {damaged} attempts met damage");
    println!("   times  served again after at most  fault");
    for (fault, recoveries) in &statistics.recoveries {
        println!("{:>8}  {:>26.1?}  {fault:?}", recoveries.len(), recoveries.iter().max().unwrap());
    }
    let happened = [extensions, sold_after_first_expiry, changes, partial_sales, late_sales, returns, carts_sold];
    let all_happened = happened.iter().all(|times| *times > 0) && made > 0 && seeded > 0;
    assert!(operations > 1000 && settled > 0 && all_happened, "that was no torture");
}
