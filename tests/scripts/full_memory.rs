//! When memory is full nothing new is promised, and what was promised can still be kept and read.

use redis::cmd;

use crate::call::{audit, audit_all, confirm, hold, inventory, line, release, repair, seed, sweep};
use crate::contract::Contract;
use crate::shop::{ACTIVE, CUP, LAPSED, NEW, Shop};

async fn full_shop() -> Shop {
    let mut shop = Shop::stocked().await;
    shop.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    shop
}

#[tokio::test]
async fn settling_sweeping_and_reading_go_on() {
    for mode in ["each", "all"] {
        let mut shop = full_shop().await;
        let calls = [
            (confirm(mode, &[("tea", ACTIVE, "token")]), vec!["CONFIRMED"]),
            (release(mode, &[("cup", CUP, "token")]), vec!["RELEASED"]),
            (sweep("tea", &[LAPSED]), vec!["SWEPT"]),
            (repair("tea", ["", "", ""], [0; 3], &[]), vec!["REPAIRED"]),
            (inventory("tea", 10), vec!["STOCK"]),
            (audit("cup", 10, ""), vec!["EVENT"; 3]),
            (audit_all(1, ""), vec!["EVENT"]),
        ];
        for (call, words) in calls {
            assert_eq!(shop.words(&call).await, words);
        }
    }
}

#[tokio::test]
async fn holding_and_seeding_are_refused() {
    let mut shop = full_shop().await;
    for call in [hold("each", &[line("tea", NEW)]), hold("all", &[line("tea", NEW)]), seed("new", 7, &[])] {
        assert_eq!(shop.refusal(&call).await.word, "OOM", "{call:?}");
    }
}

#[tokio::test]
async fn a_script_that_reads_cannot_write() {
    let mut shop = Shop::open().await;
    for (name, contract) in Contract::all() {
        let flags = contract.source.lines().next().unwrap();
        let body = format!("{flags}\nreturn redis.call('SET', KEYS[1], 'written')");
        let mut command = cmd("EVAL");
        let written = command.arg(body).arg(1).arg("key").query_async::<()>(&mut shop.redis).await.is_ok();
        assert_eq!(written, !["audit", "inventory"].contains(&name), "{name}");
    }
}
