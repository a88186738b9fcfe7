//! The smallest, largest and strangest values that the rules allow.

use redis::cmd;

use crate::call::{
    LONG_MS, add, adjust, audit, audit_all, confirm, extend, hold, inventory, line, release, seed, settle, sweep,
    take_back,
};
use crate::fixture::{ACTIVE, LAPSED, NEW, ScriptFixture, hold_many, id};

const MOST_UNITS: u64 = 1_000_000_000;
const LONGEST_TTL_MS: u64 = 2_592_000_000;

#[tokio::test]
async fn quantities_go_from_one_to_a_thousand_million() {
    for units in [1, MOST_UNITS] {
        let mut fixture = ScriptFixture::open().await;
        fixture.replies(&seed("tea", units, &[])).await;
        assert_eq!(fixture.words(&hold("each", &[line("tea", NEW).quantity(units)])).await, ["HELD"]);
        assert_eq!(fixture.counts("tea").await, [0, units, 0]);
        assert_eq!(fixture.words(&confirm("each", &[("tea", NEW, "")])).await, ["CONFIRMED"]);
        assert_eq!(fixture.counts("tea").await, [0, 0, units]);
    }
}

#[tokio::test]
async fn a_hold_lasts_from_a_millisecond_to_thirty_days() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    for (n, ttl_ms) in [1, LONGEST_TTL_MS].into_iter().enumerate() {
        let reply = fixture.reply(&hold("each", &[line("tea", &id(n)).ttl_ms(ttl_ms)])).await;
        let [expires, created] = [1, 2].map(|element: usize| reply[element].parse::<u64>().unwrap());
        assert_eq!(expires, created + ttl_ms);
    }
}

#[tokio::test]
async fn an_extension_lasts_from_a_millisecond_to_thirty_days() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.run::<()>(cmd("HSET").arg("stockhold:settings").arg("extendMaxMs").arg(LONGEST_TTL_MS)).await;
    for ttl_ms in [1, LONGEST_TTL_MS] {
        let reply = fixture.reply(&extend("each", &[("tea", ACTIVE, ttl_ms)])).await;
        // Some milliseconds after the hold, 30 days are too many.
        let created = fixture.field(&format!("reservation:{ACTIVE}"), "createdAt").await.parse::<u64>().unwrap();
        let limited = ["LIMITED".to_owned(), (created + LONGEST_TTL_MS).to_string()];
        assert!(reply[0] == "EXTENDED" || ttl_ms == LONGEST_TTL_MS && reply == limited, "{reply:?}");
    }
}

#[tokio::test]
async fn retention_goes_from_forever_to_a_million_million() {
    for keep_ms in [0, 1_000_000_000_000] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.keep_ms(keep_ms).await;
        fixture.replies(&seed("tea", 10, &[ACTIVE, LAPSED])).await;
    }
}

#[tokio::test]
async fn a_sku_goes_off_sale_with_a_quantity_of_0() {
    let mut fixture = ScriptFixture::stocked().await;
    assert_eq!(fixture.words(&seed("tea", 0, &[ACTIVE, LAPSED])).await, ["SEEDED"]);
    assert_eq!(fixture.counts("tea").await, [0, 0, 0]);
    assert_eq!(fixture.reply(&hold("each", &[line("tea", NEW)])).await, ["INSUFFICIENT", "0", "0"]);
}

#[tokio::test]
async fn names_may_be_long_and_in_any_script() {
    let longest = "x".repeat(128);
    let names = [
        "x",
        "größe-€-😀",
        "茶",
        "\u{10ffff}",
        "\u{e000}",
        "\u{d7ff}",
        "\u{800}",
        "\u{7ff}",
        "\u{a1}",
        "a\u{200b}b",
        "\u{feff}",
        "audits",
        "Audit",
        "%d[x]*^$",
        "...",
        "\"'\\",
        "\u{fffd}",
        &"ö".repeat(64),
        &"😀".repeat(32),
        &longest,
    ];
    let mut fixture = ScriptFixture::open_single().await;
    let shards = [("", "1111"), ("{7}:", "8007"), ("{0}:", "8000"), ("{17}:", "4011"), ("{4095}:", "8fff")];
    for (prefix, of_shard) in shards {
        for name in names {
            fixture.run::<()>(&cmd("FLUSHALL")).await;
            let id = id(1).replacen("8007", of_shard, 1);
            let calls = [
                (seed(name, 10, &[]), "SEEDED"),
                (hold("each", &[line(name, &id).cart(name)]), "HELD"),
                (hold("each", &[line(name, &id).cart(name)]), "REPLAYED"),
                (extend("each", &[(name, &id, 2 * LONG_MS)]), "EXTENDED"),
                (confirm("each", &[(name, &id, name)]), "CONFIRMED"),
                (confirm("each", &[(name, &id, name)]), "REPLAYED"),
                (release("each", &[(name, &id, name)]), "NOT_ACTIVE"),
                (take_back(name, &id, &self::id(2), 1).once(), "RETURNED"),
                (take_back(name, &id, &self::id(2), 1).once(), "REPLAYED"),
                (sweep(name, &[&id]), "SWEPT"),
                (inventory(name, 10), "STOCK"),
                (adjust("each", &[add(name, &id, 1).reason(name).once()]), "ADJUSTED"),
                (adjust("each", &[add(name, &id, 1).reason(name).once()]), "REPLAYED"),
                (audit(name, 1, ""), "EVENT"),
                (audit_all(1, ""), "EVENT"),
            ];
            for (call, word) in calls {
                assert_eq!(fixture.words(&call.in_shard(prefix)).await, [word], "{name:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_cart_id_and_a_token_may_contain_what_a_sku_may_not() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 10, &[])).await;
    for (n, name) in ["a b", "a:b", "{a}", "a\u{a0}b", "\u{3000}", "audit", " "].into_iter().enumerate() {
        let id = id(n);
        assert_eq!(fixture.words(&hold("each", &[line("tea", &id).cart(name)])).await, ["HELD"]);
        assert_eq!(fixture.words(&confirm("each", &[("tea", &id, name)])).await, ["CONFIRMED"]);
        assert_eq!(fixture.words(&confirm("each", &[("tea", &id, name)])).await, ["REPLAYED"]);
    }
}

#[tokio::test]
async fn a_hundred_items_fit_one_call() {
    let mut fixture = ScriptFixture::open().await;
    for (script, done) in [("confirm", "CONFIRMED"), ("release", "RELEASED")] {
        fixture.run::<()>(&cmd("FLUSHALL")).await;
        fixture.replies(&seed("tea", 100, &[])).await;
        let ids = hold_many(&mut fixture, "tea", 100, LONG_MS).await;
        let items: Vec<_> = ids.iter().map(|id| ("tea", &**id, "token")).collect();
        let longer: Vec<_> = ids.iter().map(|id| ("tea", &**id, 2 * LONG_MS)).collect();
        assert_eq!(fixture.words(&extend("all", &longer)).await, vec!["EXTENDED"; 100]);
        assert_eq!(fixture.words(&settle(script, "all", &items)).await, vec![done; 100]);
    }
}

#[tokio::test]
async fn a_hundred_adjustments_fit_one_call() {
    let mut fixture = ScriptFixture::open().await;
    let ids: Vec<String> = (0..100).map(id).collect();
    let items: Vec<_> = ids.iter().map(|id| add("tea", id, 1_000_000_000).create().once()).collect();
    assert_eq!(fixture.words(&adjust("all", &items)).await, vec!["ADJUSTED"; 100]);
    assert_eq!(fixture.words(&adjust("all", &items)).await, vec!["REPLAYED"; 100]);
    assert_eq!(fixture.counts("tea").await, [100_000_000_000, 0, 0]);
}

#[tokio::test]
async fn a_hundred_holds_are_swept_or_seeded_over_in_one_call() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("tea", 100, &[])).await;
    let ids = hold_many(&mut fixture, "tea", 100, 1).await;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fixture.lapse(ids[99]).await;
    assert_eq!(fixture.reply(&sweep("tea", &ids)).await, ["SWEPT", "100", ""]);

    fixture.run::<()>(&cmd("FLUSHALL")).await;
    fixture.replies(&seed("tea", 100, &[])).await;
    hold_many(&mut fixture, "tea", 100, LONG_MS).await;
    assert_eq!(fixture.words(&seed("tea", 5, &ids)).await, ["SEEDED"]);
}
