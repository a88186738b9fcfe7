//! A TCP proxy in front of Redis that makes the faults of a network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ProxyMode {
    Pass,
    /// A request is not passed on, and the connection is reset.
    ResetBeforeSend,
    /// A request is passed on. At its reply the connection is reset.
    ResetAfterSend,
    /// A part of a reply is passed on, and then the connection is reset.
    CutReply,
    /// Everything takes longer.
    Delay,
    /// Nothing is passed on in either direction, without any notice, even after the fault: like a firewall that forgot
    /// the connection.
    BlackHole,
    /// Requests are passed on, and replies are not.
    SwallowReplies,
    /// New connections are reset, and existing ones too.
    Refuse,
}

const MODES: [ProxyMode; 8] = [
    ProxyMode::Pass,
    ProxyMode::ResetBeforeSend,
    ProxyMode::ResetAfterSend,
    ProxyMode::CutReply,
    ProxyMode::Delay,
    ProxyMode::BlackHole,
    ProxyMode::SwallowReplies,
    ProxyMode::Refuse,
];

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    mode: AtomicU8,
    delay_ms: AtomicU64,
    /// Counts the changes of mode. A connection that lost bytes ends when the mode ends: TCP would never leave out
    /// bytes in the middle of a stream.
    turns: watch::Sender<u64>,
}

impl Proxy {
    pub async fn start(redis_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (turns, _) = watch::channel(0);
        let state = State { mode: AtomicU8::new(0), delay_ms: AtomicU64::new(0), turns };
        let proxy = Self { address, state: Arc::new(state) };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let proxy = accepting.clone();
                tokio::spawn(async move {
                    if proxy.mode() == ProxyMode::Refuse {
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

    pub fn set(&self, mode: ProxyMode, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
        self.state.mode.store(mode as u8, Ordering::Release);
        self.state.turns.send_modify(|turn| *turn += 1);
    }

    fn mode(&self) -> ProxyMode {
        MODES[usize::from(self.state.mode.load(Ordering::Acquire))]
    }

    async fn carry(&self, client: TcpStream, redis: TcpStream) {
        let (_, _) = (client.set_nodelay(true), redis.set_nodelay(true));
        let mut turns = self.state.turns.subscribe();
        let (mut requests, mut replies) = ([0; 16 * 1024], [0; 16 * 1024]);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_redis, mut to_redis) = redis.into_split();
        // Whether bytes of one side were lost, and whether nothing will ever be passed on again.
        let (mut is_broken, mut is_forgotten) = (false, false);
        let is_clean = loop {
            tokio::select! {
                read = from_client.read(&mut requests) => {
                    let Ok(length @ 1..) = read else { break true };
                    match self.mode() {
                        ProxyMode::ResetBeforeSend | ProxyMode::Refuse => break false,
                        ProxyMode::BlackHole => is_forgotten = true,
                        _ if is_broken || is_forgotten => {}
                        mode => {
                            if mode == ProxyMode::Delay {
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
                    match self.mode() {
                        ProxyMode::ResetAfterSend | ProxyMode::Refuse => break false,
                        ProxyMode::CutReply => {
                            let _ = to_client.write_all(&replies[..length / 2]).await;
                            break false;
                        }
                        ProxyMode::BlackHole => is_forgotten = true,
                        ProxyMode::SwallowReplies => is_broken = true,
                        _ if is_broken || is_forgotten => {}
                        mode => {
                            if mode == ProxyMode::Delay {
                                self.wait().await;
                            }
                            if to_client.write_all(&replies[..length]).await.is_err() {
                                break true;
                            }
                        }
                    }
                }
                _ = turns.changed() => {
                    if is_broken && self.mode() == ProxyMode::Pass || self.mode() == ProxyMode::Refuse {
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

/// Makes the connection end with a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
