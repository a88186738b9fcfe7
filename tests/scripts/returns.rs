//! Returning: what `return` does, besides its reply.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::cmd;
use tokio::time::sleep;

use crate::call::{Call, LAST_EVENT, LONG_MS, audit, confirm, hold, line, repair, seed, take_back, write_off};
use crate::fixture::{CONFIRMED, NEW, NEWER, ScriptFixture};
use crate::support::snapshot::Snapshot;

/// A sale of 5 of the 10 `tea`.
const SOLD: &str = "00000000-0000-8007-8000-0000000000ab";

async fn sold() -> ScriptFixture {
    let mut fixture = ScriptFixture::open().await;
    fixture.keep_ms(0).await;
    let sale = [hold("each", &[line("tea", SOLD).quantity(5)]), confirm("each", &[("tea", SOLD, "token")])];
    fixture.replies(&seed("tea", 10, &[])).await;
    // A sale in the millisecond of a seed counts as one before it.
    sleep(Duration::from_millis(2)).await;
    for call in &sale {
        fixture.replies(call).await;
    }
    fixture
}

/// The units, the state and the reason of the newest event, and the counts after it.
async fn told(fixture: &mut ScriptFixture) -> (String, [u64; 3]) {
    let event = fixture.reply(&audit("tea", 1, "")).await;
    assert_eq!([&*event[2], &*event[3], &*event[4]], ["return", SOLD, "cart-1"]);
    (event[6..9].join(" "), [10, 11, 12].map(|element: usize| event[element].parse().unwrap()))
}

async fn sum(fixture: &mut ScriptFixture) -> String {
    fixture.field("inventory:tea", "seeded").await
}

#[tokio::test]
async fn what_comes_back_is_on_sale_again_or_leaves_the_books() {
    let mut fixture = sold().await;
    fixture.replies(&take_back("tea", SOLD, NEW, 2)).await;
    assert_eq!(told(&mut fixture).await, ("2 confirmed restocked".to_owned(), [7, 0, 3]));
    assert_eq!(sum(&mut fixture).await, "10");
    fixture.replies(&write_off("tea", SOLD, NEW, 1)).await;
    assert_eq!(told(&mut fixture).await, ("1 confirmed written_off".to_owned(), [7, 0, 2]));
    assert_eq!(sum(&mut fixture).await, "9");
    assert_eq!(fixture.words(&hold("each", &[line("tea", NEW).quantity(7)])).await, ["HELD"]);
}

#[tokio::test]
async fn never_more_comes_back_than_was_sold() {
    let mut fixture = sold().await;
    for (units, left) in [(6, "5"), (1_000_000_000, "5")] {
        assert_eq!(fixture.reply(&take_back("tea", SOLD, NEW, units)).await, ["EXCEEDS", left]);
    }
    for returned in ["2", "4"] {
        assert_eq!(fixture.reply(&take_back("tea", SOLD, NEW, 2)).await[9], returned);
    }
    assert_eq!(fixture.reply(&write_off("tea", SOLD, NEW, 2)).await, ["EXCEEDS", "1"]);
    assert_eq!(fixture.reply(&write_off("tea", SOLD, NEW, 1)).await[9], "5");
    assert_eq!(fixture.reply(&take_back("tea", SOLD, NEW, 1)).await, ["EXCEEDS", "0"]);
    assert_eq!(fixture.counts("tea").await, [9, 0, 0]);
}

#[tokio::test]
async fn the_record_tells_what_came_back_and_when_it_was_sold() {
    let mut fixture = sold().await;
    let record = format!("reservation:{SOLD}");
    let sold_at = fixture.field(&record, "updatedAt").await;
    for returned in ["1", "2"] {
        sleep(Duration::from_millis(2)).await;
        let reply = fixture.reply(&take_back("tea", SOLD, NEW, 1)).await;
        let updated = fixture.field(&record, "updatedAt").await;
        assert_eq!([&reply[8], &reply[9]], [&updated, returned]);
        assert!(updated > sold_at);
        assert_eq!(fixture.field(&record, "returned").await, returned);
        assert_eq!(fixture.field(&record, "confirmedAt").await, sold_at);
        // A repeat of the sale shows it as it is now.
        let again = fixture.reply(&confirm("each", &[("tea", SOLD, "token")])).await;
        assert_eq!([&*again[0], &*again[3], &*again[8]], ["REPLAYED", "5", &*updated]);
    }
}

#[tokio::test]
async fn a_seed_has_not_counted_what_was_sold_before() {
    for (call, reason, counts) in [
        (take_back("tea", SOLD, NEW, 2), "2 confirmed restocked_after_seed", [9, 0, 0]),
        (write_off("tea", SOLD, NEW, 2), "2 confirmed written_off_after_seed", [7, 0, 0]),
    ] {
        let mut fixture = sold().await;
        fixture.replies(&seed("tea", 7, &[])).await;
        assert_eq!(fixture.field("inventory:tea", "seededAt").await, fixture.field("inventory:tea", "updatedAt").await);
        // Also after a first return, which moved the time of the record.
        for turn in 0..2 {
            let counts = [7 + (counts[0] - 7) * (turn + 1), 0, 0];
            fixture.replies(&call).await;
            assert_eq!(told(&mut fixture).await, (reason.to_owned(), counts));
            assert_eq!(sum(&mut fixture).await, counts[0].to_string());
        }
    }
}

#[tokio::test]
async fn a_sale_after_the_seed_is_not_paid_for_by_a_sale_before() {
    let mut fixture = sold().await;
    fixture.replies(&seed("tea", 7, &[])).await;
    sleep(Duration::from_millis(2)).await;
    fixture.replies(&hold("each", &[line("tea", NEW).quantity(4)])).await;
    fixture.replies(&confirm("each", &[("tea", NEW, "")])).await;
    fixture.replies(&take_back("tea", SOLD, NEW, 5)).await;
    assert_eq!(fixture.counts("tea").await, [8, 0, 4]);
    fixture.replies(&take_back("tea", NEW, NEW, 4)).await;
    assert_eq!(fixture.counts("tea").await, [12, 0, 0]);
}

/// A drain alone counts nothing anew.
#[tokio::test]
async fn a_seed_that_has_not_ended_changes_nothing_about_earlier_sales() {
    let mut fixture = sold().await;
    let seeded_at = fixture.field("inventory:tea", "seededAt").await;
    fixture.replies(&hold("each", &[line("tea", NEW)])).await;
    assert_eq!(fixture.words(&seed("tea", 7, &[])).await, ["DRAINING"]);
    assert_eq!(fixture.field("inventory:tea", "seededAt").await, seeded_at);
    fixture.replies(&write_off("tea", SOLD, NEW, 2)).await;
    assert_eq!(fixture.counts("tea").await, [0, 1, 3]);
}

/// Somebody has taken units of the sale out of the books.
#[tokio::test]
async fn confirmed_units_are_never_negative() {
    let mut fixture = sold().await;
    let seen = fixture.field("inventory:tea", "lastEvent").await;
    fixture.replies(&repair("tea", ["3", &seen, ""], [0, 0, -4], &[])).await;
    fixture.replies(&take_back("tea", SOLD, NEW, 2)).await;
    assert_eq!(told(&mut fixture).await, ("2 confirmed restocked_after_seed".to_owned(), [7, 0, 1]));
    fixture.replies(&take_back("tea", SOLD, NEW, 1)).await;
    assert_eq!(told(&mut fixture).await, ("1 confirmed restocked".to_owned(), [8, 0, 0]));
}

#[tokio::test]
async fn what_is_done_once_is_not_done_again() {
    let mut fixture = sold().await;
    let call = take_back("tea", SOLD, NEW, 2).once();
    let first = fixture.reply(&call).await;
    fixture.replies(&take_back("tea", SOLD, NEWER, 1).once()).await;
    fixture.replies(&seed("tea", 7, &[])).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    // Also if the caller does not ask to remember it this time.
    for call in [call, take_back("tea", SOLD, NEW, 2)] {
        let again = fixture.reply(&call).await;
        assert_eq!((&*again[0], &again[1..]), ("REPLAYED", &first[1..]), "what it left then");
    }
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
}

#[tokio::test]
async fn a_refusal_is_not_remembered_and_without_once_every_call_counts() {
    let mut fixture = sold().await;
    assert_eq!(fixture.words(&take_back("tea", SOLD, NEW, 6).once()).await, ["EXCEEDS"]);
    assert_eq!(fixture.words(&take_back("tea", SOLD, NEW, 3).once()).await, ["RETURNED"]);
    for word in ["RETURNED", "RETURNED", "EXCEEDS"] {
        assert_eq!(fixture.words(&take_back("tea", SOLD, NEWER, 1)).await, [word]);
    }
}

async fn left_ms(fixture: &mut ScriptFixture, key: &str) -> i64 {
    fixture.run(cmd("PTTL").arg(key)).await
}

#[tokio::test]
async fn a_return_is_remembered_as_long_as_settled_reservations_and_keeps_no_record_longer() {
    let (record, operation) = (format!("reservation:{CONFIRMED}"), format!("operation:{NEW}"));
    for (keep_ms, least, most) in [(0, -1, -1), (500_000, 440_000, 500_000)] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.run::<()>(cmd("PEXPIRE").arg(&record).arg(100_000)).await;
        fixture.keep_ms(keep_ms).await;
        fixture.replies(&take_back("tea", CONFIRMED, NEW, 1).once()).await;
        let left = left_ms(&mut fixture, &operation).await;
        assert!((least..=most).contains(&left), "{left}");
        let left = left_ms(&mut fixture, &record).await;
        assert!((1..=100_000).contains(&left), "{left}");
    }
    let mut fixture = sold().await;
    fixture.keep_ms(500_000).await;
    fixture.replies(&take_back("tea", SOLD, NEW, 1)).await;
    assert_eq!(left_ms(&mut fixture, &format!("reservation:{SOLD}")).await, -1, "it was to be kept forever");
}

/// The record was dropped, and its id stands for a new hold: what was returned then was another sale.
#[tokio::test]
async fn an_operation_of_an_earlier_sale_is_no_replay() {
    let mut fixture = sold().await;
    let call = take_back("tea", SOLD, NEW, 2).once();
    fixture.replies(&call).await;
    fixture.run::<()>(cmd("DEL").arg(format!("reservation:{SOLD}"))).await;
    assert_eq!(fixture.reply(&call).await, ["NOT_FOUND"]);
    fixture.replies(&hold("each", &[line("tea", SOLD).quantity(5).ttl_ms(LONG_MS)])).await;
    assert_eq!(fixture.reply(&call).await, ["CONFLICT", "confirmedAt"]);
    sleep(Duration::from_millis(2)).await;
    fixture.replies(&confirm("each", &[("tea", SOLD, "")])).await;
    assert_eq!(fixture.reply(&call).await, ["CONFLICT", "confirmedAt"]);
    assert_eq!(fixture.reply(&take_back("tea", SOLD, NEWER, 5).once()).await[9], "5");
}

/// A sale and its returns tell all that its record was.
#[tokio::test]
async fn a_damaged_record_of_a_return_is_made_again() {
    let damages: [&[&str]; 4] = [
        &["HSET", "returned", "5", "updatedAt", "1"],
        &["HDEL", "returned", "confirmedAt"],
        &["HSET", "state", "active", "quantity", "1", "reason", "x"],
        &["HSET", "returned", "x", "cartId", ""],
    ];
    for damage in damages {
        let mut fixture = sold().await;
        for units in [1, 2] {
            fixture.replies(&take_back("tea", SOLD, NEW, units)).await;
        }
        let record = format!("reservation:{SOLD}");
        let before: BTreeMap<String, String> = fixture.run(cmd("HGETALL").arg(&record)).await;
        fixture.run::<()>(cmd(damage[0]).arg(&record).arg(&damage[1..])).await;
        let events = format!("{LAST_EVENT}:{SOLD}");
        let reply = fixture.reply(&repair("tea", ["5", LAST_EVENT, ""], [0; 3], &[(SOLD, &events)])).await;
        assert_eq!(reply, ["REPAIRED", "1", "8", "0", "2", "6"]);
        let after: BTreeMap<String, String> = fixture.run(cmd("HGETALL").arg(&record)).await;
        assert_eq!(before, after, "{damage:?}");
        assert_eq!(fixture.reply(&take_back("tea", SOLD, NEW, 3)).await, ["EXCEEDS", "2"]);
    }
}

#[tokio::test]
async fn events_that_are_no_sale_with_its_returns_are_refused() {
    let mut fixture = sold().await;
    for _ in 0..2 {
        fixture.replies(&take_back("tea", SOLD, NEW, 1)).await;
    }
    let entries: Vec<(String, Vec<String>)> = fixture.run(cmd("XRANGE").arg(&["inventory:audit", "-", "+"])).await;
    let [_, held, sold, one, other] = &entries[..] else { panic!("{entries:?}") };
    let lists = [
        one.0.clone(),
        format!("{},{}", one.0, other.0),
        format!("{},{}", sold.0, held.0),
        format!("{},{},{}", sold.0, one.0, sold.0),
    ];
    let call = |events: &str| -> Call { repair("tea", ["5", LAST_EVENT, ""], [0; 3], &[(SOLD, events)]) };
    for events in &lists {
        assert_eq!(fixture.refusal(&call(events)).await.word, "BADARGS", "{events}");
    }
    assert_eq!(fixture.reply(&call(&format!("{},1-1", sold.0))).await, ["STALE"]);
    // More than was sold cannot have come back.
    let many = [&*sold.0].into_iter().chain([&*one.0; 6]).collect::<Vec<_>>().join(",");
    assert_eq!(fixture.refusal(&call(&many)).await.word, "BADKEY");
}
