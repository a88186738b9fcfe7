//! `stockhold check` on a live system: it finds each kind of damage, and `--repair --apply` repairs it, under load.

mod support;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use support::invariants::{History, assert_invariants};
use support::keys;
use support::redis_server::RedisServer;
use support::snapshot::Snapshot;
use support::stockhold::{Stockhold, program};

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of damage. Kinds that change the result of a hold stop the SKU; with the others, buyers continue.
struct Plant {
    /// The commands that damage Redis, as they are with one shard. `ID` stands for an active reservation of 2 units, `SOLD` for a confirmed one of
    /// 1, `LAST` for the id of the SKU's newest event, `FIRST` for the id of a hold's event before it.
    commands: &'static [&'static str],
    damage: &'static str,
    /// A part of the finding's text.
    what: &'static str,
}

const fn plant(commands: &'static [&'static str], damage: &'static str, what: &'static str) -> Plant {
    Plant { commands, damage, what }
}

const REPAIRABLE: [Plant; 29] = [
    plant(&["HINCRBY inventory:tea available 3"], "counts", "damaged: they are"),
    plant(&["HINCRBY inventory:tea reserved -1"], "counts", "damaged: they are"),
    plant(&["HSET inventory:tea confirmed -1"], "counts", "damaged: they are"),
    plant(&["HSET inventory:tea seeded 1e3"], "counts", "damaged"),
    plant(&["HDEL inventory:tea available"], "counts", "damaged: they are"),
    plant(&["HDEL inventory:tea sku"], "counts", "damaged"),
    plant(&["HDEL inventory:tea updatedAt"], "counts", "damaged"),
    plant(&["DEL inventory:tea"], "counts", "damaged: they are 0 available"),
    plant(&["HDEL inventory:tea lastEvent"], "counts", "names another"),
    plant(&["HSET inventory:tea lastEvent FIRST"], "counts", "names another"),
    plant(&["HSET inventory:tea version 1"], "counts", "names another"),
    // The counts add up, but no event records the change.
    plant(&["HINCRBY inventory:tea available 3", "HINCRBY inventory:tea seeded 3"], "counts", "they are"),
    plant(&["HINCRBY inventory:tea available 2", "HINCRBY inventory:tea reserved -2"], "counts", "they are"),
    plant(&["XDEL inventory:audit LAST"], "counts", "names another"),
    plant(&["XDEL inventory:audit FIRST"], "history", "is missing"),
    plant(&["DEL reservation:ID"], "record", "its record is gone"),
    plant(&["HSET reservation:ID quantity 9"], "record", "quantity is"),
    plant(&["HSET reservation:ID state confirmed"], "record", "state is"),
    plant(&["HDEL reservation:ID expiresAt"], "record", "damaged"),
    plant(&["HSET reservation:SOLD state active reason x"], "record", "state is"),
    plant(&["HSET reservation:ID metadata x"], "record", "damaged"),
    plant(&["HSET reservation:SOLD metadata {}"], "record", "damaged"),
    plant(
        &["HSET reservation:ID expiresAt 9999999999998", "ZADD inventory:tea:active 9999999999998 ID"],
        "expiry",
        "by",
    ),
    plant(&["ZREM inventory:tea:active ID"], "index", "not in the active set"),
    plant(&["ZADD inventory:tea:active 99 ID"], "index", "in the active set at 99"),
    plant(&["ZADD inventory:tea:active 9999999999998 SOLD"], "index", "in the active set and not active"),
    plant(&["PEXPIRE reservation:ID 3600000"], "index", "Redis will drop it"),
    plant(&["ZREM stockhold:due tea"], "index", "not in due"),
    plant(&["ZREM stockhold:skus tea"], "index", "not listed in skus"),
];

/// Stands for bytes that are not UTF-8.
const NO_TEXT: &str = "NO_TEXT";

struct CheckFixture {
    redis: RedisServer,
    connection: MultiplexedConnection,
    server: Arc<Stockhold>,
    /// Another SKU, in the same shard.
    cup: &'static str,
    active: String,
    sold: String,
}

impl CheckFixture {
    /// A SKU `tea` with `units` units, 6 of them held and 1 sold, and another SKU.
    async fn open(units: u64) -> Self {
        Self::keeping(units, "0").await
    }

    /// The same, and settled reservations are dropped after `keep_seconds`.
    async fn keeping(units: u64, keep_seconds: &str) -> Self {
        let redis = RedisServer::start();
        // Its sweeper seldom runs: the check must find the damage before the sweeper corrects it.
        let server = Arc::new(Stockhold::start_with(
            &redis,
            &["--sweep-interval-ms", "60000", "--keep-seconds", keep_seconds, "--log", "off"],
        ));
        let connection = redis.connection().await;
        let [_, cup] = keys::in_one_shard(["tea", "cup"]);
        server.seed("tea", units).await;
        server.seed(cup, 5).await;
        server.held(cup, 1).await;
        let sold = server.held("tea", 1).await;
        server.confirm(&sold).await.ok();
        let active = server.held_for("tea", 2, 3600).await;
        let other = server.held_for("tea", 1, 3600).await;
        server.release(&other).await.ok();
        server.held_for("tea", 4, 3600).await;
        Self { redis, connection, server, cup, active, sold }
    }

    async fn plant(&mut self, commands: &[&str]) {
        self.plant_on("tea", commands).await;
    }

    /// The same for another SKU, to which `active` and `sold` belong by then.
    async fn plant_on(&mut self, sku: &str, commands: &[&str]) {
        let stock = keys::inventory(sku);
        let last: String = cmd("HGET").arg(&stock).arg("lastEvent").query_async(&mut self.connection).await.unwrap();
        let events = self.server.events(sku, 3).await;
        let first = events.get(1).map_or("", |event| keys::entry(event["id"].as_str().unwrap()));
        for command in commands {
            let words = command.split(' ').map(|word| {
                let names =
                    [("tea", sku), ("SOLD", &self.sold), ("ID", &self.active), ("LAST", &last), ("FIRST", first)];
                let word = names.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value));
                if word == NO_TEXT { vec![b'c', 0xff] } else { keys::placed(&word, sku).into_bytes() }
            });
            let words: Vec<_> = words.collect();
            cmd(str::from_utf8(&words[0]).unwrap()).arg(&words[1..]).exec_async(&mut self.connection).await.unwrap();
        }
    }

    /// Changes the newest event of all, a hold of a SKU that holds nothing else, to what a clock that was ahead would
    /// have recorded.
    async fn shift_hold_ahead(&mut self, sku: &str, id: &str, ahead_ms: u64) {
        let [stock, active, record] = [keys::inventory(sku), keys::active(sku), keys::reservation(id)];
        let last: String = cmd("HGET").arg(&stock).arg("lastEvent").query_async(&mut self.connection).await.unwrap();
        let mut read = cmd("XRANGE");
        let mut found: Vec<(String, Vec<(String, String)>)> =
            read.arg(keys::audit_of(sku)).arg(&last).arg(&last).query_async(&mut self.connection).await.unwrap();
        let (_, mut fields) = found.remove(0);
        let held_at: u64 = last.split_once('-').unwrap().0.parse().unwrap();
        for (_, at) in fields.iter_mut().filter(|(name, _)| name == "happenedAt") {
            *at = (at.parse::<u64>().unwrap() + ahead_ms).to_string();
        }
        let happened_at = fields.iter().find(|(name, _)| name == "happenedAt").unwrap().1.clone();
        let expires_at: u64 =
            cmd("HGET").arg(&record).arg("expiresAt").query_async(&mut self.connection).await.unwrap();
        let (event, expires_at) = (format!("{}-0", held_at + ahead_ms), (expires_at + ahead_ms).to_string());
        let mut commands = redis::pipe();
        commands.cmd("XDEL").arg(keys::audit_of(sku)).arg(&last);
        commands.cmd("XADD").arg(keys::audit_of(sku)).arg(&event).arg(&fields);
        commands.cmd("HSET").arg(&stock).arg(&["lastEvent", &event, "updatedAt", &happened_at]);
        let times = ["createdAt", &happened_at, "expiresAt", &expires_at];
        commands.cmd("HSET").arg(&record).arg(&times);
        commands.cmd("ZADD").arg(active).arg(&expires_at).arg(id);
        commands.cmd("ZADD").arg(keys::due_of(sku)).arg(&expires_at).arg(sku);
        commands.exec_async(&mut self.connection).await.unwrap();
    }

    /// Holds one unit with the key `order-1`, and returns the record.
    async fn order(&self, sku: &str) -> Value {
        let body = json!({ "cartId": "cart-1", "sku": sku, "quantity": 1, "ttlSeconds": 3600 });
        self.server.post_with("/api/reservations/hold", body, Some("order-1")).await.ok()
    }

    async fn until_dropped(&mut self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        while cmd("EXISTS").arg(keys::reservation(id)).query_async(&mut self.connection).await.unwrap() {
            assert!(Instant::now() < deadline, "its record is not dropped");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn number(&mut self, key: &str, field: &str) -> u64 {
        cmd("HGET").arg(key).arg(field).query_async(&mut self.connection).await.unwrap()
    }

    async fn score(&mut self, key: &str, member: &str) -> u64 {
        cmd("ZSCORE").arg(key).arg(member).query_async(&mut self.connection).await.unwrap()
    }

    /// Runs the command with `--json`; returns its exit status and its findings.
    async fn check(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let (status, report) = self.report(arguments).await;
        (status, report["findings"].as_array().unwrap().clone())
    }

    /// Returns its exit status and the whole report.
    async fn report(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let url = self.redis.url();
        let mut arguments = [&["check", "--redis-url", &url], arguments].concat();
        if !arguments.contains(&"--events") {
            arguments.extend(["--events", "300"]);
        }
        let mut command = program(&arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Buyers that hold, confirm and release until they are stopped. What a damaged SKU answers them does not matter
    /// here.
    fn buyers(&self, skus: &[String], closing: &Arc<AtomicBool>) -> JoinSet<()> {
        let mut buyers = JoinSet::new();
        for buyer in 0..4 {
            let (server, closing, skus) = (Arc::clone(&self.server), Arc::clone(closing), skus.to_vec());
            buyers.spawn(async move {
                for turn in 0_usize.. {
                    if closing.load(Ordering::Relaxed) {
                        return;
                    }
                    // All buyers use the same SKU at the same time, for some turns: it changes while it is read.
                    let sku = &skus[(turn + buyer) / 4 % skus.len()];
                    let body = json!({ "cartId": "buyer", "sku": sku, "quantity": 1 });
                    let answer = server.post("/api/reservations/hold", body).await;
                    if answer.status == 200 {
                        let id = answer.body["reservationId"].as_str().unwrap().to_owned();
                        let ends = if turn % 40 == 39 { server.confirm(&id).await } else { server.release(&id).await };
                        drop(ends);
                        if turn % 40 == 39 {
                            let body = json!({ "quantity": 1, "restock": true });
                            drop(server.post(&format!("/api/reservations/{id}/return"), body).await);
                        }
                    }
                    let delta = if turn.is_multiple_of(2) { 1 } else { -1 };
                    if turn.is_multiple_of(5) {
                        drop(server.post(&format!("/api/inventory/{sku}/adjust"), json!({ "delta": delta })).await);
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        buyers
    }
}

fn kinds(findings: &[Value]) -> Vec<&str> {
    findings.iter().map(|finding| finding["damage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_sound_system_has_no_findings() {
    let fixture = CheckFixture::open(100).await;
    let before = Snapshot::take(&mut fixture.redis.connection().await).await;
    let output = fixture.run(&[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let (audit, rest) = text.split_once('\n').unwrap();
    assert!(audit.starts_with("the audit has 9 of 9 events, back to 20"), "{audit}");
    assert_eq!(rest, "2 SKUs, 9 events, 5 reservations: all is well\n");
    assert_eq!(output.status.code(), Some(0));
    // A sound system is not changed by a repair.
    assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]));
    assert_eq!(fixture.check(&["tea", fixture.cup]).await, (0, vec![]));
    let after = Snapshot::take(&mut fixture.redis.connection().await).await;
    assert_eq!(before.changed(&after), Vec::<String>::new());
}

#[tokio::test]
async fn a_check_that_cannot_finish_has_exit_status_2() {
    let output = program(&["check", "--redis-url", "redis://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot check"), "{output:?}");
}

#[tokio::test]
async fn each_damage_is_found_and_repaired_on_request() {
    for Plant { commands, damage, what } in REPAIRABLE {
        let mut fixture = CheckFixture::open(100).await;
        fixture.plant(commands).await;
        let planted = Snapshot::take(&mut fixture.connection).await;

        let (status, findings) = fixture.check(&["--repair"]).await;
        let found = findings.iter().any(|finding| {
            finding["damage"] == damage && finding["sku"] == "tea" && finding["what"].as_str().unwrap().contains(what)
        });
        assert!(found && status == 1, "{commands:?} gave {status} and {findings:#?}");
        let after = Snapshot::take(&mut fixture.connection).await;
        assert_eq!(planted.changed(&after), Vec::<String>::new(), "a dry run of {commands:?} wrote");

        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        let all = !findings.is_empty() && findings.iter().all(|finding| finding["repaired"] == true);
        assert!(all && status == 0, "{commands:?} gave {status} and left {findings:#?}");
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{commands:?}");
        let newest = &fixture.server.events("tea", 1).await[0];
        assert_eq!(newest["event"], "repair", "{commands:?} was repaired silently: {newest}");
        // Nothing was lost: the hold can be confirmed, and its units are where they belong.
        assert_eq!(fixture.server.counts("tea").await, [93, 6, 1], "{commands:?}");
        fixture.server.confirm(&fixture.active).await.ok();
        assert_eq!(fixture.server.counts("tea").await, [93, 4, 3], "{commands:?}");
        // An event that was removed from the audit stays missing.
        let history = if commands[0].starts_with("XDEL") { continue } else { History::Whole };
        assert_invariants(&mut fixture.connection, history).await;
    }
}

/// Damage of every kind at once, each on a different SKU, while buyers use all of them.
#[tokio::test]
async fn damage_is_found_and_repaired_under_load() {
    /// More events than buyers make on one SKU in [`PATIENCE`].
    const EVENTS: &str = "10000";
    let mut fixture = CheckFixture::open(100).await;
    let skus: Vec<_> = (0..REPAIRABLE.len()).map(|n| format!("sku-{n}")).collect();
    for sku in &skus {
        fixture.server.seed(sku, 1_000_000).await;
    }
    let closing = Arc::new(AtomicBool::new(false));
    let mut buyers = fixture.buyers(&skus, &closing);
    for _ in 0..3 {
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "nothing was planted yet");
    }
    for (sku, Plant { commands, .. }) in skus.iter().zip(&REPAIRABLE) {
        fixture.active = fixture.server.held_for(sku, 2, 3600).await;
        fixture.sold = fixture.server.held(sku, 1).await;
        fixture.server.confirm(&fixture.sold).await.ok();
        fixture.plant_on(sku, commands).await;
    }
    let deadline = Instant::now() + PATIENCE;
    let (mut found, mut status) = (Vec::new(), 1);
    while status != 0 {
        let (ended, findings) = fixture.check(&["--events", EVENTS, "--repair", "--apply"]).await;
        found.extend(findings);
        status = ended;
        assert!(Instant::now() < deadline, "not all is repaired: {found:#?}");
    }
    for (sku, Plant { commands, damage, .. }) in skus.iter().zip(REPAIRABLE) {
        // The next hold, sweep or adjustment corrects some kinds of damage before the check finds them.
        let is_written_anew = ["updatedAt", " sku"].iter().any(|field| commands[0].ends_with(field));
        let heals = damage == "index" || is_written_anew;
        let is_found = found.iter().any(|finding| finding["sku"] == **sku);
        assert!(heals || is_found, "{commands:?} was not found on {sku}: {found:#?}");
    }
    for _ in 0..3 {
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{found:#?}");
    }
    closing.store(true, Ordering::Relaxed);
    while let Some(ended) = buyers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(fixture.check(&["--events", EVENTS]).await, (0, vec![]));
}

/// Units came and went; damage before and after is found, and the repair keeps what was adjusted.
#[tokio::test]
async fn adjustments_are_replayed_and_kept() {
    let mut fixture = CheckFixture::open(100).await;
    let adjust = async |fixture: &CheckFixture, sku: &str, body: Value| {
        let path = format!("/api/inventory/{sku}/adjust");
        fixture.server.post_with(&path, body.clone(), Some(&body.to_string())).await.ok();
    };
    adjust(&fixture, "tea", json!({ "delta": -3, "reason": "broken" })).await;
    adjust(&fixture, "tea", json!({ "available": 40 })).await;
    adjust(&fixture, "new", json!({ "delta": 8, "create": true })).await;
    let held = fixture.server.held("new", 3).await;
    assert_eq!(fixture.check(&[]).await, (0, vec![]));

    // An adjustment while three units too many are counted, and one afterwards.
    let damage = ["HINCRBY inventory:tea available 3", "HINCRBY inventory:tea seeded 3"];
    adjust(&fixture, "tea", json!({ "delta": 7 })).await;
    fixture.plant(&damage).await;
    adjust(&fixture, "tea", json!({ "delta": 5 })).await;
    adjust(&fixture, "tea", json!({ "delta": -1 })).await;
    assert_eq!(fixture.server.counts("tea").await, [54, 6, 1]);
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert!(status == 0 && kinds(&findings).contains(&"counts"), "{findings:#?}");
    assert_eq!(fixture.server.counts("tea").await, [51, 6, 1]);

    // A SKU that an adjustment made: all of its holds are known.
    fixture.plant_on("new", &["HINCRBY inventory:new available 2", &format!("DEL reservation:{held}")]).await;
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert_eq!((status, kinds(&findings)), (0, vec!["record", "counts"]), "{findings:#?}");
    assert_eq!(fixture.server.counts("new").await, [5, 3, 0]);
    adjust(&fixture, "young", json!({ "available": 8, "create": true })).await;
    let stray = keys::new_id("young");
    let times = "createdAt 1700000000000 expiresAt 1700000001000";
    let record = format!("HSET reservation:{stray} cartId c sku young quantity 2 state active {times}");
    fixture.plant_on("young", &[&record]).await;
    let (status, findings) = fixture.check(&[]).await;
    let told = findings.iter().any(|finding| finding["what"] == "it is active and was never held");
    assert!(status == 1 && told, "{findings:#?}");
}

/// A return is one more event of a sale, and its record must agree with it.
#[tokio::test]
async fn the_rules_of_a_sku_are_verified_and_set_again() {
    let mut fixture = CheckFixture::open(30).await;
    let request = Request::put(fixture.server.url("/api/inventory/tea/rules"));
    let rules = json!({ "perCart": 4, "safetyStock": 2 }).to_string();
    fixture.server.send(request.header("content-type", "application/json"), rules.into()).await.ok();
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    let right = "perCart=4 safetyStock=2 maxTtlMs=";
    let stored = async |fixture: &mut CheckFixture| -> Option<String> {
        cmd("HGET").arg(keys::inventory("tea")).arg("rules").query_async(&mut fixture.connection).await.unwrap()
    };
    for damage in [
        &["HDEL inventory:tea rules"][..],
        &["HSET inventory:tea rules x"],
        &["HSET inventory:tea rules perCart=9"],
        // What was set before is not what was set last. A hash that is lost whole has lost them, too.
        &["DEL inventory:tea"],
    ] {
        fixture.plant(damage).await;
        let (status, findings) = fixture.check(&[]).await;
        assert!(status == 1 && kinds(&findings).contains(&"rules"), "{damage:?}: {findings:?}");
        fixture.check(&["--repair", "--apply"]).await;
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_eq!(stored(&mut fixture).await.as_deref(), Some(right));
    }
    // Rules that nobody has set.
    fixture.plant_on(fixture.cup, &["HSET inventory:tea rules x"]).await;
    let (status, findings) = fixture.check(&[]).await;
    assert_eq!((status, kinds(&findings)), (1, vec!["rules"]));
    fixture.check(&["--repair", "--apply"]).await;
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    // A seed tells the rules again: a check that begins there knows them.
    fixture.server.seed("tea", 9).await;
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    fixture.plant(&["HDEL inventory:tea rules"]).await;
    fixture.check(&["--repair", "--apply"]).await;
    assert_eq!(stored(&mut fixture).await.as_deref(), Some(right));
}

#[tokio::test]
async fn a_returned_sale_is_sound_and_its_damage_is_repaired() {
    for (damage, what) in [
        (&[][..], ""),
        (&["HSET reservation:SOLD returned 2"][..], "returned is"),
        (&["HSET reservation:SOLD returned 3 quantity 3"], "quantity is"),
        (&["HDEL reservation:SOLD returned confirmedAt"], "returned is missing"),
        (&["HDEL reservation:SOLD confirmedAt"], "confirmedAt is missing"),
        (&["HSET reservation:SOLD confirmedAt 1"], "confirmedAt is"),
        (&["HSET reservation:SOLD updatedAt 1"], "updatedAt is"),
        (&["HSET reservation:SOLD state active reason x"], "state is"),
        (&["HDEL reservation:SOLD expiresAt"], "damaged"),
        // A sale that nobody returned.
        (&["HSET reservation:UNTOUCHED returned 1 confirmedAt 1"], "returned is"),
        (&["HINCRBY inventory:tea confirmed 2"], "counts"),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        let untouched = std::mem::replace(&mut fixture.sold, fixture.server.held("tea", 5).await);
        fixture.server.confirm(&fixture.sold).await.ok();
        let path = format!("/api/reservations/{}/return", fixture.sold);
        for restock in [true, false] {
            fixture.server.post(&path, json!({ "quantity": 2, "restock": restock })).await.ok();
        }
        assert_eq!(fixture.server.counts("tea").await, [90, 6, 2]);
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]));
        let record = keys::reservation(&fixture.sold);
        let mut read = cmd("HGETALL");
        read.arg(&record);
        let sound: BTreeMap<String, String> = read.query_async(&mut fixture.connection).await.unwrap();

        let damage: Vec<_> = damage.iter().map(|command| command.replace("UNTOUCHED", &untouched)).collect();
        fixture.plant(&damage.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        assert_eq!((status, findings.is_empty()), (0, damage.is_empty()), "{damage:?}: {findings:#?}");
        let told = |finding: &Value| finding.to_string().contains(what);
        assert!(findings.is_empty() || findings.iter().any(told), "{damage:?}: {findings:#?}");
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_invariants(&mut fixture.connection, History::Whole).await;
        let repaired: BTreeMap<String, String> = read.query_async(&mut fixture.connection).await.unwrap();
        if !damage.iter().any(|command| command.contains("expiresAt")) {
            assert_eq!(repaired, sound, "{damage:?}");
        }
        let rest = json!({ "quantity": 2, "restock": true });
        fixture.server.post(&path, rest).await.problem(409, "exceeds_sale");
        fixture.server.post(&path, json!({ "quantity": 1, "restock": true })).await.ok();
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
    }
}

/// The audit is read back to the last seed. A sale before it is known by its returns only.
#[tokio::test]
async fn a_return_of_a_sale_before_the_last_seed_is_sound() {
    for (damage, is_sound) in [
        (&[][..], true),
        (&["HSET reservation:SOLD cartId other"], false),
        (&["HDEL reservation:SOLD returned"], false),
        (&["HDEL reservation:SOLD confirmedAt"], false),
        (&["HSET reservation:SOLD returned 9"], false),
        (&["HSET reservation:SOLD updatedAt 1"], false),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        fixture.sold = fixture.server.held("tea", 3).await;
        fixture.server.confirm(&fixture.sold).await.ok();
        let path = format!("/api/reservations/{}/return", fixture.sold);
        fixture.server.post(&path, json!({ "quantity": 1, "restock": true })).await.ok();
        fixture.server.seed("tea", 50).await;
        fixture.server.post(&path, json!({ "quantity": 1, "restock": true })).await.ok();
        assert_eq!(fixture.server.counts("tea").await, [51, 0, 0]);
        fixture.plant(damage).await;
        // There is nothing to make it again from, and the check says so.
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        let expected = if is_sound { vec![] } else { vec!["unreadable"] };
        assert_eq!((status, kinds(&findings)), (i32::from(!is_sound), expected), "{damage:?}: {findings:#?}");
    }
}

/// Reservations that neither the active set nor the events that were read name are found by their keys.
#[tokio::test]
async fn a_reservation_without_references_is_found() {
    let mut fixture = CheckFixture::open(100).await;
    fixture.plant(&["ZREM inventory:tea:active ID"]).await;
    let (status, findings) = fixture.check(&["--events", "1", "--repair", "--apply"]).await;
    assert_eq!((status, kinds(&findings)), (0, vec!["index"]), "{findings:#?}");
    assert_eq!(findings[0]["reservationId"], fixture.active);
    assert_eq!(fixture.server.counts("tea").await, [93, 6, 1]);
}

#[tokio::test]
async fn holds_that_are_not_swept_are_found_and_swept() {
    let fixture = CheckFixture::open(100).await;
    fixture.server.held_for("tea", 5, 1).await;
    let deadline = Instant::now() + PATIENCE;
    // 500 ms for the interval of a server's sweeper, and 1 s for the sweep.
    while fixture.check(&["--sweep-interval-ms", "500"]).await.0 == 0 {
        assert!(Instant::now() < deadline, "it is not found");
    }
    let (status, findings) = fixture.check(&["--sweep-interval-ms", "500", "--repair", "--apply"]).await;
    assert_eq!((status, kinds(&findings)), (0, vec!["overdue"]), "{findings:#?}");
    assert_eq!(fixture.server.events("tea", 1).await[0]["event"], "expired");
}

const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// A hold that was made while Redis's clock was ahead would last for years. The repair gives it the time that its buyer
/// requested.
#[tokio::test]
async fn a_hold_by_a_clock_that_was_ahead_is_found_and_lapses_in_time() {
    for (ahead_ms, ttl_seconds) in [(TEN_YEARS_MS, 600), (3_600_000, 600), (TEN_YEARS_MS, 2_592_000)] {
        let mut fixture = CheckFixture::open(100).await;
        fixture.server.seed("pot", 5).await;
        let body = json!({ "cartId": "cart-1", "sku": "pot", "quantity": 2, "ttlSeconds": ttl_seconds });
        let held = fixture.server.post_with("/api/reservations/hold", body.clone(), Some("order-1")).await.ok();
        let id = held["reservationId"].as_str().unwrap();
        fixture.shift_hold_ahead("pot", id, ahead_ms).await;
        let planted = Snapshot::take(&mut fixture.connection).await;

        let (status, findings) = fixture.check(&[]).await;
        assert_eq!((status, kinds(&findings)), (1, vec!["expiry"]), "{findings:#?}");
        assert_eq!((&findings[0]["reservationId"], &findings[0]["repairable"]), (&json!(id), &json!(true)));
        let after = Snapshot::take(&mut fixture.connection).await;
        assert_eq!(planted.changed(&after), Vec::<String>::new());

        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        assert_eq!((status, kinds(&findings), &findings[0]["repaired"]), (0, vec!["expiry"], &json!(true)));
        let newest = &fixture.server.events("pot", 1).await[0];
        let told = ["event", "reservationId", "state", "reason"].map(|name| newest[name].as_str().unwrap());
        assert_eq!(told, ["repair", id, "active", "expiry_restored"]);
        let record = keys::reservation(id);
        let [created, expires] =
            [fixture.number(&record, "createdAt").await, fixture.number(&record, "expiresAt").await];
        let now: u64 = {
            let (seconds, _): (u64, u64) = cmd("TIME").query_async(&mut fixture.connection).await.unwrap();
            (seconds + 1) * 1000
        };
        assert!(created <= now && expires - created == ttl_seconds * 1000, "{created} to {expires}");
        assert_eq!(fixture.score(&keys::active("pot"), id).await, expires);
        assert_eq!(fixture.score(keys::due_of("pot"), "pot").await, expires);
        assert_eq!(fixture.check(&[]).await, (0, vec![]));
        assert_invariants(&mut fixture.connection, History::Whole).await;

        // The buyer notices nothing.
        fixture.server.post_with("/api/reservations/hold", body, Some("order-1")).await.ok();
        fixture.server.confirm(id).await.ok();
        assert_eq!(fixture.server.counts("pot").await, [3, 0, 2]);
        assert_eq!(fixture.check(&[]).await, (0, vec![]));
    }
}

#[tokio::test]
async fn the_units_of_a_hold_by_a_clock_that_was_ahead_come_back() {
    let mut fixture = CheckFixture::open(100).await;
    fixture.server.seed("pot", 5).await;
    let id = fixture.server.held_for("pot", 2, 1).await;
    fixture.shift_hold_ahead("pot", &id, TEN_YEARS_MS).await;
    assert_eq!(fixture.check(&["--repair", "--apply"]).await.0, 0);
    let deadline = Instant::now() + PATIENCE;
    while fixture.server.counts("pot").await != [5, 0, 0] {
        assert!(Instant::now() < deadline, "it does not lapse");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fixture.server.events("pot", 1).await[0]["event"], "expired");
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
}

/// The clock is set back. Earlier holds are then settled at an earlier time, and that is not damage.
#[tokio::test]
async fn a_history_that_goes_back_in_time_is_not_damage() {
    let mut fixture = CheckFixture::open(100).await;
    for verb in ["confirm", "release"] {
        fixture.server.seed("pot", 5).await;
        let id = fixture.server.held("pot", 2).await;
        fixture.shift_hold_ahead("pot", &id, TEN_YEARS_MS).await;
        fixture.server.post(&format!("/api/reservations/{id}/{verb}"), None).await.ok();
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]), "{verb}");
        let other = fixture.server.held("pot", 1).await;
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]), "{verb}");
        fixture.server.release(&other).await.ok();
    }
}

/// After the record of a settled reservation was dropped, its `Idempotency-Key` stands for a new request.
#[tokio::test]
async fn a_key_that_is_used_again_begins_a_new_life() {
    let mut fixture = CheckFixture::keeping(100, "1").await;
    // The last time, the key is used for another SKU.
    for (turn, sku) in ["tea", "tea", "tea", fixture.cup].into_iter().enumerate() {
        let record = fixture.order(sku).await;
        assert_eq!(record["state"], "active", "{record}");
        let id = record["reservationId"].as_str().unwrap();
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]), "{sku}, held");
        let ends = if turn % 2 == 0 { fixture.server.confirm(id).await } else { fixture.server.release(id).await };
        ends.ok();
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]), "{sku}, settled");
        fixture.until_dropped(id).await;
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]), "{sku}, dropped");
        assert_invariants(&mut fixture.connection, History::Whole).await;
    }
    let held = fixture.server.events("tea", 100).await.into_iter().filter(|event| event["event"] == "hold").count();
    assert_eq!(held, 3 + 4);
}

/// An extension is one more event of an active reservation, and its record must agree with it.
#[tokio::test]
async fn an_extended_hold_is_sound_and_its_damage_is_repaired() {
    for (damage, what) in [
        (&[][..], ""),
        (&["DEL reservation:ID"], "its record is gone"),
        (&["HDEL reservation:ID updatedAt"], "updatedAt is missing"),
        (&["HSET reservation:ID updatedAt 1"], "updatedAt is"),
        (&["HSET reservation:ID state confirmed token x"], "state is"),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        let extend = format!("/api/reservations/{}/extend", fixture.active);
        drop(
            program(&["settings", "--redis-url", &fixture.redis.url(), "--extend-max-seconds", "36000"])
                .output()
                .unwrap(),
        );
        for ttl_seconds in [7200, 14400] {
            fixture.server.post(&extend, json!({ "ttlSeconds": ttl_seconds })).await.ok();
        }
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]));
        fixture.plant(damage).await;
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        let told: Vec<_> = findings.iter().map(|finding| finding["what"].as_str().unwrap()).collect();
        assert!(status == 0 && told.iter().all(|told| told.contains(what)), "{damage:?}: {findings:#?}");
        assert_eq!(findings.is_empty(), damage.is_empty(), "{damage:?}");
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_invariants(&mut fixture.connection, History::Whole).await;

        // It still has its time, which is in the active set too, and can get more.
        let left = fixture.number(&keys::reservation(&fixture.active), "expiresAt").await;
        assert_eq!(fixture.score(&keys::active("tea"), &fixture.active.clone()).await, left);
        fixture.server.post(&extend, json!({ "ttlSeconds": 15000 })).await.ok();
        assert!(fixture.number(&keys::reservation(&fixture.active), "expiresAt").await > left, "{damage:?}");
        fixture.server.confirm(&fixture.active).await.ok();
        assert_eq!(fixture.server.counts("tea").await, [93, 4, 3]);
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_invariants(&mut fixture.connection, History::Whole).await;
    }
}

/// A change is one more event of an active reservation; its record has the units, and its first ones.
#[tokio::test]
async fn a_changed_hold_is_sound_and_its_damage_is_repaired() {
    for (damage, what) in [
        (&[][..], ""),
        (&["DEL reservation:ID"], "its record is gone"),
        (&["HSET reservation:ID quantity 7"], "quantity is"),
        (&["HDEL reservation:ID updatedAt"], "updatedAt is missing"),
        (&["HSET reservation:ID reason partial_release"], "reason is"),
        (&["HSET reservation:ID initialQuantity x"], "its record is damaged"),
        (&["HINCRBY inventory:tea reserved 1", "HINCRBY inventory:tea available -1"], "they are"),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        let before = fixture.server.counts("tea").await;
        let key = keys::reservation(&fixture.active);
        let held = fixture.number(&key, "quantity").await;
        for (verb, quantity) in [("change", held + 3), ("release", 1)] {
            let path = format!("/api/reservations/{}/{verb}", fixture.active);
            fixture.server.post(&path, json!({ "quantity": quantity })).await.ok();
        }
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]));
        fixture.plant(damage).await;
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        let told: Vec<_> = findings.iter().map(|finding| finding["what"].as_str().unwrap()).collect();
        assert!(
            status == 0 && told.iter().any(|told| told.contains(what)) != damage.is_empty(),
            "{damage:?}: {findings:#?}"
        );
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_invariants(&mut fixture.connection, History::Whole).await;
        assert_eq!(fixture.number(&key, "quantity").await, held + 2, "{damage:?}");
        fixture.server.confirm(&fixture.active).await.ok();
        assert_eq!(fixture.server.counts("tea").await, [before[0] - 2, before[1] - held, before[2] + held + 2]);
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
    }
}

/// What has lapsed may be sold late, once; the check replays it and makes its record again.
#[tokio::test]
async fn a_late_or_partial_sale_is_sound_and_its_damage_is_repaired() {
    for (damage, what) in [
        (&[][..], ""),
        (&["HSET reservation:LATE state released"], "state is"),
        (&["HDEL reservation:LATE reason"], "reason is missing"),
        (&["HSET reservation:LATE quantity 9"], "quantity is"),
        (&["HSET reservation:ID quantity 9"], "quantity is"),
        (&["HINCRBY inventory:tea confirmed 1", "HINCRBY inventory:tea available -1"], "they are"),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        let late = fixture.server.held_for("tea", 3, 1).await;
        tokio::time::sleep(Duration::from_millis(1050)).await;
        let path = |id: &str| format!("/api/reservations/{id}/confirm");
        let body = json!({ "quantity": 2, "ifExpired": "reacquire" });
        assert_eq!(fixture.server.post(&path(&late), body).await.ok()["reason"], "late_confirm");
        fixture.server.post(&path(&fixture.active.clone()), json!({ "quantity": 1 })).await.ok();
        let counts = fixture.server.counts("tea").await;
        assert_eq!(fixture.check(&["--repair", "--apply"]).await, (0, vec![]));
        let damage: Vec<String> = damage.iter().map(|command| command.replace("LATE", &late)).collect();
        fixture.plant(&damage.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        let told: Vec<_> = findings.iter().map(|finding| finding["what"].as_str().unwrap()).collect();
        assert!(
            status == 0 && told.iter().any(|told| told.contains(what)) != damage.is_empty(),
            "{damage:?}: {findings:#?}"
        );
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
        assert_eq!(fixture.server.counts("tea").await, counts);
        assert_invariants(&mut fixture.connection, History::Whole).await;
    }
}

/// With all its extensions, no hold lasts longer than the longest that one request can be made for.
#[tokio::test]
async fn an_extended_hold_that_would_outlive_thirty_days_is_shortened() {
    let mut fixture = CheckFixture::open(100).await;
    drop(
        program(&["settings", "--redis-url", &fixture.redis.url(), "--extend-max-seconds", "2592000"])
            .output()
            .unwrap(),
    );
    let extend = format!("/api/reservations/{}/extend", fixture.active);
    fixture.server.post(&extend, json!({ "ttlSeconds": 2_591_900 })).await.ok();
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    fixture.plant(&["HSET reservation:ID expiresAt 9999999999998", "ZADD inventory:tea:active 9999999999998 ID"]).await;
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert_eq!((status, kinds(&findings)), (0, vec!["expiry"]), "{findings:#?}");
    let record = keys::reservation(&fixture.active);
    let [created, expires] = [fixture.number(&record, "createdAt").await, fixture.number(&record, "expiresAt").await];
    assert_eq!(expires, created + 2_592_000_000);
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    assert_invariants(&mut fixture.connection, History::Whole).await;
}

/// Each life of a reservation begins with one hold and ends once.
#[tokio::test]
async fn two_holds_or_two_ends_in_a_row_are_damage() {
    for (first, damage) in [
        // The record vanishes while the reservation is active, and the key is used again.
        (None, &["DEL reservation:ORDER"][..]),
        (
            Some("confirm"),
            &[
                "HSET reservation:ORDER state active",
                "ZADD inventory:tea:active 9999999999998 ORDER",
                "HINCRBY inventory:tea confirmed -1",
                "HINCRBY inventory:tea reserved 1",
            ],
        ),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        let id = fixture.order("tea").await["reservationId"].as_str().unwrap().to_owned();
        if let Some(verb) = first {
            fixture.server.post(&format!("/api/reservations/{id}/{verb}"), None).await.ok();
        }
        let damage: Vec<_> = damage.iter().map(|command| command.replace("ORDER", &id)).collect();
        fixture.plant(&damage.iter().map(String::as_str).collect::<Vec<_>>()).await;
        match first {
            None => drop(fixture.order("tea").await),
            Some(_) => drop(fixture.server.release(&id).await.ok()),
        }
        let (_, findings) = fixture.check(&[]).await;
        let is_told =
            |finding: &Value| finding["damage"] == "history" && finding["what"].as_str().unwrap().contains("follows");
        assert!(findings.iter().any(is_told), "{damage:?}: {findings:#?}");
        assert_eq!(fixture.check(&["--repair", "--apply"]).await.0, 0, "{damage:?}");
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "{damage:?}");
    }
}

#[tokio::test]
async fn damage_that_cannot_be_repaired_is_reported_and_left() {
    // More units sold than there ever were; a key of another type; no event to repair from; a member that is not an id.
    for (commands, damage) in [
        (&["HSET inventory:tea available 0 seeded 7", "XDEL inventory:audit FIRST"][..], "history"),
        (&["HSET inventory:tea available 0 confirmed 94", "HSET reservation:ID quantity 1000"], "record"),
        (&["DEL reservation:ID", "RPUSH reservation:ID x"], "unreadable"),
        (&["DEL inventory:tea:active", "SET inventory:tea:active x"], "unreadable"),
        (&["DEL inventory:audit", "HDEL inventory:tea available"], "unreadable"),
        (&["ZADD inventory:tea:active 1 x"], "unreadable"),
        (&["ZADD stockhold:skus 0 nothing"], "unreadable"),
        (&["ZADD stockhold:skus 0 a:b"], "unreadable"),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        fixture.plant(commands).await;
        let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
        assert!(kinds(&findings).contains(&damage), "{commands:?} gave {findings:#?}");
        if damage == "unreadable" {
            assert_eq!(status, 1, "{commands:?} gave {findings:#?}");
        }
        // The other SKU is not affected.
        fixture.server.held(fixture.cup, 1).await;
    }
}

/// Somebody stored a value by hand that is not text. It is reported, it is repaired if an event has the value, and it
/// does not stop the check of other SKUs.
#[tokio::test]
async fn a_value_that_is_not_text_is_reported_and_the_rest_is_checked() {
    for (commands, events, expected, repairs) in [
        (&["HSET reservation:ID cartId NO_TEXT"][..], "300", "record", true),
        (&["HSET reservation:ID cartId NO_TEXT"], "1", "unreadable", false),
        (&["HSET inventory:tea sku NO_TEXT"], "300", "unreadable", false),
        (&["ZADD inventory:tea:active 9999999999998 NO_TEXT"], "300", "unreadable", false),
        (&["ZADD stockhold:skus 0 NO_TEXT"], "300", "unreadable", false),
        // A record with other fields, and one of another type.
        (&["DEL reservation:ID", "HSET reservation:ID colour red"], "300", "record", true),
        (&["DEL reservation:ID", "HSET reservation:ID colour red"], "1", "unreadable", false),
        (&["DEL inventory:tea", "RPUSH inventory:tea x"], "300", "unreadable", false),
    ] {
        let mut fixture = CheckFixture::open(100).await;
        fixture.plant(commands).await;
        fixture.plant_on(fixture.cup, &["ZREM stockhold:skus tea"]).await;
        let (status, findings) = fixture.check(&["--events", events]).await;
        let has = |damage: &str, is_it: &dyn Fn(&Value) -> bool| {
            findings.iter().any(|finding| finding["damage"] == damage && is_it(finding))
        };
        assert!(status == 1 && has(expected, &|_| true), "{commands:?} gave {status} and {findings:#?}");
        assert!(has("index", &|finding| finding["sku"] == fixture.cup), "{commands:?} hid the other: {findings:#?}");
        let (status, findings) = fixture.check(&["--events", events, "--repair", "--apply"]).await;
        assert_eq!(status, i32::from(!repairs), "{commands:?} left {findings:#?}");
        // If the units of a reservation are unknown, it keeps them.
        if commands.iter().all(|command| !command.contains("inventory:tea")) {
            assert_eq!(fixture.number(&keys::inventory("tea"), "available").await, 93, "{commands:?}");
        }
    }
}

/// An entry of the audit that no script wrote is not an event.
#[tokio::test]
async fn an_audit_entry_that_is_not_text_does_not_stop_a_check() {
    let mut fixture = CheckFixture::open(100).await;
    fixture.plant(&["XADD inventory:audit * event hold sku tea cartId NO_TEXT"]).await;
    fixture.plant_on(fixture.cup, &["HDEL inventory:tea lastEvent"]).await;
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert_eq!((status, kinds(&findings)), (0, vec!["counts"]), "{findings:#?}");
    assert_eq!(fixture.check(&[]).await, (0, vec![]));
    assert_eq!(fixture.server.events("tea", 100).await.len(), 7);
}

/// Holds and releases until the audit has `entries` entries.
async fn sell_until(fixture: &mut CheckFixture, entries: usize) {
    loop {
        let has: usize = cmd("XLEN").arg(keys::audit_of("tea")).query_async(&mut fixture.connection).await.unwrap();
        if has >= entries {
            return assert_eq!(has, entries);
        }
        let id = fixture.server.held(fixture.cup, 1).await;
        fixture.server.release(&id).await.ok();
    }
}

/// Lets each shard keep so many entries, and returns the setting: that of all shards together.
fn set_audit_max(fixture: &CheckFixture, entries: usize) -> usize {
    let all = entries * keys::shards().len();
    let (url, all_text) = (fixture.redis.url(), all.to_string());
    let output = program(&["settings", "--redis-url", &url, "--audit-max", &all_text]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    all
}

#[tokio::test]
async fn events_that_were_deleted_from_the_audit_are_found() {
    let shard = keys::shard_of("tea").number;
    let place = if keys::LAYOUT.is_sharded() { format!("in shard {shard}, ") } else { String::new() };
    for kept in [1_000_000, 0, 31] {
        let mut fixture = CheckFixture::open(100).await;
        let audit_max = set_audit_max(&fixture, kept);
        sell_until(&mut fixture, 337).await;
        assert_eq!(fixture.check(&[]).await, (0, vec![]));
        fixture.plant(&["XTRIM inventory:audit MAXLEN = 30"]).await;
        for arguments in [&[][..], &["--repair"], &["--repair", "--apply"]] {
            let (status, report) = fixture.report(arguments).await;
            let findings = report["findings"].as_array().unwrap();
            assert_eq!((status, kinds(findings)), (1, vec!["history"]), "{findings:#?}");
            let [sku, repairable, repaired] = ["sku", "repairable", "repaired"].map(|name| &findings[0][name]);
            assert_eq!((sku, repairable, repaired), (&Value::Null, &json!(false), &json!(false)));
            let what = findings[0]["what"].as_str().unwrap();
            assert!(what.contains("beyond the setting: it has 30 of 337"), "{what}");
            let audit = &report["audit"];
            assert_eq!((&audit["events"], &audit["added"]), (&json!(30), &json!(337)));
            assert_eq!(audit["auditMax"], audit_max);
            assert!(audit["since"].as_str().unwrap().ends_with('Z') && audit["deletedUpTo"].is_null(), "{audit}");
        }
        let output = fixture.run(&["--repair"]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&format!("audit                history    {place}events were taken out")), "{text}");
        assert!(text.contains("[cannot be repaired]\nthe audit has 30 of 337 events, back to 20"), "{text}");
        // It is not about a SKU.
        assert_eq!(fixture.check(&["tea", fixture.cup]).await, (0, vec![]));

        // An operator who lowers the setting to what is left knows that events are missing.
        set_audit_max(&fixture, 30);
        assert_eq!(fixture.check(&[]).await, (0, vec![]));
        set_audit_max(&fixture, 1_000_000);
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "it was raised, and brings nothing back");
        // Entries added since then are missed again. An audit in which all is gone was not trimmed either.
        let raised: u64 = fixture.number(keys::settings_of("tea"), "auditMaxRaisedAt").await;
        assert!(raised > 1_600_000_000_000, "{raised}");
        sell_until(&mut fixture, 130).await;
        assert_eq!(fixture.check(&[]).await, (0, vec![]));
        for left in ["50", "0"] {
            fixture.plant(&[&format!("XTRIM inventory:audit MAXLEN = {left}")]).await;
            let (status, findings) = fixture.check(&[]).await;
            let whole: Vec<_> = findings.iter().filter(|finding| finding["sku"].is_null()).collect();
            assert!(status == 1 && whole.len() == 1, "{left}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn events_trimmed_by_the_setting_are_not_a_finding() {
    let mut fixture = CheckFixture::open(100).await;
    sell_until(&mut fixture, 337).await;
    let mut nodes = cmd("CONFIG");
    nodes.arg(&["SET", "stream-node-max-entries", "10"]).exec_async(&mut fixture.connection).await.unwrap();
    sell_until(&mut fixture, 437).await;
    set_audit_max(&fixture, 60);
    // The sweeper of another server. It trims the audit when it starts.
    let sweeper = Stockhold::start_with(&fixture.redis, &["--sweep-interval-ms", "10", "--log", "off"]);
    let deadline = Instant::now() + PATIENCE;
    let mut left = 437;
    while left >= 80 {
        assert!(Instant::now() < deadline, "it is not trimmed: {left}");
        left = cmd("XLEN").arg(keys::audit_of("tea")).query_async(&mut fixture.connection).await.unwrap();
    }
    let (status, report) = fixture.report(&[]).await;
    assert_eq!((status, &report["findings"]), (0, &json!([])));
    assert_eq!((&report["audit"]["events"], &report["audit"]["added"]), (&json!(left), &json!(437)));
    for raised in [100, 1_000_000, 0] {
        set_audit_max(&fixture, raised);
        assert_eq!(fixture.check(&[]).await, (0, vec![]), "raised to {raised}");
    }
    drop(sweeper);
}

/// A single entry that was deleted is a gap of its SKU. After the repair, a note remains.
#[tokio::test]
async fn a_single_deleted_event_is_a_finding_of_its_sku() {
    let mut fixture = CheckFixture::open(100).await;
    fixture.plant(&["XDEL inventory:audit FIRST"]).await;
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert_eq!((status, &findings[0]["sku"]), (0, &json!("tea")), "{findings:#?}");
    let (status, report) = fixture.report(&[]).await;
    assert_eq!((status, &report["findings"]), (0, &json!([])));
    let deleted = report["audit"]["deletedUpTo"].as_str().unwrap();
    let text = String::from_utf8(fixture.run(&[]).await.stdout).unwrap();
    assert!(text.contains(&format!("; some were deleted singly, the newest of them {deleted}\n")), "{text}");
}

/// The oldest entries leave no gap in the rest, and the setting would have kept them.
#[tokio::test]
async fn a_deleted_oldest_event_is_found() {
    let mut fixture = CheckFixture::open(100).await;
    let oldest: Vec<(String, Vec<String>)> = {
        let mut read = cmd("XRANGE");
        read.arg(&[keys::audit_of("tea"), "-", "+", "COUNT", "1"]).query_async(&mut fixture.connection).await.unwrap()
    };
    fixture.plant(&[&format!("XDEL inventory:audit {}", oldest[0].0)]).await;
    let (status, findings) = fixture.check(&[]).await;
    assert_eq!((status, kinds(&findings)), (1, vec!["history"]), "{findings:#?}");
    assert!(findings[0]["what"].as_str().unwrap().contains("it has 8 of 9"), "{findings:#?}");
}

#[tokio::test]
async fn a_deleted_audit_is_found_even_with_new_events() {
    let mut fixture = CheckFixture::open(100).await;
    fixture.plant(&["DEL inventory:audit"]).await;
    let whole = |findings: &[Value]| {
        let whole: Vec<_> = findings.iter().filter(|finding| finding["sku"].is_null()).collect();
        assert_eq!((whole.len(), &whole[0]["damage"]), (1, &json!("history")), "{findings:#?}");
        whole[0]["what"].as_str().unwrap().to_owned()
    };
    let (status, findings) = fixture.check(&["--repair", "--apply"]).await;
    assert_eq!(status, 1);
    assert!(whole(&findings).contains("there is no audit"));
    // The SKUs are repaired, and their history is gone.
    assert!(findings.iter().all(|finding| finding["sku"].is_null() || finding["repaired"] == true), "{findings:#?}");
    let (status, findings) = fixture.check(&[]).await;
    assert_eq!((status, kinds(&findings)), (1, vec!["history"]), "{findings:#?}");
    assert!(whole(&findings).contains("it began anew"));
    fixture.server.confirm(&fixture.active).await.ok();
}

#[tokio::test]
async fn an_audit_or_a_setting_that_cannot_be_read_is_reported() {
    for commands in [
        &["DEL inventory:audit", "SET inventory:audit x"][..],
        &["HSET stockhold:settings auditMax many"],
        &["HSET stockhold:settings auditMax NO_TEXT"],
        &["DEL stockhold:settings", "SET stockhold:settings x"],
    ] {
        let mut fixture = CheckFixture::open(100).await;
        fixture.plant(commands).await;
        let (status, findings) = fixture.check(&[]).await;
        let is_told = |finding: &Value| finding["sku"].is_null() && finding["damage"] == "unreadable";
        assert!(status == 1 && findings.iter().any(is_told), "{commands:?} gave {status} and {findings:#?}");
    }
}
