//! Everything that is stored, in a form in which Redis and the model can be compared.

use std::collections::{BTreeMap, BTreeSet};

use redis::{FromRedisValue, Value, from_redis_value};

use crate::state::{Event, Model};

/// Reads everything at one moment: for every key its type, when Redis drops it (-1: never) and its contents; for a
/// stream the length, the first id and the entries after ARGV[1]. Then the time.
pub const READ_ALL: &str = "
local found = {}
for i, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local read = ({ hash = { 'HGETALL', key }, zset = { 'ZRANGE', key, 0, -1, 'WITHSCORES' },
    stream = { 'XRANGE', key, ARGV[1], '+' } })[kind] or { 'DUMP', key }
  found[i] = { key, kind, redis.call('PEXPIRETIME', key), redis.call(unpack(read)) }
  if kind == 'stream' then
    found[i][5] = redis.call('XLEN', key)
    found[i][6] = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1][1]
  end
end
return { found, redis.call('TIME') }";

const EVENT_FIELDS: [&str; 14] = [
    "event",
    "reservationId",
    "cartId",
    "sku",
    "quantity",
    "state",
    "reason",
    "happenedAt",
    "available",
    "reserved",
    "confirmed",
    "version",
    "previous",
    "metadata",
];

#[derive(Debug, PartialEq)]
pub enum Stored {
    Hash(BTreeMap<String, String>),
    Scores(BTreeMap<String, u64>),
    Stream {
        length: usize,
        first: String,
        new: Vec<Entry>,
    },
    /// Something that no script should store.
    Strange(String),
}

/// A stream entry: its id, and its fields in their order.
type Entry = (String, Vec<(String, String)>);

/// Every key.
#[derive(Default)]
pub struct Stores {
    pub keys: BTreeMap<String, Stored>,
    /// When Redis drops the keys that it does not keep.
    pub dropped_at: BTreeMap<String, u64>,
}

impl Stores {
    /// From the answer to [`READ_ALL`], with the epoch ms of the read. The names of keys are without `prefix`.
    pub fn from_redis(answer: Value, prefix: &str) -> (Self, u64) {
        let (found, time): (Vec<Value>, Value) = typed(answer);
        let mut stores = Self::default();
        for key in found {
            let Value::Array(parts) = key else { panic!("not a key: {key:?}") };
            let mut parts = parts.into_iter();
            let mut next = || parts.next().expect("a part of a key");
            let (name, kind, dropped_at): (String, String, i64) = (typed(next()), typed(next()), typed(next()));
            // What has another prefix is nothing that the model stores.
            let name = name.strip_prefix(prefix).map_or_else(|| format!("elsewhere: {name}"), str::to_owned);
            let content = next();
            let stored = match &*kind {
                "hash" => Stored::Hash(typed(content)),
                "zset" => Stored::Scores(typed(content)),
                "stream" => Stored::Stream { new: typed(content), length: typed(next()), first: typed(next()) },
                _ => Stored::Strange(kind),
            };
            if let Ok(at) = dropped_at.try_into() {
                stores.dropped_at.insert(name.clone(), at);
            }
            stores.keys.insert(name, stored);
        }
        (stores, epoch_ms(time))
    }

    /// What the model says is stored; of the audit, the events after the first `since`.
    pub fn from_model(model: &Model, since: usize) -> Self {
        let mut stores = Self::default();
        for (sku, stock) in &model.stocks {
            let name = format!("inventory:{sku}");
            let active: BTreeMap<_, _> =
                model.active(sku).into_iter().map(|(expires, id)| (id.clone(), expires)).collect();
            if !active.is_empty() {
                stores.keys.insert(format!("{name}:active"), Stored::Scores(active));
            }
            let numbers = [
                ("available", stock.available),
                ("reserved", stock.reserved),
                ("confirmed", stock.confirmed),
                ("seeded", stock.seeded()),
                ("updatedAt", stock.updated_at),
                ("version", stock.version),
            ];
            let numbers = numbers.into_iter().chain(stock.seeded_at.map(|at| ("seededAt", at)));
            let rules = stock.rules.map(|rules| ("rules", rules.text()));
            let texts = [("sku", sku.clone()), ("lastEvent", stock.last_event.clone())].into_iter().chain(rules);
            stores.keys.insert(name, hash(texts, numbers));
        }
        for (id, record) in &model.records {
            let name = format!("reservation:{id}");
            let texts = [
                ("cartId", &*record.cart),
                ("sku", &record.sku),
                ("state", record.state),
                ("reason", record.reason),
                ("token", &record.token),
                ("metadata", &record.metadata),
            ];
            // Empty texts are not stored, and what is active was updated only if it was extended or changed.
            let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
            let updated =
                Some(("updatedAt", record.updated_at)).filter(|_| record.state != "active" || record.is_updated);
            let numbers =
                [("quantity", record.quantity), ("expiresAt", record.expires_at), ("createdAt", record.created_at)];
            let numbers = numbers.into_iter().chain(updated).chain(record.ttl_ms.map(|ttl_ms| ("ttlMs", ttl_ms)));
            let numbers = numbers.chain(record.initial_quantity.map(|units| ("initialQuantity", units)));
            let sold = record.confirmed_at.map(|at| [("confirmedAt", at), ("returned", record.returned)]);
            let numbers = numbers.chain(sold.into_iter().flatten());
            if let Some((_, latest)) = record.dropped_at {
                stores.dropped_at.insert(name.clone(), latest);
            }
            stores.keys.insert(name, hash(texts, numbers));
        }
        for (id, operation) in &model.operations {
            let name = format!("operation:{id}");
            if let Some((_, latest)) = operation.dropped_at {
                stores.dropped_at.insert(name.clone(), latest);
            }
            let asked = operation.asked.iter().map(|(field, text)| (*field, text));
            stores.keys.insert(name, hash(asked, operation.left.iter().copied()));
        }
        for (id, cart) in &model.carts {
            let name = format!("cart:{id}");
            if let Some((_, latest)) = cart.dropped_at {
                stores.dropped_at.insert(name.clone(), latest);
            }
            stores.keys.insert(name, Stored::Hash(cart.listed.clone()));
        }
        if !model.due.is_empty() {
            stores.keys.insert("stockhold:due".to_owned(), Stored::Scores(model.due.clone()));
        }
        let settings = [("keepMs", model.keep_ms), ("extendMaxMs", model.extend_max_ms)];
        let settings: Vec<_> = settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if !settings.is_empty() {
            stores.keys.insert("stockhold:settings".to_owned(), hash([("", ""); 0], settings));
        }
        if !model.stocks.is_empty() {
            stores.keys.insert(
                "stockhold:skus".to_owned(),
                Stored::Scores(model.stocks.keys().map(|sku| (sku.clone(), 0)).collect()),
            );
        }
        if let Some(first) = model.events.first() {
            let trimmed = model.count - model.events.len();
            let new = model.events[since.saturating_sub(trimmed)..].iter().map(|event| entry(event)).collect();
            let stream = Stored::Stream { length: model.events.len(), first: first.id.clone(), new };
            stores.keys.insert("inventory:audit".to_owned(), stream);
        }
        stores
    }

    /// The ids of the new events.
    pub fn new_events(&self) -> Vec<String> {
        match self.keys.get("inventory:audit") {
            Some(Stored::Stream { new, .. }) => new.iter().map(|(id, _)| id.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// One line for each key that differs.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let names: BTreeSet<_> = self.keys.keys().chain(found.keys.keys()).collect();
        for name in names {
            let (expected, stored) = (self.keys.get(name), found.keys.get(name));
            if expected != stored {
                differences.push(format!("{name}\n  model  {expected:?}\n  Redis  {stored:?}"));
            }
            let (expected, stored) = (self.dropped_at.get(name), found.dropped_at.get(name));
            if expected != stored {
                differences.push(format!("{name} is dropped\n  model  at {expected:?}\n  Redis  at {stored:?}"));
            }
        }
        differences
    }
}

/// The answer to `TIME` in epoch milliseconds.
pub fn epoch_ms(time: Value) -> u64 {
    let (seconds, micros): (u64, u64) = typed(time);
    seconds * 1000 + micros / 1000
}

fn typed<T: FromRedisValue>(value: Value) -> T {
    from_redis_value(value).expect("what the script returns")
}

fn hash<'a>(
    texts: impl IntoIterator<Item = (&'a str, impl AsRef<str>)>,
    numbers: impl IntoIterator<Item = (&'a str, u64)>,
) -> Stored {
    let texts = texts.into_iter().map(|(field, text)| (field.to_owned(), text.as_ref().to_owned()));
    Stored::Hash(
        texts.chain(numbers.into_iter().map(|(field, number)| (field.to_owned(), number.to_string()))).collect(),
    )
}

fn entry(event: &Event) -> Entry {
    let names = EVENT_FIELDS.iter().map(|name| (*name).to_owned());
    (event.id.clone(), names.zip(event.fields.iter().cloned()).collect())
}
