//! A client that listens to events.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::stockhold::Stockhold;

/// How long a busy machine may need for what takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event as it was heard.
#[derive(Debug, Clone)]
pub struct Heard {
    pub id: Option<String>,
    pub kind: String,
    pub data: Value,
}

/// A stream that is read as a browser reads it.
pub struct Listener {
    body: Incoming,
    text: Vec<u8>,
    waiting: VecDeque<Heard>,
    /// The id to come back with.
    pub last: Option<String>,
}

impl Listener {
    /// Listens at a path such as `/api/events?sku=tea`, after `last`. The stream has begun when this returns.
    pub async fn open(server: &Stockhold, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(server.url(path));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: Vec::new(), waiting: VecDeque::new(), last: last.map(str::to_owned) }
    }

    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Heard> {
        // In all: heartbeats come meanwhile.
        let comes = async {
            while self.waiting.is_empty() {
                self.read(None).await?;
            }
            Some(())
        };
        timeout(PATIENCE, comes).await.expect("no event comes")?;
        let heard = self.waiting.pop_front()?;
        if heard.id.is_some() {
            self.last.clone_from(&heard.id);
        }
        Some(heard)
    }

    /// Reads what comes, and takes its whole blocks. `None` at the end.
    async fn read(&mut self, until: Option<&str>) -> Option<()> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("nothing comes");
            let frame = frame?.ok()?;
            self.text.extend(frame.data_ref().unwrap());
            let Some(end) = self.text.windows(2).rposition(|pair| pair == b"\n\n") else { continue };
            let rest = self.text.split_off(end + 2);
            let whole = String::from_utf8(std::mem::replace(&mut self.text, rest)).unwrap();
            for block in whole[..end].split("\n\n") {
                let heard = self.take(block);
                self.waiting.extend(heard);
            }
            if until.is_none_or(|until| whole.contains(until)) {
                return Some(());
            }
        }
    }

    /// Waits for a sign of life. Until then, nothing must happen.
    pub async fn heartbeat(&mut self) {
        self.read(Some(": \n")).await.expect("the stream ended");
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
    }

    /// The next events.
    pub async fn some(&mut self, count: usize) -> Vec<Heard> {
        let mut some = Vec::new();
        while some.len() < count {
            some.push(self.next().await.expect("the stream ended"));
        }
        some
    }

    fn take(&mut self, block: &str) -> Option<Heard> {
        let (mut id, mut kind, mut data) = (None, None, None);
        for line in block.split('\n') {
            match line.split_once(": ") {
                Some(("", _)) => {}
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("event", text)) => kind = Some(text.to_owned()),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                Some(("retry", _)) => {}
                _ => panic!("{line:?} in {block:?}"),
            }
        }
        if kind.is_none() && id.is_some() && self.waiting.is_empty() {
            self.last.clone_from(&id);
        }
        Some(Heard { id, kind: kind?, data: data? })
    }
}
