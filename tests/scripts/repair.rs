//! Repair: what it repairs, what it records, and when it refuses.

use redis::cmd;

use crate::call::{LAST_EVENT, LONG_MS, add, adjust, confirm, hold, line, release, repair, seed};
use crate::fixture::{ACTIVE, CONFIRMED, CUP, NEW, ScriptFixture, id};

async fn newest(fixture: &mut ScriptFixture) -> String {
    fixture.field("inventory:tea", "lastEvent").await
}

#[tokio::test]
async fn a_vanished_record_is_made_again_from_its_event() {
    let mut fixture = ScriptFixture::stocked().await;
    let expires = fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await;
    fixture.run::<()>(cmd("DEL").arg(format!("reservation:{ACTIVE}"))).await;
    let event = format!("{LAST_EVENT}:{ACTIVE}");
    let reply = fixture.reply(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, &event)])).await;
    assert_eq!(reply, ["REPAIRED", "1", "6", "3", "1", "8"]);
    assert_eq!(fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await, expires);
    assert_eq!(fixture.words(&confirm("each", &[("tea", ACTIVE, "")])).await, ["CONFIRMED"]);
}

/// The time at which it would have lapsed is lost: it lapses now, in the usual way.
#[tokio::test]
async fn a_hold_whose_expiry_is_lost_lapses_at_once() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("DEL").arg(format!("reservation:{ACTIVE}"))).await;
    fixture.run::<()>(cmd("ZREM").arg("inventory:tea:active").arg(ACTIVE)).await;
    let event = format!("{LAST_EVENT}:{ACTIVE}");
    fixture.reply(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, &event)])).await;
    fixture.lapse(ACTIVE).await;
    assert_eq!(fixture.words(&confirm("each", &[("tea", ACTIVE, "")])).await, ["EXPIRED"]);
    assert_eq!(fixture.counts("tea").await, [8, 1, 1]);
}

#[tokio::test]
async fn a_settled_record_keeps_its_token_and_its_times() {
    let mut fixture = ScriptFixture::stocked().await;
    let record = format!("reservation:{CONFIRMED}");
    let created = fixture.field(&record, "createdAt").await;
    fixture.run::<()>(cmd("HSET").arg(&record).arg(&["state", "active", "quantity", "x"])).await;
    let event = format!("{LAST_EVENT}:{CONFIRMED}");
    fixture.keep_ms(60_000).await;
    fixture.reply(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(CONFIRMED, &event)])).await;
    assert_eq!(fixture.field(&record, "createdAt").await, created);
    assert_eq!(fixture.words(&confirm("each", &[("tea", CONFIRMED, "token")])).await, ["REPLAYED"]);
    let left: i64 = fixture.run(cmd("PTTL").arg(&record)).await;
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn moving_the_counts_keeps_later_changes() {
    let mut fixture = ScriptFixture::stocked().await;
    // Three units too many, which no event records.
    fixture.run::<()>(cmd("HINCRBY").arg("inventory:tea").arg("available").arg(3)).await;
    fixture.run::<()>(cmd("HINCRBY").arg("inventory:tea").arg("seeded").arg(3)).await;
    let seen = newest(&mut fixture).await;
    for n in 0..1000 {
        let reservation = id(n);
        fixture.evalsha(&hold("each", &[line("tea", &reservation)])).await.unwrap();
        fixture.evalsha(&release("each", &[("tea", &reservation, "")])).await.unwrap();
        if n == 2 {
            fixture.evalsha(&hold("each", &[line("tea", NEW)])).await.unwrap();
            let reply = fixture.evalsha(&repair("tea", ["7", &seen, ""], [-3, 0, 0], &[])).await.unwrap();
            assert_eq!(reply[0], ["REPAIRED", "1", "5", "4", "1", "15"]);
            // It is done once: a second caller that found the same damage is too late.
            let reply = fixture.evalsha(&repair("tea", ["7", &seen, ""], [-3, 0, 0], &[])).await.unwrap();
            assert_eq!(reply[0], ["STALE"]);
        }
    }
    assert_eq!(fixture.counts("tea").await, [5, 4, 1]);
}

#[tokio::test]
async fn it_looks_through_a_thousand_events_and_no_more() {
    let mut fixture = ScriptFixture::stocked().await;
    let seen = newest(&mut fixture).await;
    for n in 0..500 {
        let reservation = id(n);
        fixture.evalsha(&hold("each", &[line("tea", &reservation)])).await.unwrap();
        fixture.evalsha(&release("each", &[("tea", &reservation, "")])).await.unwrap();
    }
    let call = repair("tea", ["7", &seen, ""], [1, 0, 0], &[]);
    fixture.evalsha(&hold("each", &[line("tea", NEW)])).await.unwrap();
    assert_eq!(fixture.reply(&call).await, ["STALE"]);
    let seen = fixture.run::<Vec<(String, Vec<String>)>>(cmd("XREVRANGE").arg(&["inventory:audit", "+", "-"])).await;
    let call = repair("tea", ["8", &seen[1000].0, ""], [1, 0, 0], &[]);
    assert_eq!(fixture.evalsha(&call).await.unwrap()[0][0], "REPAIRED");
}

#[tokio::test]
async fn a_seed_or_a_settlement_since_makes_a_repair_stale() {
    for since in [seed("cup", 5, &[CUP]), release("each", &[("cup", CUP, "")])] {
        let mut fixture = ScriptFixture::stocked().await;
        let seen = fixture.field("inventory:cup", "lastEvent").await;
        let event: Vec<(String, Vec<String>)> =
            fixture.run(cmd("XRANGE").arg(&["inventory:audit", &seen, &seen])).await;
        fixture.reply(&since).await;
        let call = repair("cup", ["2", &seen, ""], [0; 3], &[(CUP, &event[0].0)]);
        assert_eq!(fixture.reply(&call).await, ["STALE"], "{since:?}");
    }
}

/// When the damage was found, the SKU was gone. Its units must not be added to those of a new one.
#[tokio::test]
async fn a_sku_that_came_into_being_since_makes_a_repair_stale() {
    for since in [seed("new", 5, &[]), adjust("each", &[add("new", NEW, 5).create()])] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.reply(&since).await;
        assert_eq!(fixture.reply(&repair("new", ["", "", ""], [5, 0, 0], &[])).await, ["STALE"], "{since:?}");
    }
}

#[tokio::test]
async fn an_event_of_another_reservation_or_sku_is_refused() {
    let mut fixture = ScriptFixture::stocked().await;
    let event = format!("{LAST_EVENT}:{CONFIRMED}");
    let refusal = fixture.refusal(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, &event)])).await;
    assert_eq!(refusal.word, "BADARGS", "{refusal:?}");
    let event = format!("{LAST_EVENT}:{CUP}");
    assert_eq!(fixture.reply(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(CUP, &event)])).await, ["STALE"]);
    let twice = [(ACTIVE, ""), (ACTIVE, "")];
    assert_eq!(fixture.refusal(&repair("tea", ["", "", ""], [0; 3], &twice)).await.word, "BADKEY");
}

const FAR_MS: u64 = 9_000_000_000_000;

impl ScriptFixture {
    /// Makes a hold look as if a clock that was ahead had made it: held for ten minutes, far in the future.
    async fn hold_far_ahead(&mut self, sku: &str, id: &str) {
        let (record, active) = (format!("reservation:{id}"), format!("inventory:{sku}:active"));
        let expires = FAR_MS + LONG_MS;
        self.run::<()>(cmd("HSET").arg(record).arg("createdAt").arg(FAR_MS).arg("expiresAt").arg(expires)).await;
        self.run::<()>(cmd("ZADD").arg(active).arg(expires).arg(id)).await;
        self.run::<()>(cmd("ZADD").arg("stockhold:due").arg(expires).arg(sku)).await;
    }

    async fn times(&mut self, id: &str) -> [u64; 2] {
        self.run(cmd("HMGET").arg(format!("reservation:{id}")).arg(&["createdAt", "expiresAt"])).await
    }
}

#[tokio::test]
async fn the_ttl_of_a_hold_by_a_clock_that_was_ahead_begins_now() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.hold_far_ahead("cup", CUP).await;
    let before = fixture.now_ms().await;
    let reply = fixture.evalsha(&repair("cup", ["", "", ""], [0; 3], &[(CUP, "")])).await.unwrap();
    assert_eq!(reply[0], ["REPAIRED", "1", "4", "1", "0", "3"]);
    let [created, expires] = fixture.times(CUP).await;
    assert_eq!(expires, created + LONG_MS);
    assert!((before..=fixture.now_ms().await).contains(&created));
    assert_eq!(fixture.due("cup").await, Some(expires));
    // There is nothing more to repair, and a hold that was made at the right time is not changed.
    for (sku, id) in [("cup", CUP), ("tea", ACTIVE)] {
        let kept = fixture.times(id).await;
        let reply = fixture.evalsha(&repair(sku, ["", "", ""], [0; 3], &[(id, "")])).await.unwrap();
        assert_eq!((&*reply[0][1], fixture.times(id).await), ("0", kept));
    }
}

#[tokio::test]
async fn no_hold_lasts_longer_than_thirty_days_after_it_was_made() {
    const LONGEST_MS: u64 = 30 * 24 * 60 * 60 * 1000;
    for event in ["", &format!("{LAST_EVENT}:{ACTIVE}")] {
        let mut fixture = ScriptFixture::stocked().await;
        let [created, _] = fixture.times(ACTIVE).await;
        fixture.run::<()>(cmd("HSET").arg(format!("reservation:{ACTIVE}")).arg("expiresAt").arg(FAR_MS)).await;
        fixture.run::<()>(cmd("ZADD").arg("inventory:tea:active").arg(FAR_MS).arg(ACTIVE)).await;
        fixture.reply(&repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, event)])).await;
        assert_eq!(fixture.times(ACTIVE).await, [created, created + LONGEST_MS], "{event}");
    }
}

/// The record was dropped, and its id was used again for another SKU: the events of the first SKU no longer describe
/// it.
#[tokio::test]
async fn a_reservation_that_now_belongs_to_another_sku_is_left_alone() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.reply(&release("each", &[("tea", ACTIVE, "")])).await;
    let event = newest(&mut fixture).await;
    fixture.run::<()>(cmd("DEL").arg(format!("reservation:{ACTIVE}"))).await;
    fixture.reply(&hold("each", &[line("cup", ACTIVE)])).await;
    for settled in [false, true] {
        if settled {
            fixture.reply(&confirm("each", &[("cup", ACTIVE, "")])).await;
        }
        assert_eq!(fixture.reply(&repair("tea", ["8", &event, ""], [0; 3], &[(ACTIVE, &event)])).await, ["STALE"]);
    }
}
