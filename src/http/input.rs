//! What clients send, taken strictly: nothing is guessed, and everything that is wrong is named at once.

use std::fmt;
use std::sync::Arc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokio::time::timeout;

use super::problem::Problem;
use super::seats::Occupant;
use super::{BODY_READ_TIMEOUT, MAX_BODY_BYTES};
use crate::keys::{IdempotencyKey, Invalid};

/// The fields of a JSON object or of a query. What is left in it at the end was not asked for.
#[derive(Default)]
pub(super) struct Fields {
    given: Vec<(String, Value)>,
    wrong: Vec<(String, &'static str)>,
}

impl Fields {
    /// Takes a field out as `read` understands it. `None` when it is wrong or missing, which [`Fields::finish`] tells.
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
    /// With every field that was wrong, missing, or not asked for.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        self.given.dedup_by(|one, other| one.0 == other.0);
        self.wrong.extend(self.given.into_iter().map(|(name, _)| (name, "is not a field of this request")));
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(&self.wrong)) }
    }
}

/// A JSON string that keeps `rule`.
pub(super) fn text<T>(rule: impl FnOnce(&str) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| match value {
        Value::String(text) => rule(text),
        _ => Err(Invalid { field: "", rule: "must be a string" }),
    }
}

/// A JSON number without fraction or exponent that keeps `rule`.
pub(super) fn whole<T>(rule: impl FnOnce(u64) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    // What is no such number breaks the same rule as one that is too large.
    |value| rule(value.as_u64().unwrap_or(u64::MAX))
}

/// Decimal digits in a query that keep `rule`.
pub(super) fn digits<T>(rule: impl FnOnce(u64) -> Result<T, Invalid>) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| {
        let digits = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        rule(digits.and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
    }
}

/// The fields of a request's query.
///
/// # Errors
/// When an escape is broken or does not give UTF-8.
pub(super) fn query<B>(request: &Request<B>) -> Result<Fields, Problem> {
    let query = request.uri().query().unwrap_or_default();
    unescape(query)?;
    let pairs = form_urlencoded::parse(query.as_bytes());
    let given = pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
    Ok(Fields { given, wrong: Vec::new() })
}

/// A piece of a request target without its percent escapes.
///
/// # Errors
/// When an escape is broken or does not give UTF-8: whoever sends that means something else than what would be read.
pub(super) fn unescape(piece: &str) -> Result<String, Problem> {
    let whole = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    let text = percent_decode_str(piece).decode_utf8();
    match text {
        Ok(text) if piece.split('%').skip(1).all(whole) => Ok(text.into_owned()),
        _ => {
            Err(Problem::invalid(&[("request target".to_owned(), "has a percent escape that is broken or not UTF-8")]))
        }
    }
}

/// The `Idempotency-Key`, if there is one.
///
/// # Errors
/// When there is more than one, or it breaks its rule.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // An empty key breaks the rule, and so stands for whatever is not one text.
    let text = if values.next().is_some() { "" } else { value.to_str().unwrap_or_default() };
    Ok(Some(IdempotencyKey::parse(text)?))
}

/// The fields of a JSON object in a request's body.
///
/// # Errors
/// 408, 413, 415, or 400 when it is not one JSON object.
pub(super) async fn body(request: Request<Incoming>) -> Result<Fields, Problem> {
    let (headers, bytes) = whole_request(request).await?;
    object(&headers, &bytes)
}

/// Like [`body`], where no body at all is as good as an empty object.
pub(super) async fn optional_body(request: Request<Incoming>) -> Result<Fields, Problem> {
    let (headers, bytes) = whole_request(request).await?;
    if bytes.is_empty() { Ok(Fields::default()) } else { object(&headers, &bytes) }
}

/// Reads a request to its end; from then on it is worth an answer.
async fn whole_request(request: Request<Incoming>) -> Result<(HeaderMap, Bytes), Problem> {
    let (head, body) = request.into_parts();
    let bytes = collect(body).await?;
    if let Some(occupant) = head.extensions.get::<Arc<Occupant>>() {
        occupant.busy();
    }
    Ok((head.headers, bytes))
}

async fn collect(body: Incoming) -> Result<Bytes, Problem> {
    match timeout(BODY_READ_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "Body too large",
            format!("the body may have {MAX_BODY_BYTES} bytes"),
        )),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "body_incomplete",
            "Body incomplete",
            "the body broke off or was not framed as HTTP",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "Body not received in time",
            format!("the body must be here within {} s", BODY_READ_TIMEOUT.as_secs()),
        )),
    }
}

fn object(headers: &HeaderMap, bytes: &[u8]) -> Result<Fields, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") || headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Unsupported media type",
            "the body must be application/json without a Content-Encoding",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("the body is not one JSON object: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_json", "Invalid JSON", detail)
    })
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
