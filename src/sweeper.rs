//! The loop that expires holds without a request, and trims the audit to the operator's setting.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::engine::{Engine, Rounds};
use crate::metrics::{Counter, Exposition, Gauge};

/// The default interval.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

static SWEEPS_DONE: Counter = Counter::new();
static SWEEPS_FAILED: Counter = Counter::new();
/// Milliseconds since 1970.
static LAST_SWEEP: Gauge = Gauge::new();

/// Sweeps every `every`. Runs while it is polled. Any number of servers may sweep one Redis at the same time.
pub async fn run(engine: &Engine, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let (mut rounds, mut trims) = (Rounds::default(), true);
    for turn in 0.. {
        ticks.tick().await;
        trim(engine, turn, &mut trims).await;
        let swept = engine.sweep_due(&mut rounds).await;
        if swept.is_err() {
            SWEEPS_FAILED.inc();
        }
        match swept {
            Ok(swept) => {
                SWEEPS_DONE.inc();
                LAST_SWEEP.set(now_ms());
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

/// The numbers of the sweeper.
pub(crate) fn expose(to: &mut Exposition) -> fmt::Result {
    let sweeps = [("done", &SWEEPS_DONE), ("failed", &SWEEPS_FAILED)];
    let sweeps = sweeps.map(|(outcome, count)| ([("outcome", outcome)], count.get()));
    to.counters("stockhold_sweeps", "Rounds of the sweeper, by how they ended.", sweeps)?;
    let help = "When the last round of the sweeper was done, by the clock of this server; 0 before the first.";
    to.gauge("stockhold_last_sweep_timestamp_seconds", help, LAST_SWEEP.per(1e3))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
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
