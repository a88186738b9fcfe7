//! The loop that expires holds without a request, and trims the audit to the operator's setting.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::engine::{Engine, Rounds};

/// The default interval.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

/// Sweeps every `every`. Runs while it is polled. Any number of servers may sweep one Redis at the same time.
pub async fn run(engine: &Engine, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let (mut rounds, mut trims) = (Rounds::default(), true);
    for turn in 0.. {
        ticks.tick().await;
        trim(engine, turn, &mut trims).await;
        match engine.sweep_due(&mut rounds).await {
            Ok(swept) => {
                if std::mem::take(&mut failing) {
                    info!("sweeping again");
                }
                if swept.expired > 0 {
                    debug!(expired = swept.expired, overdue = ?swept.overdue, "swept");
                }
            }
            // Redis is down: one line, not one for every tick.
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "cannot sweep");
            }
            Err(_) => {}
        }
        // One alert is enough.
        for (sku, why) in rounds.newly_stuck() {
            error!(sku, why, "this SKU cannot be swept");
        }
    }
}

/// Trims the audit of some shards; `trims` is whether that worked the last time.
async fn trim(engine: &Engine, turn: usize, trims: &mut bool) {
    let trimmed = engine.trim_audit(turn).await;
    if let (Err(error), true) = (&trimmed, *trims) {
        warn!(%error, "cannot trim the audit");
    }
    *trims = trimmed.is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Redis;

    #[test]
    fn a_separate_task_may_sweep() {
        fn assert_send(_: impl Send) {}
        let engine = Engine::new(Redis::open("redis://127.0.0.1:1").unwrap());
        assert_send(run(&engine, DEFAULT_INTERVAL));
    }
}
