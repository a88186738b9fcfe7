//! The loop that keeps the scripts loaded, for the callers that cannot load them themselves.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::engine::Engine;

/// How often it checks. A restart, a flush or a fail-over empties the script cache; a new node of a cluster has an empty one.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Restores the scripts whenever Redis has lost them. Runs while it is polled.
pub async fn run(engine: &Engine) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match engine.restore_scripts().await {
            Ok(lost) => {
                failing = false;
                if lost {
                    info!("Redis had lost the scripts; they are loaded again");
                }
            }
            // Redis is down: one line, not one for every tick.
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot look after the scripts");
                }
            }
        }
    }
}
