//! The rules for names and numbers.

/// A whole number in plain decimal, within bounds.
pub fn number(bytes: &[u8], low: u64, high: u64) -> Option<u64> {
    let plain = bytes == b"0" || !bytes.starts_with(b"0") && bytes.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (plain && (low..=high).contains(&value)).then_some(value)
}

/// 1 to 128 bytes of UTF-8 without a control character.
pub fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    ((1..=128).contains(&text.len()) && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Text without white space and without characters that have a meaning in keys.
pub fn sku(bytes: &[u8]) -> Option<String> {
    text(bytes).filter(|sku| {
        !["audit", ".", ".."].contains(&&**sku) && !sku.contains(|c: char| c.is_whitespace() || ":{}".contains(c))
    })
}

/// A UUID in lower case.
pub fn reservation_id(bytes: &[u8]) -> Option<String> {
    let fits = |(place, byte): (usize, &u8)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    (bytes.len() == 36 && bytes.iter().enumerate().all(fits)).then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The id of an event as two numbers, so that ids can be sorted.
pub fn event_id(bytes: &[u8]) -> Option<(u64, u64)> {
    let part = |text: &str| {
        let digits = (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().expect("19 digits fit 64 bits"))
    };
    let (ms, sequence) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
    Some((part(ms)?, part(sequence)?))
}

/// Whether a key is the audit stream of a shard: `{0}:` to `{4095}:` before the name.
pub fn is_audit_of_shard(key: &[u8]) -> bool {
    let shard = key.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}:inventory:audit"));
    shard.is_some_and(|shard| number(shard, 0, 4095).is_some())
}
