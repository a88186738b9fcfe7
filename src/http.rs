//! The HTTP server: accepts connections, limits them, and lets running requests finish when it is told to stop.
//!
//! A request goes through `router`, which reads it whole, and one of the `handlers` to the engine. Its answer returns
//! through `json`, or as a `problem`. A new operation is a line in `routes` and a function in `handlers`.

mod access_log;
mod auth;
mod catalogue;
mod connections;
mod content;
mod cors;
mod deadline;
mod drain;
mod events;
mod handlers;
mod host;
mod input;
mod json;
mod metrics;
mod parse_error;
mod problem;
mod request;
mod router;
mod routes;
mod socket;
mod stream;
mod workers;

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use auth::{Access, Tokens};
pub use content::Content;
pub use cors::PageOrigin;
pub use drain::Drain;
pub use host::HostName;
pub use workers::Workers;

use crate::engine::Engine;
use connections::{ConnectionLimit, ConnectionPermit, ConnectionState};
use deadline::Deadline;
use events::Feed;
use socket::Socket;
use stream::ConnectionStream;

/// The maximum number of connections that are served at the same time. For one more, an idle one is closed. If none is
/// idle, new ones wait in the listener's backlog.
pub const MAX_CONNECTIONS: usize = 1024;
/// The maximum number of clients that listen to events. Their connections do not count as those above.
pub const MAX_LISTENERS: usize = 1024;
/// The default time that an idle connection is kept: longer than most load balancers keep theirs. Otherwise they would
/// send a request while it is being closed.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send a request's headers: for the first request, from the time it connects; for later
/// ones, from their first byte.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to send a request's body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may read nothing of an answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// After an unread request was refused and answered: how long the rest that the client sends is discarded.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes of the rest are discarded before the connection is closed anyway.
pub const MAX_LINGER_BYTES: usize = 4 * 1024 * 1024;
/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest request target, in bytes.
pub const MAX_TARGET_BYTES: usize = 4 * 1024;
/// All header fields together, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields of a request: hyper's limit.
pub const MAX_HEADERS: usize = 100;
/// How long running requests may take to finish after the server was told to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// hyper's own limit, at which hyper itself answers: high enough for our limits to answer first.
const MAX_READ_BUFFER: usize = 64 * 1024;
/// Pause after the listener fails: most likely there are no file descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Serves clients that have `access` on `listener` until `shutdown` is done, then lets running requests finish, for
/// [`SHUTDOWN_TIMEOUT`] at most. Before that, `shutdown` may start `drain`. Every thread has its own engine, made by
/// `engine`. An idle connection is kept for `keep_alive`.
///
/// # Errors
/// When the threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    engine: impl Fn() -> Engine,
    access: Arc<Access>,
    keep_alive: Duration,
    drain: Arc<Drain>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let feed = Arc::new(Feed::new(engine()));
    let workers = Workers::start(|| {
        let (engine, access, feed) = (Arc::new(engine()), Arc::clone(&access), Arc::clone(&feed));
        move |request| {
            let (engine, access, feed) = (Arc::clone(&engine), Arc::clone(&access), Arc::clone(&feed));
            async move { router::respond(&engine, &access, &feed, request).await }
        }
    })?;
    let shutdown = async {
        shutdown.await;
        feed.end();
    };
    tokio::select! {
        () = serve_with(listener, &workers, keep_alive, drain, shutdown) => {}
        () = feed.run() => {}
    }
    Ok(())
}

/// The same server, with any other responder.
pub async fn serve_with<R, F, B>(
    listener: TcpListener,
    workers: &Workers<R>,
    keep_alive: Duration,
    drain: Arc<Drain>,
    shutdown: impl Future<Output = ()>,
) where
    R: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Into<Content>,
{
    let limit = ConnectionLimit::new(MAX_CONNECTIONS, drain);
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &limit) => accepted,
        };
        let watcher = graceful.watcher();
        workers.spawn(move |respond| async move {
            tokio::select! {
                served = connection(stream, respond, watcher, Arc::clone(&permit.state), keep_alive) => {
                    if let Err(error) = served {
                        debug!(error, "connection");
                    }
                }
                () = permit.state.evicted() => debug!("an idle connection makes room for another"),
            }
        });
    }
    drop(listener);
    if timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        warn!("some requests did not finish within {SHUTDOWN_TIMEOUT:?}");
    }
}

/// Serves one connection to its end, on the thread that polls this future.
async fn connection<R, F, B>(
    stream: std::net::TcpStream,
    respond: R,
    watcher: Watcher,
    state: Arc<ConnectionState>,
    keep_alive: Duration,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    R: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Into<Content>,
{
    let stream = Arc::new(TcpStream::from_std(stream)?);
    state.set_socket(&stream);
    let deadline = Arc::new(Deadline::new(keep_alive));
    let stream = ConnectionStream::new(Socket(stream), Arc::clone(&deadline), Arc::clone(&state));
    let deadline_of_requests = Arc::clone(&deadline);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (state, deadline) = (Arc::clone(&state), Arc::clone(&deadline_of_requests));
        deadline.request_started();
        let keep_alive = deadline.keep_alive_header(&request);
        if request.body().is_end_stream() {
            state.busy()
        } else {
            state.idle()
        }
        request.extensions_mut().insert(Arc::clone(&state));
        // Not in an async block, which would store the answer's future twice.
        respond(request).map(move |answer| {
            let mut answer = answer.map(Into::into);
            if let Content::Events(_) = answer.body() {
                // It stays busy, and without a deadline, until the stream ends. Then it is closed.
                state.streams();
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return Ok(answer);
            }
            if state.closes_after_answer() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            } else {
                answer.headers_mut().extend(keep_alive);
            }
            deadline.answered();
            state.served();
            Ok::<_, Infallible>(answer)
        })
    });
    let connection = http1::Builder::new()
        // hyper has only one timeout, for idle connections and for slow heads: `deadline` has two.
        .header_read_timeout(None)
        .max_buf_size(MAX_READ_BUFFER)
        // A client that closes its sending side still wants the answers to its requests.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // First whatever may move the deadline, then the deadline itself.
        biased;
        served = watcher.watch(connection) => Ok(served?),
        () = deadline.passed() => Err("nothing came in time".into()),
    }
}

/// The next connection, when the limit permits one more.
async fn accept(listener: &TcpListener, limit: &Arc<ConnectionLimit>) -> (std::net::TcpStream, ConnectionPermit) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| {
            // Answers are small and whole: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            // It will be served on another thread.
            stream.into_std()
        }) {
            Ok(stream) => return (stream, limit.acquire().await),
            Err(error) => {
                warn!(%error, "cannot accept");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
