//! Group commit: during a script call, requests for the same script wait in a queue. The next call takes all of them.
//!
//! When no call is in progress, a request is sent at once and alone: an idle server adds no delay. A busy server pays
//! the fixed cost of a call once for many requests. Each request keeps its own outcome. The script does not know about
//! this: it takes one or many independent items (mode `each`).
//!
//! One damaged key makes Redis refuse the whole call. A refusal means that nothing was written, so the other requests
//! are sent again without it. The damaged key is set apart for a while: requests for it use separate calls in a
//! separate task. After any other failure no request is sent again.

mod set_apart;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{iter, slice};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use self::set_apart::SetApart;
use super::error::is_passing;
use super::metrics::Group;
use crate::redis::{CALL_TIMEOUT, Failure};
use crate::scripts::{Reply, Scripts};

/// The maximum number of requests in one call: the scripts take no more.
pub const MAX_BATCH: usize = 100;

/// The maximum number of waiting requests; more are refused. Redis processes this number in a small part of a second.
const MAX_WAITING: usize = 4096;

/// Pause after a request for a key that is set apart is refused: a refused client retries at once, and Redis must serve
/// other clients too.
const PAUSE_APART: Duration = Duration::from_millis(5);

/// This text in a refusal means that the key that it names is damaged, whatever else is in the call.
const DAMAGED: &str = "damaged ";

/// The mode of the scripts in which items are independent.
const INDEPENDENT: &str = "each";

/// What one request adds to a call.
pub(super) struct Item {
    /// inventory, active, reservation.
    pub keys: [String; 3],
    /// The arguments of each item.
    pub arguments: Vec<String>,
}

/// What every call of a script begins with.
pub(super) struct Call {
    scripts: Arc<Scripts>,
    name: &'static str,
    /// The keys that the shard's items have in common.
    keys: Vec<String>,
    counted: &'static Group,
}

/// One script's requests, from the queue to the shared calls.
pub(super) struct GroupCommit {
    call: Arc<Call>,
    max_batch: usize,
    queue: OnceLock<mpsc::Sender<Request>>,
}

struct Request {
    item: Item,
    deadline: Instant,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

/// Requests whose call Redis refused: nothing was done for any of them.
struct Refused {
    requests: Vec<Request>,
    code: String,
    message: String,
}

impl GroupCommit {
    /// At most `max_batch` requests are sent together; with 1, no request waits for others.
    pub(super) fn new(call: Call, max_batch: usize) -> Self {
        Self { call: Arc::new(call), max_batch: max_batch.clamp(1, MAX_BATCH), queue: OnceLock::new() }
    }

    /// Puts `item` into the next call, and returns its reply.
    pub(super) async fn submit(&self, item: Item) -> Result<Reply, Failure> {
        if self.max_batch == 1 {
            return self.call.send(slice::from_ref(&item).iter()).await.map(|mut replies| replies.remove(0));
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { item, deadline: Instant::now() + CALL_TIMEOUT, answer };
        self.call.enqueue(self.queue.get_or_init(|| self.start()), request);
        answered.await.unwrap_or_else(|_| Err(Failure::NoReply("the server stops".to_owned())))
    }

    /// In separate tasks: a cancelled request must not cancel the other requests of its call.
    fn start(&self) -> mpsc::Sender<Request> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (apart, waiting_apart) = mpsc::channel(MAX_WAITING);
        tokio::spawn(work(Arc::clone(&self.call), waiting, apart, self.max_batch));
        tokio::spawn(work_apart(Arc::clone(&self.call), waiting_apart, self.max_batch));
        queue
    }
}

/// The main loop: take all waiting requests, make one call, repeat.
async fn work(call: Arc<Call>, mut waiting: mpsc::Receiver<Request>, apart: mpsc::Sender<Request>, max_batch: usize) {
    let mut set_apart = SetApart::default();
    let mut requests = Vec::with_capacity(max_batch);
    while call.take(&mut waiting, &mut requests, max_batch).await > 0 {
        let mut batches = vec![std::mem::replace(&mut requests, Vec::with_capacity(max_batch))];
        while let Some(mut batch) = batches.pop() {
            let now = Instant::now();
            for request in batch.extract_if(.., |request| request.names().any(|key| set_apart.has(key, now))) {
                call.enqueue(&apart, request);
            }
            if let Some(refused) = call.attempt(batch).await {
                let (at_fault, smaller) = refused.narrow();
                if let Some(key) = at_fault {
                    set_apart.add(key, now);
                }
                batches.extend(smaller);
            }
        }
    }
}

/// The same loop for requests that are set apart, one SKU at a time: they do not block other requests.
async fn work_apart(call: Arc<Call>, mut waiting: mpsc::Receiver<Request>, max_batch: usize) {
    let mut requests = Vec::with_capacity(max_batch);
    while call.take(&mut waiting, &mut requests, max_batch).await > 0 {
        let mut by_sku: BTreeMap<String, Vec<Request>> = BTreeMap::new();
        for request in requests.drain(..) {
            by_sku.entry(request.item.keys[0].clone()).or_default().push(request);
        }
        let mut batches: Vec<_> = by_sku.into_values().collect();
        let mut is_refused = false;
        while let Some(batch) = batches.pop() {
            if let Some(refused) = call.attempt(batch).await {
                batches.extend(refused.narrow().1);
                is_refused = true;
            }
        }
        if is_refused {
            sleep(PAUSE_APART).await;
        }
    }
}

impl Request {
    fn answer(self, reply: Result<Reply, Failure>) {
        // The caller may have stopped waiting.
        let _ = self.answer.send(reply);
    }

    /// The keys that the message of a refusal may name.
    fn names(&self) -> impl Iterator<Item = &str> {
        let [inventory, _, reservation] = &self.item.keys;
        [inventory.as_str(), reservation].into_iter()
    }
}

impl Refused {
    /// Finds the cause: a key to set apart, if it is known now, and the smaller calls to make, the last one first.
    /// Answers the requests that are certainly the cause.
    fn narrow(self) -> (Option<String>, Vec<Vec<Request>>) {
        let Self { mut requests, code, message } = self;
        let named = requests.iter().flat_map(Request::names).find(|key| message.split(' ').any(|word| word == *key));
        let named = named.map(str::to_owned);
        let is_alone = requests.len() == 1;
        let is_at_fault = |request: &mut Request| is_alone || request.names().any(|key| Some(key) == named.as_deref());
        let mut at_fault: Vec<_> = requests.extract_if(.., is_at_fault).collect();
        if let Some(first) = at_fault.first()
            && (is_alone || message.contains(DAMAGED))
        {
            let [inventory, ..] = &first.item.keys;
            let key = named.unwrap_or_else(|| inventory.clone());
            for request in at_fault {
                request.answer(Err(Failure::Refused { code: code.clone(), message: message.clone() }));
            }
            return (Some(key), vec![requests]);
        }
        if at_fault.is_empty() || requests.is_empty() {
            at_fault.append(&mut requests);
            requests = at_fault.split_off(at_fault.len() / 2);
        }
        (named, vec![requests, at_fault])
    }
}

impl Call {
    /// Calls of the script `name`.
    pub(super) fn new(scripts: &Arc<Scripts>, name: &'static str, keys: Vec<String>) -> Self {
        Self { scripts: Arc::clone(scripts), name, keys, counted: Group::of(name) }
    }

    fn enqueue(&self, queue: &mpsc::Sender<Request>, request: Request) {
        match queue.try_send(request) {
            Ok(()) => self.counted.waiting.add(1),
            Err(error) => {
                self.counted.refused.inc();
                let why = format!("{MAX_WAITING} requests wait for it already");
                error.into_inner().answer(Err(Failure::Unreachable(why)));
            }
        }
    }

    /// The next requests of a queue; none when it is closed.
    async fn take(&self, waiting: &mut mpsc::Receiver<Request>, into: &mut Vec<Request>, most: usize) -> usize {
        let count = waiting.recv_many(into, most).await;
        self.counted.waiting.add(-(count as i64));
        count
    }

    /// Makes one call and answers the requests. Returns them if Redis refused it, because some of them may be the
    /// cause.
    async fn attempt(&self, mut requests: Vec<Request>) -> Option<Refused> {
        let now = Instant::now();
        for request in requests.extract_if(.., |request| request.deadline <= now || request.answer.is_closed()) {
            // Nothing was sent, or the call was refused: the result is certain.
            request.answer(Err(Failure::Unreachable(format!("no turn within {CALL_TIMEOUT:?}"))));
        }
        if requests.is_empty() {
            return None;
        }
        match self.send(requests.iter().map(|request| &request.item)).await {
            Ok(replies) => {
                for (request, reply) in requests.into_iter().zip(replies) {
                    request.answer(Ok(reply));
                }
            }
            Err(Failure::Refused { code, message }) if !is_passing(&code) => {
                return Some(Refused { requests, code, message });
            }
            Err(failure) => {
                for request in requests {
                    request.answer(Err(failure.clone()));
                }
            }
        }
        None
    }

    /// Sends one call. There are as many replies as items.
    async fn send<'a>(&self, items: impl ExactSizeIterator<Item = &'a Item> + Clone) -> Result<Vec<Reply>, Failure> {
        let count = items.len();
        self.counted.batches.observe(count as u64);
        let keys = self.keys.iter().chain(items.clone().flat_map(|item| &item.keys));
        let arguments = items.flat_map(|item| &item.arguments).map(String::as_str);
        let keys: Vec<&str> = keys.map(String::as_str).collect();
        let arguments: Vec<&str> = iter::once(INDEPENDENT).chain(arguments).collect();
        let replies = self.scripts.call(self.name, &keys, &arguments).await?;
        if replies.len() != count {
            return Err(Failure::Malformed(format!("{} replies to {count} items", replies.len())));
        }
        Ok(replies)
    }
}
