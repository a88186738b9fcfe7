//! A Redis with full memory: no new hold is made, and existing holds are still settled.

use std::slice;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::faults::{Fault, FaultInjector};
use super::http_client::{ask, until_done};
use super::journal::Told;
use super::sha_client::Caller;
use super::world::{STUCK, order_of};

/// Longer than the fault takes on any machine.
const TTL_MS: u64 = 120_000;

impl FaultInjector {
    pub async fn fill_memory(&mut self) {
        let (turn, length) = (self.times(Fault::MemoryFull), Duration::from_millis(self.rng.u64(10..200)));
        let names = ["confirmed", "released", "confirmed-by-sha", "refused", "refused-by-sha", "held-after"]
            .map(|what| format!("memory-{turn}-{what}"));
        let mut orders = names.each_ref().map(|name| order_of("hot", name, 1, TTL_MS));
        let mut caller = Caller::new(&self.world);
        for (order, name) in orders.iter_mut().zip(&names).take(3) {
            until_done(&self.world, order, name, "hold").await;
        }

        self.tell_redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
        sleep(length).await;
        // The first time, and sometimes later, a server has to start meanwhile.
        if turn % 3 == 0 {
            self.restart_server(Signal::SIGKILL).await;
        }
        self.until_hold_is_impaired().await;
        let [confirmed, released, by_sha, refused, refused_by_sha, after] = &mut orders;
        until_done(&self.world, confirmed, &names[0], "confirm").await;
        until_done(&self.world, released, &names[1], "release").await;
        assert_eq!(caller.until_known("confirm", by_sha).await, Told::Done, "{by_sha:?}");
        let told = ask(&self.world, refused, &names[3], "hold").await;
        refused.hold.note(told);
        assert_eq!(told, Told::No, "{refused:?}");
        let told = caller.call("hold", "each", slice::from_ref(refused_by_sha)).await[0];
        refused_by_sha.hold.note(told);
        assert_eq!(told, Told::No, "{refused_by_sha:?}");

        self.tell_redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
        until_done(&self.world, after, &names[5], "hold").await;
        self.world.file(orders).await;
    }

    /// Readiness names what cannot be done, and stays 200 because other requests can be served.
    async fn until_hold_is_impaired(&self) {
        let begun = Instant::now();
        loop {
            let answer = self.world.server().await.get("/readyz").await;
            let named = answer.body["impaired"].as_array().into_iter().flatten().any(|found| found["what"] == "hold");
            if answer.status == 200 && named {
                return;
            }
            assert!(begun.elapsed() < STUCK, "memory is full, and readiness is {answer:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
