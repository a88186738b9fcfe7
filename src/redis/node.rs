//! One node: one multiplexed socket, opened on demand and reopened when it is lost.

use std::sync::{Arc, PoisonError, RwLock};

use ::redis::{Cmd, Pipeline, RedisError, Value};
use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::time::{Instant, timeout_at};

use super::connector::{Deadline, Link};
use super::way::Way;
use super::{Failure, metrics, sort};

pub(super) struct Node {
    way: Arc<Way>,
    /// Whether its calls and connections are those to Redis that are counted.
    is_counted: bool,
    /// The latest attempt to connect: in progress, or its result.
    attempt: RwLock<Option<Attempt>>,
}

/// The outcome of each command that was sent.
pub(super) type Outcomes = Vec<Result<Value, Failure>>;

type Attempt = future::Shared<BoxFuture<'static, Result<Link, Failure>>>;

impl Node {
    pub(super) fn new(way: Arc<Way>) -> Self {
        Self { way, is_counted: true, attempt: RwLock::new(None) }
    }

    /// A sentinel: no data is there, and one that fails is not missed.
    pub(super) fn of_sentinel(way: Arc<Way>) -> Self {
        Self { is_counted: false, ..Self::new(way) }
    }

    pub(super) fn way(&self) -> &Arc<Way> {
        &self.way
    }

    pub(super) async fn call(&self, command: &Cmd, deadline: Deadline) -> Result<Value, Failure> {
        let exchange = async {
            let link = self.link_by(deadline).await?;
            let mut connection = link.connection.clone();
            answer(&link, deadline, async { connection.send_packed_command(command).await?.extract_error() }).await
        };
        self.measured(exchange).await
    }

    /// Sends all commands together and returns one reply for each; the first error reply fails the whole.
    pub(super) async fn pipeline(&self, commands: &Pipeline, deadline: Deadline) -> Result<Vec<Value>, Failure> {
        let exchange = async {
            let link = self.link_by(deadline).await?;
            let mut connection = link.connection.clone();
            answer(&link, deadline, commands.query_async(&mut connection)).await
        };
        self.measured(exchange).await
    }

    /// Sends all commands together and returns the outcome of each: an error reply concerns only its command.
    pub(super) async fn each(&self, mut commands: Pipeline, deadline: Deadline) -> Result<Outcomes, Failure> {
        commands.ignore_errors();
        let exchange = async {
            let link = self.link_by(deadline).await?;
            let mut connection = link.connection.clone();
            let replies: Vec<Value> = answer(&link, deadline, commands.query_async(&mut connection)).await?;
            if replies.len() != commands.len() {
                return Err(Failure::NoReply(format!("{} replies to {} commands", replies.len(), commands.len())));
            }
            let outcomes: Outcomes = replies.into_iter().map(|reply| reply.extract_error().map_err(sort)).collect();
            if outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(is_of_a_replica)) {
                link.give_up();
            }
            Ok(outcomes)
        };
        self.measured(exchange).await
    }

    async fn link_by(&self, deadline: Deadline) -> Result<Link, Failure> {
        match timeout_at(deadline.at, self.link()).await {
            Ok(link) => link,
            Err(_) => Err(Failure::Unreachable(format!("no connection within {:?}", deadline.allowed))),
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
        let latest = self.attempt.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = latest.as_ref().filter(is_good) {
            return attempt.clone();
        }
        drop(latest);
        let mut latest = self.attempt.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = latest.as_ref().filter(is_good) {
            return attempt.clone();
        }
        let way = Arc::clone(&self.way);
        let is_counted = self.is_counted;
        let attempt = async move {
            let connected = way.connect().await;
            if is_counted { connected.inspect(metrics::opened).inspect_err(metrics::failed) } else { connected }
        };
        let attempt = attempt.boxed().shared();
        // In a separate task: each caller that waits for it may have less time left than an attempt takes.
        tokio::spawn(attempt.clone());
        latest.insert(attempt).clone()
    }

    /// Counts a call when it has ended.
    async fn measured<T>(&self, exchange: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let started = Instant::now();
        let outcome = exchange.await;
        if self.is_counted {
            metrics::called(&outcome, started.elapsed());
        }
        outcome
    }
}

/// Waits for the answer to what was sent by a link, and gives up a link that is of no use any more.
async fn answer<T>(
    link: &Link,
    deadline: Deadline,
    sent: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Failure> {
    match timeout_at(deadline.at, sent).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => {
            let failure = sort(error);
            if matches!(failure, Failure::NoReply(_)) || is_of_a_replica(&failure) {
                link.give_up();
            }
            Err(failure)
        }
        Err(_) => {
            // The other end may be gone without notice: the next call opens a new connection.
            link.give_up();
            Err(Failure::NoReply(format!("none within {:?}", deadline.allowed)))
        }
    }
}

/// After a fail-over the address may lead to the new primary: reconnect.
fn is_of_a_replica(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused { code, .. } if code == "READONLY")
}
