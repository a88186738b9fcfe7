//! A key of the wrong type stops a script before it writes anything: Redis does not undo writes.

use redis::cmd;

use crate::call::{
    Call, add, adjust, audit, audit_all, cart_hold, change_to, confirm, extend, hold, inventory, line, release,
    release_part, repair, rules, seed, sell, sweep, take_back, write_off,
};
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, ScriptFixture, id};

#[tokio::test]
async fn a_wrong_type_on_any_key_stops_the_script_before_it_writes() {
    let mut fixture = ScriptFixture::open().await;
    for call in calls() {
        for slot in 0..call.keys.len() {
            for plant in [["SET", "planted"], ["RPUSH", "planted"]] {
                fixture.stock().await;
                fixture.run::<()>(cmd("DEL").arg(&call.keys[slot])).await;
                fixture.run::<()>(cmd(plant[0]).arg(&call.keys[slot]).arg(plant[1])).await;
                let refusal = fixture.refusal(&call).await;
                assert_eq!(refusal.word, "WRONGTYPE", "{} with KEYS[{}] planted: {refusal:?}", call.script, slot + 1);
            }
        }
    }
}

/// Calls that succeed on the stocked fixture, with one item and with items of two SKUs: they write every key that they
/// touch.
fn calls() -> Vec<Call> {
    let other = id(1);
    let mut calls = vec![
        seed("new", 7, &[]),
        seed("cup", 7, &[CUP]),
        seed("tea", 7, &[ACTIVE, LAPSED]),
        seed("cup", 7, &[CUP]).once(),
        sweep("tea", &[LAPSED]),
        sweep("tea", &[LAPSED, ACTIVE]),
        repair("tea", ["", "", ""], [0; 3], &[(ACTIVE, "")]),
        sell("tea", ACTIVE, "token", 1, ""),
        sell("tea", LAPSED, "token", 1, "reacquire"),
        change_to("tea", ACTIVE, 3, &other),
        release_part("tea", ACTIVE, 2, ""),
        change_to("tea", ACTIVE, 3, "").with_cart("cart-1", &[CUP, CONFIRMED]),
        sell("tea", LAPSED, "", 0, "reacquire").with_cart("cart-1", &[CUP]),
        rules("tea", "4", "", ""),
        inventory("tea", 10),
        audit_all(10, ""),
        audit("tea", 10, ""),
        cart_hold(NEW, &[("tea", NEW, 1)]).call(),
        cart_hold(NEW, &[("tea", NEW, 1), ("cup", &other, 1)]).once().others(&[ACTIVE, CUP]).call(),
        take_back("tea", CONFIRMED, NEW, 1).once(),
        write_off("tea", CONFIRMED, NEW, 1),
    ];
    for mode in ["each", "all"] {
        calls.push(hold(mode, &[line("tea", NEW)]));
        calls.push(adjust(mode, &[add("tea", NEW, 1)]));
        calls.push(adjust(mode, &[add("tea", NEW, -1).once(), add("new", &other, 1).create().once()]));
        calls.push(hold(mode, &[line("tea", NEW), line("cup", &other)]));
        calls.push(extend(mode, &[("tea", ACTIVE, 1_200_000)]));
        calls.push(extend(mode, &[("tea", ACTIVE, 1_200_000), ("cup", CUP, 1_200_000)]));
        for settle in [confirm, release] {
            calls.push(settle(mode, &[("tea", ACTIVE, "")]));
            calls.push(settle(mode, &[("tea", ACTIVE, "token"), ("cup", CUP, "token")]));
        }
    }
    calls
}
