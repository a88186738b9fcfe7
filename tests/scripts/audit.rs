//! Reading the audit: the chain of one SKU's events, and the stream of all.

use redis::cmd;

use crate::call::{LONG_MS, audit, audit_all, confirm, extend, hold, line, seed, sweep};
use crate::contract::Contract;
use crate::fixture::{NEW, ScriptFixture, hold_many, id};
use crate::support::invariants::History;

/// Positions in the line of an `EVENT`.
const ID: usize = 1;
const SKU: usize = 5;
const VERSION: usize = 13;
const PREVIOUS: usize = 14;

#[tokio::test]
async fn a_skus_events_are_linked_newest_first() {
    let mut fixture = ScriptFixture::stocked().await;
    let events = fixture.replies(&audit("tea", 100, "")).await;
    let versions: Vec<_> = events.iter().map(|event| &*event[VERSION]).collect();
    assert_eq!(versions, ["7", "6", "5", "4", "3", "2", "1"]);
    for pair in events.windows(2) {
        assert_eq!(pair[0][PREVIOUS], pair[1][ID]);
        assert_eq!(pair[1][SKU], "tea");
    }
    assert_eq!(events[6][PREVIOUS], "");
}

#[tokio::test]
async fn pages_follow_one_another() {
    let mut fixture = ScriptFixture::stocked().await;
    for (whole, page) in [(audit("tea", 100, ""), audit("tea", 3, "")), (audit_all(100, ""), audit_all(3, ""))] {
        let mut rest = &*fixture.replies(&whole).await;
        let mut before = String::new();
        while !rest.is_empty() {
            let events = fixture.replies(&page.clone().with("before", &*before)).await;
            let expected;
            (expected, rest) = rest.split_at(3.min(rest.len()));
            assert_eq!(events, expected);
            before = events[events.len() - 1][ID].clone();
        }
        assert!(fixture.replies(&page.with("before", &*before)).await.is_empty());
    }
}

#[tokio::test]
async fn all_skus_are_read_in_the_order_of_the_stream() {
    let mut fixture = ScriptFixture::stocked().await;
    let events = fixture.replies(&audit_all(100, "")).await;
    assert_eq!(events.len(), fixture.events().await as usize);
    let skus: Vec<_> = events.iter().map(|event| &*event[SKU]).collect();
    assert_eq!(skus, ["tea", "tea", "tea", "cup", "tea", "tea", "tea", "cup", "tea"]);
}

#[tokio::test]
async fn before_must_be_an_event_of_the_sku() {
    let mut fixture = ScriptFixture::stocked().await;
    let cup = fixture.replies(&audit("cup", 1, "")).await[0][ID].clone();
    let refusal = fixture.refusal(&audit("tea", 10, &cup)).await;
    assert_eq!(refusal.word, "BADARGS");
    assert!(refusal.text.starts_with("before:"), "{refusal:?}");
}

#[tokio::test]
async fn nothing_is_before_an_event_that_never_existed() {
    let mut fixture = ScriptFixture::stocked().await;
    for before in ["0-0", "0-1", "1-1", "00-00"] {
        for call in [audit("tea", 10, before), audit_all(10, before)] {
            assert!(fixture.replies(&call).await.is_empty(), "{call:?}");
        }
    }
    assert!(fixture.replies(&audit("tea", 10, "9999999999999999999-0")).await.is_empty());
    let whole = fixture.replies(&audit_all(100, "")).await;
    assert_eq!(fixture.replies(&audit_all(100, "9999999999999999999-9999999999999999999")).await, whole);
}

#[tokio::test]
async fn an_empty_redis_has_no_events() {
    let mut fixture = ScriptFixture::open().await;
    for call in [audit("tea", 10, ""), audit_all(10, ""), audit("tea", 10, "1-1"), audit_all(10, "1-1")] {
        assert!(fixture.replies(&call).await.is_empty());
    }
}

#[tokio::test]
async fn no_more_are_read_than_the_limit() {
    let mut fixture = ScriptFixture::open().await;
    for _ in 0..3 {
        fixture.replies(&seed("tea", 100, &[])).await;
    }
    assert_eq!(fixture.replies(&audit("tea", 1, "")).await.len(), 1);
    assert_eq!(fixture.replies(&audit("tea", 100, "")).await.len(), 3);
    assert_eq!(fixture.replies(&audit_all(2, "")).await.len(), 2);
}

/// The sweeper trims the stream. A SKU's chain then ends where the stream ends.
#[tokio::test]
async fn the_chain_ends_where_the_stream_was_trimmed() {
    let mut fixture = ScriptFixture::open().await;
    fixture.history = History::Trimmed;
    fixture.replies(&seed("tea", 100, &[])).await;
    hold_many(&mut fixture, "tea", 100, LONG_MS).await;
    fixture.run::<u64>(cmd("XTRIM").arg("inventory:audit").arg("MAXLEN").arg(50)).await;

    let events = fixture.replies(&audit("tea", 100, "")).await;
    assert_eq!(events.len(), 50);
    let oldest = events.last().unwrap();
    assert_ne!(oldest[PREVIOUS], "");
    assert!(fixture.replies(&audit("tea", 10, &oldest[PREVIOUS])).await.is_empty(), "before what was trimmed");
}

/// No argument of a call decides what other callers can still read.
#[tokio::test]
async fn no_script_trims() {
    let mut fixture = ScriptFixture::open().await;
    fixture.run::<()>(cmd("CONFIG").arg("SET").arg("stream-node-max-entries").arg(1)).await;
    fixture.replies(&seed("tea", 1000, &[])).await;
    let lapsing = id(1);
    for call in [
        hold("each", &[line("tea", NEW)]),
        extend("each", &[("tea", NEW, 2 * LONG_MS)]),
        confirm("each", &[("tea", NEW, "")]),
        hold("each", &[line("tea", &lapsing).ttl_ms(1)]),
    ] {
        fixture.replies(&call).await;
    }
    fixture.lapse(&lapsing).await;
    fixture.replies(&sweep("tea", &[&lapsing])).await;
    fixture.replies(&seed("tea", 1000, &[])).await;
    assert_eq!(fixture.events().await, 7);
    for script in ["seed", "hold", "extend", "confirm", "release", "return", "adjust", "sweep", "repair"] {
        let source = &Contract::of(script).source;
        assert!(!source.contains("MAXLEN") && !source.contains("XTRIM"), "{script}");
    }
}
