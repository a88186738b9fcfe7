//! Each example meets every word of the contract, and says what it means.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use hyper::Request;
use redis::cmd;
use serde_json::json;
use stockhold::keys::{IdempotencyKey, ReservationId, Sku};
use stockhold::scripts::Catalogue;
use tokio::time::sleep;

use super::install::{NODE, PYTHON, RUST, source};
use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

/// Longer than a client waits for one reply, and shorter than it continues to retry.
const SILENCE: Duration = Duration::from_secs(3);

/// The time of a hold that lapses before anything else can happen to it.
const AT_ONCE: &str = "1";
const LATER: &str = "60000";

/// Times of extensions: one that is allowed, and one that the operator does not allow.
const LONGER: &str = "120000";
const TOO_LONG: &str = "7200000";

pub fn python() -> Command {
    let mut command = Command::new(&*PYTHON);
    command.arg(source("clients/python/stockhold.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

pub fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(NODE.join("stockhold.mjs"));
    command
}

pub fn shell() -> Command {
    Command::new(source("clients/shell/stockhold.sh"))
}

pub fn rust() -> Command {
    Command::new(&*RUST)
}

/// A server with tea on sale, and one of the examples as its customer.
struct Customer {
    example: fn() -> Command,
    redis: RedisServer,
    server: Stockhold,
    words: BTreeSet<String>,
}

impl Customer {
    async fn of(example: fn() -> Command) -> Self {
        let redis = RedisServer::start();
        // With this interval, lapsed holds stay until the customer sweeps them.
        let server = Stockhold::start_with(&redis, &["--sweep-interval-ms", "60000"]);
        server.seed("tea", 5).await;
        Self { example, redis, server, words: BTreeSet::new() }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = (self.example)();
        self.redis.tell(command.args(words.split(' ')));
        command
    }

    /// Runs a command of the example: its exit status and its first lines must be as given.
    async fn gets(&mut self, command: &str, status: i32, lines: &[&str]) {
        let command = self.command(command);
        let output = run(command).await;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let fits = printed.lines().count() == lines.len()
            && printed.lines().zip(lines).all(|(line, expected)| line.starts_with(expected));
        assert!(fits && output.status.code() == Some(status), "{:?}: {printed}", output.status);
        self.words.extend(lines.iter().map(|line| line.split(':').next().unwrap().to_owned()));
    }

    async fn meets_every_word(&mut self) {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12000{end}"));
        self.gets(&format!("hold cart-1 {LATER} tea 2 {a}"), 0, &["HELD: until 1"]).await;
        self.gets(&format!("hold cart-1 {LATER} tea 2 {a}"), 0, &["REPLAYED: done before; it is active"]).await;
        self.gets(&format!("hold cart-1 {LATER} tea 1 {a}"), 1, &["CONFLICT: used with another quantity"]).await;
        self.gets(&format!("hold cart-1 {LATER} tea 4 {b}"), 1, &["INSUFFICIENT: 3 left"]).await;
        self.gets(&format!("hold cart-1 {LATER} cup 1 {b}"), 1, &["UNKNOWN_SKU: never on sale"]).await;
        self.gets(&format!("confirm tea {b} pay-1"), 1, &["NOT_FOUND: no such reservation"]).await;
        self.gets(&format!("confirm cup {a} pay-1"), 1, &["CONFLICT: used with another sku"]).await;
        self.gets(&format!("extend tea {a} {LONGER}"), 0, &["EXTENDED: until 1"]).await;
        self.gets(&format!("extend tea {a} {TOO_LONG}"), 1, &["LIMITED: not after 1"]).await;
        self.gets(&format!("extend tea {b} {LONGER}"), 1, &["NOT_FOUND: no such reservation"]).await;
        self.gets(&format!("confirm tea {a} pay-1"), 0, &["CONFIRMED: sold"]).await;
        self.gets(&format!("confirm tea {a} pay-1"), 0, &["REPLAYED: done before; it is confirmed"]).await;
        self.gets(&format!("release tea {a} off-1"), 1, &["NOT_ACTIVE: it is confirmed already"]).await;

        self.gets(&format!("hold cart-2 {AT_ONCE} tea 1 {b}"), 0, &["HELD: until 1"]).await;
        sleep(Duration::from_millis(5)).await;
        self.gets(&format!("extend tea {b} {LONGER}"), 1, &["EXPIRED: too late, back on sale"]).await;
        self.gets(&format!("confirm tea {b} pay-2"), 1, &["EXPIRED: too late, back on sale"]).await;

        // All units that are left are on a lapsed hold: the customer sweeps it and gets the units.
        self.gets(&format!("hold cart-3 {AT_ONCE} tea 3 {c}"), 0, &["HELD: until 1"]).await;
        sleep(Duration::from_millis(5)).await;
        self.gets(&format!("hold cart-4 {LATER} tea 3 {d}"), 0, &["HELD: until 1"]).await;
        self.gets(&format!("release tea {d} off-2"), 0, &["RELEASED: back on sale"]).await;
        assert_eq!(self.server.counts("tea").await, [3, 0, 2]);
    }

    async fn adjusts_what_is_available(&mut self) {
        let [a, b, c] = ["a", "b", "c"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12002{end}"));
        let mut redis = self.redis.connection().await;
        self.server.seed("jar", 5).await;
        self.gets(&format!("adjust jar 10 {a} delivery"), 0, &["ADJUSTED: 15 available"]).await;
        self.gets(&format!("adjust jar 10 {a} delivery"), 0, &["REPLAYED: done before; it left 15 available"]).await;
        self.gets(&format!("adjust jar 11 {a} delivery"), 1, &["CONFLICT: used with another units"]).await;
        self.gets(&format!("adjust nil 1 {b} delivery"), 1, &["UNKNOWN_SKU: never on sale"]).await;
        self.gets(&format!("adjust jar -1 {b} broken 1"), 1, &["STALE: it has version 2"]).await;
        self.gets(&format!("adjust jar -16 {b} broken"), 1, &["INSUFFICIENT: 15 left"]).await;
        self.gets(&format!("adjust jar -5 {b} broken 2"), 0, &["ADJUSTED: 10 available"]).await;

        // All units are on a lapsed hold: the customer sweeps it.
        let id = "018f3b9e-5c1a-4000-9f10-0242ac12002d";
        self.gets(&format!("hold cart-6 {AT_ONCE} jar 10 {id}"), 0, &["HELD: until 1"]).await;
        sleep(Duration::from_millis(5)).await;
        self.gets(&format!("adjust jar -10 {c} broken"), 0, &["ADJUSTED: 0 available"]).await;
        assert_invariants(&mut redis, History::Whole).await;

        let full = ["inventory:jar", "available", "1000000000000", "seeded", "1000000000000"];
        cmd("HSET").arg(&full).exec_async(&mut redis).await.unwrap();
        let refused = ["EXCESSIVE: more than there can be"];
        self.gets("adjust jar 1 018f3b9e-5c1a-4000-9f10-0242ac12002e delivery", 1, &refused).await;
        let empty = ["inventory:jar", "available", "0", "seeded", "0"];
        cmd("HSET").arg(&empty).exec_async(&mut redis).await.unwrap();
    }

    async fn buys_a_whole_cart_or_nothing(&mut self) {
        let [e, f] = ["e", "f"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12000{end}"));
        self.server.seed("pot", 1).await;
        let refused = ["WITHDRAWN: another line was refused", "INSUFFICIENT: 1 left"];
        self.gets(&format!("hold cart-5 {LATER} tea 1 {e} pot 2 {f}"), 1, &refused).await;
        let held = ["HELD: until 1", "HELD: until 1"];
        self.gets(&format!("hold cart-5 {LATER} tea 1 {e} pot 1 {f}"), 0, &held).await;
        assert_eq!(self.server.counts("pot").await, [0, 1, 0]);
    }

    async fn buys_carts(&mut self) {
        let [a, b, c, operation] = ["a", "b", "c", "d"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12003{end}"));
        let mut redis = self.redis.connection().await;
        self.server.seed("fig", 3).await;
        self.server.seed("nut", 3).await;
        let cart =
            |name: &str, ttl: &str, figs: u64| format!("cart-hold {name} {ttl} {operation} fig {figs} {a} nut 1 {b}");
        let refused = ["INSUFFICIENT: 3 left", "WITHDRAWN: another line was refused"];
        self.gets(&cart("basket", LATER, 4), 1, &refused).await;
        // All figs are on a lapsed hold: the customer sweeps it.
        self.gets(&format!("hold cart-8 {AT_ONCE} fig 3 {c}"), 0, &["HELD: until 1"]).await;
        sleep(Duration::from_millis(5)).await;
        self.gets(&cart("basket", LATER, 3), 0, &["HELD: until 1"; 2]).await;
        self.gets(&cart("basket", LATER, 3), 0, &["REPLAYED: done before; it is active"; 2]).await;
        self.gets(&cart("basket", LATER, 2), 1, &["CONFLICT: used with another items"; 2]).await;
        self.gets(&format!("cart-confirm pay-8 fig {a} nut {c}"), 1, &["WITHDRAWN", "CONFLICT: used with"]).await;
        let sold = format!("cart-confirm pay-8 fig {a} nut {b}");
        self.gets(&sold, 0, &["CONFIRMED: sold"; 2]).await;
        self.gets(&sold, 0, &["REPLAYED: done before; it is confirmed"; 2]).await;
        assert_eq!((self.server.counts("fig").await, self.server.counts("nut").await), ([0, 0, 3], [2, 0, 1]));

        let mut index = cmd("HSET");
        index.arg("cart:full");
        for number in 0..100 {
            index.arg(format!("018f3b9e-5c1a-4000-9f10-{number:012}")).arg("nut");
        }
        index.exec_async(&mut redis).await.unwrap();
        let next = "018f3b9e-5c1a-4000-9f10-0242ac12003e";
        let full = format!("cart-hold full {LATER} {next} nut 1 {next}");
        self.gets(&full, 1, &["FULL: the cart lists 100 reservations"]).await;
        assert_invariants(&mut redis, History::Whole).await;
    }

    async fn obeys_the_rules(&mut self) {
        let [a, b, operation] = ["a", "b", "c"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12004{end}"));
        self.server.seed("jam", 9).await;
        let request = Request::put(self.server.url("/api/inventory/jam/rules"));
        let rules = json!({ "perCart": 2, "maxTtlSeconds": 60 }).to_string();
        self.server.send(request.header("content-type", "application/json"), rules.into()).await.ok();
        self.gets(&format!("hold cart-9 {LATER} jam 1 {a}"), 1, &["BY_CART: held with its cart only"]).await;
        let cart = |ttl: &str, jams: u64, id: &str| format!("cart-hold cart-9 {ttl} {operation} jam {jams} {id}");
        self.gets(&cart(TOO_LONG, 1, &a), 1, &["TOO_LONG: 60000 ms at most"]).await;
        self.gets(&cart(LATER, 3, &a), 1, &["CART_LIMIT: 2 a cart, and it has 0"]).await;
        self.gets(&cart(LATER, 1, &a), 0, &["HELD: until 1"]).await;
        let another = format!("cart-hold cart-9 {LATER} {b} jam 1 {b}");
        self.gets(&another, 1, &["UNSEEN: the cart has more of it"]).await;
        assert_eq!(self.server.counts("jam").await, [8, 1, 0]);
    }

    /// A mistake of the caller is told in one line.
    async fn tells_what_is_not_possible(&mut self) {
        for (command, told) in [
            ("hold cart-9 60000 tea 1 nope", "BADKEY reservation of item 1"),
            ("confirm tea nope pay-9", "BADKEY reservation of item 1"),
            ("adjust tea 1 nope delivery", "BADKEY operation of item 1"),
            ("cart-hold cart-9 60000 nope tea 1 018f3b9e-5c1a-4000-9f10-0242ac12003f", "BADKEY operation"),
            ("cart-confirm pay-9 tea nope", "BADKEY reservation of item 1"),
            ("hold cart-9 soon tea 1 018f3b9e-5c1a-4000-9f10-0242ac12003f", ""),
        ] {
            let output = run(self.command(command)).await;
            let printed = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), printed.lines().count()), (Some(2), 1), "{command}: {printed}");
            assert!(printed.contains(told), "{command}: {printed}");
        }
    }

    /// It has met every word of the scripts that it calls, except `missing`.
    fn has_met_all_except(&self, missing: &[&str]) {
        let catalogue = Catalogue::embedded();
        let scripts =
            ["hold", "cart_hold", "extend", "confirm", "release", "adjust"].map(|name| catalogue.get(name).unwrap());
        let promised: BTreeSet<String> =
            scripts.iter().flat_map(|script| &script.contract.replies).map(|reply| reply.word.to_owned()).collect();
        let missed: Vec<_> = promised.difference(&self.words).collect();
        assert_eq!(missed, missing);
    }

    async fn recovers(&mut self) {
        let [a, b] = ["a", "b"].map(|end| format!("018f3b9e-5c1a-4000-9f10-0242ac12001{end}"));
        let mut redis = self.redis.connection().await;
        cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
        cmd("DEL").arg("stockhold:scripts").exec_async(&mut redis).await.unwrap();
        self.gets(&format!("hold cart-6 {LATER} tea 1 {a}"), 0, &["HELD: until 1"]).await;

        // The client calls, gets no reply, and calls again. The first call may have been carried out by then, or not.
        self.redis.stop_process();
        let asking = tokio::spawn(run(self.command(&format!("confirm tea {a} pay-6"))));
        sleep(SILENCE).await;
        self.redis.continue_process();
        let output = asking.await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let settled = ["CONFIRMED: sold\n", "REPLAYED: done before; it is confirmed\n"];
        assert!(settled.contains(&&*printed) && output.status.success(), "{printed:?} {:?}", output.stderr);

        // A defect of the caller is reported at once, is not repeated, and changes nothing.
        let output = run(self.command(&format!("hold cart-7 {LATER} tea 0 {b}"))).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("BADARGS quantity of item 1"), "{told}");
        assert!(!matches!(output.status.code(), Some(0 | 75)), "{:?}", output.status);
        assert_invariants(&mut redis, History::Whole).await;
    }
}

pub async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_example_in_python() {
    let mut customer = Customer::of(python).await;
    customer.meets_every_word().await;
    customer.adjusts_what_is_available().await;
    customer.buys_a_whole_cart_or_nothing().await;
    customer.buys_carts().await;
    customer.obeys_the_rules().await;
    customer.tells_what_is_not_possible().await;
    customer.has_met_all_except(&[]);
    customer.recovers().await;
}

#[tokio::test]
async fn the_example_for_node() {
    let mut customer = Customer::of(node).await;
    customer.meets_every_word().await;
    customer.adjusts_what_is_available().await;
    customer.buys_a_whole_cart_or_nothing().await;
    customer.buys_carts().await;
    customer.obeys_the_rules().await;
    customer.tells_what_is_not_possible().await;
    customer.has_met_all_except(&[]);
    customer.recovers().await;
}

#[tokio::test]
async fn the_example_for_a_shell() {
    let mut customer = Customer::of(shell).await;
    customer.meets_every_word().await;
    customer.adjusts_what_is_available().await;
    customer.buys_carts().await;
    customer.obeys_the_rules().await;
    customer.tells_what_is_not_possible().await;
    customer.has_met_all_except(&[]);
    customer.recovers().await;
}

#[tokio::test]
async fn the_example_in_rust() {
    let mut customer = Customer::of(rust).await;
    let tea = Sku::parse("tea").unwrap();
    let id = |key: &str| ReservationId::of_hold(&IdempotencyKey::parse(key).unwrap(), &tea, 0);
    let (one, none) = (id("order-1"), id("order-2"));
    customer.server.seed("jar", 5).await;
    customer.gets("adjust jar 10 key-1 delivery", 0, &["ADJUSTED: 15 available"]).await;
    customer.gets("adjust jar 10 key-1 delivery", 0, &["REPLAYED: done before; it left 15 available"]).await;
    customer.gets("adjust jar 11 key-1 delivery", 1, &["CONFLICT: used with another units"]).await;
    customer.gets("adjust nil 1 key-1 delivery", 1, &["UNKNOWN_SKU: never on sale"]).await;
    customer.gets("adjust jar -1 key-2 broken 1", 1, &["STALE: it has version 2"]).await;
    customer.gets("adjust jar -16 key-2 broken", 1, &["INSUFFICIENT: 15 left"]).await;

    customer.server.seed("fig", 3).await;
    customer.gets("cart-hold basket 600 key-1 fig 4 nil 1 jar 1", 1, &["SHORT: 2 cannot be held"]).await;
    customer.gets("cart-hold basket 600 key-1 fig 3 jar 1", 0, &["HELD: 2 until 1"]).await;
    customer.gets("cart-hold basket 600 key-1 fig 3 jar 1", 0, &["REPLAYED: 2 done before"]).await;
    customer.gets("cart-hold basket 600 key-1 fig 2 jar 1", 1, &["CONFLICT: used with another list"]).await;
    customer.gets("cart-confirm basket pay-1", 0, &["DONE: 2"]).await;
    customer.gets("cart-confirm basket pay-1", 0, &["REPLAYED: 2 done before"]).await;
    customer.gets("cart-confirm basket pay-2", 1, &["NOT_ACTIVE: 2 are settled"]).await;
    customer.gets("cart-confirm nobody pay-1", 1, &["NOT_FOUND: no such cart"]).await;

    customer.gets("hold cart-1 600 tea 2 order-1", 0, &[&format!("HELD: {one} until 1")]).await;
    customer.gets("hold cart-1 600 tea 2 order-1", 0, &[&format!("REPLAYED: {one} done before; it is active")]).await;
    customer.gets("hold cart-1 600 tea 1 order-1", 1, &["CONFLICT: used with another quantity"]).await;
    customer.gets("hold cart-1 600 tea 4 order-2", 1, &["INSUFFICIENT: 3 left"]).await;
    customer.gets("hold cart-1 600 cup 1 order-2", 1, &["UNKNOWN_SKU: never on sale"]).await;
    customer.gets(&format!("confirm {none} pay-1"), 1, &["NOT_FOUND: no such reservation"]).await;
    customer.gets(&format!("extend {one} 900"), 0, &["EXTENDED: until 1"]).await;
    customer.gets(&format!("extend {one} 7200"), 1, &["LIMITED: not after 1"]).await;
    customer.gets(&format!("extend {none} 900"), 1, &["NOT_FOUND: no such reservation"]).await;
    customer.gets(&format!("confirm {one} pay-1"), 0, &["DONE: it is confirmed"]).await;
    customer.gets(&format!("extend {one} 900"), 1, &["NOT_ACTIVE: it is confirmed already"]).await;
    customer.gets(&format!("confirm {one} pay-1"), 0, &["REPLAYED: done before; it is confirmed"]).await;
    customer.gets(&format!("release {one} off-1"), 1, &["NOT_ACTIVE: it is confirmed already"]).await;

    let lapsed = id("order-3");
    customer.gets("hold cart-2 1 tea 3 order-3", 0, &[&format!("HELD: {lapsed} until 1")]).await;
    sleep(Duration::from_millis(1100)).await;
    customer.gets(&format!("extend {lapsed} 900"), 1, &["EXPIRED: too late, back on sale"]).await;
    customer.gets(&format!("confirm {lapsed} pay-3"), 1, &["EXPIRED: too late, back on sale"]).await;

    // Redis is frozen, and its scripts are lost: the client retries until it knows the outcome.
    let mut redis = customer.redis.connection().await;
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
    customer.redis.stop_process();
    let asking = tokio::spawn(run(customer.command("hold cart-4 600 tea 3 order-4")));
    sleep(SILENCE).await;
    customer.redis.continue_process();
    let output = asking.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(customer.server.counts("tea").await, [0, 3, 2]);
    assert_invariants(&mut redis, History::Whole).await;
}
