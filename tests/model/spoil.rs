//! Ways to make a call wrong. The model judges the result, which may be right by chance.

use std::fmt;

use crate::call::Call;

/// The position among the arguments of a repair.
const RESERVED: usize = 4;

/// One change to a call. A position is taken modulo the number of keys or arguments.
#[derive(Clone)]
pub enum Spoil {
    Key(usize, &'static [u8]),
    Arg(usize, &'static [u8]),
    /// The key is on a shard with this prefix.
    Shard(usize, &'static str),
    /// The first reservation from there on has an id with the number of this shard.
    IdOfShard(usize, &'static str),
    SwapKeys(usize, usize),
    DropKey(usize),
    DropArg(usize),
    MoreKeys(&'static [u8]),
    MoreArgs(&'static [u8]),
    KeepKeys(usize),
    KeepArgs(usize),
    /// Repeats the last item until there are this number of items.
    Items(usize),
}

/// Keys that are wrong in any position, and some that are right in one.
pub const KEYS: &[&[u8]] = &[
    b"",
    b"tea",
    b"inventory:",
    b"inventory:audit",
    b"inventory:tea",
    b"inventory:tea:active",
    b"inventory:two words",
    b"inventory:.",
    b"inventory:..",
    b"inventory:a:b",
    b"inventory:{a}",
    b"inventory:line\n",
    b"inventory:\xff",
    "inventory:a\u{a0}b".as_bytes(),
    "inventory:a\u{2003}b".as_bytes(),
    "inventory:a\u{3000}b".as_bytes(),
    "inventory:Grüner-Tee".as_bytes(),
    b"INVENTORY:tea",
    b"xinventory:tea",
    b"{7}:inventory:tea",
    b"{7}:inventory:audit",
    b"{8}:inventory:audit",
    b"{07}:inventory:audit",
    b"{4095}:inventory:audit",
    b"{4096}:inventory:audit",
    b"{77777}:inventory:audit",
    b"{07}:inventory:tea",
    b"{7}:stockhold:due",
    b"{7}:reservation:00000000-0000-8000-8000-000000000001",
    b"{7}:reservation:00000000-0000-8007-8000-000000000001",
    b"{8}:reservation:00000000-0000-8008-8000-000000000001",
    b"stockhold:due",
    b"stockhold:skus",
    b"stockhold:settings",
    b"{7}:stockhold:settings",
    b"stockhold:due ",
    b"reservation:",
    b"operation:",
    b"cart:",
    b"cart:line\n",
    b"cart:cart-1",
    b"{7}:cart:cart-1",
    b"operation:00000000-0000-8000-8000-000000000001",
    b"{7}:operation:00000000-0000-8000-8000-000000000001",
    b"reservation:00000000-0000-8000-8000-000000000001",
    b"reservation:00000000-0000-8008-8000-000000000001",
    b"reservation:00000000-0000-8070-8000-000000000001",
    b"reservation:00000000-0000-8107-8000-000000000001",
    b"reservation:00000000-0000-4007-8000-000000000001",
    b"reservation:00000000-0000-8007-8000-000000000001",
    b"operation:00000000-0000-8008-8000-000000000001",
    b"reservation:00000000-0000-8000-8000-00000000000A",
    b"reservation:00000000-0000-8000-8000-00000000000g",
    b"reservation:00000000-0000-8000-8000-0000000000011",
    b"reservation:00000000000080008000000000000001",
    b"inventory:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
      aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Shards, and what is none.
pub const SHARDS: &[&str] = &["{7}:", "{8}:", "{0}:", "{07}:", "{4095}:", "{4096}:", "{9998}:", "{77777}:"];
pub const NUMBERS: &[&str] = &["007", "008", "000", "017", "107", "0a7"];

/// Arguments that break the rule of some position.
pub const ARGS: &[&[u8]] = &[
    b"",
    b"0",
    b"-1",
    b"+1",
    b"01",
    b"1.0",
    b"1e3",
    b" 1",
    b"1 ",
    b"1\n",
    b"0x10",
    b"nan",
    b"inf",
    b"20",
    b"1000",
    b"1001",
    b"10000",
    b"10001",
    b"1000000000",
    b"1000000001",
    b"2592000000",
    b"2592000001",
    b"1000000000000",
    b"1000000000001",
    b"10000000000000",
    b"99999999999999999999",
    br#"{"a":"b"}"#,
    br#"{"1":"a","2":"a","3":"a","4":"a","5":"a","6":"a","7":"a","8":"a","9":"a"}"#,
    br#"{"a":1}"#,
    br#"["a"]"#,
    b"add",
    b"set",
    b"create",
    b"once",
    b"restock",
    b"default",
    b"none",
    b"write_off",
    b"-1000000000",
    b"-1000000001",
    b"each",
    b"all",
    b"ALL",
    b"cart-1",
    b"line\n",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\xc0\x80",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    "\u{a0}\u{d7ff}\u{e000}\u{10ffff}".as_bytes(),
    b"0-0",
    b"1-1",
    b"0000-1",
    b"1-",
    b"-1-1",
    b"9999999999999999999-9999999999999999999",
    b"10000000000000000000-0",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
      aaaaaaaaaaaaaaaa",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
      aaaaaaaaaaaaaaaaa",
];

impl Spoil {
    pub fn apply(&self, call: &mut Call) {
        let Call { keys, args, .. } = call;
        match *self {
            Self::Key(place, key) => {
                let place = place % keys.len();
                keys[place] = key.to_vec();
            }
            Self::Arg(place, arg) => {
                // A sweep has no arguments.
                let Some(place) = place.checked_rem(args.len()) else { return };
                // Units that are held must not be taken away: that would be damage.
                if (call.script, place) != ("repair", RESERVED) {
                    args[place] = arg.to_vec();
                }
            }
            Self::Shard(place, prefix) => {
                let place = place % keys.len();
                keys[place].splice(0..0, prefix.bytes()).for_each(drop);
            }
            Self::IdOfShard(place, number) => {
                let is_reservation = |key: &&mut Vec<u8>| key.starts_with(b"reservation:") && key.len() == 48;
                let place = place % keys.len();
                if let Some(key) = keys[place..].iter_mut().find(is_reservation) {
                    key.splice(27..30, number.bytes()).for_each(drop);
                }
            }
            Self::SwapKeys(one, other) => {
                let count = keys.len();
                keys.swap(one % count, other % count);
            }
            Self::DropKey(place) => drop(keys.remove(place % keys.len())),
            Self::DropArg(place) => {
                if let Some(place) = place.checked_rem(args.len()) {
                    args.remove(place);
                }
            }
            Self::MoreKeys(key) => keys.push(key.to_vec()),
            Self::MoreArgs(arg) => args.push(arg.to_vec()),
            Self::KeepKeys(count) => keys.truncate(count),
            Self::KeepArgs(count) => args.truncate(count),
            Self::Items(count) => {
                let (keys_each, args_each, keys_first) = match call.script {
                    "hold" => (3, 3, 2),
                    "hold_with_metadata" => (3, 4, 2),
                    "confirm" | "release" | "extend" => (3, 1, 3),
                    "adjust" => (3, 6, 3),
                    "cart_hold" => (3, 1, 5),
                    "sweep" => (1, 0, 5),
                    "seed" => (1, 0, 7),
                    "repair" => (1, 1, 6),
                    _ => return,
                };
                while (keys.len() - keys_first) / keys_each < count {
                    keys.extend_from_within(keys.len() - keys_each..);
                    args.extend_from_within(args.len() - args_each..);
                }
            }
        }
    }
}

impl fmt::Debug for Spoil {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Key(place, key) => write!(f, "key {place} is \"{}\"", key.escape_ascii()),
            Self::Arg(place, arg) => write!(f, "argument {place} is \"{}\"", arg.escape_ascii()),
            Self::Shard(place, prefix) => write!(f, "key {place} begins with \"{prefix}\""),
            Self::IdOfShard(place, number) => write!(f, "a reservation from key {place} on has the shard {number}"),
            Self::SwapKeys(one, other) => write!(f, "keys {one} and {other} change places"),
            Self::DropKey(place) => write!(f, "key {place} is missing"),
            Self::DropArg(place) => write!(f, "argument {place} is missing"),
            Self::MoreKeys(key) => write!(f, "a further key is \"{}\"", key.escape_ascii()),
            Self::MoreArgs(arg) => write!(f, "a further argument is \"{}\"", arg.escape_ascii()),
            Self::KeepKeys(count) => write!(f, "only the first {count} keys"),
            Self::KeepArgs(count) => write!(f, "only the first {count} arguments"),
            Self::Items(count) => write!(f, "the last item over and over, to {count} items"),
        }
    }
}
