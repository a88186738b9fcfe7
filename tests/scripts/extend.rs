//! Extending: what `extend` does, besides its replies.

use redis::cmd;

use crate::call::{LONG_MS, confirm, extend, hold, line, release, sweep};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, ScriptFixture, id};

const HOUR_MS: u64 = 3_600_000;
const THIRTY_DAYS_MS: u64 = 2_592_000_000;
/// Later than the first expiry of every hold of the fixture.
const LONGER_MS: u64 = 2 * LONG_MS;

impl ScriptFixture {
    /// Sets the longest time from a hold to the end of an extension, as the operator does.
    async fn extend_max_ms(&mut self, max_ms: impl ToString) {
        self.run::<()>(cmd("HSET").arg("stockhold:settings").arg("extendMaxMs").arg(max_ms.to_string())).await;
    }

    async fn number(&mut self, id: &str, field: &str) -> u64 {
        self.field(&format!("reservation:{id}"), field).await.parse().unwrap()
    }

    async fn score(&mut self, sku: &str, id: &str) -> u64 {
        self.run(cmd("ZSCORE").arg(format!("inventory:{sku}:active")).arg(id)).await
    }
}

#[tokio::test]
async fn the_time_begins_again_and_the_counts_stay() {
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let (created, due) = (fixture.number(ACTIVE, "createdAt").await, fixture.due("tea").await);
        let began = fixture.now_ms().await;
        let reply = fixture.reply(&extend(mode, &[("tea", ACTIVE, LONGER_MS)])).await;
        let (expires, updated) = (fixture.number(ACTIVE, "expiresAt").await, fixture.number(ACTIVE, "updatedAt").await);
        assert_eq!(expires, updated + LONGER_MS);
        assert!((began..=fixture.now_ms().await).contains(&updated));
        let times = [expires, created, updated].map(|time| time.to_string());
        assert_eq!(reply[..6], ["EXTENDED", "cart-1", "tea", "2", "active", ""]);
        assert_eq!(reply[6..], times);
        assert_eq!(fixture.score("tea", ACTIVE).await, expires);
        assert_eq!(fixture.due("tea").await, due, "a lower bound may stay");
        assert_eq!(fixture.counts("tea").await, [6, 3, 1]);
        assert_eq!(fixture.number(ACTIVE, "ttlMs").await, LONG_MS);
    }
}

#[tokio::test]
async fn an_expiry_is_never_brought_forward() {
    let mut fixture = ScriptFixture::stocked().await;
    let (expires, events) = (fixture.number(ACTIVE, "expiresAt").await, fixture.events().await);
    for ttl_ms in [1, LONG_MS / 2] {
        let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, ttl_ms)])).await;
        assert_eq!((&*reply[0], &*reply[6]), ("EXTENDED", &*expires.to_string()));
        assert_eq!(reply[7], reply[8], "it was not updated");
    }
    assert_eq!((fixture.number(ACTIVE, "expiresAt").await, fixture.events().await), (expires, events));
}

#[tokio::test]
async fn a_hold_outlives_its_first_expiry_and_is_sold() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&hold("each", &[line("cup", NEW).ttl_ms(300)])).await;
    let first = fixture.number(NEW, "expiresAt").await;
    assert_eq!(fixture.words(&extend("each", &[("cup", NEW, LONG_MS)])).await, ["EXTENDED"]);
    while fixture.now_ms().await <= first {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.reply(&sweep("cup", &[NEW])).await[..2], ["SWEPT", "0"]);
    assert_eq!(fixture.words(&confirm("each", &[("cup", NEW, "token")])).await, ["CONFIRMED"]);
    assert_eq!(fixture.number(NEW, "ttlMs").await, 300, "a repeat of its hold is recognized by it");
}

#[tokio::test]
async fn an_extended_hold_lapses_at_its_new_expiry() {
    for settle in [confirm, release] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.replies(&hold("each", &[line("cup", NEW).ttl_ms(300)])).await;
        assert_eq!(fixture.words(&extend("each", &[("cup", NEW, 320)])).await, ["EXTENDED"]);
        fixture.lapse(NEW).await;
        assert_eq!(fixture.words(&extend("each", &[("cup", NEW, LONG_MS)])).await, ["EXPIRED"]);
        assert_eq!(fixture.words(&settle("each", &[("cup", NEW, "")])).await, ["EXPIRED"]);
        assert_eq!(fixture.counts("cup").await, [4, 1, 0]);
    }
}

/// What has lapsed may be somebody else's by now.
#[tokio::test]
async fn what_has_lapsed_is_expired_and_never_revived() {
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let call = extend(mode, &[("tea", LAPSED, LONG_MS)]);
        for _ in 0..2 {
            assert_eq!(fixture.reply(&call).await, ["EXPIRED"]);
            assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
            assert_eq!(fixture.state(LAPSED).await, "released");
        }
        let mut fixture = ScriptFixture::stocked().await;
        fixture.replies(&sweep("tea", &[LAPSED])).await;
        assert_eq!(fixture.reply(&call).await, ["EXPIRED"], "both when this call expired it and when another did");
    }
}

#[tokio::test]
async fn a_sku_with_no_hold_left_is_not_polled() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&release("each", &[("tea", ACTIVE, "")])).await;
    assert_ne!(fixture.due("tea").await, None);
    fixture.replies(&extend("each", &[("tea", LAPSED, LONG_MS)])).await;
    assert_eq!(fixture.due("tea").await, None);
}

#[tokio::test]
async fn an_expired_record_is_kept_as_long_as_any_settled_one() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(500_000).await;
    fixture.replies(&extend("each", &[("tea", LAPSED, LONG_MS), ("tea", ACTIVE, LONGER_MS)])).await;
    let left: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{LAPSED}"))).await;
    assert!((440_000..=500_000).contains(&left), "{left}");
    let active: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{ACTIVE}"))).await;
    assert_eq!(active, -1, "a live record must not vanish with its units");
}

#[tokio::test]
async fn the_limit_counts_from_the_hold_and_is_an_hour_when_nothing_is_set() {
    let mut fixture = ScriptFixture::stocked().await;
    let created = fixture.number(ACTIVE, "createdAt").await;
    for _ in 0..2 {
        let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, HOUR_MS + 1)])).await;
        assert_eq!(reply, ["LIMITED", &(created + HOUR_MS).to_string()]);
        let nearly = extend("each", &[("tea", ACTIVE, HOUR_MS - 60_000)]);
        assert_eq!(fixture.words(&nearly).await, ["EXTENDED"], "an earlier extension does not move the limit");
    }
}

#[tokio::test]
async fn the_operator_decides_the_limit() {
    let mut fixture = ScriptFixture::stocked().await;
    let (created, first) = (fixture.number(ACTIVE, "createdAt").await, fixture.number(ACTIVE, "expiresAt").await);
    for (max_ms, ttl_ms, latest) in [
        (0, LONG_MS + 60_000, first),
        (LONG_MS - 1, LONG_MS + 60_000, first),
        (LONG_MS + 60_000, LONG_MS + 60_001, created + LONG_MS + 60_000),
        (THIRTY_DAYS_MS - 1, THIRTY_DAYS_MS, created + THIRTY_DAYS_MS - 1),
    ] {
        fixture.extend_max_ms(max_ms).await;
        let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, ttl_ms)])).await;
        assert_eq!(reply, ["LIMITED", &latest.to_string()], "with extendMaxMs {max_ms}");
        // What it has, it keeps.
        assert_eq!(fixture.words(&extend("each", &[("tea", ACTIVE, LONG_MS / 2)])).await, ["EXTENDED"]);
    }
    fixture.extend_max_ms(THIRTY_DAYS_MS).await;
    fixture.replies(&extend("each", &[("tea", ACTIVE, THIRTY_DAYS_MS - 60_000)])).await;
    let extended = fixture.number(ACTIVE, "expiresAt").await;
    fixture.extend_max_ms(0).await;
    let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, THIRTY_DAYS_MS)])).await;
    assert_eq!(reply, ["LIMITED", &extended.to_string()], "a lower limit takes no time back");
}

#[tokio::test]
async fn an_invalid_setting_is_refused() {
    for bad in ["", "x", "-1", "1e3", "2592000001", "07"] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.extend_max_ms(bad).await;
        let refusal = fixture.refusal(&extend("each", &[("tea", ACTIVE, LONG_MS)])).await;
        assert!(refusal.word == "BADKEY" && refusal.text.starts_with("settings: extendMaxMs"), "{bad:?}: {refusal:?}");
        // A script that needs no such setting still works.
        assert_eq!(fixture.words(&confirm("each", &[("tea", ACTIVE, "")])).await, ["CONFIRMED"]);
    }
}

#[tokio::test]
async fn extends_all_of_a_cart_or_nothing() {
    let mut fixture = ScriptFixture::stocked().await;
    let missing = id(1);
    let before = [fixture.number(ACTIVE, "expiresAt").await, fixture.number(CUP, "expiresAt").await];
    for last in [("cup", &*missing, LONG_MS), ("cup", CUP, THIRTY_DAYS_MS)] {
        let broken = [("tea", ACTIVE, LONGER_MS), ("tea", ACTIVE, 1), last];
        let words = fixture.words(&extend("all", &broken)).await;
        assert!(words[..2] == ["WITHDRAWN", "WITHDRAWN"] && words[2] != "WITHDRAWN", "{words:?}");
        assert_eq!([fixture.number(ACTIVE, "expiresAt").await, fixture.number(CUP, "expiresAt").await], before);
    }
    // What has lapsed is expired; the rest of the cart stays as it is.
    let lapsed = [("tea", ACTIVE, LONGER_MS), ("tea", LAPSED, LONGER_MS)];
    assert_eq!(fixture.words(&extend("all", &lapsed)).await, ["WITHDRAWN", "EXPIRED"]);
    assert_eq!(fixture.number(ACTIVE, "expiresAt").await, before[0]);
    assert_eq!(fixture.counts("tea").await, [7, 2, 1]);

    let cart = [("tea", ACTIVE, LONGER_MS), ("cup", CUP, LONGER_MS)];
    assert_eq!(fixture.words(&extend("all", &cart)).await, ["EXTENDED", "EXTENDED"]);
    assert!(
        fixture.number(ACTIVE, "expiresAt").await > before[0] && fixture.number(CUP, "expiresAt").await > before[1]
    );
}

#[tokio::test]
async fn a_reservation_named_twice_is_the_second_time_as_the_first_left_it() {
    for mode in ["each", "all"] {
        let mut fixture = ScriptFixture::stocked().await;
        let before = fixture.events().await;
        let items = [
            ("tea", ACTIVE, LONGER_MS),
            ("tea", ACTIVE, LONG_MS),
            ("tea", ACTIVE, LONGER_MS),
            ("tea", ACTIVE, HOUR_MS / 2),
        ];
        let replies = fixture.replies(&extend(mode, &items)).await;
        let expiries: Vec<u64> = replies.iter().map(|reply| reply[6].parse().unwrap()).collect();
        assert!(expiries[0] == expiries[1] && expiries[1] == expiries[2] && expiries[2] < expiries[3], "{replies:?}");
        assert_eq!(fixture.events().await, before + 2, "an event for each change");
        assert_eq!(fixture.score("tea", ACTIVE).await, expiries[3]);
        assert_eq!(fixture.number(ACTIVE, "ttlMs").await, LONG_MS);

        let twice = [("tea", LAPSED, LONG_MS), ("tea", LAPSED, LONG_MS)];
        assert_eq!(fixture.words(&extend(mode, &twice)).await, ["EXPIRED", "EXPIRED"]);
        assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
    }
}

#[tokio::test]
async fn the_first_time_is_kept_through_every_extension() {
    let mut fixture = ScriptFixture::stocked().await;
    for minutes in [11, 12, 13] {
        fixture.replies(&extend("each", &[("tea", ACTIVE, minutes * 60_000)])).await;
        assert_eq!(fixture.number(ACTIVE, "ttlMs").await, LONG_MS);
    }
    let reply = fixture.reply(&hold("each", &[line("tea", ACTIVE).quantity(2)])).await;
    assert_eq!(reply[0], "REPLAYED");
    assert_eq!(reply[6], fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await);
}

/// A member that somebody has taken out of the set is for a repair to put back: the count of members stays exact.
#[tokio::test]
async fn what_is_not_in_the_active_set_is_not_added_to_it() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("ZREM").arg("inventory:tea:active").arg(ACTIVE)).await;
    let reply = fixture.evalsha(&extend("each", &[("tea", ACTIVE, LONGER_MS)])).await.unwrap();
    assert_eq!(reply[0][0], "EXTENDED");
    let score: Option<u64> = fixture.run(cmd("ZSCORE").arg("inventory:tea:active").arg(ACTIVE)).await;
    assert_eq!(score, None);
}
