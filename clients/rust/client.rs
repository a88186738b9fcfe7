//! Hold, extend, confirm, release and adjust stock, and buy carts, from Rust, with this crate as a library: the engine without the HTTP server.
//!
//! ```text
//! cargo run --example client hold CART TTL_SECONDS SKU QUANTITY KEY
//! cargo run --example client cart-hold CART TTL_SECONDS KEY SKU QUANTITY [SKU QUANTITY ...]
//! cargo run --example client cart-confirm CART KEY
//! cargo run --example client extend ID TTL_SECONDS
//! cargo run --example client confirm ID KEY
//! cargo run --example client release ID KEY
//! cargo run --example client adjust SKU UNITS KEY REASON [VERSION]
//! ```
//!
//! `REDIS_URL` says where, and `REDIS_CA` whom to trust with `rediss://`. A key makes its command safe to repeat. Exit
//! status: 0 done, 1 refused, 75 no answer (run the same command again).

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use stockhold::engine::{
    Adjusted, Adjustment, CartHold, CartHoldRequest, CartLine, CartSettle, Delta, Engine, Error, Extend, Hold,
    HoldRequest, How, Mode, Options, Quantity, Settle, Ttl, Version, written_layout,
};
use stockhold::keys::{CartId, IdempotencyKey, Layout, Reason, ReservationId, Sku};
use stockhold::redis::{Files, Redis};

/// How long to go on asking while there is no answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6390".to_owned());
    // It knows the scripts and loads them if Redis has not got them: no SHA-1 has to be looked up.
    let files = Files { ca: std::env::var_os("REDIS_CA").map(Into::into), ..Files::default() };
    let redis = Redis::open_with(&url, files).context("REDIS_URL")?;
    // The number of shards stands in Redis.
    let layout = until_answered(async || written_layout(&redis).await).await?.unwrap_or_else(Layout::unsharded);
    let engine = Engine::on(layout, redis, Options::default());
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer = match *words {
        ["hold", cart, ttl, sku, quantity, key] => {
            let request = HoldRequest {
                cart: CartId::parse(cart)?,
                sku: Sku::parse(sku)?,
                quantity: Quantity::new(quantity.parse().context("QUANTITY")?)?,
                ttl: Some(Ttl::new(ttl.parse().context("TTL_SECONDS")?)?),
                metadata: None,
                idempotency_key: Some(IdempotencyKey::parse(key)?),
            };
            until_answered(async || engine.hold(request.clone()).await).await.map(held)
        }
        ["cart-hold", cart, ttl, key, ref lines @ ..] if !lines.is_empty() && lines.len().is_multiple_of(2) => {
            let line = |line: &[&str; 2]| {
                let quantity = Quantity::new(line[1].parse().context("QUANTITY")?)?;
                anyhow::Ok(CartLine { sku: Sku::parse(line[0])?, quantity })
            };
            let request = CartHoldRequest {
                cart: CartId::parse(cart)?,
                lines: lines.as_chunks().0.iter().map(line).collect::<Result<_, _>>()?,
                ttl: Some(Ttl::new(ttl.parse().context("TTL_SECONDS")?)?),
                metadata: None,
                idempotency_key: Some(IdempotencyKey::parse(key)?),
            };
            until_answered(async || engine.hold_cart(&request).await).await.map(cart_held)
        }
        ["cart-confirm", cart, key] => {
            let (cart, key) = (CartId::parse(cart)?, IdempotencyKey::parse(key)?);
            until_answered(async || engine.confirm_cart(&cart, Some(&key)).await).await.map(cart_settled)
        }
        ["extend", id, ttl] => {
            let (id, ttl) = (ReservationId::parse(id)?, Ttl::new(ttl.parse().context("TTL_SECONDS")?)?);
            until_answered(async || engine.extend(id, ttl).await).await.map(extended)
        }
        ["confirm", id, key] => {
            let (id, key) = (ReservationId::parse(id)?, IdempotencyKey::parse(key)?);
            until_answered(async || engine.confirm(id, Some(&key)).await).await.map(settled)
        }
        ["release", id, key] => {
            let (id, key) = (ReservationId::parse(id)?, IdempotencyKey::parse(key)?);
            until_answered(async || engine.release(id, Some(&key)).await).await.map(settled)
        }
        ["adjust", sku, units, key, reason, ref version @ ..] if version.len() < 2 => {
            let version = version.first().map(|version| version.parse().context("VERSION")).transpose()?;
            let adjustment = Adjustment {
                sku: Sku::parse(sku)?,
                how: How::Add(Delta::new(units.parse().context("UNITS")?)?),
                if_version: version.map(Version::new).transpose()?,
                create: false,
                reason: Some(Reason::parse(reason)?),
            };
            let key = IdempotencyKey::parse(key)?;
            let one = std::slice::from_ref(&adjustment);
            until_answered(async || engine.adjust(one, Mode::Each, Some(&key)).await).await.map(adjusted)
        }
        _ => bail!("see the head of this file for its commands"),
    };
    Ok(match answer {
        Ok((done, words)) => {
            println!("{words}");
            if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(Error::Broken(why)) => bail!(why),
        Err(no_answer) => {
            eprintln!("no answer: {no_answer}");
            ExitCode::from(75)
        }
    })
}

/// Asks until there is an answer. That is safe: a repeat with the same key has no second effect.
async fn until_answered<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let started = Instant::now();
    loop {
        match ask().await {
            Err(Error::Unavailable(_) | Error::Unknown(_)) if started.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether it is held, and in words.
fn held(outcome: Hold) -> (bool, String) {
    match outcome {
        Hold::Held(record) => (true, format!("HELD: {} until {}", record.id, record.expires_at_ms)),
        Hold::Replayed(record) => {
            (true, format!("REPLAYED: {} done before; it is {}", record.id, record.state.as_str()))
        }
        Hold::Conflict { field } => (false, format!("CONFLICT: used with another {field}")),
        Hold::Insufficient { available } => (false, format!("INSUFFICIENT: {available} left")),
        Hold::TooLong { max_ttl_ms } => (false, format!("TOO_LONG: the rules allow {max_ttl_ms} ms")),
        Hold::CartLimit { per_cart, units } => (false, format!("CART_LIMIT: {per_cart} a cart, and it has {units}")),
        Hold::CartFull => (false, "FULL: the cart lists 100 reservations".to_owned()),
        Hold::UnknownSku => (false, "UNKNOWN_SKU: never on sale".to_owned()),
    }
}

/// Whether the cart is held, and in words.
fn cart_held(outcome: CartHold) -> (bool, String) {
    match outcome {
        CartHold::Held(records) => (true, format!("HELD: {} until {}", records.len(), records[0].expires_at_ms)),
        CartHold::Replayed(records) => (true, format!("REPLAYED: {} done before, held or sold", records.len())),
        CartHold::Ended(lines) => (false, format!("ENDED: done before; {} are back on sale", lines.len())),
        CartHold::Conflict => (false, "CONFLICT: used with another list".to_owned()),
        CartHold::Short(lines) => (false, format!("SHORT: {} cannot be held", lines.iter().flatten().count())),
        CartHold::Full => (false, "FULL: the cart lists 100 reservations".to_owned()),
    }
}

/// Whether the cart is settled as was asked, and in words.
fn cart_settled(outcome: CartSettle) -> (bool, String) {
    match outcome {
        CartSettle::Settled(records) => (true, format!("DONE: {}", records.len())),
        CartSettle::Replayed(records) => (true, format!("REPLAYED: {} done before", records.len())),
        CartSettle::NotActive(lines) => (false, format!("NOT_ACTIVE: {} are settled or too late", lines.len())),
        CartSettle::Lapsing(lines) => (false, format!("LAPSING: {} lapse too soon; extend the cart", lines.len())),
        CartSettle::Partly { done, ended } => {
            (false, format!("PARTLY: {} of {}", done.len(), done.len() + ended.len()))
        }
        CartSettle::UnknownCart => (false, "NOT_FOUND: no such cart".to_owned()),
    }
}

/// Whether it has the time that was asked for, and in words.
fn extended(outcome: Extend) -> (bool, String) {
    match outcome {
        Extend::Extended(record) => (true, format!("EXTENDED: until {}", record.expires_at_ms)),
        Extend::Limited { max_expires_at_ms } => (false, format!("LIMITED: not after {max_expires_at_ms}")),
        Extend::NotActive { state, .. } => (false, format!("NOT_ACTIVE: it is {} already", state.as_str())),
        Extend::Expired => (false, "EXPIRED: too late, back on sale".to_owned()),
        Extend::NotFound => (false, "NOT_FOUND: no such reservation".to_owned()),
    }
}

/// Whether it is settled as was asked, and in words.
fn settled(outcome: Settle) -> (bool, String) {
    match outcome {
        Settle::Settled(record) => (true, format!("DONE: it is {}", record.state.as_str())),
        Settle::Replayed(record) => (true, format!("REPLAYED: done before; it is {}", record.state.as_str())),
        Settle::NotActive { state, .. } => (false, format!("NOT_ACTIVE: it is {} already", state.as_str())),
        Settle::Expired => (false, "EXPIRED: too late, back on sale".to_owned()),
        Settle::NotFound => (false, "NOT_FOUND: no such reservation".to_owned()),
    }
}

/// Whether it is adjusted, and in words.
fn adjusted(outcomes: Vec<Adjusted>) -> (bool, String) {
    let outcome = outcomes.into_iter().next().expect("one was asked for");
    match outcome {
        Adjusted::Done(stock) => (true, format!("ADJUSTED: {} available", stock.available)),
        Adjusted::Replayed(stock) => (true, format!("REPLAYED: done before; it left {} available", stock.available)),
        Adjusted::Conflict { field } => (false, format!("CONFLICT: used with another {field}")),
        Adjusted::UnknownSku => (false, "UNKNOWN_SKU: never on sale".to_owned()),
        Adjusted::Stale { version } => (false, format!("STALE: it has version {version}")),
        Adjusted::Insufficient { available } => (false, format!("INSUFFICIENT: {available} left")),
        Adjusted::Excessive => (false, "EXCESSIVE: more than there can be".to_owned()),
        Adjusted::Withdrawn => (false, "WITHDRAWN: another was refused".to_owned()),
    }
}
