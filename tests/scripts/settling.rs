//! Settling: what `confirm` and `release` do, besides their replies. Each test runs for both.

use std::time::Duration;

use redis::cmd;
use tokio::time::{sleep, timeout};

use crate::call::{LONG_MS, confirm, extend, hold, line, release, repair, seed, settle, sweep};
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, RELEASED, ScriptFixture, hold_many, id};

/// A settling script, its reply when it is done, and the counts of tea in the stocked fixture after it settled ACTIVE.
const SCRIPTS: [(&str, &str, [u64; 3]); 2] = [("confirm", "CONFIRMED", [6, 1, 3]), ("release", "RELEASED", [8, 1, 1])];

#[tokio::test]
async fn moves_units_out_of_reserved() {
    for (script, done, counts) in SCRIPTS {
        for mode in ["each", "all"] {
            let mut fixture = ScriptFixture::stocked().await;
            assert_eq!(fixture.words(&settle(script, mode, &[("tea", ACTIVE, "")])).await, [done]);
            assert_eq!(fixture.counts("tea").await, counts);
            assert_eq!(fixture.state(ACTIVE).await, done.to_lowercase());
        }
    }
}

#[tokio::test]
async fn the_reply_is_the_record_as_it_is_stored() {
    for (script, ..) in SCRIPTS {
        let mut fixture = ScriptFixture::stocked().await;
        let reply = fixture.reply(&settle(script, "each", &[("tea", ACTIVE, "token")])).await;
        let replay = fixture.reply(&settle(script, "each", &[("tea", ACTIVE, "token")])).await;
        assert_eq!(replay[0], "REPLAYED");
        assert_eq!(reply[1..], replay[1..]);
    }
}

#[tokio::test]
async fn acts_once_on_a_reservation_named_twice() {
    for (script, done, counts) in SCRIPTS {
        for (mode, second, third) in [("each", "REPLAYED", "NOT_ACTIVE"), ("all", "REPLAYED", "REPLAYED")] {
            let mut fixture = ScriptFixture::stocked().await;
            let before = fixture.events().await;
            let thrice = [("tea", ACTIVE, "token"), ("tea", ACTIVE, "token"), ("tea", ACTIVE, "other")];
            assert_eq!(fixture.words(&settle(script, mode, &thrice)).await, [done, second, third]);
            assert_eq!(fixture.events().await, before + 1);
            assert_eq!(fixture.counts("tea").await, counts);
            assert_eq!(fixture.field(&format!("reservation:{ACTIVE}"), "token").await, "token");
        }
    }
}

#[tokio::test]
async fn without_a_token_only_a_whole_cart_may_name_a_reservation_twice() {
    for (script, done, _) in SCRIPTS {
        for (mode, second) in [("each", "NOT_ACTIVE"), ("all", "REPLAYED")] {
            let mut fixture = ScriptFixture::stocked().await;
            let twice = [("tea", ACTIVE, ""), ("tea", ACTIVE, "")];
            assert_eq!(fixture.words(&settle(script, mode, &twice)).await, [done, second]);
        }
    }
}

#[tokio::test]
async fn counts_one_sku_down_through_a_call() {
    for (script, done, _) in SCRIPTS {
        let mut fixture = ScriptFixture::open().await;
        fixture.replies(&seed("tea", 10, &[])).await;
        let ids = hold_many(&mut fixture, "tea", 3, LONG_MS).await;
        let items: Vec<_> = ids.iter().map(|id| ("tea", &**id, "")).collect();
        assert_eq!(fixture.words(&settle(script, "all", &items)).await, [done; 3]);
        assert_eq!(fixture.counts("tea").await[1], 0);
    }
}

#[tokio::test]
async fn settles_all_of_a_cart_or_nothing() {
    for (script, done, counts) in SCRIPTS {
        let mut fixture = ScriptFixture::stocked().await;
        let missing = id(1);
        let broken = [("tea", ACTIVE, "token"), ("tea", ACTIVE, "token"), ("cup", &*missing, "token")];
        assert_eq!(fixture.words(&settle(script, "all", &broken)).await, ["WITHDRAWN", "WITHDRAWN", "NOT_FOUND"]);
        assert_eq!(fixture.counts("tea").await, [6, 3, 1]);
        let cart = [("tea", ACTIVE, "token"), ("cup", CUP, "token")];
        assert_eq!(fixture.words(&settle(script, "all", &cart)).await, [done, done]);
        assert_eq!(fixture.counts("tea").await, counts);
    }
}

#[tokio::test]
async fn a_due_reservation_is_expired_and_never_settled() {
    for (script, ..) in SCRIPTS {
        for mode in ["each", "all"] {
            let mut fixture = ScriptFixture::stocked().await;
            let call = settle(script, mode, &[("tea", LAPSED, "token")]);
            assert_eq!(fixture.reply(&call).await, ["EXPIRED"]);
            assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
            assert_eq!(fixture.reply(&call).await, ["EXPIRED"]);
        }
    }
}

/// For a payment service the result is the same: too late.
#[tokio::test]
async fn a_reservation_that_a_sweep_expired_answers_the_same() {
    for (script, ..) in SCRIPTS {
        for mode in ["each", "all"] {
            let mut fixture = ScriptFixture::stocked().await;
            fixture.replies(&sweep("tea", &[LAPSED])).await;
            let events = fixture.events().await;
            assert_eq!(fixture.reply(&settle(script, mode, &[("tea", LAPSED, "token")])).await, ["EXPIRED"]);
            assert_eq!(fixture.events().await, events);
        }
    }
}

#[tokio::test]
async fn a_due_reservation_is_expired_even_when_the_rest_is_withdrawn() {
    for (script, ..) in SCRIPTS {
        let mut fixture = ScriptFixture::stocked().await;
        let items = [("tea", ACTIVE, ""), ("tea", LAPSED, ""), ("tea", LAPSED, ""), ("cup", CUP, "")];
        let words = ["WITHDRAWN", "EXPIRED", "EXPIRED", "WITHDRAWN"];
        assert_eq!(fixture.words(&settle(script, "all", &items)).await, words);
        assert_eq!([fixture.counts("tea").await, fixture.counts("cup").await], [[7, 2, 1], [4, 1, 0]]);
        assert_eq!([fixture.state(ACTIVE).await, fixture.state(LAPSED).await], ["active", "released"]);
    }
}

#[tokio::test]
async fn a_token_replays_its_own_verb_only() {
    let mut fixture = ScriptFixture::stocked().await;
    let calls = [
        (confirm("each", &[("tea", CONFIRMED, "token")]), "REPLAYED"),
        (release("each", &[("tea", CONFIRMED, "token")]), "NOT_ACTIVE"),
        (release("each", &[("tea", RELEASED, "token")]), "REPLAYED"),
        (confirm("each", &[("tea", RELEASED, "token")]), "NOT_ACTIVE"),
    ];
    for (call, word) in calls {
        assert_eq!(fixture.words(&call).await, [word]);
    }
}

#[tokio::test]
async fn an_empty_token_is_not_kept_and_replays_nothing() {
    for (script, ..) in SCRIPTS {
        let mut fixture = ScriptFixture::stocked().await;
        let call = settle(script, "each", &[("tea", ACTIVE, "")]);
        fixture.replies(&call).await;
        let kept: bool = fixture.run(cmd("HEXISTS").arg(format!("reservation:{ACTIVE}")).arg("token")).await;
        assert!(!kept);
        assert_eq!(fixture.words(&call).await, ["NOT_ACTIVE"]);
    }
}

#[tokio::test]
async fn keep_ms_is_how_long_a_settled_record_stays() {
    const KEEP_MS: i64 = 500_000;
    for (script, ..) in SCRIPTS {
        for (keep_ms, lives) in [(KEEP_MS, KEEP_MS - 60_000..=KEEP_MS), (0, -1..=-1)] {
            let mut fixture = ScriptFixture::stocked().await;
            fixture.keep_ms(keep_ms).await;
            let items = [("tea", ACTIVE, "token"), ("tea", LAPSED, "")];
            fixture.replies(&settle(script, "each", &items)).await;
            for id in [ACTIVE, LAPSED] {
                let left: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{id}"))).await;
                assert!(lives.contains(&left), "{script} with keepMs {keep_ms} leaves {left} ms");
            }
            let cup: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{CUP}"))).await;
            assert_eq!(cup, -1, "a live record must not vanish with its units");
        }
    }
}

#[tokio::test]
async fn settled_records_stay_for_30_days_when_nothing_is_set() {
    const THIRTY_DAYS_MS: i64 = 30 * 24 * 60 * 60 * 1000;
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("DEL").arg("stockhold:settings")).await;
    fixture.replies(&confirm("each", &[("tea", ACTIVE, "")])).await;
    let left: i64 = fixture.run(cmd("PTTL").arg(format!("reservation:{ACTIVE}"))).await;
    assert!((THIRTY_DAYS_MS - 60_000..=THIRTY_DAYS_MS).contains(&left), "{left}");
}

/// A setting with an invalid value stops the scripts that obey it, and the error names it.
#[tokio::test]
async fn an_invalid_setting_is_refused() {
    for bad in ["", "x", "-1", "1e3", "1000000000001", "07"] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.run::<()>(cmd("HSET").arg("stockhold:settings").arg("keepMs").arg(bad)).await;
        for call in [
            confirm("each", &[("tea", ACTIVE, "")]),
            release("each", &[("tea", ACTIVE, "")]),
            extend("each", &[("tea", ACTIVE, 1)]),
            sweep("tea", &[LAPSED]),
            seed("tea", 4, &[ACTIVE, LAPSED]),
            repair("tea", ["", "", ""], [0; 3], &[]),
        ] {
            let refusal = fixture.refusal(&call).await;
            assert!(refusal.word == "BADKEY" && refusal.text.starts_with("settings: keepMs"), "{call:?}: {refusal:?}");
        }
        // A script that needs no setting still works.
        assert_eq!(fixture.words(&hold("each", &[line("tea", NEW)])).await, ["HELD"]);
    }
}

#[tokio::test]
async fn a_record_that_was_kept_long_enough_is_not_found() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.keep_ms(1).await;
    fixture.evalsha(&confirm("each", &[("tea", ACTIVE, "token")])).await.unwrap();
    let key = format!("reservation:{ACTIVE}");
    let gone = async {
        while fixture.run::<bool>(cmd("EXISTS").arg(&key)).await {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("the record stays");
    assert_eq!(fixture.reply(&confirm("each", &[("tea", ACTIVE, "token")])).await, ["NOT_FOUND"]);
}

#[tokio::test]
async fn a_sku_with_no_hold_left_is_not_polled() {
    for (script, ..) in SCRIPTS {
        let mut fixture = ScriptFixture::stocked().await;
        let bound = fixture.due("tea").await;
        fixture.replies(&settle(script, "each", &[("tea", LAPSED, "")])).await;
        assert_eq!(fixture.due("tea").await, bound, "a lower bound may stay");
        fixture.replies(&settle(script, "each", &[("tea", ACTIVE, "")])).await;
        assert_eq!(fixture.due("tea").await, None);
    }
}

#[tokio::test]
async fn released_units_can_be_held_again() {
    let mut fixture = ScriptFixture::stocked().await;
    let all = id(1);
    let call = hold("each", &[line("cup", &all).quantity(5)]);
    assert_eq!(fixture.words(&call).await, ["INSUFFICIENT"]);
    fixture.replies(&release("each", &[("cup", CUP, "")])).await;
    assert_eq!(fixture.words(&call).await, ["HELD"]);
}
