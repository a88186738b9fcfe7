//! What the redis-server at a loopback port reports: its data folder, and its loading progress.
//!
//! The timeout is longer than that of a request's call: during loading, it answers only now and then.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, InfoDict, RedisResult, cmd, pipe};
use anyhow::bail;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::info;

use super::POLL;

/// How long a redis-server that will be stopped may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a loading redis-server is asked for its progress.
const LOADING_POLL: Duration = Duration::from_millis(200);
/// How often the progress is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

struct Answer {
    folder: PathBuf,
    /// The loaded part, in percent, and the remaining time, in seconds; nothing when all is loaded.
    loading: Option<(f64, u64)>,
}

/// Waits until the redis-server of the folder has loaded its data, and logs the progress. Fails when it gives no
/// answer for `patience`.
pub(super) async fn until_ready(port: u16, folder: &Path, patience: Duration) -> anyhow::Result<()> {
    let mut heard = Instant::now();
    let mut told: Option<Instant> = None;
    while heard.elapsed() < patience {
        match timeout_at(heard + patience, ask(port)).await {
            Ok(Ok(answer)) if answer.folder == folder => {
                heard = Instant::now();
                match answer.loading {
                    None if told.is_none() => return Ok(()),
                    None => {
                        info!("redis-server has loaded its data");
                        return Ok(());
                    }
                    Some((percent, seconds)) if told.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) => {
                        info!("redis-server loads its data: {percent:.0} %, about {seconds} s to go");
                        told = Some(heard);
                    }
                    Some(_) => {}
                }
                sleep(LOADING_POLL).await;
            }
            // Nothing listens yet. Or another process does, and our redis-server will end by itself.
            _ => sleep(POLL).await,
        }
    }
    bail!("it does not answer within {patience:?}")
}

/// The data folder of the redis-server at a port; nothing if there is none, or it does not say.
pub(super) async fn folder(port: u16) -> Option<PathBuf> {
    timeout(ANSWER_TIMEOUT, ask(port)).await.ok()?.ok().map(|answer| answer.folder)
}

/// Lets the redis-server at a port write its data and end.
pub(super) async fn shut_down(port: u16) {
    // It closes the connection instead of answering.
    let told = async { cmd("SHUTDOWN").exec_async(&mut connect(port).await?).await };
    let _ = timeout(ANSWER_TIMEOUT, told).await;
}

async fn ask(port: u16) -> RedisResult<Answer> {
    let mut connection = connect(port).await?;
    // Both are also answered during loading.
    let mut questions = pipe();
    questions.cmd("CONFIG").arg("GET").arg("dir").cmd("INFO").arg("persistence");
    let (mut settings, info): (HashMap<String, Vec<u8>>, InfoDict) = questions.query_async(&mut connection).await?;
    let loading = (info.get("loading") == Some(1)).then(|| {
        (info.get("loading_loaded_perc").unwrap_or_default(), info.get("loading_eta_seconds").unwrap_or_default())
    });
    let folder = OsString::from_vec(settings.remove("dir").unwrap_or_default()).into();
    Ok(Answer { folder, loading })
}

async fn connect(port: u16) -> RedisResult<MultiplexedConnection> {
    let unhurried = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let client = Client::open((Ipv4Addr::LOCALHOST.to_string(), port))?;
    client.get_multiplexed_async_connection_with_config(&unhurried).await
}
