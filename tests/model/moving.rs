//! Two nodes of a Redis Cluster, of which one loses the slot of [`PREFIX`] to the other.
//!
//! While the slot moves, its old node refuses each call that names a key which is not there, and each command of a script on a key that
//! is not there any more. So no script may touch a key that an earlier write of the same call has emptied. The new node refuses each call
//! that names some keys which are not there yet.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Client, Connection, Value, cmd, pipe};

use crate::call::PREFIX;
use crate::support::redis_server::RedisServer;

/// How long a busy machine may need until two nodes know each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The errors with which a node of a cluster refuses a call.
pub const REFUSALS: [&str; 4] = ["ASK", "TRYAGAIN", "MOVED", OF_MANY_SLOTS];

/// That of a call with keys in several slots, whether they move or not.
pub const OF_MANY_SLOTS: &str = "CROSSSLOT";

/// The node at which calls are made while the slot moves.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    /// All keys are still there.
    Old,
    /// All keys are there already.
    New,
}

pub struct Moving {
    side: Side,
    slot: u16,
    /// The new node, and its id.
    goal: Connection,
    id: String,
    /// Whether the keys are at the new node.
    is_away: bool,
    /// The scripts that were carried out, and those that were refused, while the slot moved.
    pub served: BTreeSet<&'static str>,
    pub refused: BTreeSet<&'static str>,
    _server: RedisServer,
}

impl Moving {
    /// Starts the new node, and introduces the two to each other.
    pub fn from(old: &RedisServer, options: &[&str], side: Side) -> Self {
        let server = RedisServer::start_with(&[&["--cluster-enabled", "yes"], options].concat());
        let (mut redis, mut goal) = (connect(old), connect(&server));
        let slot = cmd("CLUSTER").arg("KEYSLOT").arg(PREFIX).query(&mut redis).unwrap();
        let [from, id]: [String; 2] =
            [&mut redis, &mut goal].map(|node| cmd("CLUSTER").arg("MYID").query(node).unwrap());
        cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(server.port()).exec(&mut redis).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !(knows(&mut redis, &id) && knows(&mut goal, &from)) {
            assert!(Instant::now() < deadline, "they do not know each other");
            sleep(Duration::from_millis(10));
        }
        if side == Side::New {
            cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(from).exec(&mut goal).unwrap();
        }
        let [served, refused] = [BTreeSet::new(), BTreeSet::new()];
        Self { side, slot, goal, id, is_away: false, served, refused, _server: server }
    }

    /// From now on the slot moves, and calls are made at one side.
    pub fn begin(&mut self, redis: &mut Connection) {
        match self.side {
            Side::Old => {
                cmd("CLUSTER").arg("SETSLOT").arg(self.slot).arg("MIGRATING").arg(&self.id).exec(redis).unwrap();
            }
            Side::New => {
                copy(redis, &mut self.goal);
                self.is_away = true;
            }
        }
    }

    /// From now on the slot stays at the old node, with all that a call has changed.
    pub fn end(&mut self, redis: &mut Connection, script: &'static str, is_refused: bool) {
        match self.side {
            Side::Old => cmd("CLUSTER").arg("SETSLOT").arg(self.slot).arg("STABLE").exec(redis).unwrap(),
            Side::New => {
                if !is_refused {
                    cmd("FLUSHALL").exec(redis).unwrap();
                    copy(&mut self.goal, redis);
                }
                cmd("FLUSHALL").exec(&mut self.goal).unwrap();
                self.is_away = false;
            }
        }
        if is_refused { &mut self.refused } else { &mut self.served }.insert(script);
    }

    /// The new node.
    pub fn goal(&mut self) -> &mut Connection {
        &mut self.goal
    }

    /// The new node, if calls are to be made there now: each must be asked for with `ASKING`.
    pub fn away(&mut self) -> Option<&mut Connection> {
        self.is_away.then_some(&mut self.goal)
    }
}

/// Whether a node knows another one, and serves its slots.
fn knows(node: &mut Connection, other: &str) -> bool {
    let known: String = cmd("CLUSTER").arg("NODES").query(node).unwrap();
    let info: String = cmd("CLUSTER").arg("INFO").query(node).unwrap();
    known.lines().any(|line| line.starts_with(other) && !line.contains("handshake"))
        && info.contains("cluster_state:ok")
}

/// Copies all keys, each with the moment at which it is dropped. `MIGRATE` would only keep the time that is left.
fn copy(from: &mut Connection, to: &mut Connection) {
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg("*").query(from).unwrap();
    if keys.is_empty() {
        return;
    }
    let mut read = pipe();
    for key in &keys {
        read.cmd("ASKING").ignore().cmd("DUMP").arg(key).cmd("ASKING").ignore().cmd("PEXPIRETIME").arg(key);
    }
    let found: Vec<Value> = read.query(from).unwrap();
    let mut write = pipe();
    for (key, found) in keys.iter().zip(found.chunks(2)) {
        // What has just been dropped is left out.
        let (Value::BulkString(bytes), Value::Int(at @ -1..)) = (&found[0], &found[1]) else { continue };
        write.cmd("ASKING").cmd("RESTORE").arg(key).arg((*at).max(0)).arg(&bytes[..]).arg("ABSTTL");
    }
    write.exec(to).unwrap();
}

/// A connection through the socket.
pub fn connect(server: &RedisServer) -> Connection {
    Client::open(server.socket_url()).unwrap().get_connection().unwrap()
}
