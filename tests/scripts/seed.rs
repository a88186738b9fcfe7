//! Seeding: what `seed` does, besides its reply.

use redis::cmd;

use crate::call::{LONG_MS, confirm, hold, line, release, seed};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, ScriptFixture, hold_many};
use crate::support::snapshot::Snapshot;

#[tokio::test]
async fn makes_all_of_the_quantity_available() {
    let mut fixture = ScriptFixture::open().await;
    let reply = fixture.reply(&seed("tea", 10, &[])).await;
    assert_eq!([&*reply[1], &*reply[3]], ["10", "1"]);
    assert_eq!(reply[2], fixture.field("inventory:tea", "updatedAt").await);
    assert_eq!(fixture.counts("tea").await, [10, 0, 0]);
}

#[tokio::test]
async fn starts_anew_over_what_was_sold() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&confirm("each", &[("tea", ACTIVE, "")])).await;
    fixture.replies(&release("each", &[("tea", LAPSED, "")])).await;
    let before: u64 = fixture.field("inventory:tea", "version").await.parse().unwrap();
    let reply = fixture.reply(&seed("tea", 4, &[])).await;
    assert_eq!(reply[3], (before + 1).to_string(), "no gap in the versions, and no draining of nothing");
    assert_eq!(fixture.counts("tea").await, [4, 0, 0]);
    assert_eq!(fixture.due("tea").await, None);
}

#[tokio::test]
async fn releases_the_holds_that_it_is_given() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(500_000).await;
    let call = seed("tea", 4, &[ACTIVE, LAPSED, ACTIVE]);
    assert_eq!(fixture.words(&call).await, ["SEEDED"]);
    for id in [ACTIVE, LAPSED] {
        let key = format!("reservation:{id}");
        assert_eq!(fixture.field(&key, "state").await, "released");
        assert_eq!(fixture.field(&key, "reason").await, "inventory_reseeded");
        let left: i64 = fixture.run(cmd("PTTL").arg(&key)).await;
        assert!((440_000..=500_000).contains(&left), "{left}");
    }
    assert_eq!(fixture.counts("tea").await, [4, 0, 0]);
    assert_eq!(fixture.due("tea").await, None);
}

#[tokio::test]
async fn drains_before_it_counts_anew() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    let ids = hold_many(&mut fixture, "tea", 3, LONG_MS).await;
    assert_eq!(fixture.reply(&seed("tea", 4, &[&ids[0]])).await, ["DRAINING", "2"]);
    assert_eq!(fixture.counts("tea").await, [0, 2, 0]);
    assert_eq!(fixture.reply(&hold("each", &[line("tea", NEW)])).await, ["INSUFFICIENT", "0", "0"]);

    // A live hold may still be settled meanwhile, and units that come back are not sold.
    fixture.replies(&release("each", &[("tea", &ids[1], "")])).await;
    assert_eq!(fixture.counts("tea").await, [1, 1, 0]);
    assert_eq!(fixture.reply(&seed("tea", 4, &[])).await, ["DRAINING", "1"]);
    assert_eq!(fixture.counts("tea").await, [0, 1, 0]);

    assert_eq!(fixture.words(&seed("tea", 4, &[&ids[2]])).await, ["SEEDED"]);
    assert_eq!(fixture.counts("tea").await, [4, 0, 0]);
    assert_eq!(fixture.words(&hold("each", &[line("tea", NEW)])).await, ["HELD"]);
}

#[tokio::test]
async fn waiting_for_holds_that_are_not_listed_leaves_no_further_event() {
    let mut fixture = ScriptFixture::stocked().await;
    assert_eq!(fixture.reply(&seed("tea", 4, &[])).await, ["DRAINING", "2"]);
    let before = Snapshot::take(&mut fixture.redis).await;
    assert_eq!(fixture.reply(&seed("tea", 4, &[])).await, ["DRAINING", "2"]);
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
}

#[tokio::test]
async fn skips_the_holds_of_others_and_drops_strays() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("ZADD").arg("inventory:tea:active").arg(1).arg(NEW).arg(1).arg(CUP)).await;
    assert_eq!(fixture.words(&seed("tea", 4, &[NEW, CUP, ACTIVE, LAPSED])).await, ["SEEDED"]);
    assert_eq!(fixture.state(CUP).await, "active");
    assert_eq!(fixture.counts("cup").await, [4, 1, 0]);
}
