//! The connection to Redis: one multiplexed socket, opened on demand and reopened when it is lost.
//!
//! Every call is limited, by [`CALL_TIMEOUT`] unless told otherwise. Every failure means one of three things: nothing was sent, Redis
//! refused, or the result is unknown.

mod connector;
mod files;
mod reads;
mod scans;
mod sentinel;
mod tls;
mod tls_error;
mod url;
mod way;
mod writes;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, ReplicaInfo, Role, Value};
use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::time::{Instant, timeout_at};

use connector::Link;
pub use files::{ClientFiles, Files};
pub use reads::{Health, StoredHash};
pub use scans::{Entry, IndexLook, Look, StreamInfo, entry_order};
use way::Way;

/// How long one call may take, connecting included: a connection that died silently is noticed and replaced within a
/// second.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(800);

/// Why a Redis cannot be named so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one of Redis.
    #[error("not a Redis URL: {0}")]
    Url(String),
    /// A file cannot be used, or not with this URL.
    #[error("{0}")]
    Files(String),
}

/// Why a call gave no usable reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// No connection: nothing was sent.
    #[error("cannot reach Redis: {0}")]
    Unreachable(String),
    /// No connection, and none until somebody changes a setting, a certificate or a password: nothing was sent.
    #[error("cannot use Redis: {0}")]
    Barred(String),
    /// Redis answered with an error. Scripts check before they write, so nothing was applied.
    #[error("Redis refused: {code} {message}")]
    Refused {
        /// The first word of the error, the only part that is stable over versions.
        code: String,
        /// The rest, for logs.
        message: String,
    },
    /// Redis answered, and the answer cannot be parsed: the stored value was written by no script.
    #[error("not understood: {0}")]
    Malformed(String),
    /// The call was sent and no reply came: it may have been applied or not.
    #[error("no reply from Redis: {0}")]
    NoReply(String),
}

/// A Redis that can be called. Clones share the connection.
#[derive(Clone)]
pub struct Redis(Arc<Shared>);

struct Shared {
    way: Arc<Way>,
    call_timeout: Duration,
    /// The latest attempt to connect: in progress, or its result.
    attempt: RwLock<Option<Attempt>>,
}

type Attempt = future::Shared<BoxFuture<'static, Result<Link, Failure>>>;

impl Redis {
    /// Prepares a connection to `url` (`redis://`, `rediss://`, `unix://`, or `redis+sentinel://` and `rediss+sentinel://`);
    /// connects at the first call.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, Files::default())
    }

    /// The same, with files for what is not in the URL.
    ///
    /// # Errors
    /// When the URL is not one, or does not go with the files, or a file cannot be used.
    pub fn open_with(url: &str, files: Files) -> Result<Self, OpenError> {
        Ok(Self::with(Arc::new(Way::new(url, files)?), CALL_TIMEOUT))
    }

    /// Whether the next connection can use the files.
    ///
    /// # Errors
    /// When it cannot.
    pub fn read_files(&self) -> Result<(), OpenError> {
        self.0.way.read_files()
    }

    /// The same Redis through a separate connection: slow calls on one do not delay the other.
    pub fn with_own_connection(&self) -> Self {
        Self::with(Arc::clone(&self.0.way), self.0.call_timeout)
    }

    /// The same Redis through a separate connection, with another limit for each call than [`CALL_TIMEOUT`].
    pub fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self::with(Arc::clone(&self.0.way), call_timeout)
    }

    fn with(way: Arc<Way>, call_timeout: Duration) -> Self {
        Self(Arc::new(Shared { way, call_timeout, attempt: RwLock::new(None) }))
    }

    /// Where it connects to: host and port, or socket path, or a master and its sentinels, and the database unless it is 0;
    /// without any credentials.
    pub fn address(&self) -> String {
        self.0.way.to_string()
    }

    /// Its replicas, by the addresses that it reports, with its own credentials.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn replicas(&self) -> Result<Vec<Self>, Failure> {
        let role = self.call(&::redis::cmd("ROLE")).await?;
        let role = Role::from_redis_value(role).map_err(|error| Failure::NoReply(error.to_string()))?;
        let Role::Primary { replicas, .. } = role else { return Ok(Vec::new()) };
        let replica = |ReplicaInfo { ip, port, .. }| Self::with(Arc::new(self.0.way.at(ip, port)), self.0.call_timeout);
        Ok(replicas.into_iter().map(replica).collect())
    }

    pub(crate) async fn call(&self, command: &Cmd) -> Result<Value, Failure> {
        self.exchange(async |mut connection| connection.send_packed_command(command).await?.extract_error()).await
    }

    /// Sends all commands together and returns one reply for each; the first error reply fails the whole.
    pub(crate) async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        self.exchange(async |mut connection| commands.query_async(&mut connection).await).await
    }

    /// Sends all commands together and returns the outcome of each: an error reply concerns only its command.
    pub(crate) async fn each(&self, mut commands: Pipeline) -> Result<Vec<Result<Value, Failure>>, Failure> {
        commands.ignore_errors();
        let replies: Vec<Value> = self
            .exchange(async |mut connection| {
                let replies: Vec<Value> = commands.query_async(&mut connection).await?;
                // Except this error, which concerns the connection: its server is no longer the primary.
                let readonly = replies.iter().find_map(|reply| match reply {
                    Value::ServerError(error) if error.code() == "READONLY" => Some(error.clone()),
                    _ => None,
                });
                readonly.map_or(Ok(replies), |error| Err(error.into()))
            })
            .await?;
        if replies.len() != commands.len() {
            return Err(Failure::NoReply(format!("{} replies to {} commands", replies.len(), commands.len())));
        }
        Ok(replies.into_iter().map(|reply| reply.extract_error().map_err(sort)).collect())
    }

    async fn exchange<T>(
        &self,
        send: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Failure> {
        let call_timeout = self.0.call_timeout;
        let deadline = Instant::now() + call_timeout;
        let link = match timeout_at(deadline, self.link()).await {
            Ok(link) => link?,
            Err(_) => return Err(Failure::Unreachable(format!("no connection within {call_timeout:?}"))),
        };
        match timeout_at(deadline, send(link.connection.clone())).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                let failure = sort(error);
                match &failure {
                    Failure::NoReply(_) => link.give_up(),
                    // After a fail-over the address may lead to the new primary: reconnect.
                    Failure::Refused { code, .. } if code == "READONLY" => link.give_up(),
                    _ => {}
                }
                Err(failure)
            }
            Err(_) => {
                // The other end may be gone without notice: the next call opens a new connection.
                link.give_up();
                Err(Failure::NoReply(format!("none within {call_timeout:?}")))
            }
        }
    }

    async fn link(&self) -> Result<Link, Failure> {
        loop {
            let link = self.attempt().await?;
            if !link.is_lost() {
                return Ok(link);
            }
        }
    }

    /// The attempt that gave the current connection, or that is in progress; otherwise a new one.
    fn attempt(&self) -> Attempt {
        let is_good = |attempt: &&Attempt| match attempt.peek() {
            None => true,
            Some(Ok(link)) => !link.is_lost(),
            Some(Err(_)) => false,
        };
        let latest = self.0.attempt.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = latest.as_ref().filter(is_good) {
            return attempt.clone();
        }
        drop(latest);
        let mut latest = self.0.attempt.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = latest.as_ref().filter(is_good) {
            return attempt.clone();
        }
        let way = Arc::clone(&self.0.way);
        let attempt = async move { way.connect().await }.boxed().shared();
        // In a separate task: each caller that waits for it may have less time left than an attempt takes.
        tokio::spawn(attempt.clone());
        latest.insert(attempt).clone()
    }
}

/// At a connection, whoever opened it can no longer be told.
impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Barred(error.to_string())
    }
}

/// Distinguishes an error reply from a lost one. In a pipeline, the first error reply gives the reason.
fn sort(error: RedisError) -> Failure {
    let text = error.to_string();
    match error.into_server_errors().as_deref() {
        Some([(_, first), ..]) => {
            Failure::Refused { code: first.code().to_owned(), message: first.details().unwrap_or_default().to_owned() }
        }
        _ => Failure::NoReply(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_shows_no_password() {
        let redis = Redis::open("redis://user:secret@127.0.0.1:6399").unwrap();
        assert_eq!(redis.address(), "127.0.0.1:6399");
        assert_eq!(Redis::open("redis://:secret@127.0.0.1:6399/3").unwrap().address(), "127.0.0.1:6399/3");
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_not_unknown() {
        // Port 1 on loopback: nothing listens there.
        let redis = Redis::open("redis://127.0.0.1:1").unwrap();
        let failure = redis.call(&::redis::cmd("PING")).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(_)), "{failure}");
    }
}
