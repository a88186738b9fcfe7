//! Selling with a choice: what `sell` does, besides its reply.

use redis::cmd;

use crate::call::{Call, audit, change_to, confirm, hold, line, release, repair, seed, sell, sweep, take_back};
use crate::fixture::{ACTIVE, CUP, LAPSED, NEW, RELEASED, ScriptFixture, id};

const LATE: &str = "reacquire";

impl ScriptFixture {
    async fn fields_of(&mut self, id: &str, names: &[&str]) -> Vec<Option<String>> {
        self.run(cmd("HMGET").arg(format!("reservation:{id}")).arg(names)).await
    }

    /// Event, quantity, state and reason of the newest events of a SKU, the newest first.
    async fn told(&mut self, sku: &str, count: u64) -> Vec<String> {
        let events = self.replies(&audit(sku, count, "")).await;
        events
            .iter()
            .map(|event| [2, 6, 7, 8].map(|element: usize| &*event[element]).join(" ").trim().to_owned())
            .collect()
    }

    async fn ttl(&mut self, id: &str) -> i64 {
        self.run(cmd("PTTL").arg(format!("reservation:{id}"))).await
    }
}

#[tokio::test]
async fn a_part_is_sold_and_the_rest_goes_back() {
    let mut fixture = ScriptFixture::stocked().await;
    let reply = fixture.reply(&sell("tea", ACTIVE, "token", 1, "")).await;
    assert_eq!(reply[..6], ["CONFIRMED", "cart-1", "tea", "1", "confirmed", ""]);
    assert_eq!(fixture.counts("tea").await, [7, 1, 2]);
    assert_eq!(fixture.told("tea", 2).await, ["confirm 1 confirmed", "change 1 active partial_confirm"]);
    let fields = fixture.fields_of(ACTIVE, &["quantity", "initialQuantity", "reason", "token"]).await;
    assert_eq!(fields, [Some("1"), Some("2"), None, Some("token")].map(|text| text.map(str::to_owned)));
    // What was sold can come back, and no more.
    assert_eq!(fixture.reply(&take_back("tea", ACTIVE, NEW, 2)).await, ["EXCEEDS", "1"]);
}

#[tokio::test]
async fn all_of_it_is_one_event() {
    for quantity in [0, 2] {
        let mut fixture = ScriptFixture::stocked().await;
        let before = fixture.events().await;
        fixture.replies(&sell("tea", ACTIVE, "token", quantity, "")).await;
        assert_eq!(fixture.events().await, before + 1);
        assert_eq!(fixture.counts("tea").await, [6, 1, 3]);
        assert_eq!(fixture.fields_of(ACTIVE, &["initialQuantity"]).await, [None]);
    }
}

/// What was changed keeps what was held at first.
#[tokio::test]
async fn a_part_of_what_was_changed_is_sold() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&change_to("tea", ACTIVE, 5, "")).await;
    fixture.replies(&sell("tea", ACTIVE, "", 3, "")).await;
    let fields = fixture.fields_of(ACTIVE, &["quantity", "initialQuantity"]).await;
    assert_eq!(fields, ["3", "2"].map(|text| Some(text.to_owned())));
    assert_eq!(fixture.words(&hold("each", &[line("tea", ACTIVE).quantity(2)])).await, ["REPLAYED"]);
}

#[tokio::test]
async fn one_token_is_one_sale_in_either_script() {
    let mut fixture = ScriptFixture::stocked().await;
    let sale = fixture.reply(&sell("tea", ACTIVE, "token", 1, "")).await;
    for call in [
        sell("tea", ACTIVE, "token", 1, LATE),
        sell("tea", ACTIVE, "token", 0, ""),
        confirm("each", &[("tea", ACTIVE, "token")]),
    ] {
        let again = fixture.reply(&call).await;
        assert_eq!((&*again[0], &again[1..]), ("REPLAYED", &sale[1..]));
    }
    assert_eq!(fixture.reply(&sell("tea", ACTIVE, "token", 2, "")).await, ["CONFLICT", "quantity"]);
    fixture.replies(&confirm("each", &[("cup", CUP, "other")])).await;
    assert_eq!(fixture.words(&sell("cup", CUP, "other", 0, "")).await, ["REPLAYED"]);
    assert_eq!(fixture.words(&sell("cup", CUP, "token", 0, "")).await, ["NOT_ACTIVE"]);
}

/// Whether it is this call that expires it, or a sweep before.
#[tokio::test]
async fn what_has_lapsed_is_sold_after_all() {
    for is_swept in [false, true] {
        let mut fixture = ScriptFixture::stocked().await;
        if is_swept {
            fixture.replies(&sweep("tea", &[LAPSED])).await;
        }
        let began = fixture.now_ms().await;
        let reply = fixture.reply(&sell("tea", LAPSED, "token", 0, LATE)).await;
        assert_eq!(reply[..6], ["CONFIRMED", "cart-1", "tea", "1", "confirmed", "late_confirm"]);
        assert!(reply[8].parse::<u64>().unwrap() >= began);
        assert_eq!(fixture.counts("tea").await, [6, 2, 2]);
        let expired = "expired 1 released reservation_ttl_elapsed";
        assert_eq!(fixture.told("tea", 2).await, ["confirm 1 confirmed late_confirm", expired]);
        for call in [sell("tea", LAPSED, "token", 0, ""), confirm("each", &[("tea", LAPSED, "token")])] {
            let again = fixture.reply(&call).await;
            assert_eq!((&*again[0], &again[1..]), ("REPLAYED", &reply[1..]));
        }
        assert_eq!(
            fixture.reply(&confirm("each", &[("tea", LAPSED, "")])).await,
            ["NOT_ACTIVE", "confirmed", "late_confirm"]
        );
        assert_eq!(fixture.words(&hold("each", &[line("tea", LAPSED)])).await, ["REPLAYED"]);
        assert_eq!(fixture.words(&take_back("tea", LAPSED, NEW, 1)).await, ["RETURNED"]);
    }
}

#[tokio::test]
async fn a_part_of_what_has_lapsed_is_sold() {
    for is_swept in [false, true] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.replies(&hold("each", &[line("cup", NEW).quantity(3).ttl_ms(1)])).await;
        fixture.lapse(NEW).await;
        if is_swept {
            fixture.replies(&sweep("cup", &[NEW])).await;
        }
        assert_eq!(fixture.reply(&sell("cup", NEW, "", 2, LATE)).await[3], "2");
        assert_eq!(fixture.counts("cup").await, [2, 1, 2]);
        let expired = "expired 3 released reservation_ttl_elapsed";
        assert_eq!(fixture.told("cup", 2).await, ["confirm 2 confirmed late_confirm", expired]);
        let fields = fixture.fields_of(NEW, &["quantity", "initialQuantity", "token"]).await;
        assert_eq!(fields, [Some("2"), Some("3"), None].map(|text| text.map(str::to_owned)));
    }
}

/// Its units may be somebody else's by now.
#[tokio::test]
async fn nothing_is_sold_that_is_not_available() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&hold("each", &[line("cup", NEW).quantity(3).ttl_ms(1)])).await;
    fixture.lapse(NEW).await;
    fixture.replies(&sweep("cup", &[NEW])).await;
    let other = id(1);
    fixture.replies(&hold("each", &[line("cup", &other).quantity(2).ttl_ms(1)])).await;
    fixture.lapse(&other).await;
    let late = sell("cup", NEW, "token", 0, LATE);
    assert_eq!(fixture.reply(&late).await, ["INSUFFICIENT", "2", "1"]);
    fixture.replies(&sweep("cup", &[&other])).await;
    assert_eq!(fixture.words(&late).await, ["CONFIRMED"]);
    assert_eq!(fixture.counts("cup").await, [1, 1, 3]);
}

#[tokio::test]
async fn only_what_time_has_ended_is_sold_late() {
    let mut fixture = ScriptFixture::stocked().await;
    assert_eq!(fixture.reply(&sell("tea", RELEASED, "", 0, LATE)).await, ["NOT_ACTIVE", "released", "manual_release"]);
    fixture.replies(&seed("cup", 5, &[CUP])).await;
    assert_eq!(fixture.reply(&sell("cup", CUP, "", 0, LATE)).await, ["NOT_ACTIVE", "released", "inventory_reseeded"]);
    fixture.replies(&release("each", &[("tea", ACTIVE, "")])).await;
    assert_eq!(fixture.words(&sell("tea", ACTIVE, "", 0, LATE)).await, ["NOT_ACTIVE"]);
}

/// A seed counts anew: what it has made available can be sold late.
#[tokio::test]
async fn a_seed_in_between_decides_what_is_available() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&sweep("tea", &[LAPSED])).await;
    fixture.replies(&seed("tea", 0, &[ACTIVE])).await;
    assert_eq!(fixture.reply(&sell("tea", LAPSED, "", 0, LATE)).await, ["INSUFFICIENT", "0", "0"]);
    fixture.replies(&seed("tea", 3, &[])).await;
    assert_eq!(fixture.words(&sell("tea", LAPSED, "", 0, LATE)).await, ["CONFIRMED"]);
    assert_eq!(fixture.counts("tea").await, [2, 0, 1]);
}

#[tokio::test]
async fn without_the_choice_what_has_lapsed_is_expired() {
    for quantity in [0, 1, 9] {
        let mut fixture = ScriptFixture::stocked().await;
        for _ in 0..2 {
            assert_eq!(fixture.reply(&sell("tea", LAPSED, "", quantity, "")).await, ["EXPIRED"]);
            assert_eq!(fixture.counts("tea").await, [7, 2, 1]);
        }
        fixture.replies(&release("each", &[("tea", ACTIVE, "")])).await;
        assert_eq!(fixture.due("tea").await, None);
    }
}

/// The record of a late sale is kept from the sale on, as the operator has set it by then.
#[tokio::test]
async fn the_time_to_be_kept_begins_with_the_late_sale() {
    for is_swept in [false, true] {
        let mut fixture = ScriptFixture::stocked().await;
        fixture.keep_ms(100_000).await;
        let sold = if is_swept { fixture.words(&sweep("tea", &[LAPSED])).await } else { Vec::new() };
        assert_eq!(fixture.ttl(LAPSED).await > 0, !sold.is_empty());
        fixture.keep_ms(900_000).await;
        fixture.replies(&sell("tea", LAPSED, "", 0, LATE)).await;
        assert!((800_000..=900_000).contains(&fixture.ttl(LAPSED).await));

        let mut fixture = ScriptFixture::stocked().await;
        fixture.keep_ms(100_000).await;
        if is_swept {
            fixture.replies(&sweep("tea", &[LAPSED])).await;
        }
        fixture.keep_ms(0).await;
        fixture.replies(&sell("tea", LAPSED, "", 0, LATE)).await;
        assert_eq!(fixture.ttl(LAPSED).await, -1, "with 0, forever");
        fixture.keep_ms(100_000).await;
        fixture.replies(&sell("tea", ACTIVE, "", 1, "")).await;
        assert!((1..=100_000).contains(&fixture.ttl(ACTIVE).await));
    }
}

#[tokio::test]
async fn the_record_of_a_sale_is_made_again_from_its_events() {
    let sales: [(&str, Call, &str); 2] =
        [(ACTIVE, sell("tea", ACTIVE, "", 1, ""), ""), (LAPSED, sell("tea", LAPSED, "", 0, LATE), "late_confirm")];
    for (id, sale, reason) in sales {
        let key = format!("reservation:{id}");
        for damage in [&["DEL", &*key][..], &["HSET", &*key, "state", "released", "quantity", "7"]] {
            let mut fixture = ScriptFixture::stocked().await;
            let sold = fixture.reply(&sale).await;
            let [version, last] =
                [fixture.field("inventory:tea", "version").await, fixture.field("inventory:tea", "lastEvent").await];
            fixture.run::<i64>(cmd(damage[0]).arg(&damage[1..])).await;
            let again = repair("tea", [&version, &last, ""], [0; 3], &[(id, &last)]);
            assert_eq!(fixture.words(&again).await, ["REPAIRED"], "{damage:?}");
            let fields = fixture.fields_of(id, &["quantity", "state", "reason", "updatedAt"]).await;
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            let expected = [Some("1"), Some("confirmed"), reason, Some(&sold[8])];
            assert_eq!(fields, expected.map(|text| text.map(str::to_owned)), "{damage:?}");
        }
    }
}
