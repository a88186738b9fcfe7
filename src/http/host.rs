//! The names under which a server is called. A page in a browser may send requests to any address that its site's name
//! resolves to, also to this machine (DNS rebinding). The `Host` of such a request shows it.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use hyper::Request;
use hyper::header::HOST;

use super::catalogue::Kind;
use super::problem::Problem;

/// A name or an address, without a port; or any host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// Any host.
    Any,
    /// This address, in any notation.
    Address(IpAddr),
    /// This name, in lower case.
    Name(String),
}

impl FromStr for HostName {
    type Err = &'static str;

    /// # Errors
    /// Unless `text` is `*`, an address (IPv6 in brackets), or the name of a host without a port.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "*" => Ok(Self::Any),
            name => Self::read(name).ok_or("must be *, or the name or address of a host without a port"),
        }
    }
}

impl HostName {
    fn read(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[') {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.to_canonical()));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        // A name with a final dot is the same name.
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        is_name.then(|| Self::Name(name.to_ascii_lowercase()))
    }

    /// The name in a `Host` header, or the authority of a request target.
    fn of(host: &str) -> Option<Self> {
        let port_at = host.rfind(':').filter(|at| *at > host.rfind(']').unwrap_or(0));
        let (name, port) = host.split_at(port_at.unwrap_or(host.len()));
        port.bytes().skip(1).all(|byte| byte.is_ascii_digit()).then(|| Self::read(name)).flatten()
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

/// The accepted names: those of loopback, and these.
pub(super) struct Names(Vec<HostName>);

impl Names {
    pub(super) fn new(listed: &[HostName]) -> Self {
        Self(listed.to_vec())
    }

    /// # Errors
    /// 421 when the request names another host. A request that names none does not come from a browser.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let target = request.uri().authority().map(|authority| authority.as_str());
        let headers = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        if target.into_iter().chain(headers).all(|host| self.include(host)) {
            return Ok(());
        }
        let detail =
            "this server is not called by this Host; those that it is called by are told to it with --allowed-hosts";
        Err(Problem::new(Kind::HostNotAllowed, detail))
    }

    fn include(&self, host: &str) -> bool {
        self.0.contains(&HostName::Any)
            || HostName::of(host).is_some_and(|name| name.is_loopback() || self.0.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_name_has_neither_scheme_nor_port() {
        for bad in
            ["", " ", "a:80", "http://a", "a/b", "[::1", "::1", "[::1]:80", "[127.0.0.1]", "a b", "a,b", "ä", "*.a"]
        {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        let [same, other] = ["[2001:DB8:0::1]", "[2001:db8::1]"].map(|text| text.parse::<HostName>().unwrap());
        assert_eq!(same, other);
        assert_eq!("Shop.example.".parse(), Ok(HostName::Name("shop.example".to_owned())));
    }
}
