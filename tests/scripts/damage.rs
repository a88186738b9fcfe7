//! A stored value that no script can have written is reported, and nothing is computed from it.

use redis::cmd;

use crate::call::{
    Call, LONG_MS, add, adjust, audit, cart_hold, change_to, confirm, extend, hold, inventory, line, release,
    release_part, rules, seed, seed_under, sell, sweep, take_back,
};
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, ScriptFixture, id};

/// Longer than any hold of the fixture has left.
const LONGER_MS: u64 = 2 * LONG_MS;

const NOT_COUNTS: [&str; 8] = ["", "x", "-1", "1.5", "1e1", "0x6", "06", "1000000000001"];
/// Those of an active reservation.
const RECORD_FIELDS: [&str; 6] = ["cartId", "sku", "quantity", "state", "expiresAt", "createdAt"];

#[tokio::test]
async fn damaged_stock_stops_every_script_that_counts_it() {
    let mut damages: Vec<Vec<&str>> = Vec::new();
    for field in ["available", "reserved", "confirmed", "seeded", "version"] {
        damages.extend(NOT_COUNTS.map(|value| vec!["HSET", "inventory:tea", field, value]));
    }
    for field in ["available", "reserved", "confirmed", "seeded"] {
        damages.push(vec!["HINCRBY", "inventory:tea", field, "1"]);
        damages.push(vec!["HINCRBY", "inventory:tea", field, "-1"]);
    }
    for field in ["available", "reserved", "confirmed", "seeded", "version", "lastEvent"] {
        damages.push(vec!["HDEL", "inventory:tea", field]);
    }
    damages.push(vec!["HSET", "inventory:tea", "version", "0"]);
    for rules in [
        "x",
        "perCart=4",
        "perCart=0 safetyStock= maxTtlMs=",
        "perCart= safetyStock=01 maxTtlMs=",
        "perCart= safetyStock= maxTtlMs=2592000001",
        "perCart= safetyStock= maxTtlMs=1 ",
        "safetyStock= perCart= maxTtlMs=1",
    ] {
        damages.push(vec!["HSET", "inventory:tea", "rules", rules]);
    }

    let mut calls = vec![seed("tea", 7, &[ACTIVE, LAPSED]), sweep("tea", &[LAPSED]), inventory("tea", 10)];
    calls.push(cart_hold(NEW, &[("cup", NEW, 1), ("tea", &id(1), 1)]).call());
    calls.push(take_back("tea", CONFIRMED, NEW, 1));
    calls.push(rules("tea", "", "", ""));
    for mode in ["each", "all"] {
        calls.push(hold(mode, &[line("cup", NEW), line("tea", &id(1))]));
        calls.push(adjust(mode, &[add("cup", NEW, 1), add("tea", &id(1), 1).create()]));
        calls.push(confirm(mode, &[("cup", CUP, ""), ("tea", ACTIVE, "")]));
        calls.push(release(mode, &[("cup", CUP, ""), ("tea", ACTIVE, "")]));
        calls.push(extend(mode, &[("cup", CUP, LONGER_MS), ("tea", ACTIVE, LONGER_MS)]));
    }
    assert_reported(&damages, &calls, "inventory").await;
}

#[tokio::test]
async fn a_damaged_record_stops_every_script_that_settles_it() {
    let key = format!("reservation:{LAPSED}");
    let mut damages: Vec<Vec<&str>> = RECORD_FIELDS.map(|field| vec!["HDEL", &key, field]).into();
    damages.extend(NOT_COUNTS.map(|value| vec!["HSET", &key, "quantity", value]));
    damages.extend(["", "x", "-1", "0", "1.5", "1e12"].map(|value| vec!["HSET", &key, "expiresAt", value]));
    damages.extend(["", "Active", "expired", "held"].map(|value| vec!["HSET", &key, "state", value]));
    damages.push(vec!["HSET", &key, "quantity", "0"]);
    damages.extend(["", "a\nb", "\u{85}"].map(|value| vec!["HSET", &key, "cartId", value]));
    // Settled, and never updated.
    damages.extend(["confirmed", "released"].map(|value| vec!["HSET", &key, "state", value]));

    let mut calls = vec![
        seed("tea", 7, &[ACTIVE, LAPSED]),
        sweep("tea", &[LAPSED]),
        sell("tea", LAPSED, "", 0, ""),
        sell("tea", LAPSED, "", 1, "reacquire"),
        change_to("tea", LAPSED, 2, ""),
        release_part("tea", LAPSED, 1, ""),
    ];
    for mode in ["each", "all"] {
        calls.push(confirm(mode, &[("tea", ACTIVE, ""), ("tea", LAPSED, "")]));
        calls.push(release(mode, &[("tea", ACTIVE, ""), ("tea", LAPSED, "")]));
        calls.push(extend(mode, &[("tea", ACTIVE, LONGER_MS), ("tea", LAPSED, LONGER_MS)]));
    }
    assert_reported(&damages, &calls, "reservation").await;
}

#[tokio::test]
async fn a_record_with_a_field_missing_is_not_replayed() {
    let key = format!("reservation:{LAPSED}");
    let damages = RECORD_FIELDS.map(|field| vec!["HDEL", &key, field]);
    let mut calls = ["each", "all"].map(|mode| hold(mode, &[line("tea", NEW), line("tea", LAPSED)])).to_vec();
    calls.push(cart_hold(NEW, &[("cup", NEW, 1), ("tea", LAPSED, 1)]).call());
    assert_reported(&damages, &calls, "reservation").await;
    let calls = [cart_hold(NEW, &[("cup", NEW, 1)]).others(&[ACTIVE, LAPSED]).call()];
    assert_reported(&damages, &calls, "other").await;
}

#[tokio::test]
async fn a_damaged_sale_is_not_returned() {
    let key = format!("reservation:{CONFIRMED}");
    let mut damages: Vec<Vec<&str>> = RECORD_FIELDS.map(|field| vec!["HDEL", &key, field]).into();
    damages.push(vec!["HDEL", &key, "updatedAt"]);
    damages.extend(["x", "", "0", "-1"].map(|value| vec!["HSET", &key, "updatedAt", value]));
    damages.extend(["x", "", "0", "-1", "1e12"].map(|value| vec!["HSET", &key, "returned", "1", "confirmedAt", value]));
    // What came back is between one unit and all of them, and the time of the sale is kept with it.
    damages.extend(["x", "", "0", "-1", "2"].map(|value| vec!["HSET", &key, "returned", value, "confirmedAt", "1"]));
    damages.push(vec!["HSET", &key, "returned", "1"]);
    damages.push(vec!["HSET", &key, "confirmedAt", "1"]);
    assert_reported(&damages, &[take_back("tea", CONFIRMED, NEW, 1)], "reservation").await;
    let damages = ["x", "-1", "1e3", "10000000000000"].map(|value| vec!["HSET", "inventory:tea", "seededAt", value]);
    assert_reported(&damages, &[take_back("tea", CONFIRMED, NEW, 1)], "inventory").await;
    assert_reported(&[vec!["DEL", "inventory:tea"]], &[take_back("tea", CONFIRMED, NEW, 1)], "inventory").await;
}

#[tokio::test]
async fn a_damaged_memory_of_a_return_is_not_replayed() {
    let mut fixture = ScriptFixture::open().await;
    let call = take_back("tea", CONFIRMED, NEW, 1).once();
    let key = format!("operation:{NEW}");
    let fields = ["sku", "reservationId", "confirmedAt", "quantity", "restock", "returned", "updatedAt"];
    let mut damages: Vec<Vec<&str>> = fields.map(|field| vec!["HDEL", &key, field]).into();
    damages.extend(["", "x", "-1"].map(|value| vec!["HSET", &key, "returned", value]));
    for damage in damages {
        fixture.stock().await;
        assert_eq!(fixture.words(&call).await, ["RETURNED"]);
        fixture.run::<redis::Value>(cmd(damage[0]).arg(&damage[1..])).await;
        let refusal = fixture.refusal(&call).await;
        assert!(refusal.word == "BADKEY" && refusal.text.starts_with("operation"), "{damage:?}: {refusal:?}");
    }
    // An operation is of one kind.
    fixture.stock().await;
    fixture.replies(&call).await;
    assert_eq!(fixture.refusal(&adjust("each", &[add("tea", NEW, 1)])).await.word, "BADKEY");
    fixture.stock().await;
    fixture.replies(&adjust("each", &[add("tea", NEW, 1).once()])).await;
    assert_eq!(fixture.refusal(&call).await.word, "BADKEY");
}

#[tokio::test]
async fn a_damaged_memory_of_an_operation_is_not_replayed() {
    const ASKED: [&str; 6] = ["sku", "how", "units", "ifVersion", "create", "reason"];
    const LEFT: [&str; 5] = ["available", "reserved", "confirmed", "updatedAt", "version"];
    let mut damages: Vec<Vec<&str>> =
        ASKED.into_iter().chain(LEFT).map(|field| vec!["HDEL", "operation:ID", field]).collect();
    for field in LEFT {
        damages.extend(["", "x", "-1", "1.5", "1e1", "06"].map(|value| vec!["HSET", "operation:ID", field, value]));
    }
    let mut fixture = ScriptFixture::open().await;
    for damage in damages {
        fixture.stock().await;
        let call = adjust("each", &[add("tea", &id(1), 1).once()]);
        assert_eq!(fixture.words(&call).await, ["ADJUSTED"]);
        let key = damage[1].replace("ID", &id(1));
        fixture.run::<redis::Value>(cmd(damage[0]).arg(&key).arg(&damage[2..])).await;
        for mode in ["each", "all"] {
            let refusal = fixture.refusal(&adjust(mode, &[add("cup", NEW, 1), add("tea", &id(1), 1).once()])).await;
            assert_eq!(refusal.word, "BADKEY", "{damage:?}: {refusal:?}");
            assert!(refusal.text.starts_with("operation"), "{damage:?}: {refusal:?}");
        }
    }
}

/// An operation of another kind is no change, and the other way round.
#[tokio::test]
async fn a_damaged_memory_of_a_change_is_not_replayed() {
    let mut fixture = ScriptFixture::open().await;
    for field in ["sku", "reservationId", "how", "quantity", "updatedAt"] {
        fixture.stock().await;
        let call = change_to("tea", ACTIVE, 3, NEW);
        assert_eq!(fixture.words(&call).await, ["CHANGED"]);
        fixture.run::<i64>(cmd("HDEL").arg(format!("operation:{NEW}")).arg(field)).await;
        assert!(fixture.refusal(&call).await.text.starts_with("operation"), "without {field}");
    }
    let change = change_to("tea", ACTIVE, 3, NEW);
    let others = [
        adjust("each", &[add("tea", NEW, 1).once()]),
        take_back("tea", CONFIRMED, NEW, 1).once(),
        seed_under(NEW, "new", 3, &[]).once(),
    ];
    for other in others {
        for [first, second] in [[&change, &other], [&other, &change]] {
            fixture.stock().await;
            fixture.replies(first).await;
            assert_eq!(fixture.refusal(second).await.word, "BADKEY", "{second:?} after {first:?}");
        }
    }
}

#[tokio::test]
async fn a_damaged_memory_of_a_cart_is_not_replayed() {
    let mut damages: Vec<Vec<&str>> =
        ["cartId", "items", "updatedAt"].into_iter().map(|field| vec!["HDEL", "operation:ID", field]).collect();
    damages.extend(["", "x", "-1", "06"].map(|value| vec!["HSET", "operation:ID", "updatedAt", value]));
    let mut fixture = ScriptFixture::open().await;
    let operation = id(1);
    let lines = [("tea", NEW, 1)];
    let call = cart_hold(&operation, &lines).once().call();
    for damage in damages {
        fixture.stock().await;
        assert_eq!(fixture.words(&call).await, ["HELD"]);
        let key = damage[1].replace("ID", &operation);
        fixture.run::<redis::Value>(cmd(damage[0]).arg(&key).arg(&damage[2..])).await;
        let refusal = fixture.evalsha(&call).await.unwrap_err();
        assert_eq!(
            (&*refusal.word, refusal.text.starts_with("operation")),
            ("BADKEY", true),
            "{damage:?}: {refusal:?}"
        );
    }
    // An operation is of one kind.
    fixture.stock().await;
    assert_eq!(fixture.words(&adjust("each", &[add("tea", &operation, 1).once()])).await, ["ADJUSTED"]);
    assert_eq!(fixture.refusal(&call).await.word, "BADKEY");
    fixture.stock().await;
    assert_eq!(fixture.words(&call).await, ["HELD"]);
    assert_eq!(fixture.refusal(&adjust("each", &[add("tea", &operation, 1).once()])).await.word, "BADKEY");
}

#[tokio::test]
async fn a_record_of_more_units_than_are_reserved_is_not_settled() {
    let key = format!("reservation:{LAPSED}");
    let damages = [vec!["HSET", &key, "quantity", "4"]];
    let mut calls = vec![seed("tea", 7, &[LAPSED]), sweep("tea", &[LAPSED]), change_to("tea", LAPSED, 1, "")];
    calls.extend(["", "reacquire"].map(|if_expired| sell("tea", LAPSED, "", 0, if_expired)));
    for mode in ["each", "all"] {
        calls.push(confirm(mode, &[("cup", CUP, ""), ("tea", LAPSED, "")]));
        calls.push(release(mode, &[("cup", CUP, ""), ("tea", LAPSED, "")]));
        calls.push(extend(mode, &[("cup", CUP, LONGER_MS), ("tea", LAPSED, 1)]));
    }
    assert_reported(&damages, &calls, "inventory").await;
}

#[tokio::test]
async fn a_record_of_a_vanished_sku_is_not_settled() {
    let damages = [vec!["DEL", "inventory:tea"]];
    let mut calls = vec![seed("tea", 7, &[ACTIVE]), adjust("each", &[add("tea", NEW, 1).create()])];
    calls.extend([change_to("tea", ACTIVE, 3, ""), release_part("tea", ACTIVE, 1, ""), sell("tea", ACTIVE, "", 1, "")]);
    for mode in ["each", "all"] {
        calls.push(confirm(mode, &[("cup", CUP, ""), ("tea", ACTIVE, "")]));
        calls.push(release(mode, &[("cup", CUP, ""), ("tea", ACTIVE, "")]));
        calls.push(extend(mode, &[("cup", CUP, LONGER_MS), ("tea", ACTIVE, LONGER_MS)]));
    }
    assert_reported(&damages, &calls, "inventory").await;
}

/// The limit counts from then.
#[tokio::test]
async fn a_record_without_the_time_of_its_hold_is_not_extended() {
    let key = format!("reservation:{ACTIVE}");
    let damages = ["", "x", "-1", "0", "1e12"].map(|value| vec!["HSET", &key, "createdAt", value]);
    let calls = ["each", "all"].map(|mode| extend(mode, &[("cup", CUP, LONGER_MS), ("tea", ACTIVE, LONGER_MS)]));
    assert_reported(&damages, &calls, "reservation").await;
}

#[tokio::test]
async fn a_last_event_that_is_no_id_is_not_followed() {
    let damages = ["x", "-", "1-x"].map(|value| vec!["HSET", "inventory:tea", "lastEvent", value]);
    assert_reported(&damages, &[audit("tea", 10, "")], "inventory").await;
}

/// After each damage alone on the stocked fixture, each call answers `BADKEY` and changes nothing.
async fn assert_reported(damages: &[Vec<&str>], calls: &[Call], slot: &str) {
    let mut fixture = ScriptFixture::open().await;
    for damage in damages {
        fixture.stock().await;
        fixture.run::<redis::Value>(cmd(damage[0]).arg(&damage[1..])).await;
        for call in calls {
            let refusal = fixture.refusal(call).await;
            assert_eq!(refusal.word, "BADKEY", "{call:?} after {damage:?}: {refusal:?}");
            assert!(refusal.text.starts_with(slot), "{call:?} after {damage:?}: {refusal:?}");
        }
    }
}
