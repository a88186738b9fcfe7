//! The loop that expires holds when nobody asks for them, and trims the audit to the operator's setting.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info, warn};

use crate::engine::Engine;

/// How often it looks unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);

/// Sweeps every `every`, for as long as it is polled. Any number of servers may sweep one Redis at the same time.
pub async fn run(engine: &Engine, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    let mut reported = HashSet::new();
    loop {
        ticks.tick().await;
        if let Err(error) = engine.trim_audit().await {
            debug!(%error, "cannot trim the audit");
        }
        match engine.sweep_due().await {
            Ok(swept) => {
                if std::mem::take(&mut failing) {
                    info!("sweeping again");
                }
                if swept.expired > 0 {
                    debug!(expired = swept.expired, "swept");
                }
                // Once is enough to wake somebody; the SKU stays due and is found at every tick.
                for (sku, why) in swept.stuck {
                    if reported.insert(sku.clone()) {
                        error!(sku, why, "this SKU cannot be swept");
                    }
                }
            }
            // Redis is down: one line, not one for every tick.
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "cannot sweep");
            }
            Err(_) => {}
        }
    }
}
