//! Names that callers choose.

use std::fmt;

use compact_str::CompactString;

use super::Invalid;

/// Longest name, in bytes of UTF-8.
const MAX_NAME_BYTES: usize = 128;

/// Longest `Idempotency-Key`, in bytes.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Names that are not a SKU although their characters are allowed.
const RESERVED: [&str; 3] = ["audit", ".", ".."];

/// What is sold. It becomes part of key names, so it has none of the characters that mean something there. Up to 24 bytes
/// are stored in place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sku(CompactString);

impl Sku {
    /// # Errors
    /// Unless `text` is 1 to 128 bytes without control characters, white space, `:`, `{` or `}`, and not `audit` (which
    /// would name the audit stream), `.` or `..` (which clients that normalise a path remove from it).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let forbidden = |c: char| c.is_whitespace() || matches!(c, ':' | '{' | '}');
        if !is_name(text) || text.contains(forbidden) || RESERVED.contains(&text) {
            return Err(Invalid {
                field: "sku",
                rule: "must be 1 to 128 bytes of UTF-8 without control characters, white space, ':', '{' or '}', \
                       and not 'audit', '.' or '..'",
            });
        }
        Ok(Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cart: an opaque name that the caller chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartId(CompactString);

impl CartId {
    /// # Errors
    /// Unless `text` is 1 to 128 bytes without control characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if !is_name(text) {
            return Err(Invalid {
                field: "cartId",
                rule: "must be 1 to 128 bytes of UTF-8 without control characters",
            });
        }
        Ok(Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why somebody changed the stock: text for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// # Errors
    /// Unless `text` is 1 to 128 bytes without control characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if !is_name(text) {
            return Err(Invalid {
                field: "reason",
                rule: "must be 1 to 128 bytes of UTF-8 without control characters",
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Makes a request safe to retry: the same key means the same request.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// # Errors
    /// Unless `text` is 1 to 255 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let sized = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&text.len());
        if !sized || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid {
                field: "Idempotency-Key",
                rule: "must be 1 to 255 visible ASCII characters, given once",
            });
        }
        Ok(Self(text.to_owned()))
    }

    /// SHA-256 of the key: what is stored or derived from it, never the key itself.
    pub fn digest(&self) -> [u8; 32] {
        use sha2::Digest;
        sha2::Sha256::digest(self.0.as_bytes()).into()
    }

    /// The digest in hexadecimal: the token that a settled reservation keeps.
    pub fn token(&self) -> String {
        hexadecimal(&self.digest())
    }

    /// The token that a reservation keeps when it is settled with all of its cart. It is another than that of a
    /// reservation settled alone: who repeats a request for a cart means the reservations of that request.
    pub fn cart_token(&self, cart: &CartId) -> String {
        use sha2::Digest;
        let mut hash = sha2::Sha256::new();
        hash.update("cart");
        hash.update(self.digest());
        hash.update(cart.as_str());
        hexadecimal(&hash.finalize())
    }
}

/// A key may be a secret of the caller, so it is not printed.
impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(..)")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skus() {
        let longest = "x".repeat(128);
        for good in ["a", "...", ".a", "sku-123", "größe-€-😀", "a/b", "%41", "auditor", &longest] {
            assert!(Sku::parse(good).is_ok(), "{good:?}");
        }
        let too_long = "x".repeat(129);
        for bad in [
            "", "audit", ".", "..", "a b", "a:b", "{a", "a}", "a\nb", "a\0b", "a\u{7f}", "a\u{85}", "a\u{a0}",
            "\u{3000}", "\u{2028}", &too_long,
        ] {
            assert!(Sku::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cart_ids_may_hold_spaces_and_colons() {
        assert!(CartId::parse("user:7 {web}").is_ok());
        assert!(CartId::parse("").is_err());
        assert!(CartId::parse("a\u{80}").is_err());
        assert!(CartId::parse(&"é".repeat(65)).is_err());
    }

    #[test]
    fn reasons_are_text() {
        assert_eq!(Reason::parse("delivery: 10 {jackets}").unwrap().as_str(), "delivery: 10 {jackets}");
        assert!(
            Reason::parse("").is_err() && Reason::parse("a\nb").is_err() && Reason::parse(&"x".repeat(129)).is_err()
        );
    }

    #[test]
    fn idempotency_keys_are_visible_ascii_and_stay_out_of_logs() {
        let key = IdempotencyKey::parse("order-17").unwrap();
        assert!(!format!("{key:?}").contains("order-17"));
        assert_eq!(key.token().len(), 64);
        let of_carts = ["c", "d"].map(|cart| key.cart_token(&CartId::parse(cart).unwrap()));
        assert!(of_carts[0].len() == 64 && of_carts[0] != of_carts[1] && !of_carts.contains(&key.token()));
        for bad in ["", "a b", "é", &"x".repeat(256)] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
