//! Sweeping: what `sweep` does, besides its reply.

use redis::cmd;

use crate::call::{release, sweep};
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, RELEASED, ScriptFixture};
use crate::support::snapshot::Snapshot;

#[tokio::test]
async fn returns_the_units_of_due_holds() {
    let mut fixture = ScriptFixture::stocked().await;
    let next = fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await;
    assert_eq!(fixture.reply(&sweep("tea", &[LAPSED])).await, ["SWEPT", "1", &next]);
    assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
    let key = format!("reservation:{LAPSED}");
    assert_eq!(fixture.field(&key, "state").await, "released");
    assert_eq!(fixture.field(&key, "reason").await, "reservation_ttl_elapsed");
}

#[tokio::test]
async fn skips_holds_that_are_not_due_not_active_or_not_its_own() {
    let mut fixture = ScriptFixture::stocked().await;
    let reply = fixture.reply(&sweep("tea", &[ACTIVE, CONFIRMED, RELEASED, CUP, NEW])).await;
    assert_eq!(reply[1], "0");
    for (id, state) in [(ACTIVE, "active"), (CONFIRMED, "confirmed"), (RELEASED, "released"), (CUP, "active")] {
        assert_eq!(fixture.state(id).await, state);
    }
    assert_eq!([fixture.counts("tea").await, fixture.counts("cup").await], [[6, 3, 1], [4, 1, 0]]);
}

#[tokio::test]
async fn an_id_named_twice_is_expired_once() {
    let mut fixture = ScriptFixture::stocked().await;
    assert_eq!(fixture.reply(&sweep("tea", &[LAPSED, LAPSED])).await[1], "1");
    assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
}

#[tokio::test]
async fn a_second_sweep_changes_nothing() {
    let mut fixture = ScriptFixture::stocked().await;
    let call = sweep("tea", &[LAPSED, ACTIVE, CUP]);
    fixture.replies(&call).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    assert_eq!(fixture.reply(&call).await[1], "0");
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
}

#[tokio::test]
async fn due_becomes_exact() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&release("each", &[("tea", LAPSED, "")])).await;
    let exact = fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await.parse().unwrap();
    assert!(fixture.due("tea").await.unwrap() < exact, "a lower bound, left by what lapsed");
    fixture.replies(&sweep("tea", &[])).await;
    assert_eq!(fixture.due("tea").await, Some(exact));
    fixture.run::<()>(cmd("ZREM").arg("stockhold:due").arg("tea")).await;
    fixture.replies(&sweep("tea", &[])).await;
    assert_eq!(fixture.due("tea").await, Some(exact), "found again when it was lost");
}

#[tokio::test]
async fn a_sku_with_no_hold_left_is_not_polled() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&release("each", &[("tea", ACTIVE, "")])).await;
    assert_eq!(fixture.reply(&sweep("tea", &[LAPSED])).await, ["SWEPT", "1", ""]);
    assert_eq!(fixture.due("tea").await, None);
    fixture.run::<()>(cmd("ZADD").arg("stockhold:due").arg(1).arg("tea")).await;
    assert_eq!(fixture.reply(&sweep("tea", &[])).await, ["SWEPT", "0", ""]);
    assert_eq!(fixture.due("tea").await, None, "nor when it is polled without need");
}

#[tokio::test]
async fn strays_leave_the_active_set() {
    let mut fixture = ScriptFixture::stocked().await;
    for stray in [CONFIRMED, RELEASED, CUP, NEW] {
        fixture.run::<()>(cmd("ZADD").arg("inventory:tea:active").arg(1).arg(stray)).await;
    }
    let reply = fixture.reply(&sweep("tea", &[CONFIRMED, RELEASED, CUP, NEW, LAPSED])).await;
    assert_eq!(reply[1], "1");
    let active: Vec<String> = fixture.run(cmd("ZRANGE").arg("inventory:tea:active").arg(0).arg(-1)).await;
    assert_eq!(active, [ACTIVE]);
}

#[tokio::test]
async fn keep_ms_is_how_long_an_expired_record_stays() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(500_000).await;
    fixture.replies(&sweep("tea", &[LAPSED, ACTIVE])).await;
    let left: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{LAPSED}"))).await;
    assert!((440_000..=500_000).contains(&left), "{left}");
}
