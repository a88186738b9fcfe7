//! Which Redis a command works on.

use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::redis::Redis;

/// The default loopback port of the private Redis.
const PRIVATE_PORT: u16 = 6390;

#[derive(Debug, Args)]
pub(super) struct Target {
    /// Redis to use (redis:// or unix://; also REDIS_URL), instead of the private one
    #[arg(long, env = "STOCKHOLD_REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub(super) redis_url: Option<String>,

    /// Loopback port of the private Redis; serve picks a free one for 0
    #[arg(long, env = "STOCKHOLD_REDIS_PORT", default_value_t = PRIVATE_PORT, value_name = "PORT")]
    pub(super) redis_port: u16,
}

/// How long a command waits for a reply: longer than a server, for which many clients wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl Target {
    /// The Redis of the URL, or the private one of a server that runs.
    ///
    /// # Errors
    /// When the URL is not one.
    pub(super) fn redis(&self) -> anyhow::Result<Redis> {
        let redis = match &self.redis_url {
            Some(url) => open(url),
            // The port that was free when the server started is not known here.
            None if self.redis_port == 0 => open(&private(PRIVATE_PORT)),
            None => open(&private(self.redis_port)),
        };
        Ok(redis?.with_call_timeout(CALL_TIMEOUT))
    }
}

/// # Errors
/// When the URL is not one.
pub(super) fn open(url: &str) -> anyhow::Result<Redis> {
    Redis::open(url).context("--redis-url (STOCKHOLD_REDIS_URL, REDIS_URL) is not a Redis URL")
}

fn private(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
