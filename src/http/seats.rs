//! Places for connections. When all are taken, an idle one makes room: first one that never asked for anything, and among
//! equals the one that has been idle for longest. So a crowd that connects and says nothing, or says it byte by byte,
//! keeps nobody out, and those who were served before keep their connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// Pause before somebody else is asked to leave, when nobody could be.
const PATIENCE: Duration = Duration::from_millis(10);

/// How long a read goes on whether or not anybody is there.
const GRACE: Duration = Duration::from_millis(50);

/// All places there are.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, Arc<Occupant>>>,
    opened: Instant,
    number: AtomicU64,
}

/// Who sits on a place: lives as long as the connection.
pub(super) struct Seat {
    number: u64,
    seats: Arc<Seats>,
    pub(super) occupant: Arc<Occupant>,
    _permit: OwnedSemaphorePermit,
}

/// What a connection is doing.
pub(super) struct Occupant {
    opened: Instant,
    /// Milliseconds after `opened` since which it is idle; [`BUSY`] while a request runs.
    idle_since: AtomicU64,
    was_served: AtomicBool,
    asked: AtomicBool,
    leave: Notify,
    /// Its socket, to see whether the client is still there.
    socket: OnceLock<Weak<TcpStream>>,
}

const BUSY: u64 = u64::MAX;

impl Seats {
    pub(super) fn new(places: usize) -> Arc<Self> {
        let taken = Mutex::new(HashMap::with_capacity(places));
        let (opened, number) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Self { free: Arc::new(Semaphore::new(places)), taken, opened, number })
    }

    /// A place, as soon as there is one: where nobody leaves, somebody idle is asked to.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        let permit = loop {
            let free = Arc::clone(&self.free).acquire_owned();
            match Arc::clone(&self.free).try_acquire_owned() {
                Ok(permit) => break permit,
                Err(_) => self.clear_one(),
            }
            if let Ok(permit) = timeout(PATIENCE, free).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let occupant = Arc::new(Occupant::new(self.opened));
        self.occupants().insert(number, Arc::clone(&occupant));
        Seat { number, seats: Arc::clone(self), occupant, _permit: permit }
    }

    /// Asks one to leave, if anybody is idle.
    fn clear_one(&self) {
        let mut occupants = self.occupants();
        let idle = occupants.iter().filter_map(|(number, occupant)| Some((occupant.merit()?, *number)));
        if let Some((_, least)) = idle.min()
            && let Some(occupant) = occupants.remove(&least)
        {
            occupant.asked.store(true, Ordering::Relaxed);
            occupant.leave.notify_one();
        }
    }

    fn occupants(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Occupant>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Occupant {
    fn new(opened: Instant) -> Self {
        let (idle_since, was_served) = (AtomicU64::new(0), AtomicBool::new(false));
        let (asked, leave, socket) = (AtomicBool::new(false), Notify::new(), OnceLock::new());
        let occupant = Self { opened, idle_since, was_served, asked, leave, socket };
        occupant.idle();
        occupant
    }

    /// Who has less of it leaves first; nothing while it is busy.
    fn merit(&self) -> Option<(bool, u64)> {
        let since = self.idle_since.load(Ordering::Relaxed);
        (since != BUSY).then(|| (self.was_served.load(Ordering::Relaxed), since))
    }

    /// A request is there as a whole: it is answered before its connection may be closed.
    pub(super) fn busy(&self) {
        self.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Nothing is asked for, as far as anybody can tell.
    pub(super) fn idle(&self) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(BUSY - 1);
        self.idle_since.store(since, Ordering::Relaxed);
        if self.asked.load(Ordering::Relaxed) {
            self.leave.notify_one();
        }
    }

    /// A request was answered.
    pub(super) fn served(&self) {
        self.was_served.store(true, Ordering::Relaxed);
        self.idle();
    }

    /// Lets [`Self::gone`] look at a connection.
    pub(super) fn sits_at(&self, stream: &Arc<TcpStream>) {
        let _ = self.socket.set(Arc::downgrade(stream));
    }

    /// When the client has closed the connection, or said that it sends no more: which of both it is cannot be told before
    /// something is written. Who says so and waits has [`GRACE`] for an answer.
    pub(super) async fn gone(&self) {
        sleep(GRACE).await;
        if let Some(stream) = self.socket.get().and_then(Weak::upgrade)
            && let Ok(1..) = stream.peek(&mut [0]).await
        {
            // It has sent the next request: then it is there.
            std::future::pending().await
        }
    }

    /// When it is to make room for another, and nothing runs that would be cut off.
    pub(super) async fn asked_to_leave(&self) {
        loop {
            self.leave.notified().await;
            if self.idle_since.load(Ordering::Relaxed) != BUSY {
                return;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.occupants().remove(&self.number);
    }
}
