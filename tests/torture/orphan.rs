//! A server with a private redis-server is killed, and started again with another port. The redis-server that was left
//! behind sells from the same folder.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{AsyncConnectionConfig, Client, InfoDict, RedisResult, aio::MultiplexedConnection, cmd};
use serde_json::json;
use stockhold::keys::ReservationId;
use stockhold::scripts::Catalogue;

use crate::support::invariants::{History, assert_invariants};
use crate::support::stockhold::Stockhold;

/// The redis-server of a folder; killed on drop, because there may be no server that stops it.
struct Orphan(Pid);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// Everything that was acknowledged before, and while there was no server, is there afterwards; and the last unit is
/// sold once.
pub async fn serve_elsewhere() {
    let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
    let mut server = start(folder.path());
    server.seed("last", 4).await;
    let confirmed = server.held("last", 1).await;
    server.confirm(&confirmed).await.ok();
    let held = server.held("last", 1).await;
    let old_url = redis_url(&server);
    let orphan = Orphan(redis_on(&old_url, folder.path()).await.expect("a Redis of its own"));
    server.signal(Signal::SIGKILL);
    assert!(!server.wait().success());
    let by_sha = hold_by_sha(&old_url).await;
    assert!(by_sha.is_ok_and(|reply| reply == "HELD"), "the one that was left behind sells on");

    let mut server = start(folder.path());
    let new_url = redis_url(&server);
    let by_sha = hold_by_sha(&old_url).await;
    let over_http =
        server.post("/api/reservations/hold", json!({ "cartId": "cart", "sku": "last", "quantity": 1 })).await;
    let sold = u64::from(by_sha.is_ok_and(|reply| reply == "HELD")) + u64::from(over_http.status == 200);
    assert_eq!(sold, 1, "the last unit was sold {sold} times");
    assert_eq!(server.counts("last").await, [0, 3, 1], "what was acknowledged is lost");
    for (id, state) in [(confirmed, "confirmed"), (held, "active")] {
        assert_eq!(server.get(&format!("/api/reservations/{id}")).await.ok()["state"], state);
    }
    let new = redis_on(&new_url, folder.path()).await.expect("the new one uses the folder");
    let old = redis_on(&old_url, folder.path()).await.unwrap_or(new);
    assert_eq!(old, new, "two redis-servers write into one folder");
    assert_invariants(&mut connect(&new_url).await.unwrap(), History::Whole).await;
    if new != orphan.0 {
        // It is gone, and another process may have its number.
        std::mem::forget(orphan);
    }
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
}

fn start(folder: &Path) -> Stockhold {
    let folder = folder.to_str().unwrap();
    Stockhold::spawn(&["--port", "0", "--redis-port", "0", "--data-dir", folder, "--log", "off"])
}

fn redis_url(server: &Stockhold) -> String {
    server.printed[0].strip_prefix("Redis is at ").unwrap().to_owned()
}

async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(super::world::STUCK));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await
}

/// The process that answers there, if it keeps its data in the folder.
async fn redis_on(url: &str, folder: &Path) -> Option<Pid> {
    let mut connection = connect(url).await.ok()?;
    let set: Vec<String> = cmd("CONFIG").arg("GET").arg("dir").query_async(&mut connection).await.ok()?;
    let info: InfoDict = cmd("INFO").arg("server").query_async(&mut connection).await.ok()?;
    (Path::new(&set[1]) == folder).then(|| Pid::from_raw(info.get("process_id").unwrap()))
}

/// The first word of the reply to a hold of one unit, from the redis-server that answers there.
async fn hold_by_sha(url: &str) -> RedisResult<String> {
    let id = ReservationId::mint(0);
    let keys = ["inventory:audit", "stockhold:due", "inventory:last", "inventory:last:active"];
    let mut call = cmd("EVALSHA");
    call.arg(Catalogue::embedded().get("hold").unwrap().sha1.as_str())
        .arg(5)
        .arg(&keys)
        .arg(format!("reservation:{id}"));
    call.arg(&["each", "cart", "1", "600000"]);
    let replies: Vec<Vec<String>> = call.query_async(&mut connect(url).await?).await?;
    Ok(replies[0][0].clone())
}
