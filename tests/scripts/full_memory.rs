//! When memory is full, no new hold is made, and existing holds can still be extended, changed, settled and read.

use redis::cmd;

use crate::call::{
    add, adjust, audit, audit_all, cart_hold, change_to, confirm, extend, hold, inventory, line, release, release_part,
    repair, rules, seed, sell, sweep, take_back,
};
use crate::contract::Contract;
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, ScriptFixture};

async fn full() -> ScriptFixture {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    fixture
}

#[tokio::test]
async fn extending_changing_settling_sweeping_and_reading_go_on() {
    for mode in ["each", "all"] {
        let mut fixture = full().await;
        let calls = [
            (extend(mode, &[("tea", ACTIVE, 1_200_000)]), vec!["EXTENDED"]),
            (change_to("tea", ACTIVE, 3, ACTIVE), vec!["CHANGED"]),
            (release_part("tea", ACTIVE, 2, ""), vec!["CHANGED"]),
            (confirm(mode, &[("tea", ACTIVE, "token")]), vec!["CONFIRMED"]),
            (release(mode, &[("cup", CUP, "token")]), vec!["RELEASED"]),
            (sweep("tea", &[LAPSED]), vec!["SWEPT"]),
            (sell("tea", LAPSED, "token", 0, "reacquire"), vec!["CONFIRMED"]),
            (take_back("tea", CONFIRMED, NEW, 1).once(), vec!["RETURNED"]),
            (repair("tea", ["", "", ""], [0; 3], &[]), vec!["REPAIRED"]),
            (inventory("tea", 10), vec!["STOCK"]),
            (audit("cup", 10, ""), vec!["EVENT"; 3]),
            (audit_all(1, ""), vec!["EVENT"]),
        ];
        for (call, words) in calls {
            assert_eq!(fixture.words(&call).await, words);
        }
    }
}

#[tokio::test]
async fn holding_seeding_adjusting_and_new_rules_are_refused() {
    let mut fixture = full().await;
    let holds = ["each", "all"].map(|mode| hold(mode, &[line("tea", NEW)]));
    let cart = cart_hold(NEW, &[("tea", NEW, 1)]).call();
    let others = [cart, seed("new", 7, &[]), adjust("each", &[add("tea", NEW, -1)]), rules("tea", "", "", "")];
    for call in holds.into_iter().chain(others) {
        assert_eq!(fixture.refusal(&call).await.word, "OOM", "{call:?}");
    }
}

#[tokio::test]
async fn a_script_that_reads_cannot_write() {
    let mut fixture = ScriptFixture::open().await;
    for (name, contract) in Contract::all() {
        let flags = contract.source.lines().next().unwrap();
        let body = format!("{flags}\nreturn redis.call('SET', KEYS[1], 'written')");
        let mut command = cmd("EVAL");
        let written = command.arg(body).arg(1).arg("key").query_async::<()>(&mut fixture.redis).await.is_ok();
        assert_eq!(written, !["audit", "inventory"].contains(&name), "{name}");
    }
}
