//! A deploy: the scripts of the last release and of this build, on the same stock at the same time.

use redis::Value;
use stockhold::redis::Redis;
use stockhold::scripts::{Catalogue, Scripts};
use tokio::task::JoinSet;

mod support;

use support::redis_server::RedisServer;

/// The scripts of this build, and the hold of an invented last release: other bytes, the same contract.
fn catalogue() -> Catalogue {
    let catalogue = Catalogue::embedded();
    let older = format!("{}-- as it was\n", catalogue.get("hold").unwrap().source);
    catalogue.with_previous("hold", older.leak())
}

#[tokio::test]
async fn callers_of_both_versions_share_the_units() {
    let redis = RedisServer::start();
    let scripts = Scripts::new(catalogue(), Redis::open(&redis.url()).unwrap());
    scripts.load().await.unwrap();
    let of = |previous| catalogue().iter().find(|s| s.name == "hold" && s.previous == previous).unwrap().sha1.clone();
    let (newer, older) = (of(false), of(true));
    assert_ne!(newer, older);
    let mut connection = redis.connection().await;
    let published: String =
        redis::cmd("HGET").arg("stockhold:scripts").arg("hold").query_async(&mut connection).await.unwrap();
    assert_eq!(published, newer);

    let shard = ["inventory:audit", "stockhold:due", "stockhold:skus", "stockhold:settings"];
    let operation = "operation:018f3b9e-5c1a-8000-9f10-0242ac120005";
    let keys = [&shard[..], &[operation, "inventory:tea", "inventory:tea:active"]].concat();
    scripts.call("seed", &keys, &["100", ""]).await.unwrap();
    let mut callers = JoinSet::new();
    for sha1 in [newer, older].into_iter().cycle().take(16) {
        let mut connection = redis.connection().await;
        callers.spawn(async move {
            let mut held = 0;
            for _ in 0..20 {
                let mut call = redis::cmd("EVALSHA");
                call.arg(&sha1).arg(5).arg(&[
                    "inventory:audit",
                    "stockhold:due",
                    "inventory:tea",
                    "inventory:tea:active",
                ]);
                call.arg(format!("reservation:{}", uuid::Uuid::new_v4())).arg(&["each", "cart", "1", "60000"]);
                let replies: Vec<Vec<String>> = call.query_async(&mut connection).await.unwrap();
                held += usize::from(replies[0][0] == "HELD");
            }
            (sha1, held)
        });
    }
    let held = callers.join_all().await;
    assert_eq!(held.iter().map(|(_, held)| held).sum::<usize>(), 100, "{held:?}");
    let reserved: String =
        redis::cmd("HGET").arg("inventory:tea").arg("reserved").query_async(&mut connection).await.unwrap();
    assert_eq!(reserved, "100");
}

#[tokio::test]
async fn the_previous_version_is_kept_loaded() {
    let redis = RedisServer::start();
    let scripts = Scripts::new(catalogue(), Redis::open(&redis.url()).unwrap());
    scripts.load().await.unwrap();
    assert_eq!(scripts.state().await.unwrap().iter().filter(|state| state.previous && state.loaded).count(), 1);
    assert!(!scripts.restore().await.unwrap(), "nothing is lost yet");

    let mut connection = redis.connection().await;
    let _: Value = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
    // The current scripts are restored by a call. The previous version must be restored too, although this server never
    // calls it.
    scripts.call("inventory", &["inventory:tea", "inventory:tea:active"], &["0"]).await.unwrap();
    assert!(scripts.state().await.unwrap().iter().all(|state| state.loaded));
}
