//! The steps of a sequence, and the call that each makes: a script's name, keys and arguments, all byte strings.

use std::fmt;
use std::ops::RangeInclusive;

use crate::spoil::Spoil;
use crate::state::{Model, Rules, Stock};

/// Few names of each kind, so that calls affect each other.
pub const SKUS: [&str; 3] = ["tea", "cup", "Grüner-Tee"];
pub const CARTS: [&str; 2] = ["cart-1", "Körbchen 🛒"];
pub const TOKENS: [&str; 3] = ["", "token", "otro"];
pub const IDS: RangeInclusive<u8> = 0..=11;
/// Those of adjustments, of returns, of seeds, and of changes: they share one, which is of the wrong kind for some.
pub const OPERATIONS: RangeInclusive<u8> = 0..=8;
pub const RETURNS: RangeInclusive<u8> = 9..=32;
pub const SEEDS: RangeInclusive<u8> = 33..=44;
pub const CART_OPERATIONS: RangeInclusive<u8> = 49..=54;
/// Ids that only the list of a cart has.
pub const STRANGERS: RangeInclusive<u8> = 100..=199;
pub const CHANGES: RangeInclusive<u8> = 44..=48;
/// What a reservation keeps for its caller.
pub const METADATA: [&str; 2] = [r#"{"order":"A-17"}"#, r#"{"b":"größe","a":"\"\\"}"#];
pub const REASONS: [&str; 3] = ["", "delivery", "Zählung 📋"];

/// The shard on which some sequences are, with all their keys; the ids are those of this shard in any case.
pub const SHARD: u16 = 7;
pub const PREFIX: &str = "{7}:";

/// In a repair: available units as many as there can be.
pub const AS_MANY_AS_FIT: i64 = i64::MAX;
const MOST: u64 = 1_000_000_000_000;

/// One step of a sequence.
#[derive(Clone)]
pub struct Step {
    pub act: Act,
    /// What is wrong with the call, if anything.
    pub spoil: Option<Spoil>,
}

#[derive(Clone, Debug)]
pub enum Act {
    /// Not a call: this sequence is on [`SHARD`]. It is always the first step.
    OnShard,
    WaitMs(u64),
    /// The operator sets how long settled records are kept, or removes the setting.
    Keep(Option<u64>),
    /// The operator sets how long after a hold was made an extension may end, or removes the setting.
    ExtendMax(Option<u64>),
    /// The sweeper trims the audit to about this number of entries.
    Trim(usize),
    /// Not a call: an active reservation becomes what a clock that was `ms` ahead would have made of it.
    Ahead {
        id: u8,
        ms: u64,
    },
    /// Without a quantity, it is a probe.
    Seed {
        sku: &'static str,
        quantity: Option<u64>,
        ids: Vec<u8>,
        operation: u8,
        once: bool,
    },
    Hold {
        mode: &'static str,
        lines: Vec<Line>,
    },
    Confirm {
        mode: &'static str,
        items: Vec<Item>,
    },
    Release {
        mode: &'static str,
        items: Vec<Item>,
    },
    Extend {
        mode: &'static str,
        items: Vec<Extension>,
    },
    Adjust {
        mode: &'static str,
        items: Vec<Adjustment>,
    },
    Change(Change),
    Sell(Sale),
    Rules {
        sku: &'static str,
        rules: Rules,
    },
    Return {
        sku: &'static str,
        id: u8,
        operation: u8,
        quantity: u64,
        restock: bool,
        once: bool,
    },
    CartHold {
        cart: &'static str,
        operation: u8,
        once: bool,
        ttl_ms: u64,
        metadata: &'static str,
        /// SKU, id and quantity.
        lines: Vec<(&'static str, u8, u64)>,
        others: Vec<u8>,
    },
    /// Not a call: a cart lists this number of reservations, with [`STRANGERS`] that are gone.
    FillCart {
        cart: &'static str,
        most: usize,
    },
    Sweep {
        sku: &'static str,
        ids: Vec<u8>,
    },
    /// The damage was found `found` events of the SKU ago.
    Repair {
        sku: &'static str,
        ids: Vec<(u8, Record)>,
        found: usize,
        restart: Restart,
        change: [i64; 3],
        rules: RulesOf,
    },
    Inventory {
        sku: &'static str,
        limit: u64,
    },
    /// `before` counts the events of all SKUs back from the newest.
    Audit {
        sku: Option<&'static str>,
        limit: u64,
        before: Option<usize>,
    },
}

/// What a repair does with a reservation's record.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    LeaveAsItIs,
    MakeFromItsLastEvent,
    MakeFromTheLastEventOfAll,
}

/// Where the audit of the SKU begins again after a repair.
#[derive(Clone, Copy, Debug)]
pub enum Restart {
    Nowhere,
    Here,
    AfterTheLastEvent,
}

/// Where a repair takes the rules from.
#[derive(Clone, Copy, Debug)]
pub enum RulesOf {
    Nowhere,
    TheLastThatWereTold,
    TheLastEvent,
    None,
}

#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub sku: &'static str,
    pub id: u8,
    pub cart: &'static str,
    pub quantity: u64,
    /// 0 leaves it open.
    pub ttl_ms: u64,
    pub metadata: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub sku: &'static str,
    pub id: u8,
    pub token: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Extension {
    pub sku: &'static str,
    pub id: u8,
    pub ttl_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Adjustment {
    pub sku: &'static str,
    pub operation: u8,
    pub how: &'static str,
    pub units: i64,
    /// The SKU's version as it is, plus this.
    pub if_version: Option<i64>,
    pub create: bool,
    pub reason: &'static str,
    pub once: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub sku: &'static str,
    pub id: u8,
    pub how: &'static str,
    pub quantity: u64,
    pub operation: u8,
    pub once: bool,
    /// The cart that is named, with all ids.
    pub cart: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub struct Sale {
    pub sku: &'static str,
    pub id: u8,
    pub token: &'static str,
    /// 0 is all.
    pub quantity: u64,
    pub late: bool,
    /// As that of a change.
    pub cart: Option<&'static str>,
}

/// One `EVALSHA`.
#[derive(Clone)]
pub struct Call {
    pub script: &'static str,
    pub keys: Vec<Vec<u8>>,
    pub args: Vec<Vec<u8>>,
}

impl Step {
    /// The call, unless the step is something else; `events` are the ids of all events so far.
    pub fn call(&self, model: &Model, events: &[String]) -> Option<Call> {
        let mut call = self.act.call(model, events)?;
        if let Some(spoil) = &self.spoil {
            spoil.apply(&mut call);
        }
        Some(call)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.act)?;
        self.spoil.as_ref().map_or(Ok(()), |spoil| write!(f, " but {spoil:?}"))
    }
}

impl Act {
    fn call(&self, model: &Model, events: &[String]) -> Option<Call> {
        let call = match self {
            Self::OnShard
            | Self::WaitMs(_)
            | Self::Ahead { .. }
            | Self::FillCart { .. }
            | Self::Keep(_)
            | Self::ExtendMax(_)
            | Self::Trim(_) => return None,
            Self::Seed { sku, quantity, ids, operation, once } => {
                let keys =
                    ["inventory:audit", "stockhold:due", "stockhold:skus", "stockhold:settings"].map(String::from);
                let quantity = quantity.map_or("probe".to_owned(), |quantity| quantity.to_string());
                let keys = keys.into_iter().chain([operation_key(*operation)]).chain(stock_keys(sku));
                Call::new("seed", keys.chain(ids.iter().map(reservation_key)), [quantity, word(*once, "once")])
            }
            Self::Hold { mode, lines } => {
                let numbers = |line: &Line| [line.cart.to_owned(), line.quantity.to_string(), ttl(line.ttl_ms)];
                let is_noted = lines.iter().any(|line| !line.metadata.is_empty());
                let noted = |line: &Line| is_noted.then(|| line.metadata.to_owned());
                let args = lines.iter().flat_map(|line| numbers(line).into_iter().chain(noted(line)));
                Call::new(
                    if is_noted { "hold_with_metadata" } else { "hold" },
                    item_keys(&["inventory:audit", "stockhold:due"], lines.iter().map(|line| (line.sku, line.id))),
                    [(*mode).to_owned()].into_iter().chain(args),
                )
            }
            Self::Confirm { mode, items } => settle("confirm", mode, items),
            Self::Release { mode, items } => settle("release", mode, items),
            Self::Extend { mode, items } => {
                let of_shard = ["inventory:audit", "stockhold:due", "stockhold:settings"];
                let keys = item_keys(&of_shard, items.iter().map(|item| (item.sku, item.id)));
                let ttls = items.iter().map(|item| item.ttl_ms.to_string());
                Call::new("extend", keys, [(*mode).to_owned()].into_iter().chain(ttls))
            }
            Self::Adjust { mode, items } => {
                let of_shard = ["inventory:audit", "stockhold:skus", "stockhold:settings"].map(String::from);
                let operation = |item: &Adjustment| operation_key(item.operation);
                let keys = items.iter().flat_map(|item| stock_keys(item.sku).into_iter().chain([operation(item)]));
                let args = items.iter().flat_map(|item| item.arguments(model));
                Call::new("adjust", of_shard.into_iter().chain(keys), [(*mode).to_owned()].into_iter().chain(args))
            }
            Self::Change(Change { sku, id, how, quantity, operation, once, cart }) => {
                let keys = ["inventory:audit", "stockhold:due", "stockhold:settings"].map(String::from);
                let keys = keys.into_iter().chain([operation_key(*operation)]).chain(stock_keys(sku));
                let args = [(*how).to_owned(), quantity.to_string(), word(*once, "once")];
                Call::new("change", keys.chain([reservation_key(id)]).chain(cart_keys(*cart)), args)
            }
            Self::Sell(Sale { sku, id, token, quantity, late, cart }) => {
                let of_shard = ["inventory:audit", "stockhold:due", "stockhold:settings"];
                let quantity = if *quantity == 0 { String::new() } else { quantity.to_string() };
                let args = [(*token).to_owned(), quantity, word(*late, "reacquire")];
                let keys = item_keys(&of_shard, [(*sku, *id)].into_iter()).into_iter();
                Call::new("sell", keys.chain(cart_keys(*cart)), args)
            }
            Self::Rules { sku, rules } => {
                let [inventory, _] = stock_keys(sku);
                Call::new("rules", ["inventory:audit".to_owned(), inventory], rules.arguments())
            }
            Self::Return { sku, id, operation, quantity, restock, once } => {
                let keys = ["inventory:audit".to_owned(), "stockhold:settings".to_owned(), operation_key(*operation)];
                let [inventory, _] = stock_keys(sku);
                let restock = if *restock { "restock" } else { "write_off" };
                let args = [quantity.to_string(), restock.to_owned(), word(*once, "once")];
                Call::new("return", keys.into_iter().chain([inventory, reservation_key(id)]), args)
            }
            Self::CartHold { cart, operation, once, ttl_ms, metadata, lines, others } => {
                let (cart, operation) = (format!("cart:{cart}"), operation_key(*operation));
                let of_cart = ["inventory:audit", "stockhold:due", "stockhold:settings", &cart, &operation];
                let keys = item_keys(&of_cart, lines.iter().map(|(sku, id, _)| (*sku, *id)));
                let quantities = lines.iter().map(|(_, _, quantity)| quantity.to_string());
                Call::new(
                    "cart_hold",
                    keys.into_iter().chain(others.iter().map(reservation_key)),
                    [word(*once, "once"), ttl(*ttl_ms), (*metadata).to_owned()].into_iter().chain(quantities),
                )
            }
            Self::Sweep { sku, ids } => {
                let keys = ["inventory:audit", "stockhold:due", "stockhold:settings"].map(String::from);
                Call::new("sweep", keys.into_iter().chain(stock_keys(sku)).chain(ids.iter().map(reservation_key)), [])
            }
            Self::Repair { sku, ids, found, restart, change, rules } => {
                let keys =
                    ["inventory:audit", "stockhold:due", "stockhold:skus", "stockhold:settings"].map(String::from);
                let reservations = ids.iter().map(|(id, _)| reservation_key(id));
                let seen = model.events.iter().rev().filter(|event| event.sku() == *sku).nth(*found);
                let [version, last_event] =
                    seen.map_or_else(Default::default, |event| [event.version().to_string(), event.id.clone()]);
                let restart = match restart {
                    Restart::Nowhere => String::new(),
                    Restart::Here => "here".to_owned(),
                    Restart::AfterTheLastEvent => {
                        model.stocks.get(*sku).map_or("1-1".to_owned(), |stock| stock.last_event.clone())
                    }
                };
                let room = || MOST - model.stocks.get(*sku).map_or(0, Stock::seeded);
                let units = |units: i64| if units == AS_MANY_AS_FIT { room().to_string() } else { units.to_string() };
                let change = change.map(units);
                let told = || model.events.iter().rev().find(|event| event.sku() == *sku && event.kind() == "rules");
                let rules = match rules {
                    RulesOf::Nowhere => String::new(),
                    RulesOf::TheLastThatWereTold => told().map_or("1-1".to_owned(), |event| event.id.clone()),
                    RulesOf::TheLastEvent => {
                        model.stocks.get(*sku).map_or("1-1".to_owned(), |stock| stock.last_event.clone())
                    }
                    RulesOf::None => "none".to_owned(),
                };
                let from = ids.iter().map(|(id, record)| match record {
                    Record::LeaveAsItIs => String::new(),
                    Record::MakeFromItsLastEvent => model.last_events_of(&reservation_id(id)),
                    Record::MakeFromTheLastEventOfAll => events.last().cloned().unwrap_or_default(),
                });
                Call::new(
                    "repair",
                    keys.into_iter().chain(stock_keys(sku)).chain(reservations),
                    [version, last_event, restart].into_iter().chain(change).chain([rules]).chain(from),
                )
            }
            Self::Inventory { sku, limit } => Call::new("inventory", stock_keys(sku), [limit.to_string()]),
            Self::Audit { sku, limit, before } => {
                let keys = ["inventory:audit".to_owned()].into_iter().chain(sku.map(|sku| format!("inventory:{sku}")));
                let before = before.and_then(|back| events.iter().rev().nth(back)).cloned();
                Call::new("audit", keys, [limit.to_string(), before.unwrap_or_default()])
            }
        };
        Some(call)
    }
}

impl Call {
    /// The call on [`SHARD`]; keys that name a shard already stay as they are.
    pub fn on_shard(mut self) -> Self {
        for key in self.keys.iter_mut().filter(|key| !key.starts_with(b"{")) {
            key.splice(0..0, PREFIX.bytes());
        }
        self
    }

    /// As a call without shards: what it names on [`SHARD`] has no prefix any more, and what does not fit there has
    /// that of another shard.
    pub fn without_shard(&self) -> Self {
        let mut call = self.clone();
        for key in &mut call.keys {
            match key.strip_prefix(PREFIX.as_bytes()) {
                Some(own) if is_on_shard(own) => *key = own.to_vec(),
                Some(_) => key.splice(0..PREFIX.len(), *b"{0}:").for_each(drop),
                None if key.starts_with(b"{") => {}
                None => key.splice(0..0, *b"{0}:").for_each(drop),
            }
        }
        call
    }
}

/// Unless it is a reservation with the number of another shard.
fn is_on_shard(key: &[u8]) -> bool {
    let number = format!("{SHARD:03x}");
    key.strip_prefix(b"reservation:").and_then(|id| id.get(15..18)).is_none_or(|digits| digits == number.as_bytes())
}

impl Adjustment {
    fn arguments(&self, model: &Model) -> [String; 6] {
        let version = model.stocks.get(self.sku).map_or(0, |stock| stock.version);
        let if_version = self.if_version.and_then(|more| version.checked_add_signed(more));
        [
            self.how.to_owned(),
            self.units.to_string(),
            if_version.map_or(String::new(), |version| version.to_string()),
            word(self.create, "create"),
            self.reason.to_owned(),
            word(self.once, "once"),
        ]
    }
}

fn settle(script: &'static str, mode: &str, items: &[Item]) -> Call {
    let of_shard = ["inventory:audit", "stockhold:due", "stockhold:settings"];
    let args = [mode.to_owned()];
    let tokens = items.iter().map(|item| item.token.to_owned());
    Call::new(
        script,
        item_keys(&of_shard, items.iter().map(|item| (item.sku, item.id))),
        args.into_iter().chain(tokens),
    )
}

impl Call {
    fn new(
        script: &'static str,
        keys: impl IntoIterator<Item = String>,
        args: impl IntoIterator<Item = String>,
    ) -> Self {
        let keys = keys.into_iter().map(String::into_bytes).collect();
        Self { script, keys, args: args.into_iter().map(String::into_bytes).collect() }
    }
}

fn item_keys(of_shard: &[&str], items: impl Iterator<Item = (&'static str, u8)>) -> Vec<String> {
    let of_item = |(sku, id)| stock_keys(sku).into_iter().chain([reservation_key(&id)]);
    of_shard.iter().map(|key| (*key).to_owned()).chain(items.flat_map(of_item)).collect()
}

fn stock_keys(sku: &str) -> [String; 2] {
    [format!("inventory:{sku}"), format!("inventory:{sku}:active")]
}

/// A cart and all ids.
fn cart_keys(cart: Option<&str>) -> Vec<String> {
    let ids = || IDS.map(|id| reservation_key(&id));
    cart.map_or(Vec::new(), |cart| [format!("cart:{cart}")].into_iter().chain(ids()).collect())
}

fn ttl(ms: u64) -> String {
    if ms == 0 { "default".to_owned() } else { ms.to_string() }
}

/// A word, or nothing.
fn word(is_so: bool, word: &str) -> String {
    if is_so { word.to_owned() } else { String::new() }
}

fn operation_key(id: u8) -> String {
    format!("operation:{}", reservation_id(&id))
}

fn reservation_key(id: &u8) -> String {
    format!("reservation:{}", reservation_id(id))
}

pub fn reservation_id(id: &u8) -> String {
    format!("00000000-0000-8{SHARD:03x}-8000-0000000000{id:02x}")
}
