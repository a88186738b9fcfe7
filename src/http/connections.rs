//! Limits the connections that are served at the same time. When all are in use, an idle one is closed: first one that
//! never sent a whole request, and among equals the one that has been idle longest. So clients that connect and send
//! nothing, or send byte by byte, do not keep others out, however many they are. Clients that were served before keep
//! their connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::drain::Drain;
use super::metrics;

/// Pause before another attempt to close a connection, when none could be closed.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// What the system buffers of a stream, in bytes; Linux doubles it.
const STREAM_BUFFER: usize = 64 * 1024;

/// How long a read continues after its client has gone.
const GONE_GRACE: Duration = Duration::from_millis(50);

/// The connections that are open, and how many more may be.
pub(super) struct ConnectionLimit {
    free: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    started: Instant,
    next_number: AtomicU64,
    drain: Arc<Drain>,
}

/// One connection's share of the limit, returned on drop.
pub(super) struct ConnectionPermit {
    number: u64,
    limit: Arc<ConnectionLimit>,
    pub(super) state: Arc<ConnectionState>,
}

/// What a connection is doing.
pub(super) struct ConnectionState {
    started: Instant,
    /// Milliseconds after `started` since which it is idle; [`BUSY`] while a request runs.
    idle_since_ms: AtomicU64,
    was_served: AtomicBool,
    /// A part of a request was refused unread: the connection will close after the answer.
    leaves_unread: AtomicBool,
    is_evicted: AtomicBool,
    evict: Notify,
    /// Its socket, to see whether the client is still there.
    socket: OnceLock<Weak<TcpStream>>,
    /// Of the server.
    drain: Arc<Drain>,
    /// Its share of the limit.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

const BUSY: u64 = u64::MAX;

impl ConnectionLimit {
    pub(super) fn new(connections: usize, drain: Arc<Drain>) -> Arc<Self> {
        let open = Mutex::new(HashMap::with_capacity(connections));
        let (started, next_number) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Self { free: Arc::new(Semaphore::new(connections)), open, started, next_number, drain })
    }

    /// A permit for one more connection, as soon as there is one. Until then, idle connections are closed.
    pub(super) async fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        let permit = loop {
            let free = Arc::clone(&self.free).acquire_owned();
            match Arc::clone(&self.free).try_acquire_owned() {
                Ok(permit) => break permit,
                Err(_) => self.evict_one(),
            }
            if let Ok(permit) = timeout(RETRY_PAUSE, free).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        metrics::CONNECTIONS_OPENED.inc();
        metrics::CONNECTIONS.add(1);
        let state = Arc::new(ConnectionState::new(self.started, Arc::clone(&self.drain), permit));
        self.open().insert(number, Arc::clone(&state));
        ConnectionPermit { number, limit: Arc::clone(self), state }
    }

    /// Closes the idle connection with the lowest rank, if any is idle.
    fn evict_one(&self) {
        let mut open = self.open();
        let idle = open.iter().filter_map(|(number, state)| Some((state.worth()?, *number)));
        if let Some((_, least)) = idle.min()
            && let Some(state) = open.remove(&least)
        {
            state.is_evicted.store(true, Ordering::Relaxed);
            metrics::CONNECTIONS_EVICTED.inc();
            state.evict.notify_one();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionState {
    fn new(started: Instant, drain: Arc<Drain>, permit: OwnedSemaphorePermit) -> Self {
        let state = Self {
            started,
            idle_since_ms: AtomicU64::new(0),
            was_served: AtomicBool::new(false),
            leaves_unread: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            evict: Notify::new(),
            socket: OnceLock::new(),
            drain,
            permit: Mutex::new(Some(permit)),
        };
        state.idle();
        state
    }

    /// The connection with the lowest worth is closed first; `None` while a request runs.
    fn worth(&self) -> Option<(bool, u64)> {
        let since = self.idle_since_ms.load(Ordering::Relaxed);
        (since != BUSY).then(|| (self.was_served.load(Ordering::Relaxed), since))
    }

    /// A whole request has arrived: it is answered before its connection may be closed.
    pub(super) fn busy(&self) {
        self.idle_since_ms.store(BUSY, Ordering::Relaxed);
    }

    /// No request has arrived, or only a part of one.
    pub(super) fn idle(&self) {
        self.idle_since(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(BUSY - 1));
    }

    fn idle_since(&self, ms: u64) {
        self.idle_since_ms.store(ms, Ordering::Relaxed);
        if self.is_evicted.load(Ordering::Relaxed) {
            self.evict.notify_one();
        }
    }

    /// A request was answered.
    pub(super) fn served(&self) {
        self.was_served.store(true, Ordering::Relaxed);
        self.idle();
    }

    /// Its answer is a stream of events, of which there is a separate limit. Such a connection is used for nothing else, and
    /// the system buffers little for a client that does not read.
    pub(super) fn streams(&self) {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = self.socket.get().and_then(Weak::upgrade) {
            let _ = SockRef::from(&*stream).set_send_buffer_size(STREAM_BUFFER);
        }
    }

    /// The rest of a request will not be read before it is answered.
    pub(super) fn leave_unread(&self) {
        self.leaves_unread.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::leave_unread`] was called.
    pub(super) fn leaves_unread(&self) -> bool {
        self.leaves_unread.load(Ordering::Relaxed)
    }

    /// Whether the connection closes after the answer that is being made.
    pub(super) fn closes_after_answer(&self) -> bool {
        self.leaves_unread() || self.is_draining()
    }

    /// Whether the server was told to end.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    /// Everything is answered, and further bytes are discarded: such a connection is the first to be closed.
    pub(super) fn lingers(&self) {
        self.was_served.store(false, Ordering::Relaxed);
        self.idle_since(0);
    }

    /// Lets [`Self::client_gone`] look at a connection.
    pub(super) fn set_socket(&self, stream: &Arc<TcpStream>) {
        let _ = self.socket.set(Arc::downgrade(stream));
    }

    /// Completes when the client has closed the connection, or its sending side: the two cannot be distinguished
    /// before something is written. A client that closed its sending side and waits has [`GONE_GRACE`] for an answer.
    pub(super) async fn client_gone(&self) {
        sleep(GONE_GRACE).await;
        if let Some(stream) = self.socket.get().and_then(Weak::upgrade)
            && let Ok(1..) = stream.peek(&mut [0]).await
        {
            // It has sent the next request, so it has not gone.
            std::future::pending().await
        }
    }

    /// Completes when the connection must be closed to make room for another. No running request is cut off.
    pub(super) async fn evicted(&self) {
        loop {
            self.evict.notified().await;
            if self.idle_since_ms.load(Ordering::Relaxed) != BUSY {
                return;
            }
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open().remove(&self.number);
        metrics::CONNECTIONS.add(-1);
    }
}
