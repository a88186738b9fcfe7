//! From nothing to a connection that Redis has greeted: by TCP, TLS or a socket of this machine.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError,
};
use futures_util::future::{BoxFuture, FutureExt, pending, select_ok};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{self, Files};
use super::{Failure, OpenError, sentinel, sort, tls, tls_error, url};

/// How long one attempt to connect may take: half of a call, so that another attempt soon follows a failed one.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// The same with TLS: a handshake is another round trip, and work for both sides.
const TLS_CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// How to connect to one Redis.
pub(super) struct Connector {
    place: Place,
    greeting: RedisConnectionInfo,
    files: Files,
    /// Of a sentinel: notified of its messages, and of the end of the connection.
    news: Option<Arc<Notify>>,
}

enum Place {
    Host { host: String, port: u16, has_tls: bool },
    Socket(PathBuf),
}

/// One open connection, and whether it is known to be dead.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) connection: MultiplexedConnection,
    lost: Arc<AtomicBool>,
    /// Moves the bytes; it ends with the last clone.
    _driver: Arc<JoinSet<()>>,
}

impl Connector {
    /// # Errors
    /// When the URL is not one, or does not go with the files, or a file cannot be used.
    pub(super) fn new(url: &str, files: Files) -> Result<Self, OpenError> {
        let info = url::parse(url)?;
        let place = Place::of(&info)?;
        let has_tls = matches!(place, Place::Host { has_tls: true, .. });
        for (setting, is_given) in [("--redis-ca", files.ca.is_some()), ("--redis-cert", files.client.is_some())] {
            if is_given && !has_tls {
                return Err(OpenError::Files(format!(
                    "{setting} is for TLS, and --redis-url does not begin with rediss:// or rediss+sentinel://: it would \
                     not be used"
                )));
            }
        }
        // With RESP3 a lost connection is noticed at once, not when the next request fails on it.
        let mut greeting = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        match (greeting.password(), &files.password) {
            (Some(_), Some(_)) => {
                let why = "there is a password in --redis-url and another in --redis-password-file: give one of them";
                return Err(OpenError::Files(why.to_owned()));
            }
            // Otherwise the user would be ignored.
            (None, None) if greeting.username().is_some() => greeting = greeting.set_password(""),
            _ => {}
        }
        let connector = Self { place, greeting, files, news: None };
        connector.read_files()?;
        Ok(connector)
    }

    /// Whether the files can be used now.
    ///
    /// # Errors
    /// When one of them cannot.
    pub(super) fn read_files(&self) -> Result<(), OpenError> {
        if self.has_tls() {
            tls::config(&self.files)?;
        }
        self.password().map(drop)
    }

    fn has_tls(&self) -> bool {
        matches!(self.place, Place::Host { has_tls: true, .. })
    }

    /// The password in the file, if there is one.
    fn password(&self) -> Result<Option<String>, OpenError> {
        self.files.password.as_deref().map(|file| files::password(file, self.settings()[0])).transpose()
    }

    /// Where the password and the user are set.
    fn settings(&self) -> [&'static str; 2] {
        match self.news {
            None => ["--redis-password-file", "the user"],
            Some(_) => ["--sentinel-password-file", "sentinelUser"],
        }
    }

    /// Its host and port, and whether by TLS; `None` for a socket.
    pub(super) fn host(&self) -> Option<(&str, u16, bool)> {
        match &self.place {
            Place::Host { host, port, has_tls } => Some((host, *port, *has_tls)),
            Place::Socket(_) => None,
        }
    }

    /// How to connect to another host in the same way.
    pub(super) fn at(&self, host: String, port: u16) -> Self {
        let place = Place::Host { host, port, has_tls: self.has_tls() };
        Self { place, greeting: self.greeting.clone(), files: self.files.clone(), news: None }
    }

    /// How to connect to a sentinel, with TLS if Redis has it, and as another user. It notifies of `news`.
    pub(super) fn of_sentinel(&self, host: String, port: u16, user: Option<&str>, news: Arc<Notify>) -> Self {
        let mut greeting = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = user {
            greeting = greeting.set_username(user).set_password("");
        }
        let files = Files { password: self.files.sentinel_password.clone(), ..self.files.clone() };
        Self { place: Place::Host { host, port, has_tls: self.has_tls() }, greeting, files, news: Some(news) }
    }

    /// How long one attempt to connect may take.
    pub(super) fn timeout(&self) -> Duration {
        if self.has_tls() { TLS_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT }
    }

    pub(super) fn database(&self) -> i64 {
        self.greeting.db()
    }

    /// Connects, within [`CONNECT_TIMEOUT`] or [`TLS_CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`Failure::Barred`] when a later attempt would fail too, and [`Failure::Unreachable`] otherwise.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        self.connect_until(pending().boxed()).await
    }

    /// The same. The connection ends with `outdated`.
    pub(super) async fn connect_until(&self, outdated: BoxFuture<'static, ()>) -> Result<Link, Failure> {
        let deadline = Deadline::after(self.timeout());
        match &self.place {
            Place::Socket(path) => {
                let stream = deadline.ends("no connection", UnixStream::connect(path)).await?;
                self.greet(stream.map_err(unreachable)?, deadline, outdated).await
            }
            Place::Host { host, port, has_tls } => {
                let stream = deadline.ends("no connection", connect(host, *port)).await?.map_err(unreachable)?;
                match has_tls {
                    false => self.greet(stream, deadline, outdated).await,
                    true => self.greet(self.secure(host, stream, deadline).await?, deadline, outdated).await,
                }
            }
        }
    }

    async fn secure(&self, host: &str, stream: TcpStream, deadline: Deadline) -> Result<TlsStream<TcpStream>, Failure> {
        let config = tls::config(&self.files)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Failure::Barred(format!("{host}, the host of --redis-url, cannot be the name of a certificate"))
        })?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        deadline.ends("no answer to the TLS handshake, perhaps because it does not speak TLS there,", handshake).await?.map_err(
            |error| match tls_error::in_io(&error) {
                Some(error) => tls_error::explain(error, host, self.files.client.is_some()),
                None => Failure::Unreachable(format!(
                    "it closed the connection during the TLS handshake, perhaps because it does not speak TLS there: {error}"
                )),
            },
        )
    }

    /// Says who we are, and chooses the database.
    async fn greet<S>(&self, stream: S, deadline: Deadline, outdated: BoxFuture<'static, ()>) -> Result<Link, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut greeting = self.greeting.clone();
        if let Some(password) = self.password()? {
            greeting = greeting.set_password(password);
        }
        let lost = Arc::new(AtomicBool::new(false));
        let (flag, news) = (Arc::clone(&lost), self.news.clone());
        let config = AsyncConnectionConfig::new()
            // The caller limits each call as a whole; a second timeout would compete with it.
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    flag.store(true, Ordering::Release);
                }
                if let (Some(news), PushKind::Disconnection | PushKind::Message) = (&news, push.kind) {
                    news.notify_one();
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let greeted = MultiplexedConnection::new_with_config(&greeting, stream, config);
        let (mut connection, moving) =
            deadline.ends("a connection, but no answer", greeted).await?.map_err(|error| self.not_greeted(error))?;
        let (mut driver, flag) = (JoinSet::new(), Arc::clone(&lost));
        driver.spawn(async move {
            // Nothing uses the connection any more when what was sent on it has no answer.
            let outdated = async {
                outdated.await;
                flag.store(true, Ordering::Release);
            };
            tokio::select! {
                () = moving => {}
                () = outdated => {}
            }
        });
        if self.news.is_some() {
            let subscribed = connection.subscribe(&sentinel::CHANNELS);
            deadline.ends("no news", subscribed).await?.map_err(|error| self.not_greeted(error))?;
        }
        Ok(Link { connection, lost, _driver: Arc::new(driver) })
    }

    fn not_greeted(&self, error: RedisError) -> Failure {
        let tls = match &self.place {
            Place::Host { host, has_tls: true, .. } => Some(host),
            _ => None,
        };
        if let (Some(host), Some(error)) = (tls, tls_error::in_redis(&error)) {
            return tls_error::explain(error, host, self.files.client.is_some());
        }
        let (kind, text) = (error.kind(), error.to_string());
        match (sort(error), tls) {
            (Failure::Refused { code, message }, _) => self.not_let_in(&code, &message),
            // The client makes an error of its own of this one.
            (_, _) if matches!(kind, ErrorKind::Server(_)) => Failure::Barred(format!(
                "it does not open database {}, which --redis-url names: {text}",
                self.greeting.db()
            )),
            (_, _) if matches!(kind, ErrorKind::Parse | ErrorKind::RESP3NotSupported) => {
                Failure::Barred(format!("what answers there is not Redis 7 or later, or Valkey: {text}"))
            }
            (_, None) => Failure::Unreachable(format!(
                "it closed the connection without an answer: if it speaks TLS there, --redis-url must begin with \
                 rediss:// ({text})"
            )),
            (_, Some(_)) if self.files.client.is_none() => Failure::Unreachable(format!(
                "it closed the connection without an answer: if it wants a certificate of its clients, name the files \
                 (--redis-cert, --redis-key) ({text})"
            )),
            (_, Some(_)) => Failure::Unreachable(format!("it closed the connection without an answer: {text}")),
        }
    }

    /// Why Redis has refused the user, or everybody.
    fn not_let_in(&self, code: &str, message: &str) -> Failure {
        let [setting, user] = self.settings();
        let source = match &self.files.password {
            Some(file) => format!("the password in {} ({setting}), or {user} in --redis-url", file.display()),
            None => format!("{user} or the password in --redis-url"),
        };
        match code {
            "WRONGPASS" => Failure::Barred(format!("{source} is wrong: {code} {message}")),
            "NOAUTH" if self.news.is_some() => {
                Failure::Barred(format!("it wants a password, and there is no {setting}: {code} {message}"))
            }
            "NOAUTH" => Failure::Barred(format!(
                "it wants a password, and neither --redis-url has one nor is there a {setting}: {code} {message}"
            )),
            _ => Failure::Unreachable(format!("it refused: {code} {message}")),
        }
    }
}

/// Where it connects to: host and port or socket path, and the database unless it is 0; without any credentials.
impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}")?,
            Place::Host { host, port, .. } => write!(f, "{host}:{port}")?,
            Place::Socket(path) => write!(f, "{}", path.display())?,
        }
        match self.greeting.db() {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

impl Place {
    fn of(info: &ConnectionInfo) -> Result<Self, OpenError> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(Self::Host { host: host.clone(), port: *port, has_tls: false }),
            ConnectionAddr::TcpTls { host, port, .. } => {
                Ok(Self::Host { host: host.clone(), port: *port, has_tls: true })
            }
            ConnectionAddr::Unix(path) => Ok(Self::Socket(path.clone())),
            _ => Err(OpenError::Url("it names neither a host nor a socket".to_owned())),
        }
    }
}

impl Link {
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(super) fn give_up(&self) {
        self.lost.store(true, Ordering::Release);
    }
}

/// Tries all addresses of a host at once; the first that answers is used.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let attempts: Vec<_> =
        lookup_host((host, port)).await?.map(|address| TcpStream::connect(address).boxed()).collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// When the steps of an attempt, or of a call, must be done.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) allowed: Duration,
}

impl Deadline {
    pub(super) fn after(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }

    /// Ends a step in time; `otherwise` says what there was not.
    async fn ends<T>(self, otherwise: &str, step: impl Future<Output = T>) -> Result<T, Failure> {
        let late = |_| Failure::Unreachable(format!("{otherwise} within {:?}", self.allowed));
        timeout_at(self.at, step).await.map_err(late)
    }
}

fn unreachable(error: io::Error) -> Failure {
    Failure::Unreachable(error.to_string())
}
