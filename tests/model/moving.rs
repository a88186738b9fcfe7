//! A node of a Redis Cluster that is about to lose the slot of [`PREFIX`] to another node.
//!
//! While the slot moves, this node refuses each call that names a key which is not there, and each command of a script on a key that is
//! not there any more. So no script may touch a key that an earlier write of the same call has emptied.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Client, Connection, cmd};

use crate::call::PREFIX;
use crate::support::redis_server::RedisServer;

/// How long a busy machine may need until two nodes know each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// The errors with which a node of a cluster refuses a call.
pub const REFUSALS: [&str; 3] = ["ASK", "TRYAGAIN", OF_MANY_SLOTS];

/// That of a call with keys in several slots, whether they move or not.
pub const OF_MANY_SLOTS: &str = "CROSSSLOT";

pub struct Moving {
    slot: u16,
    /// The node that the slot moves to.
    goal: String,
    /// The scripts that were carried out, and those that were refused, while the slot moved.
    pub served: BTreeSet<&'static str>,
    pub refused: BTreeSet<&'static str>,
    _goal: RedisServer,
}

impl Moving {
    /// Starts the other node, and introduces the two to each other.
    pub fn from(server: &RedisServer) -> Self {
        let goal = RedisServer::start_with(&["--cluster-enabled", "yes"]);
        let id: String = cmd("CLUSTER").arg("MYID").query(&mut connect(&goal)).unwrap();
        let mut redis = connect(server);
        cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(goal.port()).exec(&mut redis).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known: String = cmd("CLUSTER").arg("NODES").query(&mut redis).unwrap();
            if known.lines().any(|line| line.starts_with(&id) && !line.contains("handshake")) {
                break;
            }
            assert!(Instant::now() < deadline, "they do not know each other: {known}");
            sleep(Duration::from_millis(10));
        }
        let slot = cmd("CLUSTER").arg("KEYSLOT").arg(PREFIX).query(&mut redis).unwrap();
        Self { slot, goal: id, served: BTreeSet::new(), refused: BTreeSet::new(), _goal: goal }
    }

    /// From now on the slot moves.
    pub fn begin(&self, redis: &mut Connection) {
        cmd("CLUSTER").arg("SETSLOT").arg(self.slot).arg("MIGRATING").arg(&self.goal).exec(redis).unwrap();
    }

    /// From now on the slot stays where it is.
    pub fn end(&self, redis: &mut Connection) {
        cmd("CLUSTER").arg("SETSLOT").arg(self.slot).arg("STABLE").exec(redis).unwrap();
    }

    /// Notes what became of a call while the slot moved.
    pub fn note(&mut self, script: &'static str, is_refused: bool) {
        if is_refused { &mut self.refused } else { &mut self.served }.insert(script);
    }
}

/// A connection through the socket.
pub fn connect(server: &RedisServer) -> Connection {
    Client::open(server.socket_url()).unwrap().get_connection().unwrap()
}
