//! The only form of an error that leaves the server: RFC 9457 problem details, of a [`Kind`] in the catalogue. Redis's
//! own words are only logged.

use hyper::Response;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};

use super::catalogue::Kind;
use super::content::Content;
use super::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};
use crate::engine::Error;
use crate::keys::Invalid;

/// Seconds after which a request may be retried when Redis is unavailable.
const RETRY_AFTER_SECONDS: u16 = 1;

/// An error as a client sees it.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: Box<str>,
    extra: Vec<(&'static str, Value)>,
    /// Boxed: it is rare, and every result reserves space for a problem.
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// Only for the log.
    pub(super) cause: Option<Box<str>>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<Box<str>>) -> Self {
        Self { kind, detail: detail.into(), extra: Vec::new(), header: None, cause: None }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds a member.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// Adds the header that belongs to it.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Says how to authenticate.
    pub(super) fn challenging(self, challenge: &'static str) -> Self {
        self.with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Bad input, naming every bad field and its rule.
    pub(super) fn invalid(fields: &[(String, &str)]) -> Self {
        let detail: Vec<String> = fields.iter().map(|(field, rule)| format!("{field} {rule}")).collect();
        let errors: Vec<Value> = fields.iter().map(|(field, rule)| json!({ "field": field, "detail": rule })).collect();
        Self::new(Kind::InvalidRequest, detail.join("; ")).with("errors", errors)
    }

    /// `allow` lists the allowed methods.
    pub(super) fn method_not_allowed(allow: &str) -> Self {
        let methods = HeaderValue::from_str(allow).expect("methods are plain text");
        Self::new(Kind::MethodNotAllowed, format!("this resource has {allow}")).with_header(ALLOW, methods)
    }

    /// Redis is away, or refuses changes. `outcome` tells a client whether its request may have been carried out.
    fn unavailable(outcome: &str, detail: &str) -> Self {
        let problem = Self::new(Kind::Unavailable, detail).with("outcome", outcome);
        problem.with_header(RETRY_AFTER, RETRY_AFTER_SECONDS.into())
    }

    /// Only a readiness probe gets it.
    pub(super) fn draining() -> Self {
        Self::new(
            Kind::Draining,
            "the server is draining: it still serves, and ends soon; send new requests to another",
        )
    }

    pub(super) fn target_too_long() -> Self {
        Self::new(Kind::UriTooLong, format!("the request target may have {MAX_TARGET_BYTES} bytes"))
    }

    pub(super) fn headers_too_large() -> Self {
        let detail = format!("there may be {MAX_HEADERS} header fields, of {MAX_HEADER_BYTES} bytes together");
        Self::new(Kind::HeadersTooLarge, detail)
    }

    /// Adds a text only for the log.
    fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn into_response(self) -> Response<Content> {
        self.into_text().map(Content::from)
    }

    pub(super) fn into_text(self) -> Response<String> {
        let (kind, header) = (self.kind, self.header);
        let body = Self { header: None, ..self }.into_object();
        let mut response = Response::new(Value::Object(body).to_string());
        *response.status_mut() = kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(header.map(|header| *header));
        response
    }

    /// Its members.
    pub(super) fn into_object(self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("type".into(), format!("urn:stockhold:problem:{}", self.kind.code()).into());
        body.insert("title".into(), self.kind.title().into());
        body.insert("status".into(), self.kind.status().as_u16().into());
        body.insert("detail".into(), self.detail.into_string().into());
        body.insert("code".into(), self.kind.code().into());
        body.extend(self.extra.into_iter().map(|(name, value)| (name.to_owned(), value)));
        body
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(&[(invalid.field.to_owned(), invalid.rule)])
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let cause = error.to_string();
        match error {
            Error::Unavailable(_) => {
                Self::unavailable("none", "nothing was done; the same request may be made again").because(cause)
            }
            // Many of these must not fill the log.
            Error::Busy => Self::unavailable("none", "too much is being read at once; ask again later, or for less"),
            Error::Unknown(_) => Self::unavailable(
                "unknown",
                "the request may have been carried out or not; make it again with the same Idempotency-Key, or read \
                 the state, to find out",
            )
            .because(cause),
            Error::Broken(_) => {
                let detail = "the request could not be carried out; the log tells more under this request's id";
                Self::new(Kind::Internal, detail).because(cause)
            }
        }
    }
}
