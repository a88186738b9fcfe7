//! Prepared statements, pipelined on a few connections that all requests share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};
use uuid::Uuid;

use super::schema::{AVAILABLE, CONFIRM, HOLD, STATE};
use crate::side::served::{self, Outcome, Record, now_ms};

/// The pool of one thread: its connections are served by this thread, so that no answer has to wake another one.
pub struct Store {
    config: Config,
    connections: usize,
    pool: OnceCell<Vec<Connection>>,
}

struct Connection {
    client: Client,
    hold: Statement,
    available: Statement,
    confirm: Statement,
    state: Statement,
    in_flight: AtomicUsize,
}

/// The use of a connection by one request.
struct Lease<'a>(&'a Connection);

impl Store {
    /// Connects at the first request.
    pub fn new(config: Config, connections: usize) -> Self {
        Self { config, connections, pool: OnceCell::new() }
    }

    /// The connection on which the fewest requests wait.
    async fn lease(&self) -> Result<Lease<'_>, Error> {
        let pool = self.pool.get_or_try_init(|| self.connect()).await?;
        let waiting = |connection: &&Connection| connection.in_flight.load(Ordering::Relaxed);
        let connection = pool.iter().min_by_key(waiting).expect("there is a connection");
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Lease(connection))
    }

    async fn connect(&self) -> Result<Vec<Connection>, Error> {
        let mut pool = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let (client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(connection);
            pool.push(Connection {
                hold: client.prepare(HOLD).await?,
                available: client.prepare(AVAILABLE).await?,
                confirm: client.prepare(CONFIRM).await?,
                state: client.prepare(STATE).await?,
                client,
                in_flight: AtomicUsize::new(0),
            });
        }
        Ok(pool)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl served::Store for Store {
    type Error = Error;

    async fn hold(&self, cart: &str, sku: &str, quantity: u64, ttl_ms: u64) -> Result<Outcome, Error> {
        let lease = self.lease().await?;
        let Connection { client, hold, available, .. } = lease.0;
        let record = Record::new(cart, sku, quantity, ttl_ms);
        let (id, units) = (uuid(&record.id), quantity as i64);
        let (now, expires_at) = (time(record.created_at), time(record.expires_at));
        if client.execute(hold, &[&id, &sku, &units, &cart, &now, &expires_at]).await? == 1 {
            return Ok(Outcome::Done(record));
        }
        Ok(match client.query_opt(available, &[&sku]).await? {
            Some(row) => Outcome::Insufficient { available: row.get::<_, i64>(0) as u64 },
            None => Outcome::NotFound,
        })
    }

    async fn confirm(&self, id: &str) -> Result<Outcome, Error> {
        let lease = self.lease().await?;
        let Connection { client, confirm, state, .. } = lease.0;
        let (uuid, now) = (uuid(id), now_ms());
        if let Some(row) = client.query_opt(confirm, &[&uuid, &time(now)]).await? {
            return Ok(Outcome::Done(Record {
                id: id.to_owned(),
                cart: row.get(0),
                sku: row.get(1),
                quantity: row.get::<_, i64>(2) as u64,
                state: "confirmed",
                expires_at: epoch_ms(row.get(3)),
                created_at: epoch_ms(row.get(4)),
                updated_at: now,
            }));
        }
        Ok(match client.query_opt(state, &[&uuid]).await? {
            Some(row) => Outcome::NotActive { state: row.get(0) },
            None => Outcome::NotFound,
        })
    }
}

/// What is no UUID is the id of nothing.
fn uuid(id: &str) -> Uuid {
    id.parse().unwrap_or_default()
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn epoch_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).expect("a time of this age").as_millis() as u64
}
