//! The way of a relational database: one statement takes the units, stores the reservation and its event, and is a
//! transaction by itself.

mod cluster;
mod schema;
mod store;

use clap::Args;

use super::served::{Served, serve};
use store::Store;

pub use cluster::{Cluster, version};

pub const NAME: &str = "PostgreSQL";

/// The options of the process that serves.
#[derive(Debug, Args)]
pub struct PostgresServer {
    /// How to reach the database, in the words of libpq
    #[arg(long)]
    database: String,
    /// Connections to the database, of all threads together
    #[arg(long)]
    connections: usize,
}

/// Serves until the process is killed.
pub fn run(options: &PostgresServer) {
    let config: tokio_postgres::Config = options.database.parse().expect("a connection string");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let of_thread = options.connections.div_ceil(threads);
    serve(async { move || std::sync::Arc::new(Store::new(config.clone(), of_thread)) });
}

/// Serves from the cluster over this number of connections, with `synchronous_commit` as told.
pub fn start(cluster: &Cluster, synchronous_commit: &str, connections: usize) -> Served {
    let database = format!("{} options='-c synchronous_commit={synchronous_commit}'", cluster.database());
    Served::start(&["postgres-server", "--database", &database, "--connections", &connections.to_string()])
}
