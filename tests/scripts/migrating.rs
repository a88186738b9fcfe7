//! A slot of a Redis Cluster that moves to another node, one key after another: a call is carried out as a whole, or is
//! refused and changes nothing, at the old node and at the new one.
//!
//! While a slot moves, its old node refuses each command on a key that is not there (any more), also within a script. So
//! no script may touch a key that an earlier write of the same call has emptied.

use std::collections::BTreeSet;

use redis::cmd;

use crate::call::{Call, audit, confirm, inventory, release, sweep};
use crate::fixture::{ACTIVE, Answer, CUP, LAPSED, ScriptFixture};
use crate::half_done::calls;
use crate::support::cluster::Cluster;
use crate::support::invariants::{History, assert_invariants};
use crate::support::snapshot::Snapshot;

const PREFIX: &str = "{7}:";

/// The scripts of which every key can be there before a call. The others make a new key (an operation, a
/// reservation), so Redis refuses them until the slot has moved.
const SERVED: [&str; 9] = ["audit", "confirm", "extend", "inventory", "release", "repair", "rules", "sell", "sweep"];

/// A cluster with a fixture on the node that has the slot.
struct Moving {
    cluster: Cluster,
    fixture: ScriptFixture,
    slot: u16,
    from: usize,
    to: usize,
}

impl Moving {
    async fn start() -> Self {
        let cluster = Cluster::start_with(&["--cluster-node-timeout", "30000"]).await;
        let from = cluster.owner(0, PREFIX).await;
        let (slot, to) = (cluster.slot(PREFIX).await, (from + 1) % 3);
        // The scripts are on both nodes.
        ScriptFixture::on(cluster.connection(to).await, PREFIX).await;
        let fixture = ScriptFixture::on(cluster.connection(from).await, PREFIX).await;
        Self { cluster, fixture, slot, from, to }
    }

    /// The data before each call: as in other tests, and then some holds are ended.
    async fn stock(&mut self, ended: &[Call]) {
        self.stay().await;
        self.fixture.stock().await;
        for call in ended {
            self.fixture.evalsha(call).await.unwrap();
        }
        self.fixture.keep_ms(60_000).await;
    }

    /// All keys that have moved come back, and the slot stays.
    async fn come_back(&self) {
        let (from, to) = (self.from, self.to);
        self.cluster.tell(from, &["CLUSTER", "SETSLOT", &self.slot.to_string(), "STABLE"]).await;
        self.cluster.move_keys(to, from, self.cluster.keys_in(to, self.slot).await).await;
        self.stay().await;
    }

    /// The slot stays where it is.
    async fn stay(&self) {
        for node in [self.from, self.to] {
            self.cluster.tell(node, &["CLUSTER", "SETSLOT", &self.slot.to_string(), "STABLE"]).await;
        }
    }

    async fn snapshot(&mut self) -> Snapshot {
        Snapshot::take(&mut self.fixture.redis).await
    }

    /// Calls at the new node, as a client does that the old one has sent there.
    async fn ask(&self, call: &Call) -> Answer {
        let mut redis = self.cluster.connection(self.to).await;
        cmd("ASKING").exec_async(&mut redis).await.unwrap();
        self.fixture.evalsha_on(&mut redis, call).await
    }

    /// Makes sure that a refused call has changed nothing, and that the books balance after another.
    async fn assert_whole(&mut self, call: &Call, before: &Snapshot, answer: &Answer) {
        match answer {
            Err(refusal) => {
                let changed = before.changed(&self.snapshot().await);
                assert!(changed.is_empty(), "{call:?} changed {changed:?} and failed with {refusal:?}");
                assert!(["ASK", "TRYAGAIN"].contains(&&*refusal.word), "{call:?} failed with {refusal:?}");
            }
            Ok(_) => assert_invariants(&mut self.fixture.redis, History::Whole).await,
        }
    }
}

/// Which holds are ended before a call, so that it takes the last out of a set: none, that which has lapsed, or all others.
fn ended_before() -> [Vec<Call>; 3] {
    let others = release("each", &[("tea", ACTIVE, ""), ("cup", CUP, "")]);
    [vec![], vec![sweep("tea", &[LAPSED])], vec![others]]
}

/// Calls of all scripts; some take the last hold out of a set.
fn all_calls() -> Vec<Call> {
    let mut all = calls();
    all.extend([inventory("tea", 10), audit("tea", 10, "")]);
    for settle in [confirm, release] {
        all.extend([settle("each", &[("tea", ACTIVE, "")]), settle("all", &[("cup", CUP, ""), ("tea", ACTIVE, "")])]);
    }
    all
}

/// Makes every call while the slot moves, as `answer` does it, and then checks that it was carried out as a whole or refused.
async fn each_is_whole(answer: impl AsyncFn(&mut Moving, &Call) -> Answer) {
    let mut moving = Moving::start().await;
    let mut served = BTreeSet::new();
    for ended in ended_before() {
        for mut call in all_calls() {
            moving.stock(&ended).await;
            call.args = moving.fixture.with_events(&call).await;
            let before = moving.snapshot().await;
            moving.cluster.begin_move(moving.slot, moving.from, moving.to).await;
            let answer = answer(&mut moving, &call).await;
            moving.assert_whole(&call, &before, &answer).await;
            if answer.is_ok() {
                served.insert(call.script);
            }
        }
    }
    for script in SERVED {
        assert!(served.contains(script), "{script} was never carried out");
    }
}

#[tokio::test]
async fn a_call_at_the_old_node_is_carried_out_as_a_whole_or_refused() {
    each_is_whole(async |moving, call| {
        let answer = moving.fixture.evalsha(call).await;
        moving.stay().await;
        answer
    })
    .await;
}

#[tokio::test]
async fn a_call_at_the_new_node_is_carried_out_as_a_whole_or_refused() {
    each_is_whole(async |moving, call| {
        let (slot, from, to) = (moving.slot, moving.from, moving.to);
        moving.cluster.move_keys(from, to, moving.cluster.keys_in(from, slot).await).await;
        let answer = moving.ask(call).await;
        moving.come_back().await;
        answer
    })
    .await;
}

/// Whichever key has moved: neither node serves a call whose keys are apart.
#[tokio::test]
async fn a_call_whose_keys_are_apart_changes_nothing_at_either_node() {
    let mut moving = Moving::start().await;
    let (slot, from, to) = (moving.slot, moving.from, moving.to);
    moving.stock(&[]).await;
    let mut before = moving.snapshot().await;
    for mut call in all_calls().into_iter().filter(|call| call.keys.len() > 1) {
        call.args = moving.fixture.with_events(&call).await;
        for moved in moving.fixture.keys(&call).into_iter().collect::<BTreeSet<_>>() {
            let is_there: bool = cmd("EXISTS").arg(&moved).query_async(&mut moving.fixture.redis).await.unwrap();
            if !is_there {
                continue;
            }
            moving.cluster.begin_move(slot, from, to).await;
            moving.cluster.move_keys(from, to, &moved).await;
            let answers = [moving.fixture.evalsha(&call).await, moving.ask(&call).await];
            moving.come_back().await;
            for answer in &answers {
                let refusal = answer.as_ref().expect_err("it is refused");
                assert!(["ASK", "TRYAGAIN"].contains(&&*refusal.word), "{call:?}: {refusal:?}");
            }
            let after = moving.snapshot().await;
            let changed = before.changed(&after);
            assert!(changed.is_empty(), "{call:?} changed {changed:?}");
            before = after;
        }
    }
}
