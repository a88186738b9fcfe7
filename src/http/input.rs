//! The fields of requests, validated strictly: nothing is guessed, and all errors are reported together.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::catalogue::Kind;
use super::problem::Problem;
use crate::keys::Invalid;

/// The fields of a JSON object or of a query. Those left at the end are unknown fields.
#[derive(Default)]
pub(super) struct Fields {
    given: Vec<(String, Value)>,
    wrong: Vec<(String, &'static str)>,
}

impl Fields {
    /// The fields of a query.
    ///
    /// # Errors
    /// When an escape is broken or the result is not UTF-8.
    pub(super) fn of_query(query: &str) -> Result<Self, Problem> {
        unescape(query)?;
        let pairs = form_urlencoded::parse(query.as_bytes());
        let given = pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
        Ok(Self { given, wrong: Vec::new() })
    }

    /// The fields of a body.
    ///
    /// # Errors
    /// Unless the body is one JSON object.
    pub(super) fn of_json(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body)
            .map_err(|error| Problem::new(Kind::InvalidJson, format!("the body is not one JSON object: {error}")))
    }

    /// These fields, with the names in a query recorded as wrong: a body field in the query would have no effect.
    ///
    /// # Errors
    /// As [`Self::of_query`].
    pub(super) fn without_query(mut self, query: &str) -> Result<Self, Problem> {
        if !query.is_empty() {
            let given = Self::of_query(query)?.given;
            self.wrong.extend(given.into_iter().map(|(name, _)| (name, "is not taken from the query")));
        }
        Ok(self)
    }

    /// Takes a field out and parses it with `read`. `None` when it is wrong or missing, which [`Fields::finish`]
    /// reports.
    pub(super) fn required<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        if !self.given.iter().any(|(given, _)| given == name) {
            self.wrong.push((name.to_owned(), "is required"));
        }
        self.optional(name, read)
    }

    /// Like [`Fields::required`], for a field that may be missing.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        let values: Vec<_> = self.given.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect();
        let read = match &*values {
            [] => return None,
            [value] => read(value).map_err(|invalid| invalid.rule),
            _ => Err("was given more than once"),
        };
        read.map_err(|rule| self.wrong.push((name.to_owned(), rule))).ok()
    }

    /// # Errors
    /// With every field that was wrong, missing, or unknown.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        self.given.dedup_by(|one, other| one.0 == other.0);
        self.wrong.extend(self.given.drain(..).map(|(name, _)| (name, "is not a field of this request")));
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(&self.wrong)) }
    }
}

/// A JSON string that satisfies `rule`.
pub(super) fn text<T>(rule: impl FnOnce(&str) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| match value {
        Value::String(text) => rule(text),
        _ => Err(Invalid { field: "", rule: "must be a string" }),
    }
}

/// A JSON number without fraction or exponent that satisfies `rule`.
pub(super) fn whole<T>(rule: impl FnOnce(u64) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    // Any other value breaks the same rule as a number that is too large.
    |value| rule(value.as_u64().unwrap_or(u64::MAX))
}

/// Decimal digits in a query that satisfy `rule`.
pub(super) fn digits<T>(rule: impl FnOnce(u64) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| {
        let digits = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        rule(digits.and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
    }
}

/// A piece of a request target without its percent escapes.
///
/// # Errors
/// When an escape is broken or the result is not UTF-8: the sender meant something else.
pub(super) fn unescape(piece: &str) -> Result<Cow<'_, str>, Problem> {
    if !piece.contains('%') {
        return Ok(Cow::Borrowed(piece));
    }
    let whole = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    match percent_decode_str(piece).decode_utf8() {
        Ok(text) if piece.split('%').skip(1).all(whole) => Ok(text),
        _ => {
            Err(Problem::invalid(&[("request target".to_owned(), "has a percent escape that is broken or not UTF-8")]))
        }
    }
}

/// Keeps a name that is given twice, which a map would hide.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_entry()? {
                    fields.given.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
