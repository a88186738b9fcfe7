//! A SKU whose keys are damaged, as if by hand, and then restored exactly as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::{Pipeline, cmd, pipe};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::{Fault, FaultInjector};
use super::http_client::{ask, until_done};
use super::journal::{Order, Told};
use super::sha_client::Caller;
use super::world::{BROKEN, STUCK, World, order_of};

const BUYERS: usize = 6;

/// The key that is damaged, and the commands that damage it.
const DAMAGES: [(&str, &[&[&str]]); 5] = [
    ("inventory:broken", &[&["HSET", "inventory:broken", "available", "x"]]),
    ("inventory:broken", &[&["HINCRBY", "inventory:broken", "reserved", "1"]]),
    ("inventory:broken", &[&["HDEL", "inventory:broken", "version"]]),
    ("inventory:broken", &[&["SET", "inventory:broken", "x"]]),
    ("inventory:broken:active", &[&["DEL", "inventory:broken:active"], &["LPUSH", "inventory:broken:active", "x"]]),
];

/// The name of the undamaged copy meanwhile.
const ASIDE: &str = "inventory:broken:aside";

/// Even: it is certain what a buyer must be told. Odd: the data is about to change.
const WHOLE: usize = 0;
const DAMAGED: usize = 2;
const RESTORED: usize = 4;
const OVER: usize = 5;

/// What the buyers of this fault share.
struct SharedState {
    phase: AtomicUsize,
    /// Attempts that began and ended in the same phase, for each phase.
    attempts: [AtomicU64; 6],
}

impl FaultInjector {
    pub async fn damage(&mut self) {
        let (turn, length) = (self.times(Fault::Damage), Duration::from_millis(self.rng.u64(10..200)));
        let shared = Arc::new(SharedState {
            phase: AtomicUsize::new(WHOLE),
            attempts: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        // Every key must exist.
        let name = format!("damage-{turn}");
        let mut first = order_of(BROKEN, &name, 1, 60_000);
        until_done(&self.world, &mut first, &name, "hold").await;
        let mut buyers = JoinSet::new();
        for number in 0..BUYERS {
            let (world, shared, name) = (Arc::clone(&self.world), Arc::clone(&shared), format!("{name}-{number}"));
            buyers.spawn(async move {
                if number % 2 == 0 {
                    buy(&world, &shared, &name).await
                } else {
                    buy_by_sha(&world, &shared, &name).await
                }
            });
        }
        shared.until_busy(WHOLE).await;

        let (key, commands) = self.rng.choice(DAMAGES).unwrap();
        let mut breaking = pipe();
        breaking.atomic().cmd("COPY").arg(key).arg(ASIDE);
        for words in commands {
            breaking.cmd(words[0]).arg(&words[1..]);
        }
        self.change(&shared, DAMAGED, &breaking).await;
        // During the damage, everything else must still be settled and swept.
        sleep(length).await;
        shared.until_busy(DAMAGED).await;
        let mut restoring = pipe();
        restoring.atomic().cmd("RENAME").arg(ASIDE).arg(key);
        self.change(&shared, RESTORED, &restoring).await;
        shared.until_busy(RESTORED).await;

        shared.phase.store(OVER, Ordering::SeqCst);
        while let Some(damaged) = buyers.join_next().await {
            self.statistics.damaged += damaged.unwrap();
        }
        until_done(&self.world, &mut first, &name, "release").await;
        self.world.file([first]).await;
    }

    async fn change(&self, shared: &SharedState, phase: usize, commands: &Pipeline) {
        shared.phase.store(phase - 1, Ordering::SeqCst);
        let mut connection = self.redis.connection().await;
        commands.exec_async(&mut connection).await.unwrap();
        let aside: bool = cmd("EXISTS").arg(ASIDE).query_async(&mut connection).await.unwrap();
        assert_eq!(aside, phase == DAMAGED);
        shared.phase.store(phase, Ordering::SeqCst);
    }
}

impl SharedState {
    /// Waits until every buyer has probably made an attempt.
    async fn until_busy(&self, phase: usize) {
        let begun = Instant::now();
        while self.attempts[phase].load(Ordering::SeqCst) < 4 * BUYERS as u64 {
            assert!(begun.elapsed() < STUCK, "nobody who wants {BROKEN} is answered");
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn phase(&self) -> usize {
        self.phase.load(Ordering::SeqCst)
    }

    /// Compares an answer about the SKU with its state. An answer without a clear result (Redis may be slow) is
    /// ignored.
    fn judge(&self, before: usize, told: Told, order: &Order) -> u64 {
        if before == self.phase() && matches!(told, Told::Done | Told::Damaged) {
            self.attempts[before].fetch_add(1, Ordering::SeqCst);
            match before {
                DAMAGED => assert_eq!(told, Told::Damaged, "{order:?}"),
                WHOLE | RESTORED => assert_eq!(told, Told::Done, "{order:?}"),
                _ => {}
            }
        }
        u64::from(told == Told::Damaged)
    }
}

/// Makes holds over HTTP and settles them, or leaves them to expire; returns how often it met the damage.
async fn buy(world: &World, shared: &SharedState, name: &str) -> u64 {
    let (mut orders, mut damaged) = (Vec::new(), 0);
    for turn in 0_u64.. {
        if shared.phase() == OVER {
            break;
        }
        let name = format!("{name}-{turn}");
        let mut order = order_of(BROKEN, &name, 1, 5000);
        for verb in ["hold", ["confirm", "release", "leave"][turn as usize % 3]] {
            let is_next = verb == "hold" || verb != "leave" && order.hold.is_done();
            if is_next {
                let before = shared.phase();
                let told = ask(world, &order, &name, verb).await;
                order.attempts(verb).note(told);
                damaged += shared.judge(before, told, &order);
            }
        }
        orders.push(order);
    }
    world.file(orders).await;
    damaged
}

/// Holds the SKU together with another: if one key of a call is damaged, nothing of the call is done.
async fn buy_by_sha(world: &World, shared: &SharedState, name: &str) -> u64 {
    let (mut filed, mut damaged, mut caller) = (Vec::new(), 0, Caller::new(world));
    for turn in 0_u64.. {
        if shared.phase() == OVER {
            break;
        }
        let mode = if turn % 2 == 0 { "each" } else { "all" };
        let order = |sku| order_of(sku, &format!("{name}-{turn}-{sku}"), 1, 200);
        let mut orders = ["hot", BROKEN].map(order);
        let before = shared.phase();
        let told = caller.call("hold", mode, &orders).await;
        for (order, told) in orders.iter_mut().zip(told) {
            order.hold.note(told);
            damaged += shared.judge(before, told, order);
        }
        filed.extend(orders);
    }
    world.file(filed).await;
    damaged
}
