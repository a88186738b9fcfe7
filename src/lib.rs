//! Inventory reservations, decided inside Redis.
//!
//! A *hold* moves units of a SKU from `available` to `reserved` and creates a *reservation*. A *confirm* moves them to
//! `confirmed`. A *release*, or an expiry, moves them back. Each of these is one `EVALSHA`: one round trip, one atomic
//! decision, no `WATCH` and no retry loop.
//!
//! # Layout
//!
//! Each module knows only those below it. A request passes through this list from top to bottom, and its answer
//! returns.
//!
//! - [`cli`]: parses the command line, connects the other modules, prints.
//! - [`http`]: from bytes to operations, and from outcomes to status codes.
//! - [`private_redis`]: its own redis-server, for a machine where none runs.
//! - [`sweeper`]: a loop that asks the engine to expire what is due.
//! - [`reloader`]: a loop that asks the engine to load the scripts again when Redis has lost them.
//! - [`mover`]: moves a stopped shop to another Redis, or into another number of shards.
//! - [`check`]: whether the stock of a live system is as the scripts left it, and its repair.
//! - [`engine`]: one typed method and one outcome enum per operation; no HTTP, no sockets.
//! - [`scripts`]: the catalogue of embedded Lua: its SHA-1s, loading, verifying, calling.
//! - [`keys`]: every key shape and every name rule, once.
//! - [`redis`]: the connection.
//! - `metrics`: what is counted.
//! - `lua/*.lua`: all the rules. What a script does not enforce is not enforced.
//!
//! # As a library
//!
//! ```no_run
//! use stockhold::engine::{Engine, Hold, HoldRequest, Quantity, Ttl};
//! use stockhold::keys::{CartId, Sku};
//! use stockhold::redis::Redis;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::new(Redis::open("redis://127.0.0.1:6379")?);
//! engine.load_scripts().await?;
//! let outcome = engine
//!     .hold(HoldRequest {
//!         cart: CartId::parse("cart-1")?,
//!         sku: Sku::parse("sku-123")?,
//!         quantity: Quantity::new(2)?,
//!         ttl: Some(Ttl::new(600)?),
//!         metadata: None,
//!         idempotency_key: None,
//!     })
//!     .await?;
//! match outcome {
//!     Hold::Held(reservation) => println!("held until {}", reservation.expires_at_ms),
//!     Hold::Insufficient { available } => println!("only {available} left"),
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// They panic when standard output has no reader.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod check;
pub mod cli;
pub mod engine;
pub mod http;
pub mod keys;
mod metrics;
pub mod mover;
pub mod private_redis;
pub mod redis;
pub mod reloader;
pub mod scripts;
pub mod sweeper;
