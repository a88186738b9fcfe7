//! A TCP proxy in front of Redis that does to a connection what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Pass,
    /// A request ends its connection instead of going on to Redis.
    ResetBeforeSend,
    /// A request goes on, and its reply ends the connection instead of coming back.
    ResetAfterSend,
    /// A part of a reply comes back, and then the connection ends.
    CutReply,
    /// Everything takes longer.
    Delay,
    /// Nothing goes on in either direction, and nobody is told, not even when it is over: as a firewall forgets.
    BlackHole,
    /// Requests go on and no reply comes back.
    SwallowReplies,
    /// Whoever connects is turned away, and those who are connected too.
    Refuse,
}

const MOODS: [Mood; 8] = [
    Mood::Pass,
    Mood::ResetBeforeSend,
    Mood::ResetAfterSend,
    Mood::CutReply,
    Mood::Delay,
    Mood::BlackHole,
    Mood::SwallowReplies,
    Mood::Refuse,
];

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    mood: AtomicU8,
    delay_ms: AtomicU64,
    /// Counts the moods, so that connections that lost bytes end when one is over: what is missing in the middle of a
    /// stream no TCP would leave out.
    turns: watch::Sender<u64>,
}

impl Proxy {
    pub async fn start(redis_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (turns, _) = watch::channel(0);
        let state = State { mood: AtomicU8::new(0), delay_ms: AtomicU64::new(0), turns };
        let proxy = Self { address, state: Arc::new(state) };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let proxy = accepting.clone();
                tokio::spawn(async move {
                    if proxy.mood() == Mood::Refuse {
                        reset(&client);
                    } else if let Ok(redis) = TcpStream::connect(("127.0.0.1", redis_port)).await {
                        proxy.carry(client, redis).await;
                    }
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub fn set(&self, mood: Mood, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
        self.state.mood.store(mood as u8, Ordering::Release);
        self.state.turns.send_modify(|turn| *turn += 1);
    }

    fn mood(&self) -> Mood {
        MOODS[usize::from(self.state.mood.load(Ordering::Acquire))]
    }

    async fn carry(&self, client: TcpStream, redis: TcpStream) {
        let (_, _) = (client.set_nodelay(true), redis.set_nodelay(true));
        let mut turns = self.state.turns.subscribe();
        let (mut requests, mut replies) = ([0; 16 * 1024], [0; 16 * 1024]);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_redis, mut to_redis) = redis.into_split();
        // Whether bytes were kept from one side, and whether nothing will ever go through again.
        let (mut is_broken, mut is_forgotten) = (false, false);
        let is_clean = loop {
            tokio::select! {
                read = from_client.read(&mut requests) => {
                    let Ok(length @ 1..) = read else { break true };
                    match self.mood() {
                        Mood::ResetBeforeSend | Mood::Refuse => break false,
                        Mood::BlackHole => is_forgotten = true,
                        _ if is_broken || is_forgotten => {}
                        mood => {
                            if mood == Mood::Delay {
                                self.wait().await;
                            }
                            if to_redis.write_all(&requests[..length]).await.is_err() {
                                break false;
                            }
                        }
                    }
                }
                read = from_redis.read(&mut replies) => {
                    let Ok(length @ 1..) = read else { break false };
                    match self.mood() {
                        Mood::ResetAfterSend | Mood::Refuse => break false,
                        Mood::CutReply => {
                            let _ = to_client.write_all(&replies[..length / 2]).await;
                            break false;
                        }
                        Mood::BlackHole => is_forgotten = true,
                        Mood::SwallowReplies => is_broken = true,
                        _ if is_broken || is_forgotten => {}
                        mood => {
                            if mood == Mood::Delay {
                                self.wait().await;
                            }
                            if to_client.write_all(&replies[..length]).await.is_err() {
                                break true;
                            }
                        }
                    }
                }
                _ = turns.changed() => {
                    if is_broken && self.mood() == Mood::Pass || self.mood() == Mood::Refuse {
                        break false;
                    }
                }
            }
        };
        if !is_clean {
            reset(to_client.as_ref());
        }
    }

    async fn wait(&self) {
        tokio::time::sleep(Duration::from_millis(self.state.delay_ms.load(Ordering::Relaxed))).await;
    }
}

/// Lets the connection end with a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
