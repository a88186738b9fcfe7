//! A SKU whose keys are damaged, as by somebody's hand, and put right again exactly as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::{Pipeline, cmd, pipe};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::{Fault, Gremlin};
use super::http_client::{ask, until_done};
use super::journal::{Order, Told};
use super::sha_client::Caller;
use super::world::{BROKEN, STUCK, World, order_of};

const BUYERS: usize = 6;

/// The key that is damaged, and the commands that do it.
const DAMAGES: [(&str, &[&[&str]]); 5] = [
    ("inventory:broken", &[&["HSET", "inventory:broken", "available", "x"]]),
    ("inventory:broken", &[&["HINCRBY", "inventory:broken", "reserved", "1"]]),
    ("inventory:broken", &[&["HDEL", "inventory:broken", "version"]]),
    ("inventory:broken", &[&["SET", "inventory:broken", "x"]]),
    ("inventory:broken:active", &[&["DEL", "inventory:broken:active"], &["LPUSH", "inventory:broken:active", "x"]]),
];

/// Where the key is kept meanwhile.
const ASIDE: &str = "inventory:broken:aside";

/// Even: it is settled what a buyer must be told. Odd: it is about to change.
const WHOLE: usize = 0;
const DAMAGED: usize = 2;
const MENDED: usize = 4;
const OVER: usize = 5;

/// What the buyers of the fault share.
struct Scene {
    phase: AtomicUsize,
    /// Attempts that began and ended in each phase.
    attempts: [AtomicU64; 6],
}

impl Gremlin {
    pub async fn damage(&mut self) {
        let (turn, length) = (self.times(Fault::Damage), Duration::from_millis(self.rng.u64(10..200)));
        let scene =
            Arc::new(Scene { phase: AtomicUsize::new(WHOLE), attempts: std::array::from_fn(|_| AtomicU64::new(0)) });
        // Something must be in every key.
        let name = format!("damage-{turn}");
        let mut first = order_of(BROKEN, &name, 1, 60_000);
        until_done(&self.world, &mut first, &name, "hold").await;
        let mut buyers = JoinSet::new();
        for number in 0..BUYERS {
            let (world, scene, name) = (Arc::clone(&self.world), Arc::clone(&scene), format!("{name}-{number}"));
            buyers.spawn(async move {
                if number % 2 == 0 { buy(&world, &scene, &name).await } else { buy_by_sha(&world, &scene, &name).await }
            });
        }
        scene.until_busy(WHOLE).await;

        let (key, commands) = self.rng.choice(DAMAGES).unwrap();
        let mut breaking = pipe();
        breaking.atomic().cmd("COPY").arg(key).arg(ASIDE);
        for words in commands {
            breaking.cmd(words[0]).arg(&words[1..]);
        }
        self.change(&scene, DAMAGED, &breaking).await;
        // What is damaged keeps nothing else from being settled, or swept.
        sleep(length).await;
        scene.until_busy(DAMAGED).await;
        let mut mending = pipe();
        mending.atomic().cmd("RENAME").arg(ASIDE).arg(key);
        self.change(&scene, MENDED, &mending).await;
        scene.until_busy(MENDED).await;

        scene.phase.store(OVER, Ordering::SeqCst);
        while let Some(damaged) = buyers.join_next().await {
            self.toll.damaged += damaged.unwrap();
        }
        until_done(&self.world, &mut first, &name, "release").await;
        self.world.file([first]).await;
    }

    async fn change(&self, scene: &Scene, phase: usize, commands: &Pipeline) {
        scene.phase.store(phase - 1, Ordering::SeqCst);
        let mut connection = self.redis.connection().await;
        commands.exec_async(&mut connection).await.unwrap();
        let aside: bool = cmd("EXISTS").arg(ASIDE).query_async(&mut connection).await.unwrap();
        assert_eq!(aside, phase == DAMAGED);
        scene.phase.store(phase, Ordering::SeqCst);
    }
}

impl Scene {
    /// Waits until every buyer may have come by.
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

    /// Holds what was told of the SKU against its state. What cannot be told (Redis may be slow) is no answer.
    fn judge(&self, before: usize, told: Told, order: &Order) -> u64 {
        if before == self.phase() && matches!(told, Told::Done | Told::Damaged) {
            self.attempts[before].fetch_add(1, Ordering::SeqCst);
            match before {
                DAMAGED => assert_eq!(told, Told::Damaged, "{order:?}"),
                WHOLE | MENDED => assert_eq!(told, Told::Done, "{order:?}"),
                _ => {}
            }
        }
        u64::from(told == Told::Damaged)
    }
}

/// Holds over HTTP and settles it, or leaves it to expire; tells how often it met the damage.
async fn buy(world: &World, scene: &Scene, name: &str) -> u64 {
    let (mut orders, mut damaged) = (Vec::new(), 0);
    for turn in 0_u64.. {
        if scene.phase() == OVER {
            break;
        }
        let name = format!("{name}-{turn}");
        let mut order = order_of(BROKEN, &name, 1, 5000);
        for verb in ["hold", ["confirm", "release", "leave"][turn as usize % 3]] {
            let is_next = verb == "hold" || verb != "leave" && order.hold.is_done();
            if is_next {
                let before = scene.phase();
                let told = ask(world, &order, &name, verb).await;
                order.attempts(verb).note(told);
                damaged += scene.judge(before, told, &order);
            }
        }
        orders.push(order);
    }
    world.file(orders).await;
    damaged
}

/// Holds it together with something else: of one call with damage in it, nothing is done.
async fn buy_by_sha(world: &World, scene: &Scene, name: &str) -> u64 {
    let (mut filed, mut damaged, mut caller) = (Vec::new(), 0, Caller::new(world));
    for turn in 0_u64.. {
        if scene.phase() == OVER {
            break;
        }
        let mode = if turn % 2 == 0 { "each" } else { "all" };
        let order = |sku| order_of(sku, &format!("{name}-{turn}-{sku}"), 1, 200);
        let mut orders = ["hot", BROKEN].map(order);
        let before = scene.phase();
        let told = caller.call("hold", mode, &orders).await;
        for (order, told) in orders.iter_mut().zip(told) {
            order.hold.note(told);
            damaged += scene.judge(before, told, order);
        }
        filed.extend(orders);
    }
    world.file(filed).await;
    damaged
}
