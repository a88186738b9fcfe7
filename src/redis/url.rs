//! Which URLs name a Redis.

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::OpenError;

const SCHEMES: [&str; 4] = ["redis", "rediss", "unix", "redis+unix"];

/// Reads a URL: where Redis is, the database, the user, and perhaps the password.
///
/// # Errors
/// When it names no Redis, or turns off the verification of the server.
pub(super) fn parse(url: &str) -> Result<ConnectionInfo, OpenError> {
    // The URL is in none of the messages: it may have a password.
    let is_known = url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&&*scheme.to_ascii_lowercase()));
    if !is_known {
        return Err(OpenError::Url(
            "it begins with none of redis://, rediss:// (TLS), unix:// and redis+sentinel:// or rediss+sentinel://"
                .to_owned(),
        ));
    }
    let info = url.into_connection_info().map_err(|error| OpenError::Url(explain(&error)))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        let why = "#insecure turns off the verification of the server, which stockhold does not do; to trust a server whose \
                   certificate is not from a public authority, name its authority (--redis-ca)";
        return Err(OpenError::Url(why.to_owned()));
    }
    Ok(info)
}

fn explain(error: &RedisError) -> String {
    let text = error.to_string();
    let what = text.split(" - ").next().unwrap_or_default();
    format!(
        "{what} (in a URL, special characters of a password are percent-encoded; in a file, --redis-password-file, they \
         are not)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_place() {
        for (url, place) in [
            ("redis://host", "host:6379"),
            ("rediss://host:1", "host:1"),
            ("REDISS://host:1", "host:1"),
            ("rediss://[::1]:7/3", "::1:7"),
            ("unix:///run/redis.sock", "/run/redis.sock"),
            ("redis+unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ] {
            assert_eq!(parse(url).unwrap().addr().to_string(), place, "{url}");
        }
    }

    #[test]
    fn no_message_has_the_secret() {
        for url in [
            "",
            "secret",
            "http://:secret@host",
            "redis-sentinel://:secret@host",
            "redis://:secret@",
            "redis://:sec#ret/secret@host",
            "redis://:secret@host/x",
            "redis://:secret@host:secret",
            "rediss://:secret@host/#insecure",
            "rediss://:secret@host/#secret",
            "unix://secret",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
