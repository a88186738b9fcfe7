//! What a way to hold stock has to do, and what may come of it.

use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

use stockhold::keys::ReservationId;

/// One way to hold stock.
pub trait Store: Send + Sync + 'static {
    type Error: Display;

    fn hold(
        &self,
        cart: &str,
        sku: &str,
        quantity: u64,
        ttl_ms: u64,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// All lines, a SKU and a quantity each, or none. Only `WATCH` is compared.
    fn hold_cart(
        &self,
        _cart: &str,
        _lines: &[(String, u64)],
        _ttl_ms: u64,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send {
        async { Ok(Outcome::NotFound) }
    }

    fn confirm(&self, id: &str) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;
}

pub enum Outcome {
    Done(Record),
    /// A cart was held: a record for each of its lines.
    Held(Vec<Record>),
    Insufficient {
        available: u64,
    },
    NotActive {
        state: String,
    },
    NotFound,
    Contention,
}

/// Times are epoch milliseconds.
pub struct Record {
    pub id: String,
    pub cart: String,
    pub sku: String,
    pub quantity: u64,
    pub state: &'static str,
    pub expires_at: u64,
    pub created_at: u64,
    pub updated_at: u64,
}

impl Record {
    /// Of a hold that is made now.
    pub fn new(cart: &str, sku: &str, quantity: u64, ttl_ms: u64) -> Self {
        let now = now_ms();
        Self {
            id: ReservationId::mint(0).to_string(),
            cart: cart.to_owned(),
            sku: sku.to_owned(),
            quantity,
            state: "active",
            expires_at: now + ttl_ms,
            created_at: now,
            updated_at: now,
        }
    }
}

/// By the clock of the process that serves.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_millis() as u64
}
