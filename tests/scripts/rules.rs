//! Rules of a SKU: what they do over time, besides the replies.

use redis::cmd;

use crate::call::{
    LAST_EVENT, cart_hold, change_to, confirm, extend, hold, line, release, repair, rules, seed, sell, sweep, take_back,
};
use crate::fixture::{ACTIVE, LAPSED, NEW, NEWER, ScriptFixture, id};
use crate::support::snapshot::Snapshot;

const STORED: &str = "perCart=4 safetyStock=2 maxTtlMs=900000";

#[tokio::test]
async fn they_are_stored_told_and_replaced_as_a_whole() {
    let mut fixture = ScriptFixture::stocked().await;
    let reply = fixture.reply(&rules("tea", "4", "2", "900000")).await;
    assert_eq!((&*reply[5], &*reply[6]), ("8", STORED));
    assert_eq!(fixture.field("inventory:tea", "rules").await, STORED);
    assert_eq!(fixture.counts("tea").await, [6, 3, 1]);
    let before = Snapshot::take(&mut fixture.redis).await;
    assert_eq!(fixture.reply(&rules("tea", "4", "2", "900000")).await, reply, "the same rules change nothing");
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
    fixture.replies(&rules("tea", "", "3", "")).await;
    assert_eq!(fixture.field("inventory:tea", "rules").await, "perCart= safetyStock=3 maxTtlMs=");
    fixture.replies(&rules("tea", "", "", "")).await;
    assert_eq!(fixture.field("inventory:tea", "rules").await, "");
    assert_eq!(fixture.words(&hold("each", &[line("tea", NEW).quantity(6)])).await, ["HELD"]);
}

#[tokio::test]
async fn a_seed_keeps_the_rules_and_tells_them_again() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&rules("tea", "4", "2", "900000")).await;
    let seeded = fixture.reply(&seed("tea", 7, &[ACTIVE, LAPSED])).await;
    assert_eq!(seeded[3], "13", "drained, two released, seeded, and the rules");
    assert_eq!(fixture.field("inventory:tea", "rules").await, STORED);
    let [newest]: [(String, Vec<(String, String)>); 1] = {
        let mut read = cmd("XREVRANGE");
        fixture.run(read.arg("inventory:audit").arg("+").arg("-").arg("COUNT").arg(1)).await
    };
    let field = |name: &str| newest.1.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    assert_eq!([field("event"), field("state"), field("reason")], [Some("rules"), Some("ruled"), Some(STORED)]);
}

/// What a cart gives back it may have again, and what lapses or returns too.
#[tokio::test]
async fn a_cart_has_at_most_what_the_rules_allow_at_once() {
    let mut fixture = ScriptFixture::open().await;
    fixture.replies(&seed("jam", 100, &[])).await;
    fixture.replies(&rules("jam", "3", "", "")).await;
    let ids: Vec<String> = (0..20).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let held = async |fixture: &mut ScriptFixture, n: usize, quantity: u64, ttl_ms: u64| {
        let lines = [("jam", ids[n], quantity)];
        fixture.words(&cart_hold(NEW, &lines).ttl_ms(ttl_ms).others(&ids).call()).await.remove(0)
    };
    assert_eq!(held(&mut fixture, 0, 3, 60_000).await, "HELD");
    assert_eq!(held(&mut fixture, 1, 1, 60_000).await, "CART_LIMIT");
    fixture.replies(&change_to("jam", ids[0], 2, "")).await;
    assert_eq!(held(&mut fixture, 1, 1, 1).await, "HELD");
    fixture.lapse(ids[1]).await;
    assert_eq!(held(&mut fixture, 2, 1, 60_000).await, "HELD", "what has lapsed does not count, swept or not");
    fixture.replies(&sweep("jam", &[ids[1]])).await;
    fixture.replies(&confirm("each", &[("jam", ids[2], "")])).await;
    assert_eq!(held(&mut fixture, 3, 1, 60_000).await, "CART_LIMIT", "what is sold counts");
    fixture.replies(&take_back("jam", ids[2], NEWER, 1)).await;
    assert_eq!(held(&mut fixture, 3, 1, 60_000).await, "HELD");
    fixture.replies(&release("each", &[("jam", ids[0], "")])).await;
    assert_eq!(held(&mut fixture, 4, 2, 60_000).await, "HELD");
    // Another cart has its own units.
    let other = cart_hold(NEW, &[("jam", ids[9], 3)]).cart("cart-2").call();
    assert_eq!(fixture.words(&other).await, ["HELD"]);
}

/// A late sale takes back what had lapsed: whether somebody has swept it makes no difference.
#[tokio::test]
async fn a_late_sale_leaves_the_units_that_are_kept_back() {
    for is_swept in [false, true] {
        let mut fixture = ScriptFixture::open().await;
        fixture.replies(&seed("jam", 3, &[])).await;
        fixture.replies(&hold("each", &[line("jam", NEW).quantity(2).ttl_ms(1)])).await;
        fixture.replies(&rules("jam", "", "2", "")).await;
        fixture.lapse(NEW).await;
        if is_swept {
            fixture.replies(&sweep("jam", &[NEW])).await;
        }
        let refused = fixture.reply(&sell("jam", NEW, "", 2, "reacquire")).await;
        assert_eq!(refused, ["INSUFFICIENT", "1", if is_swept { "0" } else { "1" }]);
        assert_eq!(fixture.reply(&sell("jam", NEW, "", 1, "reacquire")).await[0], "CONFIRMED");
        assert_eq!(fixture.counts("jam").await, [2, 0, 1]);
    }
}

#[tokio::test]
async fn a_hold_that_leaves_its_time_open_lasts_as_long_as_the_rules_allow() {
    let mut fixture = ScriptFixture::stocked().await;
    for (n, (max_ttl_ms, lasts_ms)) in [("", 600_000), ("900000", 600_000), ("120000", 120_000)].into_iter().enumerate()
    {
        fixture.replies(&rules("tea", "", "", max_ttl_ms)).await;
        let [one, other, cup] = [3 * n, 3 * n + 1, 3 * n + 2].map(id);
        let alone = fixture.reply(&hold("each", &[line("tea", &one)]).with("ttlMs", "default")).await;
        let call = cart_hold(NEW, &[("tea", &*other, 1), ("cup", &*cup, 1)]).call();
        let of_cart = fixture.replies(&call.with("ttlMs", "default")).await;
        for held in [alone, of_cart[0].clone(), of_cart[1].clone()] {
            let [expires, created] = [1, 2].map(|element: usize| held[element].parse::<u64>().unwrap());
            assert_eq!(expires - created, lasts_ms, "{max_ttl_ms:?}");
        }
    }
    // An extension ends no later.
    let limited = fixture.reply(&extend("each", &[("tea", ACTIVE, 1_200_000)])).await;
    let expires = fixture.field(&format!("reservation:{ACTIVE}"), "expiresAt").await;
    assert_eq!(limited, ["LIMITED".to_owned(), expires], "its own expiry is later, and stands");
}

#[tokio::test]
async fn a_repair_sets_the_rules_from_the_event_that_told_them() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&rules("tea", "4", "2", "900000")).await;
    fixture.run::<()>(cmd("HSET").arg("inventory:tea").arg("rules").arg("x")).await;
    let told = fixture.field("inventory:tea", "lastEvent").await;
    let mended = repair("tea", ["8", LAST_EVENT, ""], [0; 3], &[]).with("rules", told.clone());
    assert_eq!(fixture.words(&mended).await, ["REPAIRED"]);
    assert_eq!(fixture.field("inventory:tea", "rules").await, STORED);
    // An event of another kind is refused, and rules that were set since are left alone.
    let of_repair = fixture.field("inventory:tea", "lastEvent").await;
    let call = repair("tea", ["9", LAST_EVENT, ""], [0; 3], &[]).with("rules", of_repair.clone());
    assert_eq!(fixture.refusal(&call).await.word, "BADARGS");
    fixture.replies(&rules("tea", "5", "", "")).await;
    let call = repair("tea", ["9", &of_repair, ""], [0; 3], &[]).with("rules", told);
    assert_eq!(fixture.words(&call).await, ["STALE"]);
}
