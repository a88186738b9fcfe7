//! The board in a real browser: Chromium without a window, driven by `driver.mjs`. Its pictures are in `target/board`.

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::Stockhold;

const TOKEN: &str = "reader-reader-reader-1";
const EVIL: &str = "<img/src=x/onerror=window.hacked=1>";
const SKUS: usize = 10_000;

#[tokio::test]
async fn the_board_shows_what_happens() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    let server = Stockhold::start(&redis);
    let names: Vec<_> = (0..SKUS).map(|number| format!("sku-{number:05}")).collect();
    for some in names.chunks(100) {
        let adjustment = |sku| json!({ "sku": sku, "delta": 20, "create": true });
        let adjustments: Vec<_> = some.iter().map(adjustment).collect();
        server.post("/api/inventory/adjust", json!({ "adjustments": adjustments })).await.ok();
    }
    server.seed(EVIL, 5).await;
    let sold = server.held("sku-00001", 7).await;
    server.confirm(&sold).await.ok();

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/board");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let tokens = folder.join("tokens");
    fs::write(&tokens, format!("read {TOKEN}\n")).unwrap();
    let open = Stockhold::start(&other);
    open.seed("tea", 1).await;
    let guarded = Stockhold::start_with(&other, &["--token-file", tokens.to_str().unwrap()]);

    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/board/driver.mjs");
    let arguments = [&*chromium, folder.to_str().unwrap(), &server.url(""), &guarded.url(""), TOKEN];
    let driven = Command::new("node").arg(driver).args(arguments).output().unwrap();
    let [printed, errors] = [driven.stdout, driven.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("{printed}");
    assert!(driven.status.success(), "{printed}{errors}");
}
