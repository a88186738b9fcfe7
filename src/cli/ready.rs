//! `stockhold ready`: one request to `/readyz`, for health checks on machines without curl.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::output::print;

/// Longer than the calls to Redis that the server makes for it.
const TIMEOUT: Duration = Duration::from_secs(4);

pub(super) async fn ask(host: IpAddr, port: u16) -> anyhow::Result<ExitCode> {
    // If the server listens on all addresses, ask this machine.
    let host = if host.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host };
    let (ready, body) = timeout(TIMEOUT, get(host, port))
        .await
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("cannot ask http://{host}:{port}/readyz"))?;
    print(body)?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn get(host: IpAddr, port: u16) -> anyhow::Result<(bool, String)> {
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz").header("host", host.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let ready = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((ready, String::from_utf8_lossy(&body).into_owned()))
}
