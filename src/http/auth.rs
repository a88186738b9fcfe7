//! Authorization: bearer tokens (RFC 6750), of which only digests are kept.

use std::sync::{PoisonError, RwLock};

use hyper::header::AUTHORIZATION;
use hyper::{Method, Request};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::catalogue::Kind;
use super::cors::{Cors, PageOrigin};
use super::host::{HostName, Names};
use super::problem::Problem;

/// Paths that need no token and accept any host name: liveness and readiness.
const FREE: [&str; 2] = ["/livez", "/readyz"];

/// The page that needs no token, and shows nothing without one.
const BOARD: &str = "/";

/// Which clients may send requests, and by which names they may call the server.
pub struct Access {
    /// The valid tokens. Without a list, every client may do everything.
    tokens: Option<RwLock<Tokens>>,
    /// Without a list, clients may use any name.
    names: Option<Names>,
    /// Without it, browsers let no page of another origin call.
    pub(super) cors: Option<Cors>,
}

/// Any number of tokens. Several tokens of a scope are valid at once, so that they can be changed without a gap.
pub struct Tokens(Vec<Token>);

struct Token {
    digest: [u8; 32],
    /// Without it, the token may only read.
    may_write: bool,
}

impl Tokens {
    /// Reads a file of lines `read TOKEN` and `write TOKEN`; a write token may also read. Blank lines and those that
    /// begin with `#` are ignored.
    ///
    /// # Errors
    /// The number of the first invalid line, and the reason; never its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (scope, token) = line.split_once(' ').unwrap_or((line, ""));
            let may_write = match scope {
                "read" => false,
                "write" => true,
                _ => return Err(format!("line {number}: must begin with read or write, and a space")),
            };
            if !(16..=256).contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("line {number}: a token is 16 to 256 visible ASCII characters"));
            }
            tokens.push(Token { digest: Sha256::digest(token).into(), may_write });
        }
        if tokens.is_empty() { Err("it holds no token".to_owned()) } else { Ok(Self(tokens)) }
    }

    /// Whether the token is valid, and whether it may write. Takes the same time for any token.
    fn look_up(&self, token: &[u8]) -> (bool, bool) {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let (mut known, mut may_write) = (Choice::from(0), Choice::from(0));
        for token in &self.0 {
            let same = token.digest.ct_eq(&digest);
            known |= same;
            may_write |= same & Choice::from(u8::from(token.may_write));
        }
        (known.into(), may_write.into())
    }
}

impl Access {
    /// Access for every client.
    pub fn open() -> Self {
        Self { tokens: None, names: None, cors: None }
    }

    /// Access for clients that have one of these tokens.
    pub fn only_with(tokens: Tokens) -> Self {
        Self { tokens: Some(RwLock::new(tokens)), names: None, cors: None }
    }

    /// Accepts only the names of loopback, and these.
    pub fn called(self, names: &[HostName]) -> Self {
        Self { names: Some(Names::new(names)), ..self }
    }

    /// Tells browsers that pages of these origins may call.
    pub fn for_pages_of(self, origins: &[PageOrigin]) -> Self {
        Self { cors: (!origins.is_empty()).then(|| Cors::new(origins)), ..self }
    }

    /// Replaces the valid tokens. An open access stays open.
    pub fn replace(&self, tokens: Tokens) {
        if let Some(current) = &self.tokens {
            *current.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        }
    }

    /// # Errors
    /// 421 when another host is named.
    pub(super) fn check_name<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        self.names.as_ref().map_or(Ok(()), |names| names.check(request))
    }

    /// # Errors
    /// 421 when another host is named, 401 without a valid token, 403 with a read token where a write token is needed.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if FREE.contains(&request.uri().path()) {
            return Ok(());
        }
        self.check_name(request)?;
        let Some(tokens) = &self.tokens else { return Ok(()) };
        // The page asks its reader for a token.
        if request.uri().path() == BOARD && matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(());
        }
        let mut given = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(unauthorized(r#"Bearer realm="stockhold""#, "this needs one Authorization: Bearer"));
        };
        let value = value.as_bytes();
        let token = match value.split_at_checked("Bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
            _ => return Err(unauthorized(r#"Bearer realm="stockhold""#, "this needs Authorization: Bearer")),
        };
        let (known, may_write) = tokens.read().unwrap_or_else(PoisonError::into_inner).look_up(token);
        if !known {
            let challenge = r#"Bearer realm="stockhold", error="invalid_token""#;
            return Err(unauthorized(challenge, "this token is not known, or not any more"));
        }
        if !may_write && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let challenge = r#"Bearer realm="stockhold", error="insufficient_scope", scope="write""#;
            let detail = "this token may only read";
            return Err(Problem::new(Kind::InsufficientScope, detail).challenging(challenge));
        }
        Ok(())
    }
}

fn unauthorized(challenge: &'static str, detail: &str) -> Problem {
    Problem::new(Kind::Unauthorized, detail).challenging(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_line_is_reported_without_its_text() {
        let why = |text: &str| Tokens::parse(text).err().unwrap();
        assert_eq!(why(""), "it holds no token");
        assert_eq!(why("# nothing\n\n"), "it holds no token");
        for line in ["admin secret-secret-secret", "secret-secret-secret", "writesecret-secret-secret"] {
            assert_eq!(why(&format!("# first\n{line}")), "line 2: must begin with read or write, and a space");
        }
        for token in ["", "too-short-a-one", "with a space in the middle", &"x".repeat(257)] {
            assert_eq!(why(&format!("read {token}")), "line 1: a token is 16 to 256 visible ASCII characters");
        }
    }

    #[test]
    fn the_valid_tokens_are_those_of_the_file() {
        let tokens =
            Tokens::parse("read reader-reader-01\n# old\nwrite writer-writer-01\nwrite writer-writer-02\n").unwrap();
        assert_eq!(tokens.look_up(b"reader-reader-01"), (true, false));
        assert_eq!(tokens.look_up(b"writer-writer-01"), (true, true));
        assert_eq!(tokens.look_up(b"writer-writer-02"), (true, true));
        for unknown in [&b""[..], b"writer-writer-03", b"writer-writer-0", b"old"] {
            assert_eq!(tokens.look_up(unknown), (false, false));
        }
    }
}
