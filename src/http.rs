//! The HTTP server: takes connections, bounds them, and lets what runs finish when it is told to stop.
//!
//! A request goes through `router` and `handlers` to the engine; its answer comes back through `json`, or as a `problem`.

mod auth;
mod handlers;
mod host;
mod input;
mod json;
mod pace;
mod problem;
mod refusal;
mod router;
mod seats;
mod socket;
mod wire;
mod workers;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use auth::{Access, Tokens};
pub use host::HostName;
pub use workers::Workers;

use crate::engine::Engine;
use pace::Pace;
use seats::{Occupant, Seat, Seats};
use socket::Socket;
use wire::Wire;

/// Connections served at a time. For one more, an idle one makes room; while none is idle, more wait in the listener's
/// backlog.
pub const MAX_CONNECTIONS: usize = 1024;
/// How long an idle connection is kept, unless told otherwise: longer than most load balancers keep theirs, which would
/// otherwise send a request while it is being closed.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send a request's headers: the first request's from the time it connects, others' from
/// their first byte.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take nothing of an answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest request target, in bytes.
pub const MAX_TARGET_BYTES: usize = 4 * 1024;
/// All header fields together, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields of a request: what hyper takes.
pub const MAX_HEADERS: usize = 100;
/// How long requests that run may take to finish after the server was told to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// hyper's own bound, past which it answers without us: it leaves room for our limits to answer first.
const MAX_READ_BUFFER: usize = 64 * 1024;
/// Pause after the listener fails: most likely there are no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves those who have `access` on `listener` until `shutdown` is done, then lets what runs finish,
/// [`SHUTDOWN_TIMEOUT`] at most. Every thread has an engine of its own, made by `engine`. An idle connection is kept for
/// `keep_alive`.
///
/// # Errors
/// When the threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    engine: impl Fn() -> Engine,
    access: Arc<Access>,
    keep_alive: Duration,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let workers = Workers::start(|| {
        let (engine, access) = (Arc::new(engine()), Arc::clone(&access));
        move |request| {
            let (engine, access) = (Arc::clone(&engine), Arc::clone(&access));
            async move { router::respond(&engine, &access, request).await }
        }
    })?;
    serve_with(listener, &workers, keep_alive, shutdown).await;
    Ok(())
}

/// The same server, with anything else that answers requests behind it.
pub async fn serve_with<R, F>(
    listener: TcpListener,
    workers: &Workers<R>,
    keep_alive: Duration,
    shutdown: impl Future<Output = ()>,
) where
    R: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let seats = Seats::new(MAX_CONNECTIONS);
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, seat) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        let watcher = graceful.watcher();
        workers.spawn(move |respond| async move {
            tokio::select! {
                served = connection(stream, respond, watcher, Arc::clone(&seat.occupant), keep_alive) => {
                    if let Err(error) = served {
                        debug!(error, "connection");
                    }
                }
                () = seat.occupant.asked_to_leave() => debug!("an idle connection makes room for another"),
            }
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
    occupant: Arc<Occupant>,
    keep_alive: Duration,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    R: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let stream = Arc::new(TcpStream::from_std(stream)?);
    occupant.sits_at(&stream);
    let pace = Arc::new(Pace::new(keep_alive));
    let wire = Wire::new(Socket(stream), Arc::clone(&pace));
    let pace_of_requests = Arc::clone(&pace);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (occupant, pace) = (Arc::clone(&occupant), Arc::clone(&pace_of_requests));
        pace.asked();
        let promise = pace.promise(&request);
        if request.body().is_end_stream() {
            occupant.busy()
        } else {
            occupant.idle()
        }
        request.extensions_mut().insert(Arc::clone(&occupant));
        let answer = respond(request);
        async move {
            let mut answer = answer.await;
            answer.headers_mut().extend(promise);
            pace.answered();
            occupant.served();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        // Its one clock for idle connections and for slow heads is not enough: `pace` has two.
        .header_read_timeout(None)
        .max_buf_size(MAX_READ_BUFFER)
        // Who says that no more requests come still wants the answers to those that came.
        .half_close(true)
        .serve_connection(TokioIo::new(wire), service);
    tokio::select! {
        // First what may set another time, then the look at it.
        biased;
        served = watcher.watch(connection) => Ok(served?),
        () = pace.overdue() => Err("nothing came in time".into()),
    }
}

/// The next connection, and a place for it.
async fn accept(listener: &TcpListener, seats: &Arc<Seats>) -> (std::net::TcpStream, Seat) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| {
            // Answers are small and whole: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            // It is served on another thread.
            stream.into_std()
        }) {
            Ok(stream) => return (stream, seats.take().await),
            Err(error) => {
                warn!(%error, "cannot accept");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
