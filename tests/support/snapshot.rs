//! Everything that a Redis holds, byte for byte: to show that a refusal changed nothing.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::cmd;

/// Key -> its serialised value.
pub type Snapshot = BTreeMap<Vec<u8>, Vec<u8>>;

/// Dumps every key.
pub async fn snapshot(connection: &mut MultiplexedConnection) -> Snapshot {
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    let mut snapshot = Snapshot::new();
    for key in keys {
        let value = cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
        snapshot.insert(key, value);
    }
    snapshot
}
