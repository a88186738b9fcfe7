//! The connection to Redis: to one [`node`], which [sentinels](sentinel) may name, or to a [`cluster`] of them.
//!
//! Every call is limited, by [`CALL_TIMEOUT`] unless told otherwise. Every failure means one of three things: nothing was sent, Redis
//! refused, or the result is unknown.

mod cluster;
mod connector;
mod files;
pub(crate) mod metrics;
mod node;
mod probes;
mod reads;
mod scans;
mod sentinel;
mod slot_map;
mod slots;
mod tls;
mod tls_error;
mod url;
mod way;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, ReplicaInfo, Role, Value};

use cluster::Cluster;
use connector::Deadline;
pub use files::{ClientFiles, Files};
use node::Node;
pub use reads::{Health, StoredHash};
pub use scans::{Dumped, Entry, IndexLook, Look, StreamInfo, entry_order};
pub use slots::{crc16, slot};
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

/// A Redis that can be called: one node, or a cluster. Clones share the connections.
#[derive(Clone)]
pub struct Redis {
    at: At,
    call_timeout: Duration,
}

#[derive(Clone)]
enum At {
    Node(Arc<Node>),
    Cluster(Arc<Cluster>),
}

impl Redis {
    /// Prepares a connection to `url` (`redis://`, `rediss://`, `unix://`, and `redis+sentinel://`, `rediss+sentinel://`,
    /// `redis+cluster://`, `rediss+cluster://`); connects at the first call.
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
        Ok(match Cluster::new(url, &files)? {
            Some(cluster) => Self { at: At::Cluster(Arc::new(cluster)), call_timeout: CALL_TIMEOUT },
            None => Self::with(Arc::new(Way::new(url, files)?), CALL_TIMEOUT),
        })
    }

    /// Whether the next connection can use the files.
    ///
    /// # Errors
    /// When it cannot.
    pub fn read_files(&self) -> Result<(), OpenError> {
        match &self.at {
            At::Node(node) => node.way().read_files(),
            At::Cluster(cluster) => cluster.seeds()[0].read_files(),
        }
    }

    /// The same Redis through a separate connection: slow calls on one do not delay the other.
    pub fn with_own_connection(&self) -> Self {
        let at = match &self.at {
            At::Node(node) => return Self::with(Arc::clone(node.way()), self.call_timeout),
            At::Cluster(cluster) => At::Cluster(Arc::new(cluster.with_own_connections())),
        };
        Self { at, call_timeout: self.call_timeout }
    }

    /// The same Redis through a separate connection, with another limit for each call than [`CALL_TIMEOUT`].
    pub fn with_call_timeout(&self, call_timeout: Duration) -> Self {
        Self { call_timeout, ..self.with_own_connection() }
    }

    /// Where it connects to: host and port, or socket path, or a master and its sentinels, and the database unless it is 0;
    /// without any credentials. Of a cluster, the nodes that its URL names.
    pub fn address(&self) -> String {
        match &self.at {
            At::Node(node) => node.way().to_string(),
            At::Cluster(cluster) => cluster.seeds().iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        }
    }

    /// The nodes that hold its keys, each of which has a part: for what concerns no key. A Redis that is no cluster is itself the only
    /// one.
    ///
    /// # Errors
    /// See [`Failure`]. Also when a part of the keys is on no node.
    pub async fn primaries(&self) -> Result<Vec<Self>, Failure> {
        match &self.at {
            At::Node(_) => Ok(vec![self.clone()]),
            At::Cluster(cluster) => Ok(cluster.primaries().await?.into_iter().map(|node| self.only(node)).collect()),
        }
    }

    /// All nodes of a cluster that have not failed: replicas too, and nodes that hold no keys yet. A Redis that is no cluster is itself
    /// the only one.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn nodes(&self) -> Result<Vec<Self>, Failure> {
        match &self.at {
            At::Node(_) => Ok(vec![self.clone()]),
            At::Cluster(cluster) => Ok(cluster.members().await?.into_iter().map(|(node, _)| self.only(node)).collect()),
        }
    }

    /// Its replicas, by the addresses that it reports, with its own credentials.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn replicas(&self) -> Result<Vec<Self>, Failure> {
        let node = match &self.at {
            At::Node(node) => node,
            At::Cluster(cluster) => {
                let members = cluster.members().await?.into_iter();
                return Ok(members.filter(|(_, is_replica)| *is_replica).map(|(node, _)| self.only(node)).collect());
            }
        };
        let role = self.call(&::redis::cmd("ROLE")).await?;
        let role = Role::from_redis_value(role).map_err(|error| Failure::NoReply(error.to_string()))?;
        let Role::Primary { replicas, .. } = role else { return Ok(Vec::new()) };
        let replica = |ReplicaInfo { ip, port, .. }| self.only(Arc::new(Node::new(Arc::new(node.way().at(ip, port)))));
        Ok(replicas.into_iter().map(replica).collect())
    }

    /// The replicas of a master that sentinels name, one of which may be the next master. Best effort; of any other Redis, none.
    pub(crate) async fn successors(&self) -> Vec<Self> {
        match &self.at {
            At::Node(node) if node.way().is_watched() => self.replicas().await.unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The node that has a key, as far as is known: the one that a call with this key has just reached.
    pub(crate) fn node_of(&self, key: &str) -> Self {
        match &self.at {
            At::Node(_) => self.clone(),
            At::Cluster(cluster) => cluster.node_of(key).map_or_else(|| self.clone(), |node| self.only(node)),
        }
    }

    fn only(&self, node: Arc<Node>) -> Self {
        Self { at: At::Node(node), call_timeout: self.call_timeout }
    }

    /// The one Redis to which a way leads.
    fn with(way: Arc<Way>, call_timeout: Duration) -> Self {
        Self { at: At::Node(Arc::new(Node::new(way))), call_timeout }
    }

    /// Sends a command. In a cluster it has a key, and goes to the node that has it.
    #[doc(hidden)]
    pub async fn call(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = Deadline::after(self.call_timeout);
        match &self.at {
            At::Node(node) => node.call(command, deadline).await,
            At::Cluster(cluster) => Box::pin(cluster.call(command, deadline)).await,
        }
    }

    /// Sends a command that has no key; in a cluster, to the node that has `key`.
    #[doc(hidden)]
    pub async fn call_at(&self, key: &str, command: &Cmd) -> Result<Value, Failure> {
        let deadline = Deadline::after(self.call_timeout);
        match &self.at {
            At::Node(node) => node.call(command, deadline).await,
            At::Cluster(cluster) => Box::pin(cluster.call_at(key, command, deadline)).await,
        }
    }

    /// Sends all commands together, in order, and returns one reply for each; the first error reply fails the whole. In a cluster, all
    /// keys are in one slot, and a command without a key follows one with a key. After a redirection, commands that only read, or may
    /// be repeated, are sent again.
    #[doc(hidden)]
    pub async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let deadline = Deadline::after(self.call_timeout);
        match &self.at {
            At::Node(node) => node.pipeline(commands, deadline).await,
            At::Cluster(cluster) => Box::pin(cluster.pipeline(commands, deadline)).await,
        }
    }

    /// Sends all commands together and returns the outcome of each: an error reply concerns only its command. In a cluster, keys may be
    /// in any slots, a command without a key follows one with a key and goes where that one goes, and nodes answer independently: the
    /// order is kept only between such two.
    #[doc(hidden)]
    pub async fn each(&self, commands: Pipeline) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let deadline = Deadline::after(self.call_timeout);
        match &self.at {
            At::Node(node) => node.each(commands, deadline).await,
            At::Cluster(cluster) => Box::pin(cluster.each(&commands, deadline)).await,
        }
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
        let cluster = Redis::open("redis+cluster://:secret@127.0.0.1:6399,[::1]:6400").unwrap();
        assert_eq!(cluster.address(), "127.0.0.1:6399,[::1]:6400");
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_not_unknown() {
        // Port 1 on loopback: nothing listens there.
        let redis = Redis::open("redis://127.0.0.1:1").unwrap();
        let failure = redis.call(&::redis::cmd("PING")).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(_)), "{failure}");
    }
}
