//! The fields of requests, validated strictly: nothing is guessed, and all errors are reported together.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::catalogue::Kind;
use super::problem::Problem;
use crate::keys::Invalid;

/// The fields of a JSON object or of a query. Those left at the end are unknown fields.
#[derive(Default)]
pub(super) struct Fields {
    given: Vec<(String, Given)>,
    wrong: Vec<(String, &'static str)>,
}

/// A value. Of an object in it, a name that is given twice is kept.
enum Given {
    /// Text, a number, true, false or null.
    Plain(Value),
    List(Vec<Given>),
    Object(Fields),
}

impl Fields {
    /// The fields of a query.
    ///
    /// # Errors
    /// When an escape is broken or the result is not UTF-8.
    pub(super) fn of_query(query: &str) -> Result<Self, Problem> {
        unescape(query)?;
        let pairs = form_urlencoded::parse(query.as_bytes());
        let given =
            pairs.map(|(name, value)| (name.into_owned(), Given::Plain(Value::String(value.into_owned())))).collect();
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
        if !self.has(name) {
            self.refuse(name, "is required");
        }
        self.optional(name, read)
    }

    /// Whether a field is there, and not yet taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given == name)
    }

    /// Records a field as wrong, with the rule that it breaks.
    pub(super) fn refuse(&mut self, name: &str, rule: &'static str) {
        self.wrong.push((name.to_owned(), rule));
    }

    /// Like [`Fields::required`], for a field that may be missing.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Invalid>) -> Option<T> {
        let read = match self.take(name)? {
            Given::Plain(value) => read(&value),
            // It breaks the same rule as null.
            Given::List(_) | Given::Object(_) => read(&Value::Null),
        };
        read.map_err(|invalid| self.refuse(name, invalid.rule)).ok()
    }

    /// Takes out a list of `count` objects, and reads each with `read`, which takes its fields out. They are named like
    /// `adjustments[3].sku`. `None` when one of them is wrong, which [`Fields::finish`] reports.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        count: RangeInclusive<usize>,
        rule: &'static str,
        read: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.has(name) {
            self.refuse(name, "is required");
        }
        let objects = match self.take(name)? {
            Given::List(objects) if count.contains(&objects.len()) => objects,
            _ => {
                self.refuse(name, rule);
                return None;
            }
        };
        let mut items = Vec::with_capacity(objects.len());
        for (at, object) in objects.into_iter().enumerate() {
            let Given::Object(mut fields) = object else {
                self.refuse(&format!("{name}[{at}]"), "must be an object");
                continue;
            };
            items.push(read(&mut fields));
            fields.note_unknown();
            self.wrong.extend(fields.wrong.into_iter().map(|(field, rule)| (format!("{name}[{at}].{field}"), rule)));
        }
        items.into_iter().collect()
    }

    /// Takes out an object of strings that may be missing, and parses its pairs with `read`.
    pub(super) fn strings<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Vec<(String, String)>) -> Result<T, Invalid>,
    ) -> Option<T> {
        let given = match self.take(name)? {
            Given::Object(fields) => fields.given,
            _ => Vec::new(),
        };
        let pairs = given.into_iter().map(|(name, value)| match value {
            Given::Plain(Value::String(value)) => Some((name, value)),
            _ => None,
        });
        // What is no object of strings breaks the same rule as an empty one.
        let pairs = pairs.collect::<Option<_>>().unwrap_or_default();
        read(pairs).map_err(|invalid| self.refuse(name, invalid.rule)).ok()
    }

    /// Takes a field out; one that is given more than once is wrong.
    fn take(&mut self, name: &str) -> Option<Given> {
        let mut values = self.given.extract_if(.., |(given, _)| given == name).map(|(_, value)| value);
        let value = values.next();
        if values.count() > 0 {
            self.refuse(name, "was given more than once");
            return None;
        }
        value
    }

    /// # Errors
    /// With every field that was wrong, missing, or unknown.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        self.note_unknown();
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(&self.wrong)) }
    }

    fn note_unknown(&mut self) {
        self.given.dedup_by(|one, other| one.0 == other.0);
        self.wrong.extend(self.given.drain(..).map(|(name, _)| (name, "is not a field of this request")));
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

/// The same for a number that may be negative.
pub(super) fn signed<T>(rule: impl FnOnce(i64) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| rule(value.as_i64().unwrap_or(i64::MAX))
}

/// `true` or `false`.
pub(super) fn flag(value: &Value) -> Result<bool, Invalid> {
    value.as_bool().ok_or(Invalid { field: "", rule: "must be true or false" })
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
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
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

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Given, E> {
                Ok(Given::Plain(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Given, E> {
                Ok(Given::Plain(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Given, E> {
                Ok(Given::Plain(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Given, E> {
                Ok(Given::Plain(value.into()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Given, E> {
                self.visit_string(value.to_owned())
            }

            fn visit_string<E>(self, value: String) -> Result<Given, E> {
                Ok(Given::Plain(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Given, E> {
                Ok(Given::Plain(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Given, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Given::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Given, A::Error> {
                FieldsVisitor.visit_map(map).map(Given::Object)
            }
        }
        deserializer.deserialize_any(Any)
    }
}
