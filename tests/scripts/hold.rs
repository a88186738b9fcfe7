//! Holding: what `hold` does, besides its reply.

use crate::call::{LONG_MS, audit, confirm, hold, hold_with_metadata, line, repair, seed, sweep};
use crate::fixture::{ACTIVE, CONFIRMED, LAPSED, NEW, ScriptFixture, id};

#[tokio::test]
async fn moves_units_from_available_to_reserved() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    let reply = fixture.reply(&hold("each", &[line("tea", NEW).quantity(3).cart("cart-9")])).await;
    assert_eq!(fixture.counts("tea").await, [7, 3, 0]);

    let [expires, created] = [1, 2].map(|element: usize| reply[element].parse::<u64>().unwrap());
    assert_eq!(expires, created + LONG_MS);
    assert!(created.abs_diff(fixture.now_ms().await) < 60_000, "not the server's clock");
    let key = format!("reservation:{NEW}");
    assert_eq!(fixture.field(&key, "cartId").await, "cart-9");
    assert_eq!(fixture.field(&key, "expiresAt").await, reply[1]);
    assert_eq!(fixture.field(&key, "createdAt").await, reply[2]);
    assert_eq!(fixture.due("tea").await, Some(expires));
}

#[tokio::test]
async fn due_keeps_the_earliest_expiry() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    for (n, (ttl_ms, earliest)) in [(60_000, 0), (90_000, 0), (30_000, 2)].into_iter().enumerate() {
        fixture.replies(&hold("each", &[line("tea", &id(n)).ttl_ms(ttl_ms)])).await;
        let expires = fixture.field(&format!("reservation:{}", id(earliest)), "expiresAt").await;
        assert_eq!(fixture.due("tea").await, Some(expires.parse().unwrap()));
    }
}

#[tokio::test]
async fn counts_one_sku_down_through_a_call() {
    let three = [id(1), id(2), id(3)];
    let lines: Vec<_> = three.iter().map(|id| line("tea", id).quantity(4)).collect();
    for (mode, replies, counts) in [
        ("each", vec!["HELD", "HELD", "INSUFFICIENT"], [2, 8, 0]),
        ("all", vec!["WITHDRAWN", "WITHDRAWN", "INSUFFICIENT"], [10, 0, 0]),
    ] {
        let mut fixture = ScriptFixture::open().await;
        fixture.replies(&seed("tea", 10, &[])).await;
        let answer = fixture.replies(&hold(mode, &lines)).await;
        assert_eq!(answer.iter().map(|reply| &*reply[0]).collect::<Vec<_>>(), replies);
        assert_eq!(answer[2], ["INSUFFICIENT", "2", "0"]);
        assert_eq!(fixture.counts("tea").await, counts);
    }
}

#[tokio::test]
async fn a_smaller_item_still_fits_after_one_that_does_not() {
    let mut fixture = ScriptFixture::stocked().await;
    let (large, small) = (id(1), id(2));
    let lines = [line("tea", &large).quantity(7), line("tea", &small).quantity(6)];
    assert_eq!(fixture.words(&hold("each", &lines)).await, ["INSUFFICIENT", "HELD"]);
    assert_eq!(fixture.counts("tea").await, [0, 9, 1]);
}

#[tokio::test]
async fn takes_all_of_a_cart_or_nothing() {
    let mut fixture = ScriptFixture::stocked().await;
    let ids = [id(1), id(2)];
    let cart = |cups| [line("tea", &ids[0]).quantity(2), line("cup", &ids[1]).quantity(cups)];
    assert_eq!(fixture.words(&hold("all", &cart(5))).await, ["WITHDRAWN", "INSUFFICIENT"]);
    assert_eq!([fixture.counts("tea").await, fixture.counts("cup").await], [[6, 3, 1], [4, 1, 0]]);
    assert_eq!(fixture.words(&hold("all", &cart(4))).await, ["HELD", "HELD"]);
    assert_eq!([fixture.counts("tea").await, fixture.counts("cup").await], [[4, 5, 1], [0, 5, 0]]);
}

#[tokio::test]
async fn acts_once_on_an_id_named_twice() {
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let before = fixture.events().await;
        let twice = [line("tea", NEW).quantity(2), line("tea", NEW).quantity(2).ttl_ms(1)];
        let replies = fixture.replies(&hold(mode, &twice)).await;
        assert_eq!([&*replies[0][0], &*replies[1][0]], ["HELD", "REPLAYED"]);
        assert_eq!([&replies[1][6], &replies[1][7]], [&replies[0][1], &replies[0][2]], "the first expiry stands");
        assert_eq!(fixture.events().await, before + 1);
        assert_eq!(fixture.counts("tea").await, [4, 5, 1]);
    }
}

#[tokio::test]
async fn an_id_named_twice_with_different_values_is_a_conflict() {
    let different = [line("tea", NEW), line("tea", NEW).quantity(2)];
    let mut fixture = ScriptFixture::stocked().await;
    assert_eq!(fixture.replies(&hold("all", &different)).await[1], ["CONFLICT", "quantity"]);
    assert_eq!(fixture.counts("tea").await, [6, 3, 1]);
    assert_eq!(fixture.words(&hold("each", &different)).await, ["HELD", "CONFLICT"]);
    assert_eq!(fixture.counts("tea").await, [5, 4, 1]);
}

#[tokio::test]
async fn a_replay_of_a_withdrawn_item_is_withdrawn() {
    let mut fixture = ScriptFixture::stocked().await;
    let lines = [line("tea", NEW), line("tea", NEW), line("tea", ACTIVE).quantity(2), line("nil", CONFIRMED)];
    assert_eq!(fixture.words(&hold("all", &lines)).await, ["WITHDRAWN", "WITHDRAWN", "REPLAYED", "CONFLICT"]);
}

#[tokio::test]
async fn a_replay_shows_the_record_as_it_is_whatever_the_ttl() {
    let mut fixture = ScriptFixture::stocked().await;
    let expires = fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await;
    let reply = fixture.reply(&hold("each", &[line("tea", ACTIVE).quantity(2).ttl_ms(1)])).await;
    assert_eq!(reply[..7], ["REPLAYED", "cart-1", "tea", "2", "active", "", &expires]);
    let settled = fixture.reply(&hold("each", &[line("tea", CONFIRMED).ttl_ms(1)])).await;
    assert_eq!(settled[4], "confirmed");
}

#[tokio::test]
async fn a_lapsed_hold_keeps_its_units_until_it_is_swept() {
    let mut fixture = ScriptFixture::stocked().await;
    let too_many = hold("each", &[line("tea", NEW).quantity(7)]);
    assert_eq!(fixture.reply(&too_many).await, ["INSUFFICIENT", "6", "1"]);
    fixture.replies(&sweep("tea", &[LAPSED])).await;
    assert_eq!(fixture.words(&too_many).await, ["HELD"]);
}

/// The record keeps it for good, and the event of the hold tells it; no other event does.
#[tokio::test]
async fn metadata_is_kept_and_told() {
    const ORDER: &str = r#"{"order":"A-\"17\" größe","channel":"\u0061pp"}"#;
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    let other = id(1);
    let lines = [line("tea", NEW).quantity(3).metadata(ORDER), line("tea", &other)];
    assert_eq!(fixture.words(&hold_with_metadata("all", &lines)).await, ["HELD", "HELD"]);
    let [key, plain] = [NEW, &other].map(|id| format!("reservation:{id}"));
    assert_eq!(fixture.field(&key, "metadata").await, ORDER, "byte by byte");
    let kept: bool = fixture.run(redis::cmd("HEXISTS").arg(&plain).arg("metadata")).await;
    assert!(!kept);
    // The text decides, not what it means; and a plain hold is another request than one with metadata.
    for (metadata, word) in [(ORDER, "REPLAYED"), (r#"{"order":"A-18"}"#, "CONFLICT"), ("", "CONFLICT")] {
        let again = hold_with_metadata("each", &[line("tea", NEW).quantity(3).metadata(metadata)]);
        assert_eq!(fixture.words(&again).await, [word], "{metadata}");
    }
    assert_eq!(fixture.replies(&hold("each", &[line("tea", NEW).quantity(3)])).await, [["CONFLICT", "metadata"]]);
    assert_eq!(fixture.words(&hold("each", &[line("tea", &other)])).await, ["REPLAYED"]);

    fixture.replies(&confirm("each", &[("tea", NEW, "token")])).await;
    assert_eq!(fixture.field(&key, "metadata").await, ORDER);
    let events = fixture.replies(&audit("tea", 10, "")).await;
    let told: Vec<_> = events.iter().map(|event| (&*event[2], &*event[15])).collect();
    assert_eq!(told, [("confirm", ""), ("hold", ""), ("hold", ORDER), ("seed", "")]);
}

/// A record that is made again from its hold has its metadata again.
#[tokio::test]
async fn metadata_is_restored_with_its_record() {
    const ORDER: &str = r#"{"order":"A-17"}"#;
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    fixture.replies(&hold_with_metadata("each", &[line("tea", NEW).metadata(ORDER)])).await;
    let key = format!("reservation:{NEW}");
    let last = fixture.field("inventory:tea", "lastEvent").await;
    for damage in [&["DEL", &key][..], &["HSET", &key, "metadata", "{}"]] {
        fixture.run::<i64>(redis::cmd(damage[0]).arg(&damage[1..])).await;
        let version = fixture.field("inventory:tea", "version").await;
        let newest = fixture.field("inventory:tea", "lastEvent").await;
        let again = repair("tea", [&version, &newest, ""], [0; 3], &[(NEW, &last)]);
        assert_eq!(fixture.words(&again).await, ["REPAIRED"]);
        assert_eq!(fixture.field(&key, "metadata").await, ORDER);
    }
}
