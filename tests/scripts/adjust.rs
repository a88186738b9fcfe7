//! Adjusting: what `adjust` does, besides its reply.

use redis::cmd;

use crate::call::{add, adjust, audit, confirm, hold, line, repair, set, sweep};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, NEWER, ScriptFixture, id};
use crate::support::snapshot::Snapshot;

#[tokio::test]
async fn units_come_and_go_and_what_is_held_or_sold_stays() {
    let mut fixture = ScriptFixture::stocked().await;
    let reply = fixture.reply(&adjust("each", &[add("tea", NEW, 10)])).await;
    assert_eq!((&reply[..4], &*reply[5]), (&["ADJUSTED", "16", "3", "1"].map(str::to_owned)[..], "8"));
    assert_eq!(reply[4], fixture.field("inventory:tea", "updatedAt").await);
    let reply = fixture.reply(&adjust("each", &[add("tea", NEW, -16)])).await;
    assert_eq!([&*reply[1], &*reply[5]], ["0", "9"]);
    assert_eq!(fixture.counts("tea").await, [0, 3, 1]);
    assert_eq!(fixture.state(ACTIVE).await, "active");
    assert_eq!(fixture.words(&confirm("each", &[("tea", ACTIVE, "")])).await, ["CONFIRMED"]);
}

#[tokio::test]
async fn the_audit_tells_how_many_came_or_went_and_why() {
    let mut fixture = ScriptFixture::stocked().await;
    for (item, told) in [
        (add("tea", NEW, 10).reason("delivery 4711"), ["10", "added", "delivery 4711", "16"]),
        (add("tea", NEW, -3), ["3", "removed", "", "13"]),
        (set("tea", NEW, 20), ["7", "added", "", "20"]),
        (set("tea", NEW, 5).reason("Inventur 📋"), ["15", "removed", "Inventur 📋", "5"]),
        // Somebody counted, and the count was right.
        (set("tea", NEW, 5), ["0", "added", "", "5"]),
    ] {
        fixture.replies(&adjust("each", &[item])).await;
        let event = fixture.reply(&audit("tea", 1, "")).await;
        assert_eq!([&*event[2], &*event[3], &*event[4]], ["adjust", "", ""]);
        assert_eq!([6, 7, 8, 10].map(|element: usize| &*event[element]), told);
    }
}

#[tokio::test]
async fn a_sku_that_was_never_seeded_comes_into_being_only_when_told_so() {
    let mut fixture = ScriptFixture::open().await;
    assert_eq!(fixture.words(&adjust("each", &[add("new", NEW, 5)])).await, ["UNKNOWN_SKU"]);
    let refused = fixture.reply(&adjust("each", &[add("new", NEW, 5).create().if_version(1)])).await;
    assert_eq!(refused, ["STALE", "0"]);
    assert_eq!(fixture.reply(&adjust("each", &[add("new", NEW, -1).create()])).await, ["INSUFFICIENT", "0", "0"]);
    let reply = fixture.reply(&adjust("each", &[add("new", NEW, 5).create().if_version(0)])).await;
    assert_eq!([&*reply[0], &*reply[1], &*reply[5]], ["ADJUSTED", "5", "1"]);
    assert_eq!(fixture.field("inventory:new", "sku").await, "new");
    assert_eq!(fixture.words(&hold("each", &[line("new", NEW).quantity(5)])).await, ["HELD"]);
    // `create` allows it and does not demand it.
    assert_eq!(fixture.words(&adjust("each", &[set("new", NEW, 0).create()])).await, ["ADJUSTED"]);
}

#[tokio::test]
async fn what_is_done_once_is_not_done_again() {
    let mut fixture = ScriptFixture::stocked().await;
    let call = adjust("each", &[add("tea", NEW, 10).reason("delivery").once()]);
    let first = fixture.reply(&call).await;
    fixture.replies(&hold("each", &[line("tea", &id(1)).quantity(5)])).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    for mode in ["each", "all"] {
        let again = fixture.reply(&adjust(mode, &[add("tea", NEW, 10).reason("delivery").once()])).await;
        assert_eq!((&*again[0], &again[1..]), ("REPLAYED", &first[1..]), "what it left then");
        // Also if the caller does not ask to remember it this time.
        let again = fixture.reply(&adjust(mode, &[add("tea", NEW, 10).reason("delivery")])).await;
        assert_eq!(again[0], "REPLAYED");
    }
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
}

#[tokio::test]
async fn without_once_every_call_counts() {
    let mut fixture = ScriptFixture::stocked().await;
    for available in ["7", "8"] {
        assert_eq!(fixture.reply(&adjust("each", &[add("tea", NEW, 1)])).await[1], available);
    }
}

#[tokio::test]
async fn another_adjustment_under_the_same_operation_is_a_conflict() {
    let mut fixture = ScriptFixture::stocked().await;
    let done = add("tea", NEW, 2).if_version(7).reason("a").once();
    fixture.replies(&adjust("each", &[done])).await;
    for (other, field) in [
        (add("cup", NEW, 2).if_version(7).reason("a"), "sku"),
        // The operation decides before the stock.
        (add("nil", NEW, 2).if_version(7).reason("a"), "sku"),
        (set("tea", NEW, 2).if_version(7).reason("a"), "how"),
        (add("tea", NEW, 3).if_version(7).reason("a"), "units"),
        (add("tea", NEW, 2).if_version(8).reason("a"), "ifVersion"),
        (add("tea", NEW, 2).reason("a"), "ifVersion"),
        (done.create(), "create"),
        (done.reason("b"), "reason"),
        (add("cup", NEW, 9).create(), "sku"),
    ] {
        for mode in ["each", "all"] {
            assert_eq!(fixture.reply(&adjust(mode, &[other.once()])).await, ["CONFLICT", field]);
        }
    }
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let mut fixture = ScriptFixture::stocked().await;
    let call = adjust("each", &[add("cup", NEW, -5).once()]);
    assert_eq!(fixture.reply(&call).await, ["INSUFFICIENT", "4", "0"]);
    fixture.replies(&adjust("each", &[add("cup", NEWER, 1)])).await;
    assert_eq!(fixture.words(&call).await, ["ADJUSTED"]);
}

#[tokio::test]
async fn an_operation_is_remembered_as_long_as_settled_reservations_are_kept() {
    let mut fixture = ScriptFixture::stocked().await;
    let left = async |fixture: &mut ScriptFixture, operation: &str| -> i64 {
        fixture.replies(&adjust("each", &[add("tea", operation, 1).once()])).await;
        fixture.run(cmd("PTTL").arg(format!("operation:{operation}"))).await
    };
    assert_eq!(left(&mut fixture, &id(1)).await, -1, "with 0, forever");
    fixture.keep_ms(500_000).await;
    let kept = left(&mut fixture, &id(2)).await;
    assert!((440_000..=500_000).contains(&kept), "{kept}");
    fixture.run::<()>(cmd("DEL").arg("stockhold:settings")).await;
    let kept = left(&mut fixture, &id(3)).await;
    assert!((2_591_000_000..=2_592_000_000).contains(&kept), "thirty days: {kept}");
}

#[tokio::test]
async fn the_units_of_lapsed_holds_can_be_swept_and_then_removed() {
    let mut fixture = ScriptFixture::stocked().await;
    let call = adjust("each", &[add("tea", NEW, -7)]);
    assert_eq!(fixture.reply(&call).await, ["INSUFFICIENT", "6", "1"]);
    fixture.replies(&sweep("tea", &[LAPSED])).await;
    assert_eq!(fixture.words(&call).await, ["ADJUSTED"]);
}

#[tokio::test]
async fn an_item_sees_what_the_items_before_it_leave() {
    let ids = [id(1), id(2), id(3), id(4)];
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let items = [
            add("cup", &ids[0], -4),
            set("cup", &ids[1], 9).if_version(3),
            add("new", &ids[2], 2).create(),
            add("new", &ids[3], -2).if_version(1).once(),
            add("new", &ids[3], -2).if_version(1).once(),
        ];
        let replies = fixture.replies(&adjust(mode, &items)).await;
        let words: Vec<_> = replies.iter().map(|reply| (&*reply[0], &*reply[1], &*reply[5])).collect();
        let expected = [("ADJUSTED", "0", "3"), ("ADJUSTED", "9", "4"), ("ADJUSTED", "2", "1"), ("ADJUSTED", "0", "2")];
        assert_eq!((&words[..4], words[4]), (&expected[..], ("REPLAYED", "0", "2")));
        assert_eq!([fixture.counts("cup").await, fixture.counts("new").await], [[9, 1, 0], [0, 0, 0]]);
    }
}

#[tokio::test]
async fn all_are_adjusted_or_none() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&adjust("each", &[add("tea", NEWER, 1).once()])).await;
    let (first, second) = (id(1), id(2));
    let items = [
        add("tea", &first, 5).once(),
        add("tea", &first, 5).once(),
        add("new", &second, 5).create(),
        add("tea", NEWER, 1).once(),
        add("cup", NEW, -5),
    ];
    let words = ["WITHDRAWN", "WITHDRAWN", "WITHDRAWN", "REPLAYED", "INSUFFICIENT"];
    assert_eq!(fixture.words(&adjust("all", &items)).await, words);
    assert_eq!(fixture.counts("tea").await, [7, 3, 1]);
    let words = ["ADJUSTED", "REPLAYED", "ADJUSTED", "REPLAYED", "INSUFFICIENT"];
    assert_eq!(fixture.words(&adjust("each", &items)).await, words);
    assert_eq!([fixture.counts("tea").await, fixture.counts("cup").await], [[12, 3, 1], [4, 1, 0]]);
}

#[tokio::test]
async fn a_sku_has_a_million_million_units_at_most() {
    const MOST: i64 = 1_000_000_000_000;
    let mut fixture = ScriptFixture::stocked().await;
    let seen = fixture.field("inventory:cup", "lastEvent").await;
    // Five are there, and one of them is held.
    fixture.replies(&repair("cup", ["2", &seen, ""], [MOST - 10, 0, 0], &[])).await;
    assert_eq!(fixture.reply(&adjust("each", &[add("cup", NEW, 6)])).await, ["EXCESSIVE"]);
    assert_eq!(fixture.words(&adjust("each", &[add("cup", NEW, 5)])).await, ["ADJUSTED"]);
    assert_eq!(fixture.reply(&adjust("each", &[add("cup", NEW, 1)])).await, ["EXCESSIVE"]);
    assert_eq!(fixture.words(&hold("each", &[line("cup", &id(1))])).await, ["HELD"]);
    assert_eq!(fixture.counts("cup").await, [MOST as u64 - 2, 2, 0]);
    assert_eq!(fixture.state(CUP).await, "active");
}
