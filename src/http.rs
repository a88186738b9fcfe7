//! The HTTP server: takes connections, bounds them, and lets what runs finish when it is told to stop.
//!
//! A request goes through `router` and `handlers` to the engine; its answer comes back through `json`, or as a `problem`.

mod auth;
mod handlers;
mod input;
mod json;
mod problem;
mod router;
mod workers;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use auth::{Access, Tokens};
pub use workers::Workers;

use crate::engine::Engine;

/// Connections served at a time; more wait in the listener's backlog.
pub const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take to send a request's headers; also how long an idle connection is kept.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest request target, in bytes.
pub const MAX_TARGET_BYTES: usize = 4 * 1024;
/// All header fields together, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How long requests that run may take to finish after the server was told to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// hyper's own bound, past which it answers without us: it leaves room for our limits to answer first, with a body.
const MAX_READ_BUFFER: usize = 64 * 1024;
/// Pause after the listener fails: most likely there are no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves those who have `access` on `listener` until `shutdown` is done, then lets what runs finish,
/// [`SHUTDOWN_TIMEOUT`] at most. Every thread has an engine of its own, made by `engine`.
///
/// # Errors
/// When the threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    engine: impl Fn() -> Engine,
    access: Arc<Access>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let workers = Workers::start(|| {
        let (engine, access) = (Arc::new(engine()), Arc::clone(&access));
        move |request| {
            let (engine, access) = (Arc::clone(&engine), Arc::clone(&access));
            async move { router::respond(&engine, &access, request).await }
        }
    })?;
    serve_with(listener, &workers, shutdown).await;
    Ok(())
}

/// The same server, with anything else that answers requests behind it.
pub async fn serve_with<R, F>(listener: TcpListener, workers: &Workers<R>, shutdown: impl Future<Output = ()>)
where
    R: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let watcher = graceful.watcher();
        workers.spawn(|respond| async move {
            if let Err(error) = connection(stream, respond, watcher).await {
                debug!(error, "connection");
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        warn!("some requests did not finish within {SHUTDOWN_TIMEOUT:?}");
    }
}

/// Serves one connection to its end, on the thread that polls this.
async fn connection<R, F>(
    stream: std::net::TcpStream,
    respond: R,
    watcher: Watcher,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    R: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let stream = TcpStream::from_std(stream)?;
    let service = service_fn(move |request| {
        let answer = respond(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        // Without a timer hyper has no clock, and the timeout is silently off.
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_READ_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    Ok(watcher.watch(connection).await?)
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (std::net::TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await.and_then(|(stream, _)| {
            // Answers are small and whole: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            // It is served on another thread.
            stream.into_std()
        }) {
            Ok(stream) => return (stream, permit),
            Err(error) => {
                warn!(%error, "cannot accept");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
