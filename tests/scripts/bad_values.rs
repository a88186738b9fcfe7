//! Values that break the rule of a slot, by the slot's name: for an argument, for a key.

use crate::call::Call;
use crate::contract::Contract;
use crate::fixture::ACTIVE;

/// Not whole numbers in plain decimal, whatever the range.
const NOT_NUMBERS: &str = r#"-1 1.5 "2" true null nan inf 0x10 1e3 1e18 01 +1 1, ١ 99999999999999999999"#;

/// The same for white space.
const NOT_TRIMMED: [&str; 5] = ["", " 1", "1 ", "1\n", "\t1"];

/// Neither empty nor the word that a flag takes.
const NOT_FLAGS: [&str; 7] = ["0", "1", "true", "yes", "Create", "ONCE", " "];

const NOT_MODES: [&str; 5] = ["", "EACH", "any", "all ", "each\n"];

/// Not ids of stream entries.
const NOT_EVENTS: &str = "x 1 -1 1- 1-1-1 (1-1 + - $ * 1-* 0x1-1 1.0-1 1-99999999999999999999 99999999999999999999-1";

/// Not names of SKUs, but valid UTF-8: separators in key names, reserved words, control characters, white space.
const NOT_SKUS: [&str; 27] = [
    "",
    ":",
    "a:b",
    "tea:active",
    "a{",
    "a}",
    "{tea}",
    "audit",
    ".",
    "..",
    "\0",
    "a\tb",
    "tea\n",
    "\u{7f}",
    "\u{80}",
    "\u{85}",
    " tea",
    "a b",
    "\u{a0}",
    "\u{1680}",
    "\u{2000}",
    "\u{200a}",
    "\u{2028}",
    "\u{2029}",
    "\u{202f}",
    "\u{205f}",
    "\u{3000}",
];

/// Not prefixes of a shard.
const NOT_SHARDS: [&str; 14] = [
    "{}:", "{x}:", "{12345}:", "{4096}:", "{9999}:", "{00}:", "{07}:", "{0007}:", "{-1}:", "{7}:{7}:", "7:", "x",
    "{7}", " ",
];

/// Not ids of reservations: too short, upper case, not hexadecimal, hyphens missing or misplaced, braces.
const NOT_IDS: &str = "1 tea 00000000-0000-8007-8000-0000000000 00000000-0000-8007-8000-00000000000A \
    00000000-0000-8007-8000-00000000000g 00000000000080008000000000000000000a 0000-00000000-8000-8000-00000000000a \
    {0000000-0000-8000-8000-00000000000} 00000000-0000-8007-8000-00000000000a0";

/// Ids that the scripts accept without shards, and that are not of shard 7.
const OF_OTHER_SHARDS: [&str; 6] = [
    "00000000-0000-8000-8000-00000000000a",
    "00000000-0000-8070-8000-00000000000a",
    "00000000-0000-8700-8000-00000000000a",
    "00000000-0000-8107-8000-00000000000a",
    "00000000-0000-8008-8000-00000000000a",
    "00000000-0000-7fff-8000-00000000000a",
];

const CONTROLS: [&str; 8] = ["\0", "a\nb", "\t", "\u{1f}", "\u{7f}", "\u{80}", "a\u{85}", "\u{9f}"];

/// Not UTF-8, one for each way to be wrong.
const NOT_UTF8: [&[u8]; 14] = [
    b"\x80",             // a continuation of nothing
    b"a\xbfb",           // the same in the middle
    b"\xc3",             // two bytes, cut off
    b"\xe2\x82",         // three bytes, cut off
    b"\xf0\x9f\x98",     // four bytes, cut off
    b"\xe2\x82x",        // three bytes, broken off by a letter
    b"\xc0\xaf",         // two bytes for what fits one
    b"\xc1\xbf",         // the same, the last of them
    b"\xe0\x9f\xbf",     // three bytes for what fits two
    b"\xf0\x8f\xbf\xbf", // four bytes for what fits three
    b"\xed\xa0\x80",     // a surrogate
    b"\xf4\x90\x80\x80", // beyond U+10FFFF
    b"\xf5\x80\x80\x80", // a lead byte of no character
    b"\xff",             // never in UTF-8
];

/// Values that break the rule of a script's argument.
pub fn bad_arguments(script: &str, name: &str) -> Vec<Vec<u8>> {
    match name {
        "quantity" if script == "seed" => numbers(&["1000000001", "Probe"]),
        "quantity" if script == "sell" => optional(numbers(&["0", "1000000001", "all"])),
        "ifExpired" => bytes(["0", "true", "Reacquire", "reacquire ", " "]),
        "quantity" => numbers(&["0", "1000000001", "probe"]),
        "ttlMs" => numbers(&["0", "2592000001", "Default"]),
        "perCart" | "safetyStock" => optional(numbers(&["0", "1000000001"])),
        "maxTtlMs" => optional(numbers(&["0", "2592000001", "default"])),
        "rules" => bytes(NOT_EVENTS.split(' ').chain(["None", "none ", "here"])),
        "limit" if script == "inventory" => numbers(&["1001"]),
        "limit" => numbers(&["0", "101"]),
        "mode" => bytes(NOT_MODES),
        "before" => bytes(NOT_EVENTS.split_whitespace().chain([" ", " 1-1", "1-1\n"])),
        "how" if script == "change" => bytes(["", "SET", "add", "set ", "released"]),
        "how" => bytes(["", "ADD", "sub", "add ", "+"]),
        // Of a call that adds; what is wrong only for one that sets is tested apart.
        "units" => numbers_with_sign(&["0", "-0", "1000000001", "-1000000001"]),
        "ifVersion" => optional(numbers(&["1000000000001"])),
        "create" | "once" => bytes(NOT_FLAGS),
        "restock" => bytes(["", "true", "Restock", "restock ", "write-off", "writeoff"]),
        "reason" => texts(),
        "available" | "reserved" | "confirmed" => numbers_with_sign(&["-0", "1000000000001", "-1000000000001"]),
        "restart" => bytes(NOT_EVENTS.split(' ').chain(["HERE", "here ", "now"])),
        "event" => bytes(NOT_EVENTS.split(' ').chain(["here", ",", "1-1,", ",1-1", "1-1,,2-1", "1-1, 2-1", "1-1,x"])),
        // Whatever the caller saw is allowed.
        "version" | "lastEvent" => Vec::new(),
        "cartId" => [bytes([""]), texts()].concat(),
        "token" => texts(),
        "metadata" => metadata(),
        _ => panic!("{script} has a new argument: what is wrong for {name:?}?"),
    }
}

/// Values that break the rule of one of a call's keys; the call is on the shard of that prefix.
pub fn bad_keys(call: &Call, slot: usize, prefix: &str) -> Vec<Vec<u8>> {
    let (name, _) = Contract::of(call.script).keys.at(slot, call.items());
    if name == "inventory" {
        return bad_inventories(prefix);
    }
    let good = String::from_utf8(call.keys[slot].clone()).unwrap();
    let mut bad = vec![String::new(), format!("x{good}"), format!("{good}x"), format!("{good}\n")];
    // The audit alone may be on any shard. Other keys must be on the shard of the inventory.
    if call.keys.len() > 1 {
        let elsewhere = if prefix.is_empty() { "{8}:" } else { "" };
        bad.push(format!("{elsewhere}{}", &good[prefix.len()..]));
    }
    let others: &[&str] = match name {
        "active" => &["inventory:pot:active", "inventory:tea", "inventory:tea:Active"],
        "audit" => &["inventory:tea", "audit", "stockhold:audit"],
        "due" => &["stockhold:skus", "due"],
        "skus" => &["stockhold:due", "skus"],
        "settings" => &["stockhold:due", "settings"],
        "cart" => {
            // With a character more it is another cart.
            bad.retain(|key| *key != format!("{good}x"));
            let names = [texts(), bytes([""])].concat();
            let names = names.iter().map(|cart| [prefix.as_bytes(), b"cart:", cart].concat());
            return [bytes(bad), names.collect(), bytes(["Cart:x", "carts:x"].map(|key| format!("{prefix}{key}")))]
                .concat();
        }
        "reservation" | "other" => {
            bad.extend(NOT_IDS.split_whitespace().map(|id| format!("{prefix}reservation:{id}")));
            bad.push(format!("{prefix}Reservation:{ACTIVE}"));
            if !prefix.is_empty() {
                bad.extend(OF_OTHER_SHARDS.map(|id| format!("{prefix}reservation:{id}")));
            }
            &["reservation:", "inventory:tea"]
        }
        "operation" => {
            bad.extend(NOT_IDS.split_whitespace().map(|id| format!("{prefix}operation:{id}")));
            bad.push(format!("{prefix}Operation:{ACTIVE}"));
            &["operation:", "inventory:tea", "reservation:00000000-0000-8007-8000-00000000000a"]
        }
        _ => panic!("{} has a new key: what is wrong for {name:?}?", call.script),
    };
    bad.extend(others.iter().map(|key| format!("{prefix}{key}")));
    bytes(bad)
}

fn bad_inventories(prefix: &str) -> Vec<Vec<u8>> {
    let mut bad = bytes(NOT_SHARDS.map(|shard| format!("{shard}inventory:tea")));
    bad.push(format!("{prefix}stock:tea").into_bytes());
    let skus = [bytes(NOT_SKUS), too_long(), NOT_UTF8.map(<[u8]>::to_vec).into()].concat();
    bad.extend(skus.iter().map(|sku| [prefix.as_bytes(), b"inventory:", sku].concat()));
    bad
}

/// What is not an object of 1 to 8 strings with names.
fn metadata() -> Vec<Vec<u8>> {
    let nine: Vec<_> = (0..9).map(|name| format!(r#""{name}":"x""#)).collect();
    let mut bad = bytes([
        " ",
        "x",
        "null",
        "{}",
        "[]",
        r#"["a"]"#,
        r#""a""#,
        "{",
        r#"{"a":"b""#,
        r#"{"a":"b"}x"#,
        r#" {"a":"b"}"#,
        r#"{"a":1}"#,
        r#"{"a":true}"#,
        r#"{"a":null}"#,
        r#"{"a":{}}"#,
        r#"{"a":["b"]}"#,
        r#"{"a":"b","c":1}"#,
        r#"{a:"b"}"#,
        r#"{"":"b"}"#,
        r#"{"a":""}"#,
        r#"{"a":"\n"}"#,
        r#"{"a\u0000":"b"}"#,
        r#"{"a":"\u0085"}"#,
        r#"{'a':'b'}"#,
    ]);
    bad.push(format!("{{{}}}", nine.join(",")).into_bytes());
    bad.push(format!(r#"{{"a":"{}"}}"#, "x".repeat(129)).into_bytes());
    bad.push(format!(r#"{{"{}":"a"}}"#, "x".repeat(129)).into_bytes());
    bad.push(format!(r#"{{"a":"b"{}}}"#, " ".repeat(4200)).into_bytes());
    bad.extend(NOT_UTF8.map(|text| [br#"{"a":""#, text, br#""}"#].concat()));
    bad
}

/// Bad carts and tokens, without the empty one, which is bad in some slots only.
fn texts() -> Vec<Vec<u8>> {
    [bytes(CONTROLS), too_long(), NOT_UTF8.map(<[u8]>::to_vec).into()].concat()
}

/// Just over 128 bytes, of one-byte characters and of fewer two-byte characters; and far over.
fn too_long() -> Vec<Vec<u8>> {
    bytes(["x".repeat(129), format!("{}x", "ö".repeat(64)), "x".repeat(5000)])
}

fn numbers(beyond: &[&str]) -> Vec<Vec<u8>> {
    bytes(NOT_NUMBERS.split_whitespace().chain(NOT_TRIMMED).chain(beyond.iter().copied()))
}

/// The same where a value may be empty.
fn optional(bad: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    bad.into_iter().filter(|value| !value.is_empty()).collect()
}

/// The same where a number may be negative.
fn numbers_with_sign(beyond: &[&str]) -> Vec<Vec<u8>> {
    let beyond = [beyond, &["--1", "+1"]].concat();
    numbers(&beyond).into_iter().filter(|value| *value != b"-1").collect()
}

fn bytes<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    texts.into_iter().map(|text| text.into().into_bytes()).collect()
}
