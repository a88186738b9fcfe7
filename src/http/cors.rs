//! Pages of other origins: which of them a browser lets call this server (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! Without a setting none: a browser then refuses, and no answer mentions it. A page gets no cookies along, and needs none:
//! tokens are in a header.

use std::str::FromStr;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, Response, StatusCode};

use super::content::Content;

/// What a page may send, besides what every page may.
const REQUEST_HEADERS: &str = "authorization, content-type, idempotency-key, last-event-id, x-request-id";
/// What a page may read of an answer, besides what every page may.
const ANSWER_HEADERS: &str = "x-request-id, idempotent-replayed, retry-after, www-authenticate, allow";
const METHODS: &str = "GET, HEAD, POST, PUT";
/// How long a browser remembers a preflight, in seconds.
const MAX_AGE_SECONDS: u16 = 600;

/// Where a page comes from: scheme, host, and a port unless it is the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageOrigin {
    /// Any page.
    Any,
    /// Such as `https://shop.example`, as a browser sends it.
    Of(String),
}

impl FromStr for PageOrigin {
    type Err = &'static str;

    /// # Errors
    /// Unless `text` is `*`, or a scheme, a host and perhaps a port.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be *, or as in https://shop.example or http://localhost:3000, without a path";
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(RULE)?;
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            && !host.ends_with(':');
        if is_host { Ok(Self::Of(text.to_ascii_lowercase())) } else { Err(RULE) }
    }
}

/// The origins whose pages may call.
pub(super) struct Cors(Vec<PageOrigin>);

impl Cors {
    pub(super) fn new(origins: &[PageOrigin]) -> Self {
        Self(origins.to_vec())
    }

    /// What to tell the browser: the origin of the page, if it may call.
    pub(super) fn allows<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        let origin = request.headers().get(ORIGIN)?;
        let is_listed = |allowed: &PageOrigin| match allowed {
            PageOrigin::Any => false,
            PageOrigin::Of(allowed) => allowed.as_bytes() == origin.as_bytes(),
        };
        if self.0.contains(&PageOrigin::Any) {
            Some(HeaderValue::from_static("*"))
        } else {
            self.0.iter().any(is_listed).then(|| origin.clone())
        }
    }

    /// Tells the browser about an answer. Caches must not give it to pages of another origin.
    pub(super) fn mark(&self, allowed: Option<HeaderValue>, answer: &mut Response<Content>) {
        let headers = answer.headers_mut();
        if !self.0.contains(&PageOrigin::Any) {
            headers.insert(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(allowed) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
        }
    }
}

/// Whether a browser asks if a page may send another request. It has no token with it.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of a page that may call.
pub(super) fn preflight() -> Response<Content> {
    let mut answer = Response::new(Content::from(String::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS.into());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for good in ["*", "https://shop.example", "http://localhost:3000", "http://[::1]:80", " https://a.b "] {
            assert!(good.parse::<PageOrigin>().is_ok(), "{good}");
        }
        for bad in
            ["", "shop.example", "https://", "https://shop.example/", "https://a b", "ftp://a", "null", "https://a:"]
        {
            assert!(bad.parse::<PageOrigin>().is_err(), "{bad}");
        }
        assert_eq!("HTTPS://a".parse::<PageOrigin>(), "HTTPS://a".parse());
        assert_eq!("https://Shop.example".parse(), Ok(PageOrigin::Of("https://shop.example".to_owned())));
    }

    #[test]
    fn all_methods_of_the_routes_are_allowed() {
        for route in super::super::routes::ROUTES {
            assert!(METHODS.split(", ").any(|method| method == route.method.as_str()), "{}", route.path);
        }
    }
}
