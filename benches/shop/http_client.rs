//! An HTTP client that costs next to nothing, for it shares the machine with what it measures: requests are bytes that
//! were put together beforehand, and of an answer only the status and the length are read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Caller, Verdict};

/// More header fields than either server sends.
const MAX_HEADERS: usize = 16;

/// One keep-alive connection.
pub struct HttpClient {
    stream: TcpStream,
    /// The last answer, head and body.
    buffer: Vec<u8>,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// Where an answer's parts are in the buffer.
struct Frame {
    status: u16,
    body_at: usize,
    end: usize,
}

impl HttpClient {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server accepts connections");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a request and reads its answer to the end.
    pub async fn exchange(&mut self, request: &[u8]) -> Answer<'_> {
        self.stream.write_all(request).await.expect("the server takes requests");
        self.buffer.clear();
        let mut frame = None;
        let frame = loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection in the middle of an answer");
            if frame.is_none() {
                frame = parse_head(&self.buffer);
            }
            match frame {
                Some(frame) if self.buffer.len() >= frame.end => break frame,
                _ => {}
            }
        };
        Answer { status: frame.status, body: &self.buffer[frame.body_at..frame.end] }
    }
}

/// `None` as long as the head is not complete.
fn parse_head(bytes: &[u8]) -> Option<Frame> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(bytes).expect("the server speaks HTTP/1.1");
    let httparse::Status::Complete(body_at) = status else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let length = length.expect("every answer has its length");
    Some(Frame { status: response.code.expect("a complete head has a status"), body_at, end: body_at + length })
}

impl Answer<'_> {
    pub fn verdict(&self) -> Verdict {
        match self.status {
            200 => Verdict::Accepted(1),
            409 if contains(self.body, br#""code":"insufficient_inventory""#) => Verdict::SoldOut,
            409 if contains(self.body, br#""code":"contention""#) => Verdict::Contention,
            _ => Verdict::Failed,
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The bytes of a GET.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// The bytes of a hold of one unit, for as long as the server's default says.
pub fn hold(sku: &str) -> Vec<u8> {
    hold_with(&format!(r#"{{"cartId":"cart-12345","sku":"{sku}","quantity":1}}"#))
}

/// The same for a number of seconds.
pub fn hold_for(sku: &str, seconds: u64) -> Vec<u8> {
    hold_with(&format!(r#"{{"cartId":"cart-12345","sku":"{sku}","quantity":1,"ttlSeconds":{seconds}}}"#))
}

fn hold_with(body: &str) -> Vec<u8> {
    post("/api/reservations/hold", body)
}

/// The bytes of an adjustment by this number of units.
pub fn adjust(sku: &str, delta: i64) -> Vec<u8> {
    post(&format!("/api/inventory/{sku}/adjust"), &format!(r#"{{"delta":{delta}}}"#))
}

/// The bytes of a request to put units of a SKU on sale.
pub fn seed(sku: &str, quantity: u64) -> Vec<u8> {
    post("/api/inventory/seed", &format!(r#"{{"sku":"{sku}","quantity":{quantity}}}"#))
}

fn post(target: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Some requests, each as likely as the others to be the next.
struct Choice {
    requests: Arc<[Vec<u8>]>,
    random: u64,
}

impl Choice {
    /// For the caller of this number, from 1: all that is asked of it is that the callers do not walk in step.
    fn new(requests: &Arc<[Vec<u8>]>, caller: usize) -> Self {
        Self { requests: Arc::clone(requests), random: caller as u64 * 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> &[u8] {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        &self.requests[(self.random % self.requests.len() as u64) as usize]
    }
}

/// Sends one of its requests after the other, in a random order.
pub struct Requester {
    client: HttpClient,
    requests: Choice,
}

impl Requester {
    /// This number of connections to `address`, all with the same requests.
    pub async fn crowd(address: SocketAddr, size: usize, requests: &Arc<[Vec<u8>]>) -> Vec<Self> {
        let mut crowd = Vec::with_capacity(size);
        for number in 1..=size {
            let client = HttpClient::connect(address).await;
            crowd.push(Self { client, requests: Choice::new(requests, number) });
        }
        crowd
    }
}

impl Caller for Requester {
    async fn call(&mut self) -> Verdict {
        self.client.exchange(self.requests.next()).await.verdict()
    }
}

/// Holds a unit of one of its SKUs, then confirms that reservation: two requests, one operation.
pub struct Buyer {
    client: HttpClient,
    holds: Choice,
    confirm: Confirm,
}

const ID_LENGTH: usize = 36;
/// The id of a reservation, as text.
pub type Id = [u8; ID_LENGTH];
const CONFIRM_BEFORE_ID: &str = "POST /api/reservations/";
const CONFIRM_AFTER_ID: &str = "/confirm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
const BEFORE_ID: &[u8] = br#"{"reservationId":""#;

impl Buyer {
    pub async fn crowd(address: SocketAddr, size: usize, skus: &[String]) -> Vec<Self> {
        let holds: Arc<[_]> = skus.iter().map(|sku| hold(sku)).collect();
        let mut crowd = Vec::with_capacity(size);
        for number in 1..=size {
            let client = HttpClient::connect(address).await;
            crowd.push(Self { client, holds: Choice::new(&holds, number), confirm: Confirm::new() });
        }
        crowd
    }
}

impl Caller for Buyer {
    async fn call(&mut self) -> Verdict {
        let held = self.client.exchange(self.holds.next()).await;
        let verdict = held.verdict();
        if verdict != Verdict::Accepted(1) {
            return verdict;
        }
        let id = held.body.strip_prefix(BEFORE_ID).expect("a record begins with its id");
        let confirm = self.confirm.of(id[..ID_LENGTH].try_into().expect("it has the length of an id"));
        self.client.exchange(confirm).await.verdict()
    }
}

/// SKUs in a cart.
pub const LINES: usize = 5;
/// Lists of items that are made up beforehand.
const LISTS: usize = 1000;

/// Holds a unit of any five of its SKUs for a cart that nobody has used before: one request, five operations.
pub struct CartHolder {
    client: HttpClient,
    /// What follows the id of the cart.
    rest: Choice,
    number: usize,
    carts: u64,
}

impl CartHolder {
    pub async fn crowd(address: SocketAddr, size: usize, skus: &[String]) -> Vec<Self> {
        // The same for all sides.
        let mut random = Rng::with_seed(1);
        let rest: Arc<[_]> = (0..LISTS)
            .map(|_| {
                let lines = random.choose_multiple(skus, LINES).into_iter();
                let lines: Vec<_> = lines.map(|sku| format!(r#"{{"sku":"{sku}","quantity":1}}"#)).collect();
                post("/hold", &format!(r#"{{"items":[{}]}}"#, lines.join(",")))["POST ".len()..].to_vec()
            })
            .collect();
        let mut crowd = Vec::with_capacity(size);
        for number in 1..=size {
            let client = HttpClient::connect(address).await;
            crowd.push(Self { client, rest: Choice::new(&rest, number), number, carts: 0 });
        }
        crowd
    }
}

impl Caller for CartHolder {
    async fn call(&mut self) -> Verdict {
        self.carts += 1;
        let mut request = format!("POST /api/carts/c{}-{}", self.number, self.carts).into_bytes();
        request.extend_from_slice(self.rest.next());
        match self.client.exchange(&request).await.verdict() {
            Verdict::Accepted(_) => Verdict::Accepted(LINES as u64),
            refusal => refusal,
        }
    }
}

/// Confirms reservations that are held already, as long as there are any.
pub struct Settler {
    client: HttpClient,
    held: Held,
    confirm: Confirm,
}

/// Reservations that nobody has taken yet to confirm them.
pub type Held = Arc<Mutex<Vec<Id>>>;

impl Settler {
    pub async fn crowd(address: SocketAddr, size: usize, held: &Held) -> Vec<Self> {
        let mut crowd = Vec::with_capacity(size);
        for _ in 0..size {
            let client = HttpClient::connect(address).await;
            crowd.push(Self { client, held: Arc::clone(held), confirm: Confirm::new() });
        }
        crowd
    }

    fn held(&self) -> MutexGuard<'_, Vec<Id>> {
        self.held.lock().expect("no caller panicked")
    }
}

impl Caller for Settler {
    async fn call(&mut self) -> Verdict {
        let id = self.held().pop().expect("there was one more");
        self.client.exchange(self.confirm.of(&id)).await.verdict()
    }

    fn has_more(&self) -> bool {
        !self.held().is_empty()
    }
}

/// The bytes of a confirm, with a place for the id.
struct Confirm(Vec<u8>);

impl Confirm {
    fn new() -> Self {
        Self([CONFIRM_BEFORE_ID, &"0".repeat(ID_LENGTH), CONFIRM_AFTER_ID].concat().into_bytes())
    }

    fn of(&mut self, id: &Id) -> &[u8] {
        self.0[CONFIRM_BEFORE_ID.len()..][..ID_LENGTH].copy_from_slice(id);
        &self.0
    }
}
