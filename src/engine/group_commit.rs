//! Group commit: while a script call is under way, requests for the same script gather, and the next call takes them all.
//!
//! When none is under way a request goes at once, alone: an idle server adds no delay, and a busy one pays the fixed
//! price of a call once for many requests. Each request keeps its own outcome. The script does not know of any of this:
//! it takes independent items (mode `each`), one or many.

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::is_passing;
use crate::redis::{CALL_TIMEOUT, Failure};
use crate::scripts::{Reply, Scripts};

/// Requests that one call takes at most: the scripts take no more.
pub const MAX_BATCH: usize = 100;

/// Requests that wait at most; more are turned away. Redis works off as many in a small part of a second.
const MAX_WAITING: usize = 4096;

/// What one request adds to a call.
pub(super) struct Item {
    /// inventory, active, reservation.
    pub keys: [String; 3],
    /// The arguments that each item has.
    pub arguments: Vec<String>,
}

/// What every call of a script begins with.
pub(super) struct Call {
    pub scripts: Arc<Scripts>,
    pub name: &'static str,
    /// audit, due.
    pub keys: [String; 2],
    pub arguments: Vec<String>,
}

/// One script's requests on their way into common calls.
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

impl GroupCommit {
    /// `max_batch` requests go out together at most; with 1, none wait for others.
    pub(super) fn new(call: Call, max_batch: usize) -> Self {
        Self { call: Arc::new(call), max_batch: max_batch.clamp(1, MAX_BATCH), queue: OnceLock::new() }
    }

    /// Puts `item` into the next call, and gives its reply.
    pub(super) async fn submit(&self, item: Item) -> Result<Reply, Failure> {
        if self.max_batch == 1 {
            return self.call.commit_one(&item).await;
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { item, deadline: Instant::now() + CALL_TIMEOUT, answer };
        if self.queue.get_or_init(|| self.start()).try_send(request).is_err() {
            return Err(Failure::Unreachable(format!("{MAX_WAITING} requests wait for it already")));
        }
        answered.await.unwrap_or_else(|_| Err(Failure::NoReply("the server stops".to_owned())))
    }

    /// In a task of its own: a request that is given up must not take its neighbours with it.
    fn start(&self) -> mpsc::Sender<Request> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(work(Arc::clone(&self.call), waiting, self.max_batch));
        queue
    }
}

/// The one idea: take all that wait, make one call, begin again.
async fn work(call: Arc<Call>, mut waiting: mpsc::Receiver<Request>, max_batch: usize) {
    let mut requests = Vec::with_capacity(max_batch);
    while waiting.recv_many(&mut requests, max_batch).await > 0 {
        let now = Instant::now();
        let (mut items, mut answers) = (Vec::with_capacity(requests.len()), Vec::with_capacity(requests.len()));
        for Request { item, deadline, answer } in requests.drain(..) {
            if deadline <= now {
                // Nothing was sent, so there is no doubt.
                let _ = answer.send(Err(Failure::Unreachable(format!("no turn within {CALL_TIMEOUT:?}"))));
            } else if !answer.is_closed() {
                items.push(item);
                answers.push(answer);
            }
        }
        if !items.is_empty() {
            let replies = call.commit(&items).await;
            for (answer, reply) in answers.into_iter().zip(replies) {
                let _ = answer.send(reply);
            }
        }
    }
}

impl Call {
    /// One reply for each item.
    async fn commit(&self, items: &[Item]) -> Vec<Result<Reply, Failure>> {
        match self.send(items).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            // Something is wrong with one of them, and so nothing was done for any: each for itself.
            Err(Failure::Refused { code, .. }) if items.len() > 1 && !is_passing(&code) => {
                let mut replies = Vec::with_capacity(items.len());
                for item in items {
                    replies.push(self.commit_one(item).await);
                }
                replies
            }
            Err(failure) => items.iter().map(|_| Err(failure.clone())).collect(),
        }
    }

    async fn commit_one(&self, item: &Item) -> Result<Reply, Failure> {
        self.send(std::slice::from_ref(item)).await.map(|mut replies| replies.remove(0))
    }

    /// As many replies as items.
    async fn send(&self, items: &[Item]) -> Result<Vec<Reply>, Failure> {
        let keys = self.keys.iter().chain(items.iter().flat_map(|item| &item.keys));
        let arguments = self.arguments.iter().chain(items.iter().flat_map(|item| &item.arguments));
        let keys: Vec<&str> = keys.map(String::as_str).collect();
        let arguments: Vec<&str> = arguments.map(String::as_str).collect();
        let replies = self.scripts.call(self.name, &keys, &arguments).await?;
        if replies.len() != items.len() {
            return Err(Failure::NoReply(format!("{} replies to {} items", replies.len(), items.len())));
        }
        Ok(replies)
    }
}
