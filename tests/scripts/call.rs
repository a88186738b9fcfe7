//! Calls as a client in any language makes them: a script's name, keys and arguments, all byte strings.

use std::fmt;

use crate::contract::Contract;

/// Ten minutes: a hold with it never lapses during a test.
pub const LONG_MS: u64 = 600_000;

const AUDIT: &str = "inventory:audit";
const DUE: &str = "stockhold:due";
const SKUS: &str = "stockhold:skus";
const SETTINGS: &str = "stockhold:settings";

/// One `EVALSHA`.
#[derive(Clone)]
pub struct Call {
    pub script: &'static str,
    pub keys: Vec<Vec<u8>>,
    pub args: Vec<Vec<u8>>,
}

/// One item of a hold: one unit for `cart-1` for a long time, by default.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    sku: &'a str,
    id: &'a str,
    cart: &'a str,
    quantity: u64,
    ttl_ms: u64,
    metadata: &'a str,
}

/// An item of a hold.
pub fn line<'a>(sku: &'a str, id: &'a str) -> Line<'a> {
    Line { sku, id, cart: "cart-1", quantity: 1, ttl_ms: LONG_MS, metadata: "" }
}

impl<'a> Line<'a> {
    pub fn cart(self, cart: &'a str) -> Self {
        Self { cart, ..self }
    }

    pub fn quantity(self, quantity: u64) -> Self {
        Self { quantity, ..self }
    }

    pub fn ttl_ms(self, ttl_ms: u64) -> Self {
        Self { ttl_ms, ..self }
    }

    /// For [`hold_with_metadata`].
    pub fn metadata(self, metadata: &'a str) -> Self {
        Self { metadata, ..self }
    }
}

/// One item of an adjustment, which is not remembered by default.
#[derive(Clone, Copy)]
pub struct Adjustment<'a> {
    sku: &'a str,
    operation: &'a str,
    how: &'a str,
    units: i64,
    if_version: Option<u64>,
    create: bool,
    reason: &'a str,
    once: bool,
}

/// This number of units come, or go.
pub fn add<'a>(sku: &'a str, operation: &'a str, units: i64) -> Adjustment<'a> {
    Adjustment { sku, operation, how: "add", units, if_version: None, create: false, reason: "", once: false }
}

/// This number of units shall be available.
pub fn set<'a>(sku: &'a str, operation: &'a str, units: i64) -> Adjustment<'a> {
    Adjustment { how: "set", ..add(sku, operation, units) }
}

impl<'a> Adjustment<'a> {
    pub fn if_version(self, version: u64) -> Self {
        Self { if_version: Some(version), ..self }
    }

    pub fn create(self) -> Self {
        Self { create: true, ..self }
    }

    pub fn reason(self, reason: &'a str) -> Self {
        Self { reason, ..self }
    }

    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }
}

/// Sets the stock of a SKU; the ids are the holds to release. It is not remembered.
pub fn seed(sku: &str, quantity: u64, ids: &[&str]) -> Call {
    seed_under("00000000-0000-8007-8000-0000000000ee", sku, quantity, ids)
}

/// The same, with an operation.
pub fn seed_under(operation: &str, sku: &str, quantity: u64, ids: &[&str]) -> Call {
    let [inventory, active] = stock_keys(sku);
    let mut keys = [AUDIT, DUE, SKUS, SETTINGS].map(String::from).to_vec();
    keys.extend([format!("operation:{operation}"), inventory, active]);
    keys.extend(ids.iter().map(|id| reservation_key(id)));
    Call::new("seed", keys, vec![quantity.to_string(), String::new()])
}

pub fn hold(mode: &str, lines: &[Line]) -> Call {
    let args = lines.iter().flat_map(|line| [line.cart.into(), line.quantity.to_string(), line.ttl_ms.to_string()]);
    let args = [mode.into()].into_iter().chain(args).collect();
    Call::new("hold", triples(&[AUDIT, DUE], lines.iter().map(|line| (line.sku, line.id))), args)
}

pub fn hold_with_metadata(mode: &str, lines: &[Line]) -> Call {
    let args = lines.iter().flat_map(|line| {
        [line.cart.into(), line.quantity.to_string(), line.ttl_ms.to_string(), line.metadata.to_owned()]
    });
    let args = [mode.into()].into_iter().chain(args).collect();
    let keys = triples(&[AUDIT, DUE], lines.iter().map(|line| (line.sku, line.id)));
    Call::new("hold_with_metadata", keys, args)
}

/// Holds all lines of `cart-1` for a long time, not remembered, by default.
#[derive(Clone)]
pub struct CartHold<'a> {
    lines: &'a [(&'a str, &'a str, u64)],
    cart: &'a str,
    operation: &'a str,
    once: &'a str,
    ttl_ms: u64,
    metadata: &'a str,
    others: &'a [&'a str],
}

/// A line is a SKU, an id and a quantity.
pub fn cart_hold<'a>(operation: &'a str, lines: &'a [(&'a str, &'a str, u64)]) -> CartHold<'a> {
    CartHold { lines, cart: "cart-1", operation, once: "", ttl_ms: LONG_MS, metadata: "", others: &[] }
}

impl<'a> CartHold<'a> {
    pub fn cart(self, cart: &'a str) -> Self {
        Self { cart, ..self }
    }

    pub fn once(self) -> Self {
        Self { once: "once", ..self }
    }

    pub fn ttl_ms(self, ttl_ms: u64) -> Self {
        Self { ttl_ms, ..self }
    }

    pub fn metadata(self, metadata: &'a str) -> Self {
        Self { metadata, ..self }
    }

    /// Names other reservations of the cart.
    pub fn others(self, others: &'a [&'a str]) -> Self {
        Self { others, ..self }
    }

    pub fn call(&self) -> Call {
        let (cart, operation) = (format!("cart:{}", self.cart), format!("operation:{}", self.operation));
        let mut keys =
            triples(&[AUDIT, DUE, SETTINGS, &cart, &operation], self.lines.iter().map(|(sku, id, _)| (*sku, *id)));
        keys.extend(self.others.iter().map(|id| reservation_key(id)));
        let quantities = self.lines.iter().map(|(_, _, quantity)| quantity.to_string());
        let args = [self.once.to_owned(), self.ttl_ms.to_string(), self.metadata.to_owned()];
        let args = args.into_iter().chain(quantities).collect();
        Call::new("cart_hold", keys, args)
    }
}

/// Confirms; an item is a SKU, an id and a token.
pub fn confirm(mode: &str, items: &[(&str, &str, &str)]) -> Call {
    settle("confirm", mode, items)
}

/// Releases; an item is a SKU, an id and a token.
pub fn release(mode: &str, items: &[(&str, &str, &str)]) -> Call {
    settle("release", mode, items)
}

/// Confirms or releases, by the script's name.
pub fn settle(script: &'static str, mode: &str, items: &[(&str, &str, &str)]) -> Call {
    let tokens = items.iter().map(|(_, _, token)| (*token).to_owned());
    let args = [mode.to_owned()].into_iter().chain(tokens).collect();
    Call::new(script, triples(&[AUDIT, DUE, SETTINGS], items.iter().map(|(sku, id, _)| (*sku, *id))), args)
}

/// Confirms one with a choice: `quantity` 0 is all, and `if_expired` is empty or reacquire.
pub fn sell(sku: &str, id: &str, token: &str, quantity: u64, if_expired: &str) -> Call {
    let quantity = if quantity == 0 { String::new() } else { quantity.to_string() };
    let keys = triples(&[AUDIT, DUE, SETTINGS], [(sku, id)].into_iter());
    Call::new("sell", keys, vec![token.to_owned(), quantity, if_expired.to_owned()])
}

/// Sets the rules of a SKU; an empty text is none.
pub fn rules(sku: &str, per_cart: &str, safety_stock: &str, max_ttl_ms: &str) -> Call {
    let [inventory, _] = stock_keys(sku);
    Call::new("rules", vec![AUDIT.into(), inventory], [per_cart, safety_stock, max_ttl_ms].map(String::from).into())
}

/// Extends; an item is a SKU, an id and the time from now, in ms.
pub fn extend(mode: &str, items: &[(&str, &str, u64)]) -> Call {
    let ttls = items.iter().map(|(_, _, ttl_ms)| ttl_ms.to_string());
    let args = [mode.to_owned()].into_iter().chain(ttls).collect();
    Call::new("extend", triples(&[AUDIT, DUE, SETTINGS], items.iter().map(|(sku, id, _)| (*sku, *id))), args)
}

/// Changes how many units a reservation holds; the call is remembered under the operation if that is not empty.
fn change(sku: &str, id: &str, how: &str, quantity: u64, operation: &str) -> Call {
    const UNUSED: &str = "00000000-0000-8007-8000-0000000000ff";
    let mut keys = [AUDIT, DUE, SETTINGS].map(String::from).to_vec();
    keys.push(format!("operation:{}", if operation.is_empty() { UNUSED } else { operation }));
    keys.extend(stock_keys(sku));
    keys.push(reservation_key(id));
    let once = if operation.is_empty() { "" } else { "once" };
    Call::new("change", keys, vec![how.to_owned(), quantity.to_string(), once.to_owned()])
}

/// A reservation shall hold this number of units.
pub fn change_to(sku: &str, id: &str, quantity: u64, operation: &str) -> Call {
    change(sku, id, "set", quantity, operation)
}

/// This number of units of a reservation go back.
pub fn release_part(sku: &str, id: &str, quantity: u64, operation: &str) -> Call {
    change(sku, id, "release", quantity, operation)
}

/// Changes what is available.
pub fn adjust(mode: &str, items: &[Adjustment]) -> Call {
    let word = |is_so: bool, word: &str| if is_so { word.to_owned() } else { String::new() };
    let args = items.iter().flat_map(|item| {
        let version = item.if_version.map_or(String::new(), |version| version.to_string());
        let (create, once) = (word(item.create, "create"), word(item.once, "once"));
        [item.how.to_owned(), item.units.to_string(), version, create, item.reason.to_owned(), once]
    });
    let args = [mode.to_owned()].into_iter().chain(args).collect();
    let mut keys = [AUDIT, SKUS, SETTINGS].map(String::from).to_vec();
    for item in items {
        keys.extend(stock_keys(item.sku));
        keys.push(format!("operation:{}", item.operation));
    }
    Call::new("adjust", keys, args)
}

/// Takes back units of a sale, on sale again; not remembered under the operation.
pub fn take_back(sku: &str, id: &str, operation: &str, quantity: u64) -> Call {
    let [inventory, _] = stock_keys(sku);
    let keys = [AUDIT.into(), SETTINGS.into(), format!("operation:{operation}"), inventory, reservation_key(id)];
    Call::new("return", keys.into(), vec![quantity.to_string(), "restock".to_owned(), String::new()])
}

/// The same for units that are not on sale again.
pub fn write_off(sku: &str, id: &str, operation: &str, quantity: u64) -> Call {
    take_back(sku, id, operation, quantity).with("restock", "write_off")
}

pub fn sweep(sku: &str, ids: &[&str]) -> Call {
    let [inventory, active] = stock_keys(sku);
    let mut keys = [AUDIT, DUE, SETTINGS].map(String::from).to_vec();
    keys.extend([inventory, active]);
    keys.extend(ids.iter().map(|id| reservation_key(id)));
    Call::new("sweep", keys, vec![])
}

/// The fixture replaces this with the `lastEvent` of the SKU; with `:` and an id after it, with the last event of that
/// reservation, or with its sale and the returns after it.
pub const LAST_EVENT: &str = "last-event";

/// Repairs a SKU: the version and the `lastEvent` seen and where to restart, units to add to the counts, and
/// reservations with the events from which they are made again.
pub fn repair(sku: &str, [version, last, restart]: [&str; 3], change: [i64; 3], items: &[(&str, &str)]) -> Call {
    let [inventory, active] = stock_keys(sku);
    let mut keys = [AUDIT, DUE, SKUS, SETTINGS].map(String::from).to_vec();
    keys.extend([inventory, active]);
    keys.extend(items.iter().map(|(id, _)| reservation_key(id)));
    let mut args = [version, last, restart].map(str::to_owned).to_vec();
    args.extend(change.iter().map(i64::to_string));
    args.push(String::new());
    args.extend(items.iter().map(|(_, event)| (*event).to_owned()));
    Call::new("repair", keys, args)
}

pub fn inventory(sku: &str, limit: u64) -> Call {
    Call::new("inventory", stock_keys(sku).into(), vec![limit.to_string()])
}

/// The newest events of a SKU; if `before` is not empty, those before that event.
pub fn audit(sku: &str, limit: u64, before: &str) -> Call {
    Call::new("audit", vec![AUDIT.into(), format!("inventory:{sku}")], vec![limit.to_string(), before.to_owned()])
}

/// The newest events of all SKUs.
pub fn audit_all(limit: u64, before: &str) -> Call {
    Call::new("audit", vec![AUDIT.into()], vec![limit.to_string(), before.to_owned()])
}

impl Call {
    fn new(script: &'static str, keys: Vec<String>, args: Vec<String>) -> Self {
        let bytes = |texts: Vec<String>| texts.into_iter().map(String::into_bytes).collect();
        Self { script, keys: bytes(keys), args: bytes(args) }
    }

    /// The number of its items.
    pub fn items(&self) -> usize {
        let arguments = &Contract::of(self.script).arguments;
        let beyond = self.args.len().saturating_sub(arguments.fixed.len());
        beyond.checked_div(arguments.repeated.len()).unwrap_or_default()
    }

    /// The same call with another argument, by its name in the header.
    pub fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let slot = Contract::of(self.script).arguments.index_of(name);
        self.args[slot] = value.into();
        self
    }

    /// The same call, to be remembered.
    pub fn once(self) -> Self {
        self.with("once", "once")
    }

    /// The same call with the name of a cart, and of other reservations of it.
    pub fn with_cart(mut self, cart: &str, others: &[&str]) -> Self {
        let keys = [format!("cart:{cart}")].into_iter().chain(others.iter().map(|id| reservation_key(id)));
        self.keys.extend(keys.map(String::into_bytes));
        self
    }

    /// The same call on the keys of a shard; the prefix is as in `{7}:`.
    pub fn in_shard(mut self, prefix: &str) -> Self {
        for key in &mut self.keys {
            key.splice(0..0, prefix.bytes());
        }
        self
    }
}

/// As it would be typed, with escapes for what is not ASCII.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.script)?;
        for key in &self.keys {
            write!(f, " \"{}\"", key.escape_ascii())?;
        }
        write!(f, " ,")?;
        for arg in &self.args {
            write!(f, " \"{}\"", arg.escape_ascii())?;
        }
        Ok(())
    }
}

/// The keys of the shard, and then three for each item.
fn triples<'a>(of_shard: &[&str], items: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut keys: Vec<String> = of_shard.iter().map(|key| (*key).to_owned()).collect();
    for (sku, id) in items {
        keys.extend(stock_keys(sku));
        keys.push(reservation_key(id));
    }
    keys
}

fn stock_keys(sku: &str) -> [String; 2] {
    [format!("inventory:{sku}"), format!("inventory:{sku}:active")]
}

fn reservation_key(id: &str) -> String {
    format!("reservation:{id}")
}
