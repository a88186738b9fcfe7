//! hyper itself answers what it cannot parse as a request, with only a status, and has no hook for that. This module
//! recognizes those answers, and replaces them with a problem.

use hyper::body::Bytes;
use uuid::Uuid;

use super::access_log;
use super::catalogue::Kind;
use super::metrics;
use super::problem::Problem;
use super::router::REQUEST_ID;

/// How hyper's status line begins, before the last two digits of the status.
const BEGINS: [&[u8]; 2] = [b"HTTP/1.1 4", b"HTTP/1.0 4"];

/// Maximum length: a status line, and three header fields no longer than a date.
const LONGEST: usize = 256;

/// Where hyper's own answer begins in the bytes to send. It is the last answer on a connection, consists of a head
/// only, and has no request id. All our answers have one, also the answers to HEAD.
pub(super) fn start(bytes: &[u8]) -> Option<usize> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let earliest = bytes.len().saturating_sub(LONGEST);
    let tail = &bytes[earliest..];
    let begins = |at: &usize| BEGINS.iter().any(|begin| tail[*at..].starts_with(begin));
    let at = (0..tail.len()).rev().find(begins)?;
    let is_ours = tail[at..].windows(REQUEST_ID.len()).any(|name| name == REQUEST_ID.as_bytes());
    (!is_ours).then_some(earliest + at)
}

/// The answer that replaces hyper's `head`.
pub(super) fn in_place_of(head: &[u8]) -> Bytes {
    let problem = match head.get(9..12) {
        Some(b"414") => Problem::target_too_long(),
        Some(b"431") => Problem::headers_too_large(),
        _ => {
            let detail = "the request line, a header field or the length of the body is not as HTTP/1.1 has it";
            Problem::new(Kind::InvalidHttp, detail)
        }
    };
    let kind = problem.kind();
    let (ours, body) = problem.into_text().into_parts();
    let id = Uuid::new_v4().to_string();
    access_log::unparsed(&id, ours.status.as_u16(), kind.code());
    metrics::unparsed(ours.status);
    let head = String::from_utf8_lossy(head);
    let version = head.split(' ').next().unwrap_or("HTTP/1.1");
    let mut answer = format!("{version} {}\r\n", ours.status);
    for line in head.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with("content-length:")) {
        answer += &format!("{line}\r\n");
    }
    for (name, value) in &ours.headers {
        answer += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    answer += &format!("content-length: {}\r\n{REQUEST_ID}: {id}\r\n\r\n{body}", body.len());
    answer.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYPERS: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn hypers_answers_are_distinguished_from_ours() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: a\r\n\r\n{}";
        let to_head = "HTTP/1.1 404 Not Found\r\ncontent-length: 200\r\nx-request-id: HTTP/1.1\r\n\r\n";
        for ours in ["", ok, to_head, "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert_eq!(start(ours.as_bytes()), None, "{ours}");
            assert_eq!(start(format!("{ours}{HYPERS}").as_bytes()), Some(ours.len()), "{ours}");
        }
        // A body may contain anything: more bytes follow, or there is no empty line.
        assert_eq!(start(b"HTTP/1.1 400 Bad Request"), None);
        assert_eq!(start(&[HYPERS.as_bytes(), b"{}"].concat()), None);
    }

    #[test]
    fn the_replacement_is_a_problem_with_the_same_status() {
        let answer = String::from_utf8(in_place_of(HYPERS.as_bytes()).to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert_eq!(head.matches("content-length").count(), 1, "{head}");
    }
}
