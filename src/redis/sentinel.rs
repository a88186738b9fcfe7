//! A master that sentinels name. They are asked at each connect, and in between they tell of a fail-over.
//!
//! After a fail-over a sentinel may name the old master for another second, and the old master, if it lives, calls itself a
//! master for up to ten. Of a majority's answers the one with the highest `config-epoch` is right: it is the number of the
//! fail-over that made this master, and no two have the same.

mod url;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Value, cmd, pipe};
use futures_util::future::{BoxFuture, FutureExt, pending};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::info;

use super::connector::{Connector, Deadline, Link};
use super::node::Node;
use super::reads::typed;
use super::way::Way;
use super::{Failure, Files, OpenError, sort};

/// The channels on which a sentinel tells of a new master: when it has promoted it, and when it has learned of it.
pub(super) const CHANNELS: [&str; 2] = ["+promoted-slave", "+switch-master"];

/// How long the others are waited for when a majority has answered: the only one that knows of a fail-over may be the last.
const STRAGGLERS: Duration = Duration::from_millis(20);

/// How long the master may take to say that it is one.
const ROLE_TIMEOUT: Duration = Duration::from_millis(200);

/// How often each sentinel is asked without a reason.
const POLL: Duration = Duration::from_secs(1);

/// How long an answer outweighs those with a lower epoch. Sentinels tell each other within 2 s. After this time, sentinels that
/// were set up anew are believed.
const MEMORY: Duration = Duration::from_secs(10);

/// The sentinels of a master.
pub(super) struct Sentinels {
    /// The name under which they know it.
    name: Arc<str>,
    each: Vec<Sentinel>,
    /// How to connect to a Redis that they name; its place is another.
    redis: Connector,
    newest: Newest,
    /// One for each sentinel. They end when their runtime ends, or with this.
    watchers: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Sentinel {
    node: Arc<Node>,
    /// How long its answer may take: as long as a connection to it, which is mostly there already.
    patience: Duration,
    name: Arc<str>,
    /// Notified of a message on the [`CHANNELS`], and of the end of the connection.
    news: Arc<Notify>,
}

/// The master that a sentinel has named.
#[derive(Debug, Clone)]
struct Master {
    host: String,
    port: u16,
    /// The number of the fail-over that made it one.
    epoch: u64,
    heard: Instant,
}

/// Of all that was heard lately, the answer with the highest epoch.
#[derive(Clone)]
struct Newest(Arc<watch::Sender<Option<Master>>>);

impl Sentinels {
    /// Whether this is for URLs like this one.
    pub(super) fn are_in(url: &str) -> bool {
        url::scheme(url).is_some()
    }

    /// # Errors
    /// When the URL is not one, or does not go with the files, or a file cannot be used.
    pub(super) fn new(url: &str, files: Files) -> Result<Self, OpenError> {
        let url = url::parse(url)?;
        let name: Arc<str> = url.master.into();
        let redis = Connector::new(&url.redis, files)?;
        let sentinel = |(host, port)| {
            let news = Arc::<Notify>::default();
            let connector = redis.of_sentinel(host, port, url.user.as_deref(), Arc::clone(&news));
            let patience = connector.timeout();
            let node = Arc::new(Node::of_sentinel(Arc::new(Way::Direct(connector))));
            Sentinel { node, patience, name: Arc::clone(&name), news }
        };
        let each = url.sentinels.into_iter().map(sentinel).collect();
        let newest = Newest(Arc::new(watch::Sender::new(None)));
        let sentinels = Self { name, each, redis, newest, watchers: Mutex::default() };
        sentinels.read_files()?;
        Ok(sentinels)
    }

    /// Whether the files can be used now.
    ///
    /// # Errors
    /// When one of them cannot.
    pub(super) fn read_files(&self) -> Result<(), OpenError> {
        self.redis.read_files()?;
        self.each.iter().try_for_each(|sentinel| sentinel.node.way().read_files())
    }

    /// How to connect to a Redis at this place.
    pub(super) fn at(&self, host: String, port: u16) -> Connector {
        self.redis.at(host, port)
    }

    /// Connects to the master. The connection ends when they name another.
    ///
    /// # Errors
    /// [`Failure::Barred`] when a later attempt would fail too, and [`Failure::Unreachable`] otherwise.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        let master = self.master().await?;
        let connector = self.at(master.host.clone(), master.port);
        let link = match connector.connect_until(self.newest.outdates(&master)).await {
            Ok(link) => is_master(&link).await.map(|()| link),
            Err(failure) => Err(failure),
        };
        link.map_err(|failure| about(&format!("{connector}, which the sentinels name as {}", self.name), failure))
    }

    /// The master that a majority of the sentinels name, or one of them by a later fail-over.
    async fn master(&self) -> Result<Master, Failure> {
        self.keep_watching();
        let majority = self.each.len() / 2 + 1;
        let mut asked: FuturesUnordered<_> =
            self.each.iter().map(|sentinel| async move { (sentinel, sentinel.ask().await) }).collect();
        let (mut named, mut unknown, mut failures, mut until) = (0, 0, Vec::new(), None);
        loop {
            let next = match until {
                None => asked.next().await,
                Some(until) => timeout_at(until, asked.next()).await.ok().flatten(),
            };
            let Some((sentinel, answer)) = next else { break };
            match answer {
                Ok(Some(master)) => {
                    self.newest.hear(master);
                    named += 1;
                }
                Ok(None) => unknown += 1,
                Err(failure) => failures.push((sentinel.node.way().to_string(), failure)),
            }
            if named + unknown >= majority {
                until.get_or_insert_with(|| Instant::now() + STRAGGLERS);
            }
        }
        match self.newest.get() {
            _ if unknown >= majority => Err(Failure::Barred(format!(
                "the sentinels know no master of the name {}: see master= in --redis-url",
                self.name
            ))),
            Some(master) if named + unknown >= majority => Ok(master),
            _ => Err(self.no_majority(named + unknown, failures)),
        }
    }

    fn no_majority(&self, answered: usize, failures: Vec<(String, Failure)>) -> Failure {
        let all = self.each.len();
        let is_barred = failures.len() == all && failures.iter().all(|(_, why)| matches!(why, Failure::Barred(_)));
        let why: Vec<_> = failures.into_iter().map(|(address, why)| format!("{address}: {}", reason(&why))).collect();
        let why = why.join("; ");
        match answered {
            _ if is_barred => Failure::Barred(format!("no sentinel can be used ({why})")),
            0 => Failure::Unreachable(format!("no sentinel can be reached ({why})")),
            _ => Failure::Unreachable(format!(
                "only {answered} of the {all} sentinels in --redis-url can be reached, which is no majority ({why})"
            )),
        }
    }

    /// Starts the watchers, unless they are at work.
    fn keep_watching(&self) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        while watchers.try_join_next().is_some() {}
        if watchers.len() == self.each.len() {
            return;
        }
        watchers.abort_all();
        watchers.detach_all();
        for sentinel in self.each.iter().cloned() {
            watchers.spawn(sentinel.watch(self.newest.clone()));
        }
    }
}

impl Sentinel {
    /// The master as this sentinel knows it; `None` if it knows none of this name.
    async fn ask(&self) -> Result<Option<Master>, Failure> {
        // In this order: a sentinel that leads a fail-over gives the new address first here and later there, and what it said
        // of the epoch before is then not that of a later master.
        let mut questions = pipe();
        questions.cmd("SENTINEL").arg("MASTER").arg(&*self.name);
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*self.name);
        let answers =
            self.node.each(questions, Deadline::after(self.patience)).await.map_err(|failure| match failure {
                Failure::NoReply(why) => Failure::Unreachable(why),
                other => other,
            })?;
        let [about, address] =
            <[_; 2]>::try_from(answers).map_err(|_| Failure::Malformed("not two answers".to_owned()))?;
        let address = address.map_err(|failure| match failure {
            Failure::Refused { code, message } if message.contains("unknown command") => {
                Failure::Barred(format!("what answers there is no sentinel: {code} {message}"))
            }
            other => other,
        })?;
        let Some((host, port)) = typed::<Option<(String, u16)>>(address)? else { return Ok(None) };
        let about: HashMap<String, String> = typed(about?)?;
        let epoch = about.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.ok_or_else(|| Failure::Malformed("it tells no config-epoch".to_owned()))?;
        Ok(Some(Master { host, port, epoch, heard: Instant::now() }))
    }

    /// Asks whenever there may be news.
    async fn watch(self, newest: Newest) {
        loop {
            // Why it cannot be asked is told where its answer is needed.
            if let Ok(Some(master)) = self.ask().await {
                newest.hear(master);
            }
            let _ = timeout(POLL, self.news.notified()).await;
        }
    }
}

impl Newest {
    fn get(&self) -> Option<Master> {
        self.0.borrow().clone()
    }

    fn hear(&self, master: Master) {
        self.0.send_if_modified(|newest| {
            let Some(known) = newest else {
                *newest = Some(master);
                return true;
            };
            let is_same = known.host == master.host && known.port == master.port;
            if master.epoch > known.epoch || known.heard.elapsed() > MEMORY {
                if !is_same {
                    info!(from = %known, to = %master, "the sentinels name another master");
                }
                *known = master;
                return true;
            }
            if is_same && master.epoch == known.epoch {
                known.heard = master.heard;
            }
            false
        });
    }

    /// Ends when another is the master by a later fail-over than that of `master`.
    fn outdates(&self, master: &Master) -> BoxFuture<'static, ()> {
        let (mut newest, old) = (self.0.subscribe(), master.clone());
        async move {
            let is_later = |master: &Master| master.epoch > old.epoch && !master.is_at(&old.host, old.port);
            if newest.wait_for(|newest| newest.as_ref().is_some_and(is_later)).await.is_err() {
                pending().await
            }
        }
        .boxed()
    }
}

impl Master {
    fn is_at(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The name of the master and its sentinels, without any credentials.
impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentinels: Vec<_> = self.each.iter().map(|sentinel| sentinel.node.way().to_string()).collect();
        write!(f, "{} (sentinels {})", self.name, sentinels.join(", "))?;
        match self.redis.database() {
            0 => Ok(()),
            database => write!(f, "/{database}"),
        }
    }
}

/// Asks Redis itself. A sentinel may not know yet.
async fn is_master(link: &Link) -> Result<(), Failure> {
    let mut connection = link.connection.clone();
    let role = cmd("ROLE");
    let answered = timeout(ROLE_TIMEOUT, connection.send_packed_command(&role)).await;
    let role =
        answered.map_err(|_| Failure::Unreachable(format!("it did not tell its role within {ROLE_TIMEOUT:?}")))?;
    let role = role.and_then(Value::extract_error).map_err(|error| match sort(error) {
        Failure::Refused { code, message } if code == "NOPERM" => {
            Failure::Barred(format!("the user at Redis must have the right to ROLE: {code} {message}"))
        }
        Failure::Refused { code, message } => Failure::Unreachable(format!("it refused: {code} {message}")),
        other => Failure::Unreachable(reason(&other)),
    })?;
    let Value::Array(parts) = role else { return Err(Failure::Malformed("its role is not a list".to_owned())) };
    let role: String = parts.into_iter().next().map_or(Ok(String::new()), typed)?;
    if role == "master" {
        return Ok(());
    }
    Err(Failure::Unreachable(format!("it is no master, or not yet: its role is {role}")))
}

fn about(who: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Barred(why) => Failure::Barred(format!("{who}: {why}")),
        other => Failure::Unreachable(format!("{who}: {}", reason(&other))),
    }
}

/// Without the words for all failures of its kind.
fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Unreachable(why) | Failure::Barred(why) | Failure::Malformed(why) | Failure::NoReply(why) => {
            why.clone()
        }
        Failure::Refused { code, message } => format!("it refused: {code} {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(host: &str, epoch: u64) -> Master {
        Master { host: host.to_owned(), port: 1, epoch, heard: Instant::now() }
    }

    #[tokio::test]
    async fn a_later_fail_over_outdates_an_earlier_and_not_the_reverse() {
        let newest = Newest(Arc::new(watch::Sender::new(None)));
        newest.hear(master("old", 3));
        let outdated = newest.outdates(&master("old", 3));
        newest.hear(master("stale", 2));
        assert_eq!(newest.get().unwrap().host, "old");
        // The same one by a later fail-over is still the same.
        newest.hear(master("old", 4));
        let still = newest.outdates(&master("old", 3));
        assert!(still.now_or_never().is_none());
        newest.hear(master("new", 5));
        outdated.await;
        assert_eq!(newest.get().unwrap().host, "new");
    }

    #[test]
    fn what_was_not_heard_for_long_is_forgotten() {
        let newest = Newest(Arc::new(watch::Sender::new(None)));
        let heard = |host, epoch, ago| Master { heard: Instant::now() - ago, ..master(host, epoch) };
        newest.hear(heard("known", 7, MEMORY * 2));
        newest.hear(heard("known", 7, MEMORY / 2));
        newest.hear(master("anew", 0));
        assert_eq!(newest.get().unwrap().host, "known", "it was heard again");
        let newest = Newest(Arc::new(watch::Sender::new(None)));
        newest.hear(heard("known", 7, MEMORY * 2));
        newest.hear(master("anew", 0));
        assert_eq!(newest.get().unwrap().host, "anew");
    }
}
