//! Carts: what `cart_hold` does, besides its reply.

use redis::cmd;

use crate::call::{LONG_MS, cart_hold, confirm, hold, line, release, sweep};
use crate::fixture::{ACTIVE, CUP, NEW, NEWER, RELEASED, ScriptFixture, id};
use crate::support::snapshot::Snapshot;

/// The longest that a hold lasts.
const THIRTY_DAYS_MS: i64 = 2_592_000_000;

/// What a cart lists, in the order of the ids.
async fn listed(fixture: &mut ScriptFixture, cart: &str) -> Vec<(String, String)> {
    let mut listed: Vec<(String, String)> = fixture.run(cmd("HGETALL").arg(format!("cart:{cart}"))).await;
    listed.sort();
    listed
}

async fn ttl_ms(fixture: &mut ScriptFixture, key: &str) -> i64 {
    fixture.run(cmd("PTTL").arg(key)).await
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, sku)| ((*id).to_owned(), (*sku).to_owned())).collect()
}

#[tokio::test]
async fn a_cart_is_held_as_one_and_lapses_as_one() {
    let mut fixture = ScriptFixture::stocked().await;
    let replies = fixture.replies(&cart_hold(&id(9), &[("tea", NEW, 6), ("cup", NEWER, 4)]).cart("c").call()).await;
    assert_eq!(replies[0], replies[1], "one expiry, and one moment");
    let [expires, created] = [1, 2].map(|element: usize| replies[0][element].parse::<u64>().unwrap());
    assert_eq!(expires, created + LONG_MS);
    assert_eq!((fixture.counts("tea").await, fixture.counts("cup").await), ([0, 9, 1], [0, 5, 0]));
    for (key, fields) in [(NEW, ["c", "tea", "6", "active"]), (NEWER, ["c", "cup", "4", "active"])] {
        let names = ["cartId", "sku", "quantity", "state"];
        let record: Vec<String> = fixture.run(cmd("HMGET").arg(format!("reservation:{key}")).arg(&names)).await;
        assert_eq!(record, fields);
    }
    assert_eq!(listed(&mut fixture, "c").await, pairs(&[(NEW, "tea"), (NEWER, "cup")]));
}

#[tokio::test]
async fn a_short_line_keeps_the_others_out() {
    let mut fixture = ScriptFixture::stocked().await;
    let before = Snapshot::take(&mut fixture.redis).await;
    let lines = [("tea", NEW, 1), ("cup", NEWER, 5)];
    assert_eq!(fixture.words(&cart_hold(&id(9), &lines).once().call()).await, ["WITHDRAWN", "INSUFFICIENT"]);
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
    // A refusal is not remembered.
    fixture.replies(&release("each", &[("cup", CUP, "")])).await;
    assert_eq!(fixture.words(&cart_hold(&id(9), &lines).once().call()).await, ["HELD", "HELD"]);
}

#[tokio::test]
async fn a_cart_that_lapses_soon_is_polled_soon() {
    let mut fixture = ScriptFixture::stocked().await;
    let replies = fixture.replies(&cart_hold(&id(9), &[("cup", NEW, 1)]).ttl_ms(1).call()).await;
    assert_eq!(fixture.due("cup").await.unwrap().to_string(), replies[0][1]);
    fixture.lapse(NEW).await;
    assert_eq!(fixture.reply(&sweep("cup", &[NEW])).await[..2], ["SWEPT", "1"]);
}

#[tokio::test]
async fn a_repeat_is_the_same_cart_whatever_happened_to_it() {
    let mut fixture = ScriptFixture::stocked().await;
    let lines = [("tea", NEW, 2), ("cup", NEWER, 1)];
    let call = cart_hold(&id(9), &lines).once().call();
    fixture.replies(&call).await;
    fixture.replies(&confirm("each", &[("tea", NEW, "")])).await;
    fixture.replies(&release("each", &[("cup", NEWER, "")])).await;
    // Nothing is left, and the repeat does not need anything.
    fixture.replies(&hold("each", &[line("tea", &id(1)).quantity(4), line("cup", &id(2)).quantity(4)])).await;
    let before = Snapshot::take(&mut fixture.redis).await;
    for call in [call, cart_hold(&id(8), &lines).once().call(), cart_hold(&id(8), &lines).call()] {
        let states: Vec<_> =
            fixture.replies(&call).await.iter().map(|reply| [&*reply[0], &*reply[4]].join(" ")).collect();
        assert_eq!(states, ["REPLAYED confirmed", "REPLAYED released"]);
    }
    assert_eq!(before, Snapshot::take(&mut fixture.redis).await);
}

#[tokio::test]
async fn without_once_a_call_with_new_ids_counts() {
    let mut fixture = ScriptFixture::stocked().await;
    for turn in 0..2 {
        let line = id(turn);
        assert_eq!(fixture.words(&cart_hold(&id(9), &[("tea", &line, 1)]).call()).await, ["HELD"]);
    }
    assert_eq!(fixture.counts("tea").await, [4, 5, 1]);
    assert_eq!(listed(&mut fixture, "cart-1").await, pairs(&[(&id(0), "tea"), (&id(1), "tea")]));
}

#[tokio::test]
async fn what_was_noted_or_held_alone_is_no_line_of_a_cart() {
    let mut fixture = ScriptFixture::stocked().await;
    fixture.replies(&hold("each", &[line("tea", NEW)])).await;
    assert!(listed(&mut fixture, "cart-1").await.is_empty());
    let lines = [("tea", NEW, 1), ("cup", NEWER, 1)];
    assert_eq!(
        fixture.replies(&cart_hold(&id(9), &lines).call()).await,
        [vec!["CONFLICT", "items"], vec!["WITHDRAWN"]]
    );
    fixture.run::<()>(cmd("HSET").arg(format!("reservation:{ACTIVE}")).arg("metadata").arg("{\"a\":\"b\"}")).await;
    let noted = cart_hold(&id(9), &[("tea", ACTIVE, 2)]).call();
    assert_eq!(fixture.evalsha(&noted).await.unwrap(), [["CONFLICT", "metadata"]]);
}

#[tokio::test]
async fn a_sku_or_an_id_in_two_lines_is_refused() {
    let mut fixture = ScriptFixture::stocked().await;
    for lines in [[("tea", NEW, 1), ("tea", NEWER, 1)], [("tea", NEW, 1), ("cup", NEW, 1)]] {
        let refusal = fixture.refusal(&cart_hold(&id(9), &lines).call()).await;
        assert_eq!((&*refusal.word, refusal.text.starts_with("items:")), ("BADARGS", true), "{refusal:?}");
    }
    // Other reservations may be named twice, and be those of the lines.
    let call = cart_hold(&id(9), &[("tea", NEW, 1)]).others(&[ACTIVE, NEW, ACTIVE]).call();
    assert_eq!(fixture.words(&call).await, ["HELD"]);
}

#[tokio::test]
async fn a_cart_and_its_operation_last_as_long_as_a_record_can() {
    let mut fixture = ScriptFixture::stocked().await;
    let operation = format!("operation:{}", id(9));
    let kept = async |fixture: &mut ScriptFixture, turn: usize, keep_ms: Option<i64>| {
        match keep_ms {
            Some(keep_ms) => fixture.keep_ms(keep_ms).await,
            None => fixture.run::<()>(cmd("DEL").arg("stockhold:settings")).await,
        }
        fixture.run::<()>(cmd("DEL").arg(&operation)).await;
        let line = id(turn);
        fixture.replies(&cart_hold(&id(9), &[("tea", &line, 1)]).once().call()).await;
        [ttl_ms(fixture, "cart:cart-1").await, ttl_ms(fixture, &operation).await]
    };
    let about = |kept: [i64; 2], most: i64| kept.iter().all(|kept| (most - 60_000..=most).contains(kept));
    assert_eq!(kept(&mut fixture, 1, Some(0)).await, [-1, -1], "with 0, forever");
    let some = kept(&mut fixture, 2, Some(500_000)).await;
    assert!(about(some, THIRTY_DAYS_MS + 500_000), "{some:?}");
    let default = kept(&mut fixture, 3, None).await;
    assert!(about(default, 2 * THIRTY_DAYS_MS), "{default:?}");
    assert_eq!(kept(&mut fixture, 4, Some(0)).await, [-1, -1], "forever, from now on");
    // A call without once remembers no operation.
    let line = id(5);
    fixture.replies(&cart_hold(&id(8), &[("tea", &line, 1)]).call()).await;
    assert!(!fixture.run::<bool>(cmd("EXISTS").arg(format!("operation:{}", id(8)))).await);
}

/// It forgets what was released or is gone, when it must.
#[tokio::test]
async fn a_full_cart_forgets_what_has_ended_and_nothing_else() {
    let mut fixture = ScriptFixture::stocked().await;
    let [active, sold, released] = [id(1), id(2), id(3)];
    for line in [&active, &sold, &released] {
        fixture.replies(&cart_hold(&id(9), &[("tea", line, 1)]).call()).await;
    }
    fixture.replies(&confirm("each", &[("tea", &sold, "")])).await;
    fixture.replies(&release("each", &[("tea", &released, "")])).await;
    let others = [&*active, &sold, &released, RELEASED];
    fixture.replies(&cart_hold(&id(9), &[("tea", NEW, 1)]).others(&others).call()).await;
    assert_eq!(listed(&mut fixture, "cart-1").await.len(), 4, "there is still room");

    let gone: Vec<String> = (1000..1096).map(id).collect();
    let entries: Vec<_> = gone.iter().flat_map(|id| [id.as_str(), "tea"]).collect();
    fixture.run::<()>(cmd("HSET").arg("cart:cart-1").arg(entries)).await;
    let lines = [("tea", NEWER, 1), ("cup", &*id(5), 1)];
    assert_eq!(
        fixture.words(&cart_hold(&id(9), &lines).others(&others).call()).await,
        ["FULL", "FULL"],
        "room for one"
    );
    assert_eq!(listed(&mut fixture, "cart-1").await.len(), 100);
    let others = [&*active, &sold, &released, RELEASED, &gone[0]];
    assert_eq!(fixture.words(&cart_hold(&id(9), &lines).others(&others).call()).await, ["HELD", "HELD"]);
    let left = listed(&mut fixture, "cart-1").await;
    let has = |id: &str| left.iter().any(|(listed, _)| listed == id);
    assert_eq!([&active, &sold, &released, &gone[0], &gone[1]].map(|id| has(id)), [true, true, false, false, true]);
    assert_eq!(left.len(), 100);
}

/// An id whose record was dropped may be used again. It is listed already.
#[tokio::test]
async fn an_id_that_is_listed_takes_no_more_room() {
    let mut fixture = ScriptFixture::stocked().await;
    let gone: Vec<String> = (1000..1100).map(id).collect();
    let entries: Vec<_> = gone.iter().flat_map(|id| [id.as_str(), "cup"]).collect();
    fixture.run::<()>(cmd("HSET").arg("cart:cart-1").arg(entries)).await;
    assert_eq!(fixture.words(&cart_hold(&id(9), &[("tea", &gone[7], 1)]).call()).await, ["HELD"]);
    let left = listed(&mut fixture, "cart-1").await;
    assert_eq!((left.len(), &*left[7].1), (100, "tea"));
}

#[tokio::test]
async fn a_cart_has_any_name_that_a_hold_accepts() {
    let mut fixture = ScriptFixture::stocked().await;
    let long = "ö".repeat(64);
    for (turn, cart) in ["cart", "a:b", "{7}:x", "two words", "%-[", "Körbchen 🛒", &long].into_iter().enumerate() {
        let line = id(turn);
        assert_eq!(fixture.words(&cart_hold(&id(9), &[("tea", &line, 1)]).cart(cart).call()).await, ["HELD"], "{cart}");
        assert_eq!(fixture.field(&format!("reservation:{line}"), "cartId").await, cart);
        assert_eq!(listed(&mut fixture, cart).await, pairs(&[(&line, "tea")]));
        fixture.replies(&release("each", &[("tea", &line, "")])).await;
    }
}
