//! The board: one page that shows the stock, holds and events as they are.
//!
//! It asks no other host for anything, and a browser runs nothing but what is in it: its policy names the digests of its
//! style and its script.

use std::sync::LazyLock;

use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY};
use sha2::{Digest, Sha256};

use super::super::content::Content;
use super::super::request::WholeRequest;
use super::Answer;
use crate::engine::Engine;

const PAGE: &str = include_str!("board.html");

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let [style, script] = ["style", "script"].map(|tag| base64(&Sha256::digest(inside(tag))));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("it is plain text")
});

/// The page itself; what it shows, it asks for.
pub(in super::super) async fn board(_: &Engine, mut request: WholeRequest) -> Answer {
    request.fields.finish()?;
    let mut response = Response::new(Content::Whole(PAGE.into()));
    response.headers_mut().extend([
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ]);
    Ok(response)
}

/// What is in the only element of a name.
fn inside(tag: &str) -> &'static str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let rest = PAGE.split_once(&open).map_or("", |(_, rest)| rest);
    rest.split_once(&close).map_or("", |(inside, _)| inside)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().zip([16, 8, 0]).fold(0, |bits, (byte, shift)| bits | usize::from(*byte) << shift);
        [18, 12, 6, 0]
            .into_iter()
            .enumerate()
            .map(move |(at, shift)| if at <= chunk.len() { char::from(DIGITS[bits >> shift & 63]) } else { '=' })
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4648, section 10.
    #[test]
    fn digests_are_written_as_in_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn the_page_has_one_style_and_one_script_and_no_markup_from_text() {
        for tag in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1);
            assert!(inside(tag).len() > 1000);
        }
        for unsafe_word in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http:", "https:", "style="]
        {
            assert!(!PAGE.contains(unsafe_word), "{unsafe_word}");
        }
    }
}
