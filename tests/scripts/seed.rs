//! Seeding: what `seed` does, besides its reply.

use redis::cmd;

use crate::call::{LONG_MS, confirm, hold, line, release, seed, seed_under};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, NEWER, ScriptFixture, hold_many};
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

#[tokio::test]
async fn what_is_done_once_is_not_done_again() {
    let mut fixture = ScriptFixture::stocked().await;
    let call = seed_under(NEW, "tea", 4, &[ACTIVE, LAPSED]).once();
    let first = fixture.reply(&call).await;
    fixture.replies(&hold("each", &[line("tea", NEWER)])).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    // Whatever is listed, and also if the caller does not ask to remember it this time.
    for call in [call, seed_under(NEW, "tea", 4, &[NEWER]), seed_under(NEW, "tea", 4, &[]).once()] {
        let again = fixture.reply(&call).await;
        assert_eq!((&*again[0], &again[1..]), ("REPLAYED", &first[1..]), "what it left then");
    }
    assert_eq!(fixture.reply(&seed_under(NEW, "tea", 5, &[NEWER]).once()).await, ["CONFLICT", "quantity"]);
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
    assert_eq!(fixture.state(NEWER).await, "active");
}

#[tokio::test]
async fn a_seed_is_remembered_when_it_is_done_and_not_while_it_drains() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(500_000).await;
    let operation = format!("operation:{NEW}");
    assert_eq!(fixture.words(&seed_under(NEW, "tea", 4, &[ACTIVE]).once()).await, ["DRAINING"]);
    assert!(!fixture.run::<bool>(cmd("EXISTS").arg(&operation)).await);
    assert_eq!(fixture.words(&seed_under(NEW, "tea", 4, &[LAPSED]).once()).await, ["SEEDED"]);
    let left: i64 = fixture.run(cmd("PTTL").arg(&operation)).await;
    assert!((440_000..=500_000).contains(&left), "{left}");
    fixture.keep_ms(0).await;
    fixture.replies(&seed_under(NEWER, "tea", 4, &[]).once()).await;
    assert_eq!(fixture.run::<i64>(cmd("PTTL").arg(format!("operation:{NEWER}"))).await, -1, "with 0, forever");
}

#[tokio::test]
async fn without_once_every_seed_counts() {
    let mut fixture = ScriptFixture::stocked().await;
    for version in ["1", "2"] {
        assert_eq!(fixture.reply(&seed_under(NEW, "pot", 4, &[])).await[3], version);
    }
}
