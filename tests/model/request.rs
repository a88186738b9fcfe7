//! What a call requests, or what is wrong with it: the rules for keys and arguments, as the headers state them.
//!
//! A call gets at most one defect. So the order of the checks does not matter, and a key of a shard is always among
//! keys without a shard, where it does not fit.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::Call;
use crate::names::{event_id, is_audit_of_shard, number, reservation_id, sku, text};
use crate::state::{Asked, Rules};

const MOST_ITEMS: usize = 100;
const MOST_UNITS: u64 = 1_000_000_000;
const MOST_TTL_MS: u64 = 2_592_000_000;
const MOST: u64 = 1_000_000_000_000;

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    BadArgs,
    BadKey,
}

/// A call that follows all rules.
pub enum Request {
    Seed(Seed),
    Hold { all: bool, lines: Vec<Line> },
    Confirm { all: bool, items: Vec<Item> },
    Release { all: bool, items: Vec<Item> },
    Extend { all: bool, items: Vec<Extension> },
    Adjust { all: bool, items: Vec<Adjustment> },
    Change(Change),
    Sell(Sale),
    Rules { sku: String, rules: Rules },
    Return(Return),
    CartHold(CartHold),
    Sweep { sku: String, ids: Vec<String> },
    Repair(Repair),
    Inventory { sku: String, limit: usize },
    Audit { of: Events, limit: usize, before: Option<(u64, u64)> },
}

pub struct Line {
    pub sku: String,
    pub id: String,
    pub cart: String,
    pub quantity: u64,
    /// `None` leaves it open.
    pub ttl_ms: Option<u64>,
    /// Empty if there is none.
    pub metadata: String,
}

pub struct Item {
    pub sku: String,
    pub id: String,
    pub token: String,
}

pub struct Extension {
    pub sku: String,
    pub id: String,
    pub ttl_ms: u64,
}

pub struct Adjustment {
    pub sku: String,
    pub operation: String,
    /// SKU, how, units, ifVersion, create and reason, as they were given.
    pub asked: Asked,
    /// Whether the units are those that shall be available; otherwise they come or go.
    pub sets: bool,
    pub units: i64,
    pub if_version: Option<u64>,
    pub create: bool,
    pub once: bool,
}

pub struct Seed {
    pub sku: String,
    pub ids: Vec<String>,
    pub operation: String,
    /// Without one, it is a probe.
    pub quantity: Option<u64>,
    pub once: bool,
}

pub struct Change {
    pub sku: String,
    pub id: String,
    pub operation: String,
    /// Whether the units are those that go back; otherwise they are those that it shall hold.
    pub releases: bool,
    pub quantity: u64,
    pub once: bool,
    pub cart: Option<NamedCart>,
}

/// A cart that is named, with some reservations.
pub struct NamedCart {
    pub id: String,
    pub others: Vec<String>,
}

pub struct Sale {
    pub sku: String,
    pub id: String,
    pub token: String,
    /// All, if there is none.
    pub quantity: Option<u64>,
    /// Whether it is sold although it has lapsed.
    pub late: bool,
    pub cart: Option<NamedCart>,
}

pub struct Return {
    pub sku: String,
    pub id: String,
    pub operation: String,
    pub quantity: u64,
    /// restock or write_off.
    pub restock: String,
    pub once: bool,
}

pub struct CartHold {
    pub cart: String,
    pub operation: String,
    pub once: bool,
    /// `None` leaves it open.
    pub ttl_ms: Option<u64>,
    /// Empty if there is none.
    pub metadata: String,
    pub lines: Vec<CartLine>,
    /// Other reservations of the cart.
    pub others: Vec<String>,
}

pub struct CartLine {
    pub sku: String,
    pub id: String,
    pub quantity: u64,
}

pub struct Repair {
    pub sku: String,
    pub items: Vec<RepairItem>,
    /// The version and the last event when the damage was found.
    pub seen: [String; 2],
    pub restart: Option<Restart>,
    /// The change of the units: available, reserved, confirmed.
    pub change: [i64; 3],
    /// From where the rules are to be set again, if they are.
    pub rules: Option<RulesOf>,
}

pub enum RulesOf {
    None,
    Event((u64, u64)),
}

/// A reservation to look at.
pub struct RepairItem {
    pub id: String,
    /// The events from which its record is to be made again.
    pub events: Vec<(u64, u64)>,
}

pub enum Restart {
    Here,
    After((u64, u64)),
}

/// Whose events are read.
pub enum Events {
    All,
    Sku(String),
    /// The events of a shard in which nothing ever happens.
    Elsewhere,
}

impl Request {
    pub fn read(call: &Call) -> Result<Self, Fault> {
        let args = Args(&call.args);
        match call.script {
            "seed" => {
                let ([audit, due, skus, settings, operation, inventory, active], reservations) = tail(call, 2)?;
                let once = args.word(1, [b"", b"once"])?;
                let quantity = if call.args[0] == b"probe" { None } else { Some(args.number(0, 0, MOST_UNITS)?) };
                let sku = stock(inventory, active)?;
                fits(audit == b"inventory:audit" && due == b"stockhold:due")?;
                fits(skus == b"stockhold:skus" && settings == b"stockhold:settings")?;
                let operation = id_after(operation, b"operation:")?;
                Ok(Self::Seed(Seed { sku, ids: ids(reservations)?, operation, quantity, once }))
            }
            "sweep" => {
                let ([audit, due, settings, inventory, active], reservations) = tail(call, 0)?;
                let sku = stock(inventory, active)?;
                fits(audit == b"inventory:audit" && due == b"stockhold:due" && settings == b"stockhold:settings")?;
                Ok(Self::Sweep { sku, ids: ids(reservations)? })
            }
            "hold" | "hold_with_metadata" => {
                let width = if call.script == "hold" { 3 } else { 4 };
                let items = items(call, [b"inventory:audit", b"stockhold:due"], width)?;
                let all = args.mode(0)?;
                let lines = items.into_iter().enumerate().map(|(i, (sku, id))| {
                    let quantity = args.number(2 + width * i, 1, MOST_UNITS)?;
                    let ttl_ms = args.ttl(3 + width * i)?;
                    let metadata = if width == 4 { args.metadata(4 + width * i)? } else { String::new() };
                    Ok(Line { sku, id, cart: args.text(1 + width * i)?, quantity, ttl_ms, metadata })
                });
                let lines = lines.collect::<Result<_, _>>()?;
                Ok(Self::Hold { all, lines })
            }
            "confirm" | "release" => {
                let items = items(call, [b"inventory:audit", b"stockhold:due", b"stockhold:settings"], 1)?;
                let all = args.mode(0)?;
                let items = items.into_iter().enumerate().map(|(i, (sku, id))| {
                    let token = if call.args[1 + i].is_empty() { String::new() } else { args.text(1 + i)? };
                    Ok(Item { sku, id, token })
                });
                let items = items.collect::<Result<_, _>>()?;
                Ok(if call.script == "confirm" { Self::Confirm { all, items } } else { Self::Release { all, items } })
            }
            "extend" => {
                let items = items(call, [b"inventory:audit", b"stockhold:due", b"stockhold:settings"], 1)?;
                let all = args.mode(0)?;
                let items = items
                    .into_iter()
                    .enumerate()
                    .map(|(i, (sku, id))| Ok(Extension { sku, id, ttl_ms: args.number(1 + i, 1, MOST_TTL_MS)? }));
                Ok(Self::Extend { all, items: items.collect::<Result<_, _>>()? })
            }
            "adjust" => {
                let of_shard: [&[u8]; 3] = [b"inventory:audit", b"stockhold:skus", b"stockhold:settings"];
                let items = items_of(call, of_shard, 6, b"operation:")?;
                let all = args.mode(0)?;
                let items = items.into_iter().enumerate().map(|(i, (sku, operation))| {
                    let at = |place: usize| 1 + 6 * i + place;
                    let text = |place: usize| String::from_utf8_lossy(&call.args[at(place)]).into_owned();
                    let sets = args.word(at(0), [b"add", b"set"])?;
                    let units = if sets {
                        args.number(at(1), 0, MOST_UNITS)? as i64
                    } else {
                        let units = args.signed(at(1))?;
                        count(units != 0 && units.unsigned_abs() <= MOST_UNITS)?;
                        units
                    };
                    let if_version = if text(2).is_empty() { None } else { Some(args.number(at(2), 0, MOST)?) };
                    let create = args.word(at(3), [b"", b"create"])?;
                    if !text(4).is_empty() {
                        args.text(at(4))?;
                    }
                    let once = args.word(at(5), [b"", b"once"])?;
                    let names = ["how", "units", "ifVersion", "create", "reason"];
                    let asked = names.into_iter().enumerate().map(|(place, name)| (name, text(place)));
                    let asked = [("sku", sku.clone())].into_iter().chain(asked).collect();
                    Ok(Adjustment { sku, operation, asked, sets, units, if_version, create, once })
                });
                let items = items.collect::<Result<_, _>>()?;
                Ok(Self::Adjust { all, items })
            }
            "change" => {
                let ([audit, due, settings, operation, inventory, active, reservation], cart) = with_cart(call)?;
                let releases = args.word(0, [b"set", b"release"])?;
                let quantity = args.number(1, 1, MOST_UNITS)?;
                let once = args.word(2, [b"", b"once"])?;
                let (sku, id) = (stock(inventory, active)?, id(reservation)?);
                fits(audit == b"inventory:audit" && due == b"stockhold:due" && settings == b"stockhold:settings")?;
                let operation = id_after(operation, b"operation:")?;
                let cart = cart_of(cart)?;
                Ok(Self::Change(Change { sku, id, operation, releases, quantity, once, cart }))
            }
            "sell" => {
                let ([audit, due, settings, inventory, active, reservation], cart) = with_cart(call)?;
                let token = if call.args[0].is_empty() { String::new() } else { args.text(0)? };
                let quantity = if call.args[1].is_empty() { None } else { Some(args.number(1, 1, MOST_UNITS)?) };
                let late = args.word(2, [b"", b"reacquire"])?;
                let (sku, id) = (stock(inventory, active)?, id(reservation)?);
                fits(audit == b"inventory:audit" && due == b"stockhold:due" && settings == b"stockhold:settings")?;
                let cart = cart_of(cart)?;
                Ok(Self::Sell(Sale { sku, id, token, quantity, late, cart }))
            }
            "rules" => {
                let [audit, inventory] = &call.keys[..] else { return Err(Fault::BadArgs) };
                count(call.args.len() == 3)?;
                let rules = Rules {
                    per_cart: args.optional(0, MOST_UNITS)?,
                    safety_stock: args.optional(1, MOST_UNITS)?,
                    max_ttl_ms: args.optional(2, MOST_TTL_MS)?,
                };
                let sku = stock_name(inventory)?;
                fits(audit == b"inventory:audit")?;
                Ok(Self::Rules { sku, rules })
            }
            "return" => {
                let [audit, settings, operation, inventory, reservation] = &call.keys[..] else {
                    return Err(Fault::BadArgs);
                };
                count(call.args.len() == 3)?;
                let quantity = args.number(0, 1, MOST_UNITS)?;
                args.word(1, [b"restock", b"write_off"])?;
                let restock = String::from_utf8_lossy(&call.args[1]).into_owned();
                let once = args.word(2, [b"", b"once"])?;
                let sku = stock_name(inventory)?;
                fits(audit == b"inventory:audit" && settings == b"stockhold:settings")?;
                let (operation, id) = (id_after(operation, b"operation:")?, id(reservation)?);
                Ok(Self::Return(Return { sku, id, operation, quantity, restock, once }))
            }
            "cart_hold" => cart_hold(call, &args).map(Self::CartHold),
            "repair" => {
                let of_each = call.keys.len().saturating_sub(6);
                let ([audit, due, skus, settings, inventory, active], reservations) = tail(call, 7 + of_each)?;
                let seen = [0, 1].map(|place| String::from_utf8_lossy(&call.args[place]).into_owned());
                let restart = match &call.args[2][..] {
                    b"" => None,
                    b"here" => Some(Restart::Here),
                    _ => Some(Restart::After(args.event(2)?)),
                };
                let change = [args.signed(3)?, args.signed(4)?, args.signed(5)?];
                let rules = match &call.args[6][..] {
                    b"" => None,
                    b"none" => Some(RulesOf::None),
                    _ => Some(RulesOf::Event(args.event(6)?)),
                };
                let sku = stock(inventory, active)?;
                fits(audit == b"inventory:audit" && due == b"stockhold:due")?;
                fits(skus == b"stockhold:skus" && settings == b"stockhold:settings")?;
                let ids = ids(reservations)?;
                fits(ids.iter().collect::<BTreeSet<_>>().len() == ids.len())?;
                let events = |i: usize| match &call.args[7 + i][..] {
                    b"" => Ok(Vec::new()),
                    ids => ids.split(|byte| *byte == b',').map(|id| event_id(id).ok_or(Fault::BadArgs)).collect(),
                };
                let items = ids.into_iter().enumerate().map(|(i, id)| Ok(RepairItem { id, events: events(i)? }));
                let items = items.collect::<Result<_, _>>()?;
                Ok(Self::Repair(Repair { sku, items, seen, restart, change, rules }))
            }
            "inventory" => {
                let [inventory, active] = &call.keys[..] else { return Err(Fault::BadArgs) };
                count(call.args.len() == 1)?;
                let limit = args.number(0, 0, 1000)? as usize;
                Ok(Self::Inventory { sku: stock(inventory, active)?, limit })
            }
            "audit" => {
                count((1..=2).contains(&call.keys.len()) && call.args.len() == 2)?;
                let limit = args.number(0, 1, 100)? as usize;
                let before = match &call.args[1][..] {
                    b"" => None,
                    id => Some(event_id(id).ok_or(Fault::BadArgs)?),
                };
                let of = match (&call.keys[0][..], call.keys.get(1)) {
                    (b"inventory:audit", Some(inventory)) => Events::Sku(stock_name(inventory)?),
                    (b"inventory:audit", None) => Events::All,
                    (key, None) if is_audit_of_shard(key) => Events::Elsewhere,
                    _ => return Err(Fault::BadKey),
                };
                Ok(Self::Audit { of, limit, before })
            }
            script => panic!("no rules for {script}"),
        }
    }
}

fn cart_hold(call: &Call, args: &Args) -> Result<CartHold, Fault> {
    let (fixed, rest) = call.keys.split_first_chunk::<5>().ok_or(Fault::BadArgs)?;
    let n = call.args.len().checked_sub(3).filter(|n| (1..=MOST_ITEMS).contains(n)).ok_or(Fault::BadArgs)?;
    let (items, others) = rest.split_at_checked(3 * n).ok_or(Fault::BadArgs)?;
    count(others.len() <= MOST_ITEMS)?;
    let once = args.word(0, [b"", b"once"])?;
    let (ttl_ms, metadata) = (args.ttl(1)?, args.metadata(2)?);
    let lines = items.as_chunks::<3>().0.iter().enumerate().map(|(i, [inventory, active, reservation])| {
        let (sku, id) = (stock(inventory, active)?, id(reservation)?);
        Ok(CartLine { sku, id, quantity: args.number(3 + i, 1, MOST_UNITS)? })
    });
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let [audit, due, settings, cart, operation] = fixed.each_ref().map(Vec::as_slice);
    fits(audit == b"inventory:audit" && due == b"stockhold:due" && settings == b"stockhold:settings")?;
    let cart = cart.strip_prefix(b"cart:").and_then(text).ok_or(Fault::BadKey)?;
    let operation = id_after(operation, b"operation:")?;
    let others = ids(others)?;
    let once_each = |names: Vec<&String>| names.iter().collect::<BTreeSet<_>>().len() == lines.len();
    count(once_each(lines.iter().map(|line| &line.sku).collect()))?;
    count(once_each(lines.iter().map(|line| &line.id).collect()))?;
    Ok(CartHold { cart, operation, once, ttl_ms, metadata, lines, others })
}

struct Args<'a>(&'a [Vec<u8>]);

impl Args<'_> {
    fn number(&self, place: usize, low: u64, high: u64) -> Result<u64, Fault> {
        number(&self.0[place], low, high).ok_or(Fault::BadArgs)
    }

    /// A time to live, or that it is left open.
    fn ttl(&self, place: usize) -> Result<Option<u64>, Fault> {
        if self.0[place] == b"default" { Ok(None) } else { self.number(place, 1, MOST_TTL_MS).map(Some) }
    }

    /// A number, or nothing.
    fn optional(&self, place: usize, high: u64) -> Result<Option<u64>, Fault> {
        if self.0[place].is_empty() { Ok(None) } else { self.number(place, 1, high).map(Some) }
    }

    fn text(&self, place: usize) -> Result<String, Fault> {
        text(&self.0[place]).ok_or(Fault::BadArgs)
    }

    /// Empty, or an object of 1 to 8 strings.
    fn metadata(&self, place: usize) -> Result<String, Fault> {
        let json = &self.0[place];
        if json.is_empty() {
            return Ok(String::new());
        }
        let strings: BTreeMap<String, String> = serde_json::from_slice(json).map_err(|_| Fault::BadArgs)?;
        let are_text =
            strings.iter().flat_map(|(name, value)| [name, value]).all(|part| text(part.as_bytes()).is_some());
        count(are_text && (1..=8).contains(&strings.len()) && json.starts_with(b"{") && json.len() <= 4200)?;
        Ok(String::from_utf8(json.clone()).expect("it is JSON"))
    }

    fn signed(&self, place: usize) -> Result<i64, Fault> {
        let (digits, sign) = self.0[place].strip_prefix(b"-").map_or((&self.0[place][..], 1), |digits| (digits, -1));
        let units = number(digits, u64::from(sign < 0), MOST).ok_or(Fault::BadArgs)?;
        Ok(sign * units as i64)
    }

    fn event(&self, place: usize) -> Result<(u64, u64), Fault> {
        event_id(&self.0[place]).ok_or(Fault::BadArgs)
    }

    /// Whether it is the second of two words.
    fn word(&self, place: usize, [first, second]: [&[u8]; 2]) -> Result<bool, Fault> {
        match &self.0[place][..] {
            word if word == first => Ok(false),
            word if word == second => Ok(true),
            _ => Err(Fault::BadArgs),
        }
    }

    /// Whether the mode is `all`.
    fn mode(&self, place: usize) -> Result<bool, Fault> {
        match &self.0[place][..] {
            b"all" => Ok(true),
            b"each" => Ok(false),
            _ => Err(Fault::BadArgs),
        }
    }
}

/// The keys of a call that may name a cart, and then other reservations of it.
fn with_cart<const FIXED: usize>(call: &Call) -> Result<Tail<'_, FIXED>, Fault> {
    let (fixed, rest) = call.keys.split_first_chunk::<FIXED>().ok_or(Fault::BadArgs)?;
    count(rest.len() <= 1 + MOST_ITEMS && call.args.len() == 3)?;
    Ok((fixed.each_ref().map(Vec::as_slice), rest))
}

fn cart_of(keys: &[Vec<u8>]) -> Result<Option<NamedCart>, Fault> {
    let Some((cart, others)) = keys.split_first() else { return Ok(None) };
    let id = cart.strip_prefix(b"cart:").and_then(text).ok_or(Fault::BadKey)?;
    Ok(Some(NamedCart { id, others: ids(others)? }))
}

/// A number of fixed keys, and the keys after them.
type Tail<'a, const FIXED: usize> = ([&'a [u8]; FIXED], &'a [Vec<u8>]);

/// The keys of a call that ends with reservations.
fn tail<const FIXED: usize>(call: &Call, args: usize) -> Result<Tail<'_, FIXED>, Fault> {
    let (fixed, rest) = call.keys.split_first_chunk::<FIXED>().ok_or(Fault::BadArgs)?;
    count(rest.len() <= MOST_ITEMS && call.args.len() == args)?;
    Ok((fixed.each_ref().map(Vec::as_slice), rest))
}

/// The SKUs and ids of a call with three keys for each item, after the keys of the shard.
fn items<const FIXED: usize>(
    call: &Call,
    of_shard: [&[u8]; FIXED],
    args_each: usize,
) -> Result<Vec<(String, String)>, Fault> {
    items_of(call, of_shard, args_each, b"reservation:")
}

/// The same; the ids are those of keys that begin in this way.
fn items_of<const FIXED: usize>(
    call: &Call,
    of_shard: [&[u8]; FIXED],
    args_each: usize,
    kind: &[u8],
) -> Result<Vec<(String, String)>, Fault> {
    let (fixed, rest) = call.keys.split_first_chunk::<FIXED>().ok_or(Fault::BadArgs)?;
    let (triples, over) = rest.as_chunks::<3>();
    count(over.is_empty() && (1..=MOST_ITEMS).contains(&triples.len()))?;
    count(call.args.len() == 1 + args_each * triples.len())?;
    let items =
        triples.iter().map(|[inventory, active, owner]| Ok((stock(inventory, active)?, id_after(owner, kind)?)));
    fits(fixed.each_ref().map(Vec::as_slice) == of_shard)?;
    items.collect()
}

fn ids(keys: &[Vec<u8>]) -> Result<Vec<String>, Fault> {
    keys.iter().map(|key| id(key)).collect()
}

fn id(key: &[u8]) -> Result<String, Fault> {
    id_after(key, b"reservation:")
}

fn id_after(key: &[u8], kind: &[u8]) -> Result<String, Fault> {
    key.strip_prefix(kind).and_then(reservation_id).ok_or(Fault::BadKey)
}

/// The SKU of two keys that belong together.
fn stock(inventory: &[u8], active: &[u8]) -> Result<String, Fault> {
    let sku = stock_name(inventory)?;
    fits(active == [inventory, b":active"].concat())?;
    Ok(sku)
}

fn stock_name(key: &[u8]) -> Result<String, Fault> {
    key.strip_prefix(b"inventory:").and_then(sku).ok_or(Fault::BadKey)
}

fn fits(right: bool) -> Result<(), Fault> {
    right.then_some(()).ok_or(Fault::BadKey)
}

fn count(right: bool) -> Result<(), Fault> {
    right.then_some(()).ok_or(Fault::BadArgs)
}
