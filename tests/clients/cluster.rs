//! Each example sells on a cluster: in the shard of its SKU, on the node that has it.

use std::process::Command;

use stockhold::keys::{IdempotencyKey, Layout, ReservationId, Sku};

use super::words::{node, python, run, rust, shell};
use crate::support::cluster::Cluster;
use crate::support::invariants::{History, assert_invariants};
use crate::support::stockhold::Stockhold;

const SHARDS: &str = "16";

fn shard_of(sku: &str) -> u16 {
    Layout::sharded(16).unwrap().shard_of(&Sku::parse(sku).unwrap()).number
}

/// Ids as a caller makes them, in the shard of a SKU.
fn id(sku: &str, number: usize) -> String {
    format!("018f3b9e-5c1a-8{:03x}-9f10-{number:012x}", shard_of(sku))
}

/// SKUs, of which each node has some; some names have bytes that are no ASCII.
fn names() -> Vec<String> {
    (0..9).map(|number| format!("{}-{number}", ["tea", "größe"][number % 2])).collect()
}

struct Shop {
    cluster: Cluster,
    server: Stockhold,
}

impl Shop {
    async fn open() -> Self {
        let cluster = Cluster::start().await;
        let url = cluster.url();
        let server = Stockhold::spawn(&["--port", "0", "--redis-url", &url, "--shards", SHARDS]);
        for sku in names() {
            server.seed(&sku, 9).await;
        }
        Self { cluster, server }
    }

    /// What an example prints, and its exit status.
    async fn gets(&self, example: fn() -> Command, words: &[&str]) -> (i32, String) {
        let mut command = example();
        command.args(words).env("REDIS_URL", self.cluster.url()).env("SHARDS", SHARDS);
        let output = run(command).await;
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), told)
    }

    /// What every example can do that is called by the ids of its caller.
    async fn sells(&self, example: fn() -> Command) {
        for (number, sku) in names().iter().enumerate() {
            let own = id(sku, number);
            let sale: [(&[&str], &str); 6] = [
                (&["hold", "cart-1", "60000", sku, "2", &own], "HELD"),
                (&["hold", "cart-1", "60000", sku, "2", &own], "REPLAYED"),
                (&["extend", sku, &own, "120000"], "EXTENDED"),
                (&["confirm", sku, &own, "pay-1"], "CONFIRMED"),
                (&["adjust", sku, "1", &id(sku, 100 + number), "delivery"], "ADJUSTED"),
                (&["cart-hold", "cart-2", "60000", &id(sku, 200), sku, "1", &id(sku, 300 + number)], "HELD"),
            ];
            for (words, word) in sale {
                let (status, told) = self.gets(example, words).await;
                assert!(status == 0 && told.starts_with(word), "{words:?}: {told}");
            }
            assert_eq!(self.server.counts(sku).await, [7, 1, 2], "{sku}");
        }
        // An id of another shard, and SKUs of two.
        let other = names().into_iter().find(|sku| shard_of(sku) != shard_of("tea-0")).unwrap();
        let (status, told) = self.gets(example, &["confirm", "tea-0", &id(&other, 1), "pay"]).await;
        assert!(status == 2 && told.contains("its id is of another shard"), "{told}");
        let both =
            ["cart-hold", "c", "60000", &id("tea-0", 1), "tea-0", "1", &id("tea-0", 8), &other, "1", &id(&other, 8)];
        let (status, told) = self.gets(example, &both).await;
        assert!(status == 2 && told.contains("several shards"), "{told}");
        self.balances().await;
    }

    async fn balances(&self) {
        for primary in 0..3 {
            assert_invariants(&mut self.cluster.connection(primary).await, History::Whole).await;
        }
    }
}

#[tokio::test]
async fn the_example_in_python_sells_on_a_cluster() {
    Shop::open().await.sells(python).await;
}

#[tokio::test]
async fn the_example_for_node_sells_on_a_cluster() {
    Shop::open().await.sells(node).await;
}

#[tokio::test]
async fn the_example_for_a_shell_sells_on_a_cluster() {
    Shop::open().await.sells(shell).await;
}

/// It finds the number of shards by itself, makes the ids from keys, and holds a cart over several shards.
#[tokio::test]
async fn the_example_in_rust_sells_on_a_cluster() {
    let shop = Shop::open().await;
    for sku in names() {
        let key = IdempotencyKey::parse("order-1").unwrap();
        let own = ReservationId::of_hold(&key, &Sku::parse(&sku).unwrap(), shard_of(&sku)).to_string();
        let (status, told) = shop.gets(rust, &["hold", "cart-1", "600", &sku, "2", "order-1"]).await;
        assert!(status == 0 && told.starts_with(&format!("HELD: {own}")), "{told}");
        let (status, told) = shop.gets(rust, &["confirm", &own, "pay-1"]).await;
        assert!(status == 0 && told.starts_with("DONE"), "{told}");
        assert_eq!(shop.server.counts(&sku).await, [7, 0, 2], "{sku}");
    }
    let names = names();
    let mut words = vec!["cart-hold", "basket", "600", "key-1"];
    words.extend(names.iter().flat_map(|sku| [sku.as_str(), "1"]));
    let (status, told) = shop.gets(rust, &words).await;
    assert!(status == 0 && told.starts_with("HELD: 9"), "{told}");
    shop.balances().await;
}
