//! Which URLs name a Redis, or a cluster.

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
        let why = "it begins with none of redis://, rediss:// (TLS), unix://, redis+sentinel:// or rediss+sentinel://, and for a \
                   cluster redis+cluster:// or rediss+cluster://";
        return Err(OpenError::Url(why.to_owned()));
    }
    let info = url.into_connection_info().map_err(|error| OpenError::Url(explain(&error)))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        let why = "#insecure turns off the verification of the server, which stockhold does not do; to trust a server whose \
                   certificate is not from a public authority, name its authority (--redis-ca)";
        return Err(OpenError::Url(why.to_owned()));
    }
    Ok(info)
}

/// The URLs of the nodes that the URL of a cluster names, `redis+cluster://[user[:password]@]host:port[,host:port...]`; `None` when
/// it is not the URL of a cluster.
///
/// # Errors
/// When it names no node, or a database.
pub(super) fn nodes(url: &str) -> Result<Option<Vec<String>>, OpenError> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
    let scheme = scheme.to_ascii_lowercase();
    let Some(scheme) = scheme.strip_suffix("+cluster").filter(|scheme| ["redis", "rediss"].contains(scheme)) else {
        return Ok(None);
    };
    let (place, options) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = place.split_at(place.rfind('@').map_or(0, |at| at + 1));
    let nodes: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{user}{host}{options}")).collect();
    for node in &nodes {
        if parse(node)?.redis_settings().db() != 0 {
            let why = "a Redis Cluster has one database only, 0, and --redis-url names another";
            return Err(OpenError::Url(why.to_owned()));
        }
    }
    Ok(Some(nodes))
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
    fn the_url_of_a_cluster_names_nodes() {
        for (url, expected) in [
            ("redis+cluster://a:1", &["redis://a:1"][..]),
            ("REDISS+cluster://a:1,b:2/", &["rediss://a:1/", "rediss://b:2/"]),
            ("redis+cluster://user:p,w@a:1,[::1]:2/0", &["redis://user:p,w@a:1/0", "redis://user:p,w@[::1]:2/0"]),
        ] {
            assert_eq!(nodes(url).unwrap().unwrap(), expected, "{url}");
        }
        for url in ["redis://a:1", "unix+cluster://a", "cluster://a", "a"] {
            assert_eq!(nodes(url).unwrap(), None, "{url}");
        }
        for url in ["redis+cluster://a:1/3", "redis+cluster://a:1,b:2/3"] {
            assert!(nodes(url).unwrap_err().to_string().contains("one database only"), "{url}");
        }
        for url in ["redis+cluster://", "redis+cluster://a:1,", "redis+cluster://a:1,,b:2", "redis+cluster://a:1,b:x"] {
            assert!(nodes(url).is_err(), "{url}");
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
            "redis+cluster://:secret@host:secret",
            "redis+cluster://:secret@host,",
            "redis+cluster://:secret@host/3",
            "rediss+cluster://:secret@host/#insecure",
        ] {
            let error = nodes(url).and_then(|_| parse(url)).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
