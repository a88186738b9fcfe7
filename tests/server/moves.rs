//! A stopped shop moves to another Redis: as it is, or into another number of shards.

use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::cmd;
use serde_json::{Value, json};
use stockhold::keys::ReservationId;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::invariants::{History, assert_invariants};
use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Stockhold, program, run};

/// A Redis for a stock in a number of shards; one shard is refused on a cluster.
fn redis_for(shards: &str) -> RedisServer {
    if shards == "1" { RedisServer::start_single(&[]) } else { RedisServer::start() }
}

fn serve(redis: &RedisServer, shards: &str) -> Stockhold {
    Stockhold::start_with(redis, &["--shards", shards, "--sweep-interval-ms", "60000"])
}

/// What `stockhold move` prints, and its exit status.
fn moved(from: &RedisServer, to: &RedisServer, arguments: &[&str]) -> (i32, String) {
    let [source, goal] = [from, to].map(RedisServer::url);
    let ca = from.ca();
    let trust = ca.as_ref().map(|ca| ["--redis-ca", ca.to_str().unwrap()]);
    let trust = trust.as_ref().map_or(&[][..], |trust| &trust[..]);
    let fixed = ["move", "--redis-url", &source, "--to", &goal];
    let output = program(&[&fixed, trust, arguments].concat()).output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), told)
}

/// A shop with a bit of everything. Returns the ids of a live hold and of a sale.
async fn fill(server: &Stockhold) -> [String; 2] {
    for sku in ["tea", "cup", "pot"] {
        server.seed(sku, 20).await;
    }
    let request = json!({ "perCart": 9, "safetyStock": 1 });
    let rules = hyper::Request::put(server.url("/api/inventory/pot/rules")).header("content-type", "application/json");
    server.send(rules, request.to_string().into()).await.ok();
    let [live, sold, back] = [server.held("tea", 3).await, server.held("tea", 2).await, server.held("cup", 1).await];
    server.confirm(&sold).await.ok();
    server.release(&back).await.ok();
    let items = json!([{ "sku": "cup", "quantity": 2 }]);
    server.post_with("/api/carts/c/hold", json!({ "items": items }), Some("cart")).await.ok();
    let adjustment = json!({ "delta": 5, "reason": "delivery" });
    server.post_with("/api/inventory/tea/adjust", adjustment, Some("delivery")).await.ok();
    [live, sold]
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_shop_moves_as_it_is() {
    for shards in ["1", "16"] {
        let (one, other) = (redis_for(shards), redis_for(shards));
        let server = serve(&one, shards);
        let [live, sold] = fill(&server).await;
        let counts = server.counts("tea").await;
        drop(server);
        let (status, told) = moved(&one, &other, &[]);
        assert_eq!(status, 0, "{told}");
        assert!(told.contains("3 SKUs moved"), "{told}");
        let [before, after] =
            [Snapshot::take(&mut one.connection().await).await, Snapshot::take(&mut other.connection().await).await];
        assert_eq!(before.changed(&after), [""; 0]);

        // It goes on where it was: also what was asked before is known.
        let server = serve(&other, shards);
        assert_eq!(server.counts("tea").await, counts);
        server.confirm(&live).await.ok();
        let returned = json!({ "quantity": 1, "restock": true });
        server.post(&format!("/api/reservations/{sold}/return"), returned).await.ok();
        let adjustment = json!({ "delta": 5, "reason": "delivery" });
        let again = server.post_with("/api/inventory/tea/adjust", adjustment, Some("delivery")).await;
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_invariants(&mut other.connection().await, History::Whole).await;
        drop(server);
        // That is now a stock of its own.
        let (status, told) = moved(&one, &other, &[]);
        assert!(status == 1 && told.contains("has a stock of its own"), "{told}");
    }
}

#[tokio::test]
async fn a_shop_moves_into_another_number_of_shards() {
    for [from, to] in [["1", "16"], ["16", "4"], ["16", "1"]] {
        let (one, other, folder) = (redis_for(from), redis_for(to), TempDir::new().unwrap());
        let server = serve(&one, from);
        let [live, sold] = fill(&server).await;
        let file = folder.path().join("left.json");
        let export = ["--shards", to, "--export", file.to_str().unwrap()];
        let (status, told) = moved(&one, &other, &["--shards", to]);
        assert!(status == 1 && told.contains("--export"), "{told}");
        // An id belongs to its number of shards.
        let (status, told) = moved(&one, &other, &export);
        assert!(status == 1 && told.contains("holds of") && told.contains("are active"), "{told}");
        assert_eq!(
            Snapshot::take(&mut other.connection().await)
                .await
                .changed(&Snapshot::take(&mut RedisServer::start().connection().await).await),
            [""; 0]
        );
        server.confirm(&live).await.ok();
        server.post("/api/carts/c/release", None).await.ok();
        let expected: Vec<Value> = server.get("/api/inventory").await.ok()["items"].as_array().unwrap().clone();
        let events = server.get("/api/audit?limit=1000").await.ok()["events"].as_array().unwrap().len();
        drop(server);
        let (status, told) = moved(&one, &other, &export);
        assert_eq!(status, 0, "{told}");
        assert!(told.contains("3 SKUs moved"), "{told}");

        let server = serve(&other, to);
        for stock in &expected {
            let sku = stock["sku"].as_str().unwrap();
            assert_eq!(server.counts(sku).await, [stock["available"].as_u64().unwrap(), 0, 0], "{sku}");
        }
        assert_eq!(server.stock("pot").await["rules"], json!({ "perCart": 9, "safetyStock": 1 }));
        server.get(&format!("/api/reservations/{sold}")).await.problem(404, "unknown_reservation");
        server.held("tea", 1).await;
        assert_invariants(&mut other.connection().await, History::Whole).await;
        let left = lines(&file);
        assert_eq!(left.iter().filter(|line| line.get("event").is_some()).count(), events);
        let record = left.iter().find(|line| line["reservation"] == json!(sold)).unwrap();
        assert_eq!(record["fields"]["state"], "confirmed");
    }
}

/// A move that was interrupted is made again, and until then nobody serves what is there.
#[tokio::test]
async fn a_move_that_was_interrupted_is_made_again() {
    let (one, other) = (RedisServer::start(), RedisServer::start());
    let server = serve(&one, "16");
    fill(&server).await;
    drop(server);
    assert_eq!(moved(&one, &other, &[]).0, 0);
    // As if the last key of all had not come.
    let mut connection = other.connection().await;
    let tea = stockhold::keys::Layout::sharded(16).unwrap().stock(&stockhold::keys::Sku::parse("tea").unwrap());
    let source = format!("127.0.0.1:{}", one.port());
    cmd("HSET").arg("stockhold:layout").arg("moving").arg("there").exec_async(&mut connection).await.unwrap();
    let (status, told) = moved(&one, &other, &[]);
    assert!(status == 1 && told.contains("has a part of the stock at there"), "{told}");
    cmd("HSET").arg("stockhold:layout").arg("moving").arg(&source).exec_async(&mut connection).await.unwrap();
    // And as if a record was dropped since, where it came from.
    let dropped = tea.reservation(&ReservationId::unused(tea.shard.number)).unwrap();
    cmd("HSET").arg(&dropped).arg("state").arg("active").exec_async(&mut connection).await.unwrap();
    cmd("DEL").arg(&tea.inventory).exec_async(&mut connection).await.unwrap();
    let url = other.url();
    let ca = other.ca();
    let trust = ca.as_ref().map(|ca| ["--redis-ca", ca.to_str().unwrap()]);
    let trust = trust.as_ref().map_or(&[][..], |trust| &trust[..]);
    let serve_there = [&["serve", "--port", "0", "--shards", "16", "--redis-url", &url], trust].concat();
    let (status, told) = run(&mut program(&serve_there));
    assert!(status == 1 && told.contains("run stockhold move again"), "{told}");
    let (status, told) = moved(&one, &other, &[]);
    assert_eq!(status, 0, "{told}");
    let [before, after] =
        [Snapshot::take(&mut one.connection().await).await, Snapshot::take(&mut other.connection().await).await];
    assert_eq!(before.changed(&after), [""; 0]);
}

#[tokio::test]
async fn a_shop_that_is_not_stopped_is_not_moved() {
    let (one, other) = (redis_for("1"), redis_for("1"));
    let (status, told) = moved(&one, &other, &[]);
    assert!(status == 1 && told.contains("there is no stock"), "{told}");
    let server = serve(&one, "1");
    for number in 0..40 {
        server.seed(&format!("sku-{number}"), 1000).await;
    }
    let selling = async {
        loop {
            server.held("sku-7", 1).await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let moving = async { tokio::task::spawn_blocking(move || (moved(&one, &other, &[]), one, other)).await.unwrap() };
    let ((status, told), _one, other) = tokio::select! {
        () = selling => unreachable!(),
        done = moving => done,
    };
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("move it again") || told.contains("changed while it was moved"), "{told}");
    // And it cannot be served from there.
    let fields: Option<String> =
        cmd("HGET").arg("stockhold:layout").arg("moving").query_async(&mut other.connection().await).await.unwrap();
    assert!(fields.is_some());
}

/// Also a change that leaves all counts as they are.
#[tokio::test]
async fn a_shop_that_changes_its_rules_is_not_stopped() {
    let (one, other, folder) = (redis_for("1"), redis_for("4"), TempDir::new().unwrap());
    let server = serve(&one, "1");
    for number in 0..40 {
        server.seed(&format!("sku-{number}"), 1000).await;
    }
    let ruling = async {
        for per_cart in 1_u64.. {
            let request = hyper::Request::put(server.url("/api/inventory/sku-7/rules"));
            let rules = json!({ "perCart": per_cart }).to_string();
            server.send(request.header("content-type", "application/json"), rules.into()).await.ok();
        }
    };
    let file = folder.path().join("left.json");
    let moving = async {
        let arguments = move || {
            let told = moved(&one, &other, &["--shards", "4", "--export", file.to_str().unwrap()]);
            (told, one)
        };
        tokio::task::spawn_blocking(arguments).await.unwrap()
    };
    let ((status, told), _one) = tokio::select! {
        () = ruling => unreachable!(),
        done = moving => done,
    };
    assert!(status == 1 && told.contains("changed while it was moved"), "{told}");
}

/// What is damaged is not carried along unseen.
#[tokio::test]
async fn a_damaged_shop_is_not_moved() {
    let (one, other) = (redis_for("1"), redis_for("1"));
    let server = serve(&one, "1");
    fill(&server).await;
    drop(server);
    cmd("HINCRBY").arg("inventory:tea").arg("available").arg(1).exec_async(&mut one.connection().await).await.unwrap();
    let (status, told) = moved(&one, &other, &[]);
    assert!(status == 1 && told.contains("tea is damaged"), "{told}");
}
