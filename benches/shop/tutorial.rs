//! The load of scenario `hot` on a server that somebody else has started, such as the one of `benches/tutorial`.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::http_client::{HttpClient, Requester, hold, seed};
use crate::load::{Limit, Tally, closed_loop};
use crate::measure::Effort;
use crate::report::{Figure, Report, Row, Unit};
use crate::script_calls::AMPLE;
use crate::side::HOT;

const CLIENTS: usize = 32;

pub async fn run(address: SocketAddr, effort: Effort) {
    let mut client = HttpClient::connect(address).await;
    let seeded = client.exchange(&seed(HOT, AMPLE)).await;
    assert_eq!(seeded.status, 200, "the server seeds: {}", String::from_utf8_lossy(seeded.body));
    let requests = [hold(HOT)].into();
    let slice = async |limit| closed_loop(Requester::crowd(address, CLIENTS, &requests).await, limit).await;
    slice(Limit::For(effort.slice / 2)).await;
    let mut tally = Tally::new();
    for _ in 0..effort.rounds {
        tally.add(&slice(Limit::For(effort.slice)).await);
    }
    let mut report = Report::default();
    for (what, value, unit) in [
        ("holds, one SKU, 32 clients", tally.rate(), Unit::PerSecond),
        ("p50 of a hold", tally.latency_ms(0.5), Unit::Milliseconds),
        ("p99 of a hold", tally.latency_ms(0.99), Unit::Milliseconds),
        ("refused for contention", tally.contention as f64, Unit::Count),
        ("failed", tally.failed as f64, Unit::Count),
    ] {
        report.add(Row::of("hot", what, Figure::new(address.to_string(), value, unit)));
    }
    println!("{}", report.markdown());
}

/// The address of a base URL, such as `http://localhost:3000`.
pub fn address(url: &str) -> Result<SocketAddr, String> {
    let authority = url.strip_prefix("http://").ok_or("must begin with http://")?.trim_end_matches('/');
    let mut addresses = authority.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?;
    addresses.next().ok_or_else(|| format!("{authority} has no address"))
}
