//! No partial changes: at whatever step Redis refuses, either the whole change is made or no byte of it.
//!
//! The possible failures are listed by the test itself: every command that a script contains and every key that it is
//! given, denied to the caller one at a time; streams and counters at their limits. Keys of the wrong type are in
//! `wrong_type`, full memory in `full_memory`.

use std::collections::BTreeSet;

use redis::cmd;

use crate::call::{
    Call, LAST_EVENT, add, adjust, cart_hold, change_to, confirm, extend, hold, hold_with_metadata, line, release,
    release_part, repair, rules, seed, sell, sweep, take_back, write_off,
};
use crate::contract::Contract;
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, ScriptFixture, id};
use crate::support::invariants::{History, assert_invariants};
use crate::support::snapshot::Snapshot;

/// Metadata.
const ORDER: &str = r#"{"order":"A-17"}"#;

/// The highest id that a stream accepts, without its last digit.
const LAST_IDS: &str = "18446744073709551615-1844674407370955161";

/// Calls on the stocked fixture that reach every command of the scripts that write.
pub fn calls() -> Vec<Call> {
    let other = id(1);
    let [active, confirmed] = [ACTIVE, CONFIRMED].map(|id| format!("{LAST_EVENT}:{id}"));
    let mut calls = vec![
        seed("new", 7, &[]),
        seed("cup", 7, &[CUP]),
        seed("cup", 7, &[CUP]).once(),
        seed("tea", 7, &[LAPSED]),
        seed("tea", 7, &[ACTIVE, LAPSED]),
        sweep("tea", &[LAPSED]),
        sweep("tea", &[LAPSED, ACTIVE, NEW]),
        sweep("cup", &[]),
        repair("tea", ["", "", ""], [0; 3], &[(ACTIVE, ""), (CONFIRMED, "")]),
        repair("tea", ["7", LAST_EVENT, "here"], [0; 3], &[(ACTIVE, &active), (CONFIRMED, &confirmed)]),
    ];
    let cart = [("tea", NEW, 1), ("cup", &*other, 1)];
    calls.push(cart_hold(NEW, &cart).once().metadata(ORDER).others(&[ACTIVE]).call());
    calls.push(cart_hold(NEW, &cart[..1]).call());
    calls.push(cart_hold(NEW, &[("tea", NEW, 100)]).call());
    calls.push(cart_hold(NEW, &[("tea", ACTIVE, 2)]).call());
    calls.push(take_back("tea", CONFIRMED, NEW, 1).once());
    calls.push(write_off("tea", CONFIRMED, NEW, 1));
    calls.push(take_back("tea", CONFIRMED, NEW, 2));
    calls.extend([
        sell("tea", ACTIVE, "token", 1, ""),
        sell("tea", ACTIVE, "", 0, "reacquire"),
        sell("tea", LAPSED, "", 0, ""),
        sell("tea", LAPSED, "token", 0, "reacquire"),
        sell("cup", NEW, "", 0, "reacquire"),
        change_to("tea", ACTIVE, 3, &other),
        change_to("tea", ACTIVE, 100, ""),
        change_to("tea", LAPSED, 2, ""),
        release_part("tea", ACTIVE, 1, ""),
        release_part("cup", CUP, 1, &other),
        change_to("tea", ACTIVE, 3, "").with_cart("cart-1", &[CONFIRMED, CUP]),
        sell("tea", LAPSED, "", 0, "reacquire").with_cart("cart-1", &[CONFIRMED]),
        rules("tea", "4", "2", "900000"),
        rules("tea", "", "", ""),
    ]);
    for mode in ["each", "all"] {
        calls.push(hold(mode, &[line("tea", NEW)]));
        calls.push(hold(mode, &[line("tea", NEW).quantity(100)]));
        calls.push(hold(mode, &[line("tea", ACTIVE).quantity(2)]));
        let noted = [line("tea", NEW).metadata(ORDER), line("cup", &other), line("tea", ACTIVE).quantity(2)];
        calls.push(hold_with_metadata(mode, &noted));
        calls.push(hold_with_metadata(mode, &[line("tea", NEW).quantity(100).metadata(ORDER)]));
        calls.push(adjust(mode, &[add("tea", NEW, 1)]));
        calls.push(adjust(mode, &[add("tea", NEW, -100)]));
        calls.push(adjust(mode, &[add("new", NEW, 1).create().once(), add("cup", &other, -1).once()]));
        calls.push(hold(mode, &[line("tea", NEW).ttl_ms(1), line("cup", &other), line("tea", &id(2))]));
        calls.push(extend(mode, &[("tea", ACTIVE, 1_200_000)]));
        calls.push(extend(mode, &[("tea", LAPSED, 1)]));
        calls.push(extend(mode, &[("tea", ACTIVE, 1_200_000), ("cup", CUP, 1_200_000), ("tea", LAPSED, 1)]));
        for settle in [confirm, release] {
            calls.push(settle(mode, &[("tea", ACTIVE, "token")]));
            calls.push(settle(mode, &[("tea", LAPSED, "token")]));
            calls.push(settle(mode, &[("tea", ACTIVE, ""), ("cup", CUP, "token"), ("tea", LAPSED, "")]));
        }
    }
    calls
}

impl ScriptFixture {
    /// A hold of `cup` expires, and its units are gone since.
    async fn sell_out_after_an_expiry(&mut self) {
        self.evalsha(&hold("each", &[line("cup", NEW).ttl_ms(1)])).await.unwrap();
        self.lapse(NEW).await;
        self.evalsha(&sweep("cup", &[NEW])).await.unwrap();
        self.evalsha(&adjust("each", &[add("cup", &id(3), -4)])).await.unwrap();
    }
}

/// The commands that a script contains.
fn commands(script: &str) -> BTreeSet<String> {
    let source = &Contract::of(script).source;
    let calls = source.split("call('").skip(1);
    calls.map(|call| call.split('\'').next().unwrap().to_lowercase()).collect()
}

/// Makes the call as the user `weak`, who has these rights, and returns whether it was refused. In both cases there
/// must be no partial change.
async fn call_as_weak(fixture: &mut ScriptFixture, call: &Call, rights: &[String]) -> bool {
    fixture.stock().await;
    if call.script == "sell" {
        fixture.sell_out_after_an_expiry().await;
    }
    // With this setting a settled record gets a TTL, which is one more write.
    fixture.keep_ms(60_000).await;
    let mut acl = cmd("ACL");
    acl.arg("SETUSER").arg("weak").arg(&["reset", "on", "nopass"]).arg(rights);
    fixture.run::<()>(&acl).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    let mut weak = fixture.connect_as("weak").await;
    let answer = fixture.evalsha_on(&mut weak, call).await;
    let changed = before.changed(&Snapshot::take(&mut fixture.redis).await);
    match answer {
        Err(refusal) => {
            // Redis 7.0 has no separate error word for a command inside a script.
            assert!(["NOPERM", "ERR"].contains(&&*refusal.word), "{call:?} with {rights:?}: {refusal:?}");
            assert!(changed.is_empty(), "{call:?} with {rights:?} changed {changed:?} and failed with {refusal:?}");
            true
        }
        Ok(_) => {
            assert_invariants(&mut fixture.redis, History::Whole).await;
            false
        }
    }
}

#[tokio::test]
async fn a_command_that_the_caller_may_not_run_changes_nothing() {
    let mut fixture = ScriptFixture::open().await;
    let mut refused = BTreeSet::new();
    let mut all = BTreeSet::new();
    for call in calls() {
        for command in commands(call.script) {
            let rights = ["~*", "+@all", &format!("-{command}")].map(str::to_owned);
            if call_as_weak(&mut fixture, &call, &rights).await {
                refused.insert((call.script, command.clone()));
            }
            all.insert((call.script, command));
        }
    }
    // A command that is never refused is one that these calls never reach.
    let missed: Vec<_> = all.difference(&refused).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test]
async fn a_key_that_the_caller_may_only_read_is_not_written_nor_any_other() {
    let mut fixture = ScriptFixture::open().await;
    for call in calls() {
        let keys: BTreeSet<String> =
            fixture.keys(&call).into_iter().map(|key| String::from_utf8(key).unwrap()).collect();
        for denied in &keys {
            let mut rights = vec!["+@all".to_owned(), format!("%R~{denied}")];
            rights.extend(keys.iter().filter(|key| *key != denied).map(|key| format!("~{key}")));
            call_as_weak(&mut fixture, &call, &rights).await;
        }
    }
}

#[tokio::test]
async fn a_stream_at_the_end_of_its_ids_takes_all_events_of_a_call_or_none() {
    let mut fixture = ScriptFixture::open().await;
    let mut words = BTreeSet::new();
    for call in calls() {
        for last_digit in 0..=5 {
            fixture.stock().await;
            // An event of no SKU. The books do not balance with it, so only bytes are compared.
            let id = format!("{LAST_IDS}{last_digit}");
            fixture.run::<String>(cmd("XADD").arg("inventory:audit").arg(&id).arg("event").arg("planted")).await;
            let before = Snapshot::take(&mut fixture.redis).await;
            let entries = fixture.events().await;
            let answer = fixture.evalsha(&call).await;
            let changed = before.changed(&Snapshot::take(&mut fixture.redis).await);
            match answer {
                Err(refusal) => {
                    assert!(changed.is_empty(), "{call:?} changed {changed:?} and failed with {refusal:?}");
                    words.insert(refusal.word);
                }
                // A call with one event may succeed if one id is left.
                Ok(_) => assert!(fixture.events().await <= entries + 1, "{call:?}"),
            }
        }
    }
    assert!(words.contains("BADKEY"), "{words:?}");
}

#[tokio::test]
async fn a_counter_at_its_end_stops_the_call_before_it_writes() {
    let mut fixture = ScriptFixture::open().await;
    for call in calls() {
        for version in ["999999999800", "999999999801", "999999999999", "1000000000000"] {
            fixture.stock().await;
            for inventory in ["inventory:tea", "inventory:cup"] {
                fixture.run::<()>(cmd("HSET").arg(inventory).arg("version").arg(version)).await;
            }
            let before = Snapshot::take(&mut fixture.redis).await;
            if let Err(refusal) = fixture.evalsha(&call).await {
                let changed = before.changed(&Snapshot::take(&mut fixture.redis).await);
                assert!(changed.is_empty(), "{call:?} changed {changed:?} and failed with {refusal:?}");
                assert_eq!(refusal.word, "BADKEY", "{call:?}: {refusal:?}");
            }
        }
    }
}
