//! URLs that name a master by its sentinels: `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?master=NAME`.

use std::net::Ipv6Addr;

use super::super::OpenError;

/// Where a sentinel listens unless the URL says otherwise.
const DEFAULT_PORT: u16 = 26379;

/// What such a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentinelUrl {
    /// The name under which the sentinels know the master.
    pub(super) master: String,
    /// Host and port of each sentinel.
    pub(super) sentinels: Vec<(String, u16)>,
    /// Who we are to the sentinels, if they want to know.
    pub(super) user: Option<String>,
    /// The URL of a Redis at the host of the first sentinel: with the user, the password and the database of Redis.
    pub(super) redis: String,
}

/// Whether a URL is one of these. Its scheme without `+sentinel` is that of the Redis.
pub(super) fn scheme(url: &str) -> Option<&'static str> {
    let (scheme, _) = url.split_once("://")?;
    let schemes = [("redis+sentinel", "redis"), ("rediss+sentinel", "rediss")];
    schemes.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)).map(|(_, plain)| plain)
}

/// Reads a URL. None of the messages shows a part of it: it may have a password.
///
/// # Errors
/// When it names no sentinel or no master, or has something else.
pub(super) fn parse(url: &str) -> Result<SentinelUrl, OpenError> {
    let wrong = |why: &str| OpenError::Url(format!("{why} (redis+sentinel://HOST:PORT,HOST:PORT/?master=NAME)"));
    let scheme = scheme(url).ok_or_else(|| wrong("it is not one of sentinels"))?;
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    if rest.contains('#') {
        return Err(wrong("it has a #"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (redis_user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let sentinels: Option<Vec<_>> = hosts.split(',').map(place).collect();
    let sentinels =
        sentinels.ok_or_else(|| wrong("it must list the sentinels, each a host, with a port unless that is 26379"))?;
    let (mut master, mut user) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let slot = match &*name {
            "master" => &mut master,
            "sentinelUser" => &mut user,
            _ => return Err(wrong("after the ? it may say master and sentinelUser only")),
        };
        if value.is_empty() || slot.replace(value.into_owned()).is_some() {
            return Err(wrong("it says master or sentinelUser twice, or without a value"));
        }
    }
    let master = master.ok_or_else(|| wrong("it must say which master of the sentinels is meant, ?master=NAME"))?;
    let at = if authority.contains('@') { format!("{redis_user}@") } else { String::new() };
    let (host, port) = &sentinels[0];
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let redis = format!("{scheme}://{at}{host}:{port}/{database}");
    Ok(SentinelUrl { master, sentinels, user, redis })
}

/// `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`.
fn place(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
    (!host.is_empty() && host.chars().all(is_name)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_sentinels_a_master_and_who_we_are() {
        let parsed =
            parse("rediss+sentinel://shop:s%40fe@a,b:1,[::1]:7/3?master=stock%201&sentinelUser=watcher").unwrap();
        assert_eq!(
            parsed,
            SentinelUrl {
                master: "stock 1".to_owned(),
                sentinels: vec![("a".to_owned(), 26379), ("b".to_owned(), 1), ("::1".to_owned(), 7)],
                user: Some("watcher".to_owned()),
                redis: "rediss://shop:s%40fe@a:26379/3".to_owned(),
            }
        );
        let parsed = parse("REDIS+SENTINEL://[::1]?master=x").unwrap();
        assert_eq!((parsed.sentinels, &*parsed.redis), (vec![("::1".to_owned(), 26379)], "redis://[::1]:26379/"));
    }

    #[test]
    fn what_is_not_one_is_refused_and_not_shown() {
        for url in [
            "redis+sentinel://secret",
            "redis+sentinel://:secret@host/",
            "redis+sentinel://?master=secret",
            "redis+sentinel://host,?master=secret",
            "redis+sentinel://host:secret?master=x",
            "redis+sentinel://host:0?master=x",
            "redis+sentinel://host:1:secret?master=x",
            "redis+sentinel://[secret]?master=x",
            "redis+sentinel://[::1]secret?master=x",
            "redis+sentinel://host?master=",
            "redis+sentinel://host?master=secret&master=secret",
            "redis+sentinel://host?master=x&secret=x",
            "redis+sentinel://:sec/ret@host?master=x&sentinelPassword=secret",
            "redis+sentinel://host?master=x#secret",
            "redis+sentinel://:sec#ret@host?master=x",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }
}
