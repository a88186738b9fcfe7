//! A value that breaks a rule is named and changes nothing: every slot of every script with every kind of wrong value.
//!
//! The slots and their names come from the headers. There is no other check than that of the scripts.

use redis::cmd;

use crate::bad_values::{bad_arguments, bad_keys};
use crate::call::{
    Call, LAST_EVENT, add, adjust, audit, audit_all, cart_hold, change_to, confirm, extend, hold, hold_with_metadata,
    inventory, line, release, release_part, repair, rules, seed, sell, set, sweep, take_back,
};
use crate::contract::Contract;
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, NEWER, ScriptFixture, id, stocking};

/// Metadata.
const ORDER: &str = r#"{"order":"A-17"}"#;

/// Longer than any hold of the fixture has left.
const LONGER_MS: u64 = 1_200_000;

#[tokio::test]
async fn an_argument_that_breaks_its_rule_is_named() {
    let mut fixture = ScriptFixture::stocked().await;
    for call in calls() {
        for slot in 0..call.args.len() {
            let (name, item) = Contract::of(call.script).arguments.at(slot, call.items());
            for value in bad_arguments(call.script, name) {
                let mut bad = call.clone();
                bad.args[slot] = value;
                assert_refused(&mut fixture, &bad, "BADARGS", name, item).await;
            }
        }
    }
}

#[tokio::test]
async fn a_key_whose_name_breaks_its_rule_is_named() {
    assert_bad_keys_refused("").await;
}

#[tokio::test]
async fn a_key_whose_name_breaks_its_rule_is_named_in_a_shard() {
    assert_bad_keys_refused("{7}:").await;
}

async fn assert_bad_keys_refused(prefix: &str) {
    let mut fixture = ScriptFixture::open_single().await;
    for call in stocking().map(|call| call.in_shard(prefix)) {
        fixture.replies(&call).await;
    }
    for call in calls() {
        let call = call.in_shard(prefix);
        for slot in 0..call.keys.len() {
            let (name, item) = Contract::of(call.script).keys.at(slot, call.items());
            for value in bad_keys(&call, slot, prefix) {
                let mut bad = call.clone();
                if name == "inventory" && !["audit", "return", "rules"].contains(&call.script) {
                    // The active set has the bad name too, so that nothing but the name is wrong.
                    bad.keys[slot + 1] = [&value[..], b":active"].concat();
                }
                bad.keys[slot] = value;
                assert_refused(&mut fixture, &bad, "BADKEY", name, item).await;
            }
        }
    }
}

#[tokio::test]
async fn one_call_is_on_one_shard() {
    let mut fixture = ScriptFixture::open_single().await;
    fixture.stock().await;
    for call in two_items() {
        let mut bad = call.clone();
        let second = Contract::of(call.script).keys.fixed.len() + 3;
        for key in &mut bad.keys[second..second + 3] {
            key.splice(0..0, *b"{7}:");
        }
        assert_refused(&mut fixture, &bad, "BADKEY", "inventory", Some(2)).await;
    }
}

/// The shard of a reservation can be told from its id: no script writes one elsewhere.
#[tokio::test]
async fn an_id_of_another_shard_is_refused_on_a_shard_and_taken_without() {
    let elsewhere = id(1).replacen("8007", "8008", 1);
    let calls = [
        seed("tea", 7, &[&elsewhere]),
        sweep("tea", &[&elsewhere]),
        repair("tea", ["", "", ""], [0; 3], &[(&elsewhere, "")]),
        confirm("each", &[("tea", &elsewhere, "")]),
        release("each", &[("tea", &elsewhere, "")]),
        extend("each", &[("tea", &elsewhere, LONGER_MS)]),
        sell("tea", &elsewhere, "", 0, ""),
        change_to("tea", &elsewhere, 3, ""),
        take_back("tea", &elsewhere, NEW, 1),
        cart_hold(NEW, &[("tea", NEW, 1)]).others(&[&elsewhere]).call(),
        cart_hold(NEW, &[("tea", &elsewhere, 1)]).call(),
        hold("each", &[line("tea", &elsewhere)]),
        hold_with_metadata("each", &[line("tea", &elsewhere).metadata(ORDER)]),
    ];
    // The id of an operation is not concerned.
    let operations = [
        adjust("each", &[add("tea", &elsewhere, 1).once()]),
        change_to("tea", ACTIVE, 3, &id(2).replace("8007", "8008")),
    ];
    let mut fixture = ScriptFixture::open_single().await;
    for prefix in ["", "{7}:"] {
        fixture.run::<()>(&cmd("FLUSHALL")).await;
        for call in stocking().into_iter().chain(operations.clone()).map(|call| call.in_shard(prefix)) {
            fixture.replies(&call).await;
        }
        for call in calls.iter().map(|call| call.clone().in_shard(prefix)) {
            if prefix.is_empty() {
                fixture.replies(&call).await;
                continue;
            }
            let refusal = fixture.refusal(&call).await;
            assert_eq!(refusal.word, "BADKEY", "{call:?}");
            assert!(refusal.text.ends_with(": its id is of another shard"), "{call:?}: {refusal:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_count_of_keys_or_arguments_is_refused() {
    let mut fixture = ScriptFixture::stocked().await;
    for call in calls() {
        let fits = |keys: usize| match call.script {
            "seed" => keys >= 7,
            // One argument for each reservation.
            "repair" => keys == call.keys.len(),
            "sweep" => keys >= 5,
            "cart_hold" => keys >= 5 + 3 * call.items(),
            // A cart may be named, and then others of its reservations.
            "change" => keys >= 7,
            "sell" => keys >= 6,
            "audit" => keys == 1 || keys == 2,
            _ => keys == call.keys.len(),
        };
        for count in (0..12).filter(|count| !fits(*count)) {
            let mut bad = call.clone();
            bad.keys.resize(count, b"reservation:".to_vec());
            assert_eq!(fixture.refusal(&bad).await.word, "BADARGS", "{bad:?}");
        }
        for count in (0..12).filter(|count| *count != call.args.len()) {
            let mut bad = call.clone();
            bad.args.resize(count, b"1".to_vec());
            // With fewer arguments, keys of an item are taken for others of the cart.
            let word = if call.script == "cart_hold" && count == 4 { "BADKEY" } else { "BADARGS" };
            assert_eq!(fixture.refusal(&bad).await.word, word, "{bad:?}");
        }
    }
}

#[tokio::test]
async fn a_call_takes_no_more_than_a_hundred_items() {
    let mut fixture = ScriptFixture::stocked().await;
    let ids: Vec<String> = (0..101).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let items: Vec<_> = ids.iter().map(|id| ("tea", *id, "")).collect();
    let longer: Vec<_> = ids.iter().map(|id| ("tea", *id, LONGER_MS)).collect();
    let lines: Vec<_> = ids.iter().map(|id| line("tea", id)).collect();
    let more: Vec<_> = ids.iter().map(|id| add("tea", id, 1)).collect();
    let unchanged: Vec<_> = ids.iter().map(|id| (*id, "")).collect();
    let skus: Vec<String> = (0..101).map(|number| format!("sku-{number}")).collect();
    let cart: Vec<_> = ids.iter().zip(&skus).map(|(id, sku)| (sku.as_str(), *id, 1)).collect();
    let mut calls = vec![seed("tea", 7, &ids), sweep("tea", &ids), repair("tea", ["", "", ""], [0; 3], &unchanged)];
    calls.extend([&cart[..], &[]].map(|cart| cart_hold(NEW, cart).call()));
    calls.push(cart_hold(NEW, &[("tea", NEW, 1)]).others(&ids).call());
    calls.push(change_to("tea", ACTIVE, 3, "").with_cart("cart-1", &ids));
    calls.push(sell("tea", ACTIVE, "", 1, "").with_cart("cart-1", &ids));
    for mode in ["each", "all"] {
        calls.extend([hold(mode, &lines), confirm(mode, &items), release(mode, &items), adjust(mode, &more)]);
        calls.extend([hold(mode, &[]), confirm(mode, &[]), release(mode, &[]), adjust(mode, &[])]);
        calls.extend([extend(mode, &longer), extend(mode, &[])]);
        calls.extend([hold_with_metadata(mode, &lines), hold_with_metadata(mode, &[])]);
    }
    for call in calls {
        assert_eq!(fixture.refusal(&call).await.word, "BADARGS", "{call:?}");
    }
}

/// What may be added may not all be set, and the other way round.
#[tokio::test]
async fn units_to_set_have_their_own_rule() {
    let mut fixture = ScriptFixture::stocked().await;
    for units in ["-1", "-0", "1000000001", "", "1.0", "+1"] {
        let call = adjust("each", &[set("tea", NEW, 0)]).with("units", units);
        assert_refused(&mut fixture, &call, "BADARGS", "units", Some(1)).await;
    }
    assert_eq!(fixture.words(&adjust("each", &[set("tea", NEW, 0)])).await, ["ADJUSTED"]);
}

/// Calls that succeed on the stocked fixture: only what a test puts into them is wrong.
fn calls() -> Vec<Call> {
    let mut calls = vec![
        seed("tea", 7, &[ACTIVE, LAPSED]),
        sweep("tea", &[LAPSED, ACTIVE]),
        repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, ""), (LAPSED, "")]),
        inventory("tea", 10),
        audit_all(10, ""),
        audit("tea", 10, ""),
        hold("each", &[line("tea", NEW)]),
        hold_with_metadata("each", &[line("tea", NEW).metadata(ORDER)]),
        confirm("each", &[("tea", ACTIVE, "token")]),
        release("each", &[("tea", ACTIVE, "token")]),
        extend("each", &[("tea", ACTIVE, LONGER_MS)]),
        adjust("each", &[add("tea", NEW, 1)]),
        cart_hold(NEW, &[("tea", NEW, 1)]).call(),
        take_back("tea", CONFIRMED, NEW, 1),
        sell("tea", ACTIVE, "token", 1, ""),
        sell("tea", LAPSED, "", 0, "reacquire"),
        change_to("tea", ACTIVE, 3, ""),
        release_part("tea", ACTIVE, 1, NEW),
        change_to("tea", ACTIVE, 3, "").with_cart("cart-1", &[CUP, CONFIRMED]),
        sell("tea", LAPSED, "", 0, "reacquire").with_cart("cart-1", &[CUP]),
        rules("tea", "4", "2", "900000"),
        repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[]).with("rules", "none"),
    ];
    calls.extend(two_items());
    calls
}

fn two_items() -> [Call; 7] {
    let items = [("tea", ACTIVE, "token"), ("cup", CUP, "")];
    let longer = [("tea", ACTIVE, LONGER_MS), ("cup", CUP, LONGER_MS)];
    [
        hold("all", &[line("tea", NEW), line("cup", NEWER)]),
        hold_with_metadata("all", &[line("tea", NEW), line("cup", NEWER).metadata(ORDER)]),
        confirm("all", &items),
        release("all", &items),
        extend("all", &longer),
        adjust("all", &[add("tea", NEW, 1).create().once().reason("found").if_version(7), add("cup", NEWER, 1)]),
        cart_hold(NEW, &[("tea", NEW, 1), ("cup", NEWER, 1)]).once().others(&[ACTIVE, CUP]).call(),
    ]
}

/// The text of the error begins with the slot's name, and with the item's number when there are several.
async fn assert_refused(fixture: &mut ScriptFixture, call: &Call, word: &str, name: &str, item: Option<usize>) {
    let refusal = fixture.refusal(call).await;
    assert_eq!(refusal.word, word, "{call:?}: {refusal:?}");
    let place = match (call.script, item) {
        (_, None) => format!("{name}:"),
        (_, Some(item)) if name == "other" => format!("{name} {item}:"),
        ("seed" | "sweep" | "repair", Some(item)) => format!("{name} {item}:"),
        (_, Some(item)) => format!("{name} of item {item}:"),
    };
    assert!(refusal.text.starts_with(&place), "{call:?}: {:?} does not name {place:?}", refusal.text);
}
