//! Every reply in the headers, in every mode that can give it.

use std::collections::BTreeSet;

use crate::call::{
    Call, LAST_EVENT, Line, add, adjust, audit, audit_all, cart_hold, change_to, confirm, extend, hold,
    hold_with_metadata, inventory, line, release, release_part, repair, rules, seed, seed_under, sell, set, sweep,
    take_back, write_off,
};
use crate::contract::Contract;
use crate::fixture::{ACTIVE, CONFIRMED, CUP, LAPSED, NEW, NEWER, RELEASED, ScriptFixture, id};

/// Longer than any hold of the fixture has left.
const LONGER_MS: u64 = 1_200_000;

/// A call on the stocked fixture and its answer, a line for each item: `_` is an empty element, `*` is any.
///
/// For adjustments, the fixture has one more: [`DONE_ONCE`] has added 2 `cup`. Of `pot` there are as many as there can
/// be. For returns, it has one more, too: [`DONE_ONCE`] has returned 1 `cup` of the 3 of [`CUPS`]; and all `pot` that
/// there can be came after the sale of [`POT`]. For seeds, [`DONE_ONCE`] has seeded 7 `pot`. For carts, [`DONE_ONCE`] has
/// held [`IN_CART`] and one that is gone; and the cart `full` lists 97 that are gone and those of [`IN_FULL`]. For
/// changes, it has made [`CUP`] hold 2 units.
/// Scripts that look at rules have the SKUs `jam` and `salt`, and the reservations of [`JAMS`] and [`SALT`].
/// For sales with a choice, [`CUPS`] has held 3 `cup` and expired, and only 2 are left; [`POT`] was expired, and is sold
/// after all.
type Case = (Call, &'static [&'static str]);

#[tokio::test]
async fn each_call_has_its_reply_and_the_cases_reach_all_that_the_headers_list() {
    let mut fixture = ScriptFixture::open().await;
    let mut reached = BTreeSet::new();
    for (call, expected) in cases() {
        fixture.stock().await;
        if call.script == "adjust" {
            fixture.adjust_before().await;
        }
        if call.script == "seed" {
            fixture.evalsha(&seed_under(DONE_ONCE, "pot", 7, &[]).once()).await.unwrap();
        }
        if call.script == "return" {
            fixture.return_before().await;
        }
        if call.script == "cart_hold" {
            fixture.hold_before().await;
        }
        if call.script == "sell" {
            fixture.sell_before().await;
        }
        if call.script == "change" {
            fixture.evalsha(&change_to("cup", CUP, 2, DONE_ONCE)).await.unwrap();
        }
        if RULED.contains(&call.script) {
            fixture.rule_before().await;
        }
        let replies = fixture.replies(&call).await;
        let matches = replies.len() == expected.len()
            && replies.iter().zip(expected).all(|(reply, expected)| is_like(reply, expected));
        assert!(matches, "{call:?} answered {replies:?}, not {expected:?}");
        let mode = mode_of(&call);
        reached.extend(replies.into_iter().map(|reply| (call.script, mode.clone(), reply[0].clone())));
    }
    assert_eq!(reached, listed());
}

/// The reservation of a `cup` that a cart holds.
const IN_CART: &str = "00000000-0000-8007-8000-0000000000bb";

/// Reservations of a full cart: one active, one confirmed, one released.
const IN_FULL: [&str; 3] = [
    "00000000-0000-8007-8000-0000000000f1",
    "00000000-0000-8007-8000-0000000000f2",
    "00000000-0000-8007-8000-0000000000f3",
];

/// An operation that was carried out.
const DONE_ONCE: &str = "00000000-0000-8007-8000-0000000000aa";
const CUPS: &str = "00000000-0000-8007-8000-0000000000ab";
const POT: &str = "00000000-0000-8007-8000-0000000000ac";

impl ScriptFixture {
    /// What the cases of `adjust` need besides the stock.
    async fn adjust_before(&mut self) {
        let full = [1_000_000_000_000 - 1, 0, 0];
        for call in [
            adjust("each", &[add("cup", DONE_ONCE, 2).once(), set("pot", NEW, 1).create()]),
            repair("pot", ["1", LAST_EVENT, ""], full, &[]),
        ] {
            self.evalsha(&call).await.unwrap();
        }
    }
}

impl ScriptFixture {
    /// What the cases of `return` need besides the stock.
    async fn return_before(&mut self) {
        let full = [1_000_000_000_000 - 1, 0, 0];
        for call in [
            seed("pot", 1, &[]),
            hold("each", &[line("cup", CUPS).quantity(3), line("pot", POT)]),
            confirm("each", &[("cup", CUPS, ""), ("pot", POT, "")]),
            take_back("cup", CUPS, DONE_ONCE, 1).once(),
            seed("pot", 1, &[]),
            repair("pot", ["4", LAST_EVENT, ""], full, &[]),
        ] {
            self.evalsha(&call).await.unwrap();
        }
    }

    /// What the cases of `cart_hold` need besides the stock.
    async fn hold_before(&mut self) {
        let gone = id(0);
        self.evalsha(&cart_hold(DONE_ONCE, &[("cup", IN_CART, 1), ("tea", &gone, 1)]).once().call()).await.unwrap();
        self.keep_ms(1).await;
        self.evalsha(&release("each", &[("tea", &gone, "")])).await.unwrap();
        while self.run::<bool>(redis::cmd("EXISTS").arg(format!("reservation:{gone}"))).await {}
        self.keep_ms(0).await;
        let [active, sold, released] = IN_FULL;
        for call in [
            hold("all", &IN_FULL.map(|id| line("cup", id).cart("full"))),
            confirm("each", &[("cup", sold, "")]),
            release("each", &[("cup", released, "")]),
        ] {
            self.evalsha(&call).await.unwrap();
        }
        let ids: Vec<String> = (1..98).map(id).chain([active, sold, released].map(str::to_owned)).collect();
        let index: Vec<_> = ids.iter().flat_map(|id| [id.as_str(), "cup"]).collect();
        self.run::<()>(redis::cmd("HSET").arg("cart:full").arg(index)).await;
    }
}

/// Scripts that obey the rules of a SKU.
const RULED: [&str; 6] = ["cart_hold", "change", "extend", "hold", "hold_with_metadata", "sell"];
/// Those of `cart-1`: 2 units active, 1 sold, 2 expired. A cart may have 4 units, 2 are kept back, and 900000 ms are the
/// longest hold.
const JAMS: [&str; 3] = [
    "00000000-0000-8007-8000-0000000000e1",
    "00000000-0000-8007-8000-0000000000e2",
    "00000000-0000-8007-8000-0000000000e3",
];
/// One unit active of 5; a cart may have any number.
const SALT: &str = "00000000-0000-8007-8000-0000000000e4";

impl ScriptFixture {
    async fn rule_before(&mut self) {
        let [active, sold, late] = JAMS;
        for call in [
            seed("jam", 10, &[]),
            seed("salt", 5, &[]),
            cart_hold(NEW, &[("jam", active, 2), ("salt", SALT, 1)]).call(),
            cart_hold(NEW, &[("jam", sold, 1)]).call(),
            cart_hold(NEW, &[("jam", late, 2)]).ttl_ms(1).call(),
            confirm("each", &[("jam", sold, "")]),
            rules("salt", "", "2", "900000"),
        ] {
            self.evalsha(&call).await.unwrap();
        }
        self.lapse(late).await;
        self.evalsha(&sweep("jam", &[late])).await.unwrap();
        self.evalsha(&rules("jam", "4", "2", "900000")).await.unwrap();
    }
}

/// Refusals of holds that the rules give, in both modes.
fn of_rules(hold: impl Fn(&[Line<'static>]) -> Call) -> Vec<Case> {
    vec![
        (hold(&[line("jam", NEW)]), &["BY_CART"]),
        // The id decides before the rules.
        (hold(&[line("jam", JAMS[0]).quantity(2)]), &["REPLAYED cart-1 jam 2 active _ * * *"]),
        (hold(&[line("salt", NEW).ttl_ms(900_001)]), &["TOO_LONG 900000"]),
        (hold(&[line("salt", NEW).ttl_ms(900_000)]), &["HELD * *"]),
        (hold(&[line("salt", NEW).quantity(3)]), &["INSUFFICIENT 2 0"]),
        (hold(&[line("salt", NEW).quantity(2)]).with("ttlMs", "default"), &["HELD * *"]),
        (hold(&[line("jam", NEW).quantity(100).ttl_ms(900_001)]), &["BY_CART"]),
    ]
}

/// The mode of a call; empty if the script has none.
fn mode_of(call: &Call) -> String {
    let mode = if Contract::of(call.script).has_modes() { call.args[0].clone() } else { Vec::new() };
    String::from_utf8(mode).unwrap()
}

fn is_like(reply: &[String], expected: &str) -> bool {
    let expected: Vec<_> = expected.split(' ').map(|element| if element == "_" { "" } else { element }).collect();
    reply.len() == expected.len()
        && reply.iter().zip(expected).all(|(element, expected)| expected == "*" || element == expected)
}

/// Each reply word of each script, with each mode in which the header allows it.
fn listed() -> BTreeSet<(&'static str, String, String)> {
    let mut listed = BTreeSet::new();
    for (script, contract) in Contract::all() {
        let modes: &[&str] = if contract.has_modes() { &["each", "all"] } else { &[""] };
        for (word, reply) in &contract.replies {
            let given = modes.iter().filter(|mode| !reply.all_only || **mode == "all");
            listed.extend(given.map(|mode| (script, (*mode).to_owned(), word.clone())));
        }
    }
    listed
}

fn cases() -> Vec<Case> {
    let mut cases = alone();
    cases.extend(of_carts());
    cases.extend(of_returning());
    cases.extend(of_changing());
    cases.extend(of_selling());
    for mode in ["each", "all"] {
        cases.extend(of_hold(mode));
        cases.extend(of_hold_with_metadata(mode));
        cases.extend(of_rules(|lines| hold(mode, lines)));
        cases.extend(of_rules(|lines| hold_with_metadata(mode, lines)));
        cases.extend(of_settling(mode));
        cases.extend(of_extending(mode));
        cases.extend(of_adjusting(mode));
    }
    cases.extend(all_or_nothing());
    cases
}

/// The scripts without a mode.
fn alone() -> Vec<Case> {
    vec![
        (seed("new", 7, &[]), &["SEEDED 7 * 1"]),
        (seed("tea", 7, &[ACTIVE, LAPSED]), &["SEEDED 7 * *"]),
        (seed("tea", 7, &[ACTIVE]), &["DRAINING 1"]),
        (seed_under(DONE_ONCE, "pot", 7, &[]).once(), &["REPLAYED 7 * 1"]),
        (seed_under(DONE_ONCE, "pot", 8, &[]).once(), &["CONFLICT quantity"]),
        (seed_under(DONE_ONCE, "tea", 7, &[]), &["CONFLICT sku"]),
        (seed("tea", 7, &[]), &["DRAINING 2"]),
        (seed("tea", 7, &[ACTIVE]).with("quantity", "probe"), &["PROBED"]),
        (seed("new", 7, &[]).with("quantity", "probe"), &["PROBED"]),
        (sweep("nil", &[]), &["UNKNOWN_SKU"]),
        (sweep("tea", &[LAPSED, ACTIVE]), &["SWEPT 1 *"]),
        (sweep("tea", &[ACTIVE]), &["SWEPT 0 *"]),
        (repair("nil", ["", "", ""], [0; 3], &[]), &["UNKNOWN_SKU"]),
        (repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[(ACTIVE, "")]), &["REPAIRED 0 6 3 1 7"]),
        (repair("tea", ["7", LAST_EVENT, "here"], [0; 3], &[]), &["REPAIRED 1 6 3 1 8"]),
        (repair("tea", ["7", LAST_EVENT, ""], [-7, 0, 0], &[]), &["OVERSOLD -1"]),
        (repair("tea", ["7", "1-1", "here"], [0; 3], &[]), &["STALE"]),
        (repair("tea", ["7", LAST_EVENT, ""], [0; 3], &[]).with("rules", "none"), &["REPAIRED 1 6 3 1 8"]),
        (rules("nil", "4", "", ""), &["UNKNOWN_SKU"]),
        (rules("tea", "4", "", ""), &["RULED 6 3 1 * 8 *"]),
        (rules("tea", "", "", ""), &["RULED 6 3 1 * 7 _"]),
        (inventory("nil", 10), &["UNKNOWN_SKU"]),
        (inventory("tea", 0), &["STOCK tea 6 3 1 10 * 7 2 1 _"]),
        (inventory("cup", 10), &["STOCK cup 4 1 0 5 * 2 1 0 _", "ACTIVE 00000000-0000-8007-8000-00000000000e *"]),
        (audit("nil", 10, ""), &[]),
        (
            audit("tea", 2, ""),
            &[
                "EVENT * release 00000000-0000-8007-8000-00000000000d cart-1 tea 1 released manual_release * 6 3 1 7 * _",
                "EVENT * confirm 00000000-0000-8007-8000-00000000000c cart-1 tea 1 confirmed _ * 5 4 1 6 * _",
            ],
        ),
        (
            audit("cup", 2, ""),
            &[
                "EVENT * hold 00000000-0000-8007-8000-00000000000e cart-1 cup 1 active _ * 4 1 0 2 * _",
                "EVENT * seed _ _ cup 5 seeded _ * 5 0 0 1 _ _",
            ],
        ),
        (audit_all(1, ""), &["EVENT * release * * tea 1 released manual_release * 6 3 1 7 * _"]),
    ]
}

fn of_carts() -> Vec<Case> {
    let (gone, next) = (id(0), id(1));
    let done = [("cup", IN_CART, 1), ("tea", &*gone, 1)];
    let swapped = [done[1], done[0]];
    let once = |lines: &[_]| cart_hold(DONE_ONCE, lines).once().call();
    let again = |lines: &[_]| cart_hold(NEW, lines).call();
    let jam = |quantity, ttl_ms, others: &[&str]| {
        cart_hold(NEW, &[("jam", NEW, quantity)]).ttl_ms(ttl_ms).others(others).call()
    };
    let full = |others: &[&str]| cart_hold(NEW, &[("tea", NEW, 1)]).cart("full").others(others).call();
    vec![
        (again(&[("tea", NEW, 6), ("cup", NEWER, 1)]), &["HELD * *", "HELD * *"]),
        (once(&done), &["REPLAYED cart-1 cup 1 active _ * * *", "NOT_FOUND"]),
        (once(&swapped), &["NOT_FOUND", "REPLAYED cart-1 cup 1 active _ * * *"]),
        // Whether it is to be remembered or not.
        (cart_hold(DONE_ONCE, &done).call(), &["REPLAYED cart-1 cup 1 active _ * * *", "NOT_FOUND"]),
        (once(&done[..1]), &["CONFLICT items"]),
        (once(&[("cup", IN_CART, 2), done[1]]), &["CONFLICT items", "CONFLICT items"]),
        (once(&[("nil", NEW, 1)]), &["CONFLICT items"]),
        (cart_hold(DONE_ONCE, &done).once().ttl_ms(7).call(), &["CONFLICT items", "CONFLICT items"]),
        (cart_hold(DONE_ONCE, &done).once().cart("cart-2").call(), &["CONFLICT cartId", "CONFLICT cartId"]),
        (
            again(&[("tea", ACTIVE, 2), ("cup", CUP, 1)]),
            &["REPLAYED cart-1 tea 2 active _ * * *", "REPLAYED cart-1 cup 1 active _ * * *"],
        ),
        (again(&[("tea", RELEASED, 1)]), &["REPLAYED cart-1 tea 1 released manual_release * * *"]),
        (again(&[("tea", ACTIVE, 2), ("cup", CUP, 2)]), &["REPLAYED cart-1 tea 2 active _ * * *", "CONFLICT quantity"]),
        (again(&[("tea", ACTIVE, 2), ("cup", NEW, 1)]), &["CONFLICT items", "WITHDRAWN"]),
        (again(&[("cup", ACTIVE, 2)]), &["CONFLICT sku"]),
        (cart_hold(NEW, &[("cup", ACTIVE, 3)]).cart("cart-2").call(), &["CONFLICT cartId"]),
        (
            again(&[("tea", NEW, 7), ("nil", NEWER, 1), ("cup", &next, 1)]),
            &["INSUFFICIENT 6 1", "UNKNOWN_SKU", "WITHDRAWN"],
        ),
        (again(&[("jam", NEW, 1)]), &["UNSEEN"]),
        (again(&[("jam", NEW, 1), ("cup", NEWER, 1)]), &["UNSEEN", "WITHDRAWN"]),
        (jam(1, 900_000, &JAMS), &["HELD * *"]),
        (jam(1, 900_001, &JAMS), &["TOO_LONG 900000"]),
        // What has lapsed does not count, and what is gone need not be there.
        (jam(2, 1, &JAMS), &["CART_LIMIT 4 3"]),
        (jam(100, 1, &JAMS), &["CART_LIMIT 4 3"]),
        (jam(2, 1, &JAMS[..2]), &["UNSEEN"]),
        (cart_hold(NEW, &[("jam", NEW, 5)]).cart("cart-2").call(), &["CART_LIMIT 4 0"]),
        (cart_hold(NEW, &[("jam", NEW, 4)]).cart("cart-2").call(), &["HELD * *"]),
        (again(&[("salt", NEW, 3)]), &["INSUFFICIENT 2 0"]),
        (
            cart_hold(NEW, &[("salt", NEW, 2), ("cup", NEWER, 1)]).call().with("ttlMs", "default"),
            &["HELD * *", "HELD * *"],
        ),
        (full(&[]), &["FULL"]),
        (full(&IN_FULL[..2]), &["FULL"]),
        (full(&[RELEASED]), &["FULL"]),
        (full(&IN_FULL), &["HELD * *"]),
        (full(&[ACTIVE, &next]), &["HELD * *"]),
        // What is refused for itself is not refused for the cart.
        (cart_hold(NEW, &[("tea", NEW, 7)]).cart("full").call(), &["INSUFFICIENT 6 1"]),
    ]
}

fn of_hold(mode: &str) -> Vec<Case> {
    let hold = |lines: &[_]| hold(mode, lines);
    let active = line("tea", ACTIVE).quantity(2);
    vec![
        (hold(&[line("tea", NEW).quantity(6)]), &["HELD * *"]),
        (hold(&[active]), &["REPLAYED cart-1 tea 2 active _ * * *"]),
        (hold(&[line("tea", LAPSED)]), &["REPLAYED cart-1 tea 1 active _ * * *"]),
        (hold(&[line("tea", CONFIRMED)]), &["REPLAYED cart-1 tea 1 confirmed _ * * *"]),
        (hold(&[line("tea", RELEASED)]), &["REPLAYED cart-1 tea 1 released manual_release * * *"]),
        (hold(&[active.cart("cart-2")]), &["CONFLICT cartId"]),
        (hold(&[line("cup", ACTIVE).quantity(2)]), &["CONFLICT sku"]),
        (hold(&[active.quantity(3)]), &["CONFLICT quantity"]),
        (hold(&[line("cup", ACTIVE).quantity(3)]), &["CONFLICT sku"]),
        (hold(&[line("cup", ACTIVE).quantity(3).cart("cart-2")]), &["CONFLICT cartId"]),
        // The id decides before the stock.
        (hold(&[line("nil", ACTIVE).quantity(2)]), &["CONFLICT sku"]),
        (hold(&[line("nil", NEW)]), &["UNKNOWN_SKU"]),
        (hold(&[line("tea", NEW).quantity(7)]), &["INSUFFICIENT 6 1"]),
        (hold(&[line("cup", NEW).quantity(5)]), &["INSUFFICIENT 4 0"]),
        (
            hold(&[line("tea", NEW), line("cup", NEWER), active]),
            &["HELD * *", "HELD * *", "REPLAYED cart-1 tea 2 active _ * * *"],
        ),
    ]
}

fn of_hold_with_metadata(mode: &str) -> Vec<Case> {
    const ORDER: &str = r#"{"order":"A-17"}"#;
    let hold = |lines: &[_]| hold_with_metadata(mode, lines);
    let active = line("tea", ACTIVE).quantity(2);
    let [first, second] = [line("tea", NEW).metadata(ORDER), line("tea", NEW)];
    let mut cases: Vec<Case> = vec![
        (hold(&[line("tea", NEW).quantity(6).metadata(ORDER)]), &["HELD * *"]),
        (hold(&[active]), &["REPLAYED cart-1 tea 2 active _ * * *"]),
        (hold(&[active.metadata(ORDER)]), &["CONFLICT metadata"]),
        (hold(&[active.metadata(ORDER).quantity(3)]), &["CONFLICT quantity"]),
        (hold(&[line("nil", NEW).metadata(ORDER)]), &["UNKNOWN_SKU"]),
        (hold(&[line("tea", NEW).quantity(7).metadata(ORDER)]), &["INSUFFICIENT 6 1"]),
    ];
    if mode == "each" {
        cases.push((hold(&[first, first]), &["HELD * *", "REPLAYED cart-1 tea 1 active _ * * *"]));
        cases.push((hold(&[first, second]), &["HELD * *", "CONFLICT metadata"]));
        cases.push((hold(&[second, first]), &["HELD * *", "CONFLICT metadata"]));
    } else {
        cases.push((hold(&[first, second]), &["WITHDRAWN", "CONFLICT metadata"]));
    }
    cases
}

fn of_settling(mode: &str) -> Vec<Case> {
    let confirm = |items: &[_]| confirm(mode, items);
    let release = |items: &[_]| release(mode, items);
    vec![
        (confirm(&[("tea", ACTIVE, "")]), &["CONFIRMED cart-1 tea 2 confirmed _ * * *"]),
        (confirm(&[("tea", NEW, "")]), &["NOT_FOUND"]),
        (confirm(&[("nil", NEW, "")]), &["NOT_FOUND"]),
        (confirm(&[("cup", ACTIVE, "")]), &["CONFLICT sku"]),
        (confirm(&[("nil", ACTIVE, "")]), &["CONFLICT sku"]),
        (confirm(&[("tea", CONFIRMED, "token")]), &["REPLAYED cart-1 tea 1 confirmed _ * * *"]),
        (confirm(&[("tea", CONFIRMED, "other")]), &["NOT_ACTIVE confirmed _"]),
        (confirm(&[("tea", CONFIRMED, "")]), &["NOT_ACTIVE confirmed _"]),
        (confirm(&[("tea", RELEASED, "token")]), &["NOT_ACTIVE released manual_release"]),
        (confirm(&[("tea", LAPSED, "")]), &["EXPIRED"]),
        (release(&[("tea", ACTIVE, "")]), &["RELEASED cart-1 tea 2 released manual_release * * *"]),
        (release(&[("tea", NEW, "")]), &["NOT_FOUND"]),
        (release(&[("nil", NEW, "")]), &["NOT_FOUND"]),
        (release(&[("cup", ACTIVE, "")]), &["CONFLICT sku"]),
        (release(&[("nil", ACTIVE, "")]), &["CONFLICT sku"]),
        (release(&[("tea", RELEASED, "token")]), &["REPLAYED cart-1 tea 1 released manual_release * * *"]),
        (release(&[("tea", RELEASED, "other")]), &["NOT_ACTIVE released manual_release"]),
        (release(&[("tea", RELEASED, "")]), &["NOT_ACTIVE released manual_release"]),
        (release(&[("tea", CONFIRMED, "token")]), &["NOT_ACTIVE confirmed _"]),
        (release(&[("tea", LAPSED, "")]), &["EXPIRED"]),
        // An item that was done before does not stop the others, in either mode.
        (
            confirm(&[("tea", CONFIRMED, "token"), ("cup", CUP, "")]),
            &["REPLAYED cart-1 tea 1 confirmed _ * * *", "CONFIRMED cart-1 cup 1 confirmed _ * * *"],
        ),
        (
            release(&[("tea", RELEASED, "token"), ("cup", CUP, "")]),
            &[
                "REPLAYED cart-1 tea 1 released manual_release * * *",
                "RELEASED cart-1 cup 1 released manual_release * * *",
            ],
        ),
    ]
}

fn of_extending(mode: &str) -> Vec<Case> {
    let extend = |items: &[_]| extend(mode, items);
    vec![
        (extend(&[("tea", ACTIVE, LONGER_MS)]), &["EXTENDED cart-1 tea 2 active _ * * *"]),
        (extend(&[("tea", ACTIVE, 1)]), &["EXTENDED cart-1 tea 2 active _ * * *"]),
        (extend(&[("tea", ACTIVE, 2_592_000_000)]), &["LIMITED *"]),
        (extend(&[("salt", SALT, LONGER_MS)]), &["LIMITED *"]),
        (extend(&[("tea", NEW, LONGER_MS)]), &["NOT_FOUND"]),
        (extend(&[("nil", NEW, LONGER_MS)]), &["NOT_FOUND"]),
        (extend(&[("cup", ACTIVE, LONGER_MS)]), &["CONFLICT sku"]),
        (extend(&[("nil", ACTIVE, LONGER_MS)]), &["CONFLICT sku"]),
        (extend(&[("cup", LAPSED, LONGER_MS)]), &["CONFLICT sku"]),
        (extend(&[("tea", CONFIRMED, LONGER_MS)]), &["NOT_ACTIVE confirmed _"]),
        (extend(&[("tea", RELEASED, 2_592_000_000)]), &["NOT_ACTIVE released manual_release"]),
        // It has lapsed before its limit counts.
        (extend(&[("tea", LAPSED, LONGER_MS)]), &["EXPIRED"]),
        (extend(&[("tea", LAPSED, 2_592_000_000)]), &["EXPIRED"]),
        (
            extend(&[("tea", ACTIVE, LONGER_MS), ("cup", CUP, LONGER_MS)]),
            &["EXTENDED cart-1 tea 2 active _ * * *", "EXTENDED cart-1 cup 1 active _ * * *"],
        ),
    ]
}

impl ScriptFixture {
    /// What the cases of `sell` need besides the stock.
    async fn sell_before(&mut self) {
        for call in
            [seed("pot", 1, &[]), hold("each", &[line("cup", CUPS).quantity(3).ttl_ms(1), line("pot", POT).ttl_ms(1)])]
        {
            self.evalsha(&call).await.unwrap();
        }
        self.lapse(POT).await;
        let left = id(2);
        for call in [
            sweep("cup", &[CUPS]),
            hold("each", &[line("cup", &left).quantity(2)]),
            sell("pot", POT, "token", 0, "reacquire"),
        ] {
            self.evalsha(&call).await.unwrap();
        }
    }
}

fn of_selling() -> Vec<Case> {
    const LATE: &str = "reacquire";
    vec![
        (sell("tea", ACTIVE, "", 0, ""), &["CONFIRMED cart-1 tea 2 confirmed _ * * *"]),
        (sell("tea", ACTIVE, "", 0, LATE), &["CONFIRMED cart-1 tea 2 confirmed _ * * *"]),
        (sell("tea", ACTIVE, "t", 1, ""), &["CONFIRMED cart-1 tea 1 confirmed _ * * *"]),
        (sell("tea", ACTIVE, "", 2, ""), &["CONFIRMED cart-1 tea 2 confirmed _ * * *"]),
        (sell("tea", ACTIVE, "", 3, ""), &["EXCEEDS 2"]),
        (sell("tea", NEW, "", 1, LATE), &["NOT_FOUND"]),
        (sell("nil", NEW, "", 1, LATE), &["NOT_FOUND"]),
        (sell("cup", ACTIVE, "", 9, ""), &["CONFLICT sku"]),
        (sell("nil", ACTIVE, "", 1, LATE), &["CONFLICT sku"]),
        (sell("tea", CONFIRMED, "token", 0, ""), &["REPLAYED cart-1 tea 1 confirmed _ * * *"]),
        (sell("tea", CONFIRMED, "token", 1, LATE), &["REPLAYED cart-1 tea 1 confirmed _ * * *"]),
        (sell("tea", CONFIRMED, "token", 2, ""), &["CONFLICT quantity"]),
        (sell("tea", CONFIRMED, "other", 2, LATE), &["NOT_ACTIVE confirmed _"]),
        (sell("tea", CONFIRMED, "", 1, ""), &["NOT_ACTIVE confirmed _"]),
        (sell("tea", RELEASED, "token", 1, LATE), &["NOT_ACTIVE released manual_release"]),
        (sell("pot", POT, "", 0, LATE), &["NOT_ACTIVE confirmed late_confirm"]),
        (sell("pot", POT, "token", 0, ""), &["REPLAYED cart-1 pot 1 confirmed late_confirm * * *"]),
        // It has lapsed before its units count.
        (sell("tea", LAPSED, "", 9, ""), &["EXPIRED"]),
        (sell("cup", CUPS, "", 9, ""), &["EXPIRED"]),
        (sell("tea", LAPSED, "", 9, LATE), &["EXCEEDS 1"]),
        (sell("tea", LAPSED, "t", 0, LATE), &["CONFIRMED cart-1 tea 1 confirmed late_confirm * * *"]),
        (sell("cup", CUPS, "", 0, LATE), &["INSUFFICIENT 2 0"]),
        (sell("jam", JAMS[2], "", 0, LATE), &["UNSEEN cart-1"]),
        (sell("jam", JAMS[2], "", 0, LATE).with_cart("cart-2", &[]), &["UNSEEN cart-1"]),
        (sell("jam", JAMS[2], "", 0, LATE).with_cart("cart-1", &JAMS[..1]), &["UNSEEN cart-1"]),
        (sell("jam", JAMS[2], "", 0, LATE).with_cart("cart-1", &JAMS), &["CART_LIMIT 4 3"]),
        (
            sell("jam", JAMS[2], "", 1, LATE).with_cart("cart-1", &JAMS[..2]),
            &["CONFIRMED cart-1 jam 1 confirmed late_confirm * * *"],
        ),
        // What is held in time is sold, whatever the rules say by then.
        (sell("jam", JAMS[0], "", 0, LATE), &["CONFIRMED cart-1 jam 2 confirmed _ * * *"]),
        (sell("cup", CUPS, "", 4, LATE), &["EXCEEDS 3"]),
        (sell("cup", CUPS, "", 2, LATE), &["CONFIRMED cart-1 cup 2 confirmed late_confirm * * *"]),
    ]
}

fn of_changing() -> Vec<Case> {
    vec![
        (change_to("tea", ACTIVE, 3, ""), &["CHANGED cart-1 tea 3 active _ * * *"]),
        (change_to("tea", ACTIVE, 2, ""), &["CHANGED cart-1 tea 2 active _ * * *"]),
        // What it holds already does not count as missing.
        (change_to("tea", ACTIVE, 8, ""), &["CHANGED cart-1 tea 8 active _ * * *"]),
        (change_to("tea", ACTIVE, 9, ""), &["INSUFFICIENT 6 1"]),
        (change_to("jam", JAMS[0], 1, ""), &["CHANGED cart-1 jam 1 active _ * * *"]),
        (change_to("jam", JAMS[0], 3, ""), &["UNSEEN cart-1"]),
        (change_to("jam", JAMS[0], 3, "").with_cart("cart-2", &JAMS), &["UNSEEN cart-1"]),
        (change_to("jam", JAMS[0], 3, "").with_cart("cart-1", &JAMS), &["CHANGED cart-1 jam 3 active _ * * *"]),
        (change_to("jam", JAMS[0], 4, "").with_cart("cart-1", &JAMS[1..]), &["CART_LIMIT 4 1"]),
        (change_to("salt", SALT, 3, ""), &["CHANGED cart-1 salt 3 active _ * * *"]),
        (change_to("salt", SALT, 4, ""), &["INSUFFICIENT 2 0"]),
        (release_part("tea", ACTIVE, 1, ""), &["CHANGED cart-1 tea 1 active _ * * *"]),
        (release_part("tea", ACTIVE, 2, ""), &["RELEASED cart-1 tea 2 released manual_release * * *"]),
        (release_part("tea", ACTIVE, 3, ""), &["EXCEEDS 2"]),
        (change_to("tea", NEW, 3, ""), &["NOT_FOUND"]),
        (change_to("nil", NEW, 3, ""), &["NOT_FOUND"]),
        (change_to("cup", ACTIVE, 3, ""), &["CONFLICT sku"]),
        (change_to("nil", ACTIVE, 3, ""), &["CONFLICT sku"]),
        (change_to("tea", CONFIRMED, 3, ""), &["NOT_ACTIVE confirmed _"]),
        (release_part("tea", RELEASED, 3, ""), &["NOT_ACTIVE released manual_release"]),
        // It has lapsed before its units count.
        (change_to("tea", LAPSED, 100, ""), &["EXPIRED"]),
        (release_part("tea", LAPSED, 2, ""), &["EXPIRED"]),
        (change_to("cup", CUP, 2, DONE_ONCE), &["REPLAYED cart-1 cup 2 active _ * * *"]),
        (change_to("cup", CUP, 3, DONE_ONCE), &["CONFLICT quantity"]),
        (release_part("cup", CUP, 3, DONE_ONCE), &["CONFLICT how"]),
        // The operation decides before the state.
        (change_to("tea", LAPSED, 2, DONE_ONCE), &["CONFLICT sku"]),
    ]
}

fn of_adjusting(mode: &str) -> Vec<Case> {
    let adjust = |items: &[_]| adjust(mode, items);
    vec![
        (adjust(&[add("tea", NEW, 2)]), &["ADJUSTED 8 3 1 * 8"]),
        (adjust(&[add("tea", NEW, -6)]), &["ADJUSTED 0 3 1 * 8"]),
        (adjust(&[set("tea", NEW, 0)]), &["ADJUSTED 0 3 1 * 8"]),
        (adjust(&[add("cup", DONE_ONCE, 2).once()]), &["REPLAYED 6 1 0 * 3"]),
        (adjust(&[add("cup", DONE_ONCE, 3).once()]), &["CONFLICT units"]),
        (adjust(&[add("nil", DONE_ONCE, 2).once()]), &["CONFLICT sku"]),
        (adjust(&[add("nil", NEW, 2)]), &["UNKNOWN_SKU"]),
        // A SKU that is not there has no version and no units that could be too few.
        (adjust(&[add("nil", NEW, -2).if_version(3)]), &["UNKNOWN_SKU"]),
        (adjust(&[add("nil", NEW, 2).create()]), &["ADJUSTED 2 0 0 * 1"]),
        (adjust(&[add("tea", NEW, 2).if_version(7)]), &["ADJUSTED 8 3 1 * 8"]),
        (adjust(&[add("tea", NEW, -9).if_version(6)]), &["STALE 7"]),
        (adjust(&[add("tea", NEW, -7)]), &["INSUFFICIENT 6 1"]),
        (adjust(&[add("pot", NEW, 1)]), &["EXCESSIVE"]),
        (adjust(&[add("tea", NEW, -1), add("cup", DONE_ONCE, 2)]), &["ADJUSTED 5 3 1 * 8", "REPLAYED 6 1 0 * 3"]),
    ]
}

fn of_returning() -> Vec<Case> {
    vec![
        (take_back("tea", CONFIRMED, NEW, 1), &["RETURNED cart-1 tea 1 confirmed _ * * * 1"]),
        (write_off("tea", CONFIRMED, NEW, 1).once(), &["RETURNED cart-1 tea 1 confirmed _ * * * 1"]),
        (take_back("cup", CUPS, NEW, 2), &["RETURNED cart-1 cup 3 confirmed _ * * * 3"]),
        (take_back("tea", NEW, NEW, 1), &["NOT_FOUND"]),
        (take_back("nil", NEW, NEW, 1), &["NOT_FOUND"]),
        (take_back("cup", CONFIRMED, NEW, 1), &["CONFLICT sku"]),
        (take_back("nil", CONFIRMED, NEW, 1), &["CONFLICT sku"]),
        (take_back("cup", CUPS, DONE_ONCE, 1).once(), &["REPLAYED cart-1 cup 3 confirmed _ * * * 1"]),
        // The operation decides before the sale.
        (take_back("cup", CUPS, DONE_ONCE, 9), &["CONFLICT quantity"]),
        (write_off("cup", CUPS, DONE_ONCE, 1).once(), &["CONFLICT restock"]),
        (take_back("tea", CONFIRMED, DONE_ONCE, 1), &["CONFLICT sku"]),
        (take_back("cup", CUP, DONE_ONCE, 1), &["CONFLICT reservationId"]),
        (take_back("tea", ACTIVE, NEW, 1), &["NOT_SOLD active _"]),
        (take_back("tea", LAPSED, NEW, 9), &["NOT_SOLD active _"]),
        (take_back("tea", RELEASED, NEW, 1), &["NOT_SOLD released manual_release"]),
        (take_back("tea", CONFIRMED, NEW, 2), &["EXCEEDS 1"]),
        (write_off("cup", CUPS, NEW, 3), &["EXCEEDS 2"]),
        (take_back("pot", POT, NEW, 1), &["EXCESSIVE"]),
        (write_off("pot", POT, NEW, 1), &["RETURNED cart-1 pot 1 confirmed _ * * * 1"]),
    ]
}

/// The same calls in both modes, with replies that differ between the modes.
fn all_or_nothing() -> Vec<Case> {
    let unknown = id(1);
    let holds = [line("tea", NEW).quantity(2), line("cup", CUP), line("tea", NEWER).quantity(5), line("nil", &unknown)];
    let adjustments = [add("tea", NEW, 2), add("cup", DONE_ONCE, 2), add("tea", NEWER, -9), add("nil", &unknown, 1)];
    let confirms = [("tea", ACTIVE, ""), ("cup", NEW, ""), ("tea", LAPSED, ""), ("tea", CONFIRMED, "token")];
    let releases = [("tea", ACTIVE, ""), ("cup", NEW, ""), ("tea", LAPSED, ""), ("tea", RELEASED, "token")];
    let extensions = [
        ("tea", ACTIVE, LONGER_MS),
        ("cup", NEW, LONGER_MS),
        ("tea", LAPSED, LONGER_MS),
        ("cup", CUP, 2_592_000_000),
        ("tea", ACTIVE, 1),
    ];
    vec![
        (
            extend("each", &extensions),
            &[
                "EXTENDED cart-1 tea 2 active _ * * *",
                "NOT_FOUND",
                "EXPIRED",
                "LIMITED *",
                "EXTENDED cart-1 tea 2 active _ * * *",
            ],
        ),
        (extend("all", &extensions), &["WITHDRAWN", "NOT_FOUND", "EXPIRED", "LIMITED *", "WITHDRAWN"]),
        (extend("all", &[("tea", ACTIVE, 1), ("tea", CONFIRMED, 1)]), &["WITHDRAWN", "NOT_ACTIVE confirmed _"]),
        (
            hold("each", &holds),
            &["HELD * *", "REPLAYED cart-1 cup 1 active _ * * *", "INSUFFICIENT 4 1", "UNKNOWN_SKU"],
        ),
        (
            hold("all", &holds),
            &["WITHDRAWN", "REPLAYED cart-1 cup 1 active _ * * *", "INSUFFICIENT 4 1", "UNKNOWN_SKU"],
        ),
        (
            confirm("each", &confirms),
            &[
                "CONFIRMED cart-1 tea 2 confirmed _ * * *",
                "NOT_FOUND",
                "EXPIRED",
                "REPLAYED cart-1 tea 1 confirmed _ * * *",
            ],
        ),
        (confirm("all", &confirms), &["WITHDRAWN", "NOT_FOUND", "EXPIRED", "REPLAYED cart-1 tea 1 confirmed _ * * *"]),
        (
            release("each", &releases),
            &[
                "RELEASED cart-1 tea 2 released manual_release * * *",
                "NOT_FOUND",
                "EXPIRED",
                "REPLAYED cart-1 tea 1 released manual_release * * *",
            ],
        ),
        (
            release("all", &releases),
            &["WITHDRAWN", "NOT_FOUND", "EXPIRED", "REPLAYED cart-1 tea 1 released manual_release * * *"],
        ),
        (
            adjust("each", &adjustments),
            &["ADJUSTED 8 3 1 * 8", "REPLAYED 6 1 0 * 3", "INSUFFICIENT 8 1", "UNKNOWN_SKU"],
        ),
        (adjust("all", &adjustments), &["WITHDRAWN", "REPLAYED 6 1 0 * 3", "INSUFFICIENT 8 1", "UNKNOWN_SKU"]),
        (hold("all", &[line("tea", NEW), line("cup", ACTIVE).quantity(2)]), &["WITHDRAWN", "CONFLICT sku"]),
        (confirm("all", &[("tea", ACTIVE, ""), ("cup", LAPSED, "")]), &["WITHDRAWN", "CONFLICT sku"]),
        (release("all", &[("tea", ACTIVE, ""), ("tea", CONFIRMED, "")]), &["WITHDRAWN", "NOT_ACTIVE confirmed _"]),
    ]
}
