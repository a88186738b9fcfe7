//! The only way an error leaves the server: RFC 9457 problem details. Redis's own words never do; they are logged.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};
use crate::engine::Error;
use crate::keys::Invalid;

/// Seconds after which a request that met an unavailable Redis may be tried again.
const RETRY_AFTER_SECONDS: u16 = 1;

/// An error as a client sees it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Box<str>,
    extra: Vec<(&'static str, Value)>,
    header: Option<Header>,
    /// For the log alone.
    pub(super) cause: Option<Box<str>>,
}

/// What some statuses must be accompanied by.
#[derive(Debug)]
enum Header {
    Allow(&'static str),
    Authenticate(&'static str),
    RetryAfter,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<Box<str>>,
    ) -> Self {
        Self { status, code, title, detail: detail.into(), extra: Vec::new(), header: None, cause: None }
    }

    /// Adds a member that helps.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// Says how to be let in.
    pub(super) fn challenging(mut self, challenge: &'static str) -> Self {
        self.header = Some(Header::Authenticate(challenge));
        self
    }

    /// Bad input, naming every bad field and its rule.
    pub(super) fn invalid(fields: &[(String, &str)]) -> Self {
        let detail: Vec<String> = fields.iter().map(|(field, rule)| format!("{field} {rule}")).collect();
        let errors: Vec<Value> = fields.iter().map(|(field, rule)| json!({ "field": field, "detail": rule })).collect();
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "Invalid request", detail.join("; "))
            .with("errors", errors)
    }

    pub(super) fn not_found(code: &'static str, title: &'static str, detail: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, title, detail)
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this resource knows {allow}");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", detail);
        problem.header = Some(Header::Allow(allow));
        problem
    }

    /// Redis is away, or will not take writes. `outcome` tells a client whether its request may have been carried out.
    fn unavailable(outcome: &str, detail: &str) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Service unavailable", detail)
            .with("outcome", outcome);
        problem.header = Some(Header::RetryAfter);
        problem
    }

    pub(super) fn target_too_long() -> Self {
        let detail = format!("the request target may have {MAX_TARGET_BYTES} bytes");
        Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", "URI too long", detail)
    }

    pub(super) fn headers_too_large() -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = format!("there may be {MAX_HEADERS} header fields, of {MAX_HEADER_BYTES} bytes together");
        Self::new(status, "headers_too_large", "Header fields too large", detail)
    }

    /// Adds what is for the log alone.
    fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        self.into_text().map(Full::from)
    }

    pub(super) fn into_text(self) -> Response<String> {
        let mut body = Map::new();
        body.insert("type".into(), format!("urn:stockhold:problem:{}", self.code).into());
        body.insert("title".into(), self.title.into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.into_string().into());
        body.insert("code".into(), self.code.into());
        body.extend(self.extra.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut response = Response::new(Value::Object(body).to_string());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.header {
            Some(Header::Allow(methods)) => headers.insert(ALLOW, HeaderValue::from_static(methods)),
            Some(Header::Authenticate(challenge)) => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            }
            Some(Header::RetryAfter) => headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into()),
            None => None,
        };
        response
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
            // A crowd of these must not fill the log as well.
            Error::Busy => Self::unavailable("none", "too much is being read at once; ask again later, or for less"),
            Error::Unknown(_) => Self::unavailable(
                "unknown",
                "the request may have been carried out or not; make it again with the same Idempotency-Key, or read \
                 the state, to find out",
            )
            .because(cause),
            Error::Broken(_) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let detail = "the request could not be carried out; the log tells more under this request's id";
                Self::new(status, "internal", "Internal server error", detail).because(cause)
            }
        }
    }
}
