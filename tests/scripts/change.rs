//! Changing: what `change` does, besides its reply.

use redis::cmd;

use crate::call::{LONG_MS, audit, change_to, confirm, extend, hold, line, release_part, repair, seed, sweep};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, NEWER, ScriptFixture, id};
use crate::support::snapshot::Snapshot;

impl ScriptFixture {
    async fn has(&mut self, id: &str, field: &str) -> bool {
        self.run(cmd("HEXISTS").arg(format!("reservation:{id}")).arg(field)).await
    }

    async fn kept_at_first(&mut self, id: &str) -> String {
        self.field(&format!("reservation:{id}"), "initialQuantity").await
    }
}

#[tokio::test]
async fn it_holds_more_or_fewer_and_lapses_as_before() {
    let mut fixture = ScriptFixture::stocked().await;
    let key = format!("reservation:{ACTIVE}");
    let (expires, due) = (fixture.field(&key, "expiresAt").await, fixture.due("tea").await);
    for (quantity, counts) in [(5, [3, 6, 1]), (1, [7, 2, 1]), (8, [0, 9, 1])] {
        let began = fixture.now_ms().await;
        let reply = fixture.reply(&change_to("tea", ACTIVE, quantity, "")).await;
        assert_eq!(reply[..6], ["CHANGED", "cart-1", "tea", &quantity.to_string(), "active", ""]);
        assert_eq!(reply[6], expires);
        let updated: u64 = reply[8].parse().unwrap();
        assert!((began..=fixture.now_ms().await).contains(&updated));
        assert_eq!(fixture.field(&key, "updatedAt").await, reply[8]);
        assert_eq!(fixture.counts("tea").await, counts);
        assert_eq!(fixture.kept_at_first(ACTIVE).await, "2", "through every change");
    }
    let score: String = fixture.run(cmd("ZSCORE").arg("inventory:tea:active").arg(ACTIVE)).await;
    assert_eq!((score, fixture.due("tea").await), (expires, due));
    assert_eq!(fixture.reply(&confirm("each", &[("tea", ACTIVE, "")])).await[3], "8");
    assert_eq!(fixture.counts("tea").await, [0, 1, 9]);
}

#[tokio::test]
async fn the_audit_tells_how_many_units_are_held_from_now_on() {
    let mut fixture = ScriptFixture::stocked().await;
    for (call, told) in [
        (change_to("tea", ACTIVE, 5, ""), ["change", ACTIVE, "5", "active", ""]),
        (release_part("tea", ACTIVE, 3, ""), ["change", ACTIVE, "2", "active", "partial_release"]),
        (change_to("tea", ACTIVE, 1, ""), ["change", ACTIVE, "1", "active", ""]),
        (release_part("tea", ACTIVE, 1, ""), ["release", ACTIVE, "1", "released", "manual_release"]),
    ] {
        fixture.replies(&call).await;
        let event = fixture.reply(&audit("tea", 1, "")).await;
        assert_eq!([2, 3, 6, 7, 8].map(|element: usize| &*event[element]), told);
    }
    assert!(!fixture.has(ACTIVE, "token").await);
    assert_eq!(fixture.field(&format!("reservation:{ACTIVE}"), "reason").await, "manual_release");
}

/// A repeat of the hold asks for what was asked then, and not for what it was changed to.
#[tokio::test]
async fn a_hold_is_recognized_by_the_quantity_that_it_asked_for() {
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let of = |quantity| hold(mode, &[line("tea", ACTIVE).quantity(quantity)]);
        fixture.replies(&change_to("tea", ACTIVE, 5, "")).await;
        assert_eq!(fixture.reply(&of(2)).await[..4], ["REPLAYED", "cart-1", "tea", "5"]);
        for other in [1, 5, 6] {
            assert_eq!(fixture.reply(&of(other)).await, ["CONFLICT", "quantity"], "{other}");
        }
        fixture.replies(&confirm("each", &[("tea", ACTIVE, "")])).await;
        assert_eq!(fixture.words(&of(2)).await, ["REPLAYED"]);
        assert_eq!(fixture.words(&of(5)).await, ["CONFLICT"]);
    }
}

#[tokio::test]
async fn the_same_quantity_again_writes_nothing() {
    let mut fixture = ScriptFixture::stocked().await;
    let before = Snapshot::take(&mut fixture.redis).await;
    let reply = fixture.reply(&change_to("tea", ACTIVE, 2, "")).await;
    assert_eq!((&*reply[0], &*reply[3]), ("CHANGED", "2"));
    assert_eq!(before.changed(&Snapshot::take(&mut fixture.redis).await), Vec::<String>::new());
    // Also of the operation, only that it was done.
    fixture.replies(&change_to("tea", ACTIVE, 2, NEW)).await;
    let changed = before.changed(&Snapshot::take(&mut fixture.redis).await);
    assert_eq!(changed, [fixture.key(&format!("operation:{NEW}"))]);
    fixture.replies(&change_to("tea", ACTIVE, 4, "")).await;
    assert_eq!(fixture.reply(&change_to("tea", ACTIVE, 2, NEW)).await[..4], ["REPLAYED", "cart-1", "tea", "4"]);
}

#[tokio::test]
async fn units_go_back_once_under_an_operation_and_each_time_without() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&change_to("tea", ACTIVE, 6, "")).await;
    let once = release_part("tea", ACTIVE, 2, NEW);
    assert_eq!(fixture.reply(&once).await[..4], ["CHANGED", "cart-1", "tea", "4"]);
    assert_eq!(fixture.reply(&once).await[..4], ["REPLAYED", "cart-1", "tea", "4"]);
    for left in ["2", "0"] {
        let reply = fixture.reply(&release_part("tea", ACTIVE, 2, "")).await;
        let expected =
            if left == "0" { ["RELEASED", "cart-1", "tea", "2"] } else { ["CHANGED", "cart-1", "tea", left] };
        assert_eq!(reply[..4], expected);
    }
    // What it is now, whatever it was then.
    assert_eq!(fixture.reply(&once).await[..5], ["REPLAYED", "cart-1", "tea", "2", "released"]);
    assert_eq!(fixture.counts("tea").await, [8, 1, 1]);
}

#[tokio::test]
async fn the_last_units_that_go_back_end_it_once() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(500_000).await;
    let all = release_part("cup", CUP, 1, NEW);
    assert_eq!(fixture.words(&all).await, ["RELEASED"]);
    assert_eq!(fixture.words(&all).await, ["REPLAYED"]);
    assert_eq!(fixture.counts("cup").await, [5, 0, 0]);
    assert_eq!(fixture.due("cup").await, None, "nothing is left to poll for");
    for key in [format!("reservation:{CUP}"), format!("operation:{NEW}")] {
        let left: i64 = fixture.run(cmd("PTTL").arg(&key)).await;
        assert!((440_000..=500_000).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn another_change_under_the_same_operation_is_a_conflict() {
    let mut fixture = ScriptFixture::stocked().await;
    let other = id(1);
    fixture.replies(&hold("each", &[line("tea", &other).quantity(2)])).await;
    fixture.replies(&release_part("tea", ACTIVE, 1, NEW)).await;
    for (call, field) in [
        (release_part("cup", CUP, 1, NEW), "sku"),
        (release_part("tea", &other, 1, NEW), "reservationId"),
        (change_to("tea", ACTIVE, 1, NEW), "how"),
        (release_part("tea", ACTIVE, 2, NEW), "quantity"),
    ] {
        assert_eq!(fixture.reply(&call).await, ["CONFLICT", field]);
    }
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let mut fixture = ScriptFixture::stocked().await;
    let too_many = change_to("tea", ACTIVE, 9, NEW);
    assert_eq!(fixture.reply(&too_many).await, ["INSUFFICIENT", "6", "1"]);
    assert_eq!(fixture.reply(&release_part("tea", ACTIVE, 3, NEWER)).await, ["EXCEEDS", "2"]);
    // The units of the lapsed hold, when it is swept.
    fixture.replies(&sweep("tea", &[LAPSED])).await;
    assert_eq!(fixture.words(&too_many).await, ["CHANGED"]);
    assert_eq!(fixture.counts("tea").await, [0, 9, 1]);
    assert_eq!(fixture.words(&release_part("tea", ACTIVE, 3, NEWER)).await, ["CHANGED"]);
}

#[tokio::test]
async fn what_has_lapsed_is_expired_and_never_changed() {
    for call in [change_to("tea", LAPSED, 1, NEW), change_to("tea", LAPSED, 5, ""), release_part("tea", LAPSED, 1, NEW)]
    {
        let mut fixture = ScriptFixture::stocked().await;
        for _ in 0..2 {
            assert_eq!(fixture.reply(&call).await, ["EXPIRED"]);
            assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
        }
        assert_eq!(fixture.reply(&audit("tea", 1, "")).await[2], "expired");
        let remembered: bool = fixture.run(cmd("EXISTS").arg(format!("operation:{NEW}"))).await;
        assert!(!remembered, "it may be asked again");
        let mut fixture = ScriptFixture::stocked().await;
        fixture.replies(&sweep("tea", &[LAPSED])).await;
        assert_eq!(fixture.reply(&call).await, ["EXPIRED"], "both when this call expired it and when another did");
    }
}

#[tokio::test]
async fn what_is_changed_lapses_or_is_drained_with_all_its_units() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&hold("each", &[line("cup", NEW).ttl_ms(300)])).await;
    fixture.replies(&change_to("cup", NEW, 3, "")).await;
    fixture.lapse(NEW).await;
    fixture.replies(&sweep("cup", &[NEW])).await;
    assert_eq!(fixture.counts("cup").await, [4, 1, 0]);
    fixture.replies(&change_to("cup", CUP, 5, "")).await;
    fixture.replies(&seed("cup", 7, &[CUP])).await;
    assert_eq!(fixture.counts("cup").await, [7, 0, 0]);
}

#[tokio::test]
async fn an_extension_and_a_change_leave_each_other_alone() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&extend("each", &[("tea", ACTIVE, 2 * LONG_MS)])).await;
    fixture.replies(&change_to("tea", ACTIVE, 3, "")).await;
    let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, 3 * LONG_MS)])).await;
    assert_eq!((&*reply[0], &*reply[3]), ("EXTENDED", "3"));
    assert_eq!(fixture.field(&format!("reservation:{ACTIVE}"), "ttlMs").await, LONG_MS.to_string());
    assert_eq!(fixture.words(&hold("each", &[line("tea", ACTIVE).quantity(2)])).await, ["REPLAYED"]);
}

#[tokio::test]
async fn a_record_that_was_changed_is_made_again_from_its_last_event() {
    let key = format!("reservation:{ACTIVE}");
    for (damage, kept) in [
        (&["HSET", &*key, "quantity", "7"][..], true),
        (&["HSET", &*key, "initialQuantity", "x"], false),
        (&["DEL", &*key], false),
    ] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.replies(&release_part("tea", ACTIVE, 1, "")).await;
        let updated = fixture.field(&key, "updatedAt").await;
        let last = fixture.field("inventory:tea", "lastEvent").await;
        fixture.run::<i64>(cmd(damage[0]).arg(&damage[1..])).await;
        let again = repair("tea", ["8", &last, ""], [0; 3], &[(ACTIVE, &last)]);
        assert_eq!(fixture.words(&again).await, ["REPAIRED"], "{damage:?}");
        assert_eq!(fixture.field(&key, "quantity").await, "1", "{damage:?}");
        assert_eq!(fixture.field(&key, "updatedAt").await, updated, "{damage:?}");
        assert!(!fixture.has(ACTIVE, "reason").await, "the audit alone tells it");
        assert_eq!(fixture.has(ACTIVE, "initialQuantity").await, kept, "{damage:?}");
    }
}

/// An id whose record was dropped has a new life, with nothing of the one before.
#[tokio::test]
async fn a_hold_that_was_never_changed_has_no_first_quantity() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&change_to("tea", ACTIVE, 2, "")).await;
    assert!(!fixture.has(ACTIVE, "initialQuantity").await);
    assert!(!fixture.has(CUP, "initialQuantity").await);
}
