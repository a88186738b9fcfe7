//! Carts of several SKUs: held, extended, confirmed and released as one, over HTTP and by SHA. Each line is an order of
//! its own in the journal, and the lines of a cart share their fate.

use fastrand::Rng;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use stockhold::keys::{CartId, IdempotencyKey, OperationId, ReservationId, Sku};
use tokio::time::{sleep, timeout};

use super::http_client::epoch_ms;
use super::journal::{Order, Told};
use super::sha_client::Caller;
use super::world::{COLD, HOT, Manner, STUCK, World, manner, order_of, typing};

/// Carts in a few of a hundred turns of a client.
pub const IN_A_HUNDRED: u32 = 6;

/// A purchase of several SKUs.
struct Cart {
    /// Its key.
    name: String,
    /// The name of the cart.
    id: String,
    lines: Vec<Order>,
}

/// A cart of two to four SKUs, often with one that is soon sold out. The server accepts whole seconds only.
fn cart(rng: &mut Rng, name: &str) -> Cart {
    let mut skus: Vec<&'static str> = COLD.to_vec();
    rng.shuffle(&mut skus);
    skus.truncate(rng.usize(1..4));
    skus.push(if rng.u32(..100) < 40 { "scarce" } else { HOT[0] });
    rng.shuffle(&mut skus);
    let (ttl_ms, extension_ms) = (if rng.bool() { 1000 } else { 5000 }, rng.u64(1..=8) * 1000);
    let (name, id) = (format!("cart-{name}"), format!("basket-{name}"));
    let (key, of) = (IdempotencyKey::parse(&name).unwrap(), CartId::parse(&id).unwrap());
    let line = |sku: &'static str| {
        let reservation = ReservationId::of_cart_line(&key, &of, &Sku::parse(sku).unwrap(), 0);
        let order = order_of(sku, &name, rng.u64(1..4), ttl_ms);
        Order { id: reservation.to_string(), cart: id.clone(), extension_ms, ..order }
    };
    let lines = skus.into_iter().map(line).collect();
    Cart { name, id, lines }
}

/// One over HTTP.
pub async fn buy_cart_over_http(world: &World, rng: &mut Rng, name: &str) {
    buy(world, None, rng, name).await;
}

/// One by SHA. Some of its repeats go over HTTP: they are the same requests.
pub async fn buy_cart_by_sha(world: &World, caller: &mut Caller, rng: &mut Rng, name: &str) {
    buy(world, Some(caller), rng, name).await;
}

async fn buy(world: &World, mut caller: Option<&mut Caller>, rng: &mut Rng, name: &str) {
    let mut cart = cart(rng, name);
    // Some clients retry until they know the outcome; the others never come back.
    let is_persistent = rng.bool();
    let mut verbs = vec!["hold"];
    let typing = typing(rng);
    if typing.is_some() {
        verbs.push("extend");
    }
    verbs.extend(match rng.u32(..10) {
        ..4 => &["confirm"][..],
        4..7 => &["release"],
        7 => &["confirm", "release"],
        _ => &[],
    });
    for verb in verbs {
        let hold = &cart.lines[0].hold;
        if verb != "hold" && !hold.is_done() && !hold.is_unknown() {
            break;
        }
        cart.make(world, caller.as_deref_mut(), rng, verb).await;
        while is_persistent && cart.lines[0].attempts(verb).is_unknown() {
            let told = cart.over_http(world, verb).await;
            cart.note(verb, &told);
            if told.contains(&Told::No) {
                break;
            }
        }
        if verb == "extend" {
            sleep(typing.unwrap_or_default()).await;
        }
    }
    world.file_cart(cart.lines).await;
}

impl Cart {
    async fn make(&mut self, world: &World, caller: Option<&mut Caller>, rng: &mut Rng, verb: &'static str) {
        match manner(rng) {
            Manner::AtOnce => {
                let (one, other) = tokio::join!(self.ask(world, caller, verb), self.over_http(world, verb));
                self.note(verb, &one);
                self.note(verb, &other);
            }
            manner => {
                let told = self.ask(world, caller, verb).await;
                self.note(verb, &told);
                if manner == Manner::Again {
                    let told = self.over_http(world, verb).await;
                    self.note(verb, &told);
                }
            }
        }
    }

    fn note(&mut self, verb: &str, told: &[Told]) {
        for (line, told) in self.lines.iter_mut().zip(told) {
            line.attempts(verb).note(*told);
        }
    }

    async fn ask(&self, world: &World, caller: Option<&mut Caller>, verb: &'static str) -> Vec<Told> {
        match caller {
            Some(caller) => self.by_sha(caller, verb).await,
            None => self.over_http(world, verb).await,
        }
    }

    async fn over_http(&self, world: &World, verb: &str) -> Vec<Told> {
        let server = world.server().await;
        let request = Request::post(server.url(&format!("/api/carts/{}/{verb}", self.id)));
        let mut request = request.header("idempotency-key", &self.name);
        let body = match verb {
            "hold" => {
                let item = |Order { sku, quantity, .. }: &Order| json!({ "sku": sku, "quantity": quantity });
                let items: Vec<_> = self.lines.iter().map(item).collect();
                json!({ "items": items, "ttlSeconds": self.lines[0].ttl_ms / 1000 }).to_string()
            }
            "extend" => json!({ "ttlSeconds": self.lines[0].extension_ms / 1000 }).to_string(),
            _ => String::new(),
        };
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let answer = timeout(STUCK, server.attempt(request, Bytes::from(body))).await;
        let answer = answer.unwrap_or_else(|_| panic!("{verb} of {} hangs", self.name));
        // The server may go away, before or after it carried out the request.
        let Ok(answer) = answer else { return vec![Told::Unknown; self.lines.len()] };
        let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
        let told = match (answer.status.as_u16(), text("code"), text("outcome")) {
            (200, ..) => {
                let records = answer.body["reservations"].as_array().unwrap();
                self.assert_whole(records);
                if verb == "extend" { Told::Until(epoch_ms(text("expiresAt"))) } else { Told::Done }
            }
            (409, "insufficient_inventory" | "cart_limit_reached", _) if verb == "hold" => Told::No,
            // It was held, and its units have gone back since.
            (409, "reservation_not_active", _) if verb == "hold" => {
                assert!(answer.headers.contains_key("idempotent-replayed"), "{answer:?}");
                Told::Done
            }
            (409, "reservation_not_active", _) => {
                assert_eq!(answer.body["errors"].as_array().unwrap().len(), self.lines.len(), "{answer:?}");
                Told::Never
            }
            (404, "unknown_cart", _) if verb != "hold" => Told::No,
            (503, "unavailable", "none") => Told::No,
            (503, "unavailable", "unknown") => Told::Unknown,
            _ => panic!("{verb} of {} answered {answer:?}", self.name),
        };
        vec![told; self.lines.len()]
    }

    /// An answer has all lines, and no others.
    fn assert_whole(&self, records: &[Value]) {
        let mut told: Vec<_> = records.iter().map(|record| record["reservationId"].as_str().unwrap()).collect();
        let mut own: Vec<_> = self.lines.iter().map(|line| line.id.as_str()).collect();
        told.sort_unstable();
        own.sort_unstable();
        assert_eq!(told, own, "{}", self.name);
    }

    async fn by_sha(&self, caller: &mut Caller, verb: &'static str) -> Vec<Told> {
        let (key, of) = (IdempotencyKey::parse(&self.name).unwrap(), CartId::parse(&self.id).unwrap());
        let mut keys = ["inventory:audit", "stockhold:due", "stockhold:settings"].map(str::to_owned).to_vec();
        if verb == "hold" {
            keys.extend([format!("cart:{of}"), format!("operation:{}", OperationId::of_cart_hold(&key, &of, 0))]);
        }
        for Order { sku, id, .. } in &self.lines {
            keys.extend([format!("inventory:{sku}"), format!("inventory:{sku}:active"), format!("reservation:{id}")]);
        }
        let mut args = match verb {
            "hold" => vec!["once".to_owned(), self.lines[0].ttl_ms.to_string(), String::new()],
            _ => vec!["all".to_owned()],
        };
        args.extend(self.lines.iter().map(|Order { quantity, extension_ms, .. }| match verb {
            "hold" => quantity.to_string(),
            "extend" => extension_ms.to_string(),
            _ => key.cart_token(&of),
        }));
        let script = if verb == "hold" { "cart_hold" } else { verb };
        let replies = match caller.evalsha(script, &keys, &args, false).await {
            Ok(replies) => replies,
            Err(told) => return vec![told; self.lines.len()],
        };
        assert_eq!(replies.len(), self.lines.len(), "{replies:?}");
        let told = |reply: &Vec<String>| match (verb, &*reply[0]) {
            ("hold", "HELD" | "REPLAYED")
            | ("confirm", "CONFIRMED" | "REPLAYED")
            | ("release", "RELEASED" | "REPLAYED") => Told::Done,
            ("extend", "EXTENDED") => Told::Until(reply[6].parse().unwrap()),
            ("hold", "INSUFFICIENT" | "UNSEEN" | "CART_LIMIT" | "WITHDRAWN") => Told::No,
            ("extend" | "confirm" | "release", "NOT_FOUND") => Told::No,
            ("extend" | "confirm" | "release", "NOT_ACTIVE" | "EXPIRED") => Told::Never,
            _ => panic!("{verb} of {} answered {replies:?}", self.name),
        };
        let told: Vec<Told> = replies.iter().map(told).collect();
        let is_whole = told.iter().all(|one| std::mem::discriminant(one) == std::mem::discriminant(&told[0]));
        assert!(is_whole, "{verb} of {} answered {replies:?}", self.name);
        told
    }
}
