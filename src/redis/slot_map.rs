//! Which node of a cluster has which slot, as the nodes themselves tell. All handles of a cluster share it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Value, cmd};
use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

use super::connector::{Connector, Deadline};
use super::node::Node;
use super::slots::SLOTS;
use super::way::Way;
use super::{CALL_TIMEOUT, Failure};

/// How long a call waits before it tries again, and the least time between two refreshes of the map.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How much later than the first answer one may come that is about all slots.
const GRACE: Duration = Duration::from_millis(100);

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

pub(super) struct SlotMap {
    /// What `--redis-url` names.
    seeds: Vec<Address>,
    has_tls: bool,
    known: RwLock<Known>,
    /// The latest refresh, and when it began: in progress, or its result.
    latest: Mutex<Option<(Instant, Refresh)>>,
    /// Separate connections for the questions: an answer must not wait behind the replies of large calls.
    nodes: Nodes,
}

type Refresh = future::Shared<BoxFuture<'static, Result<(), Failure>>>;

struct Known {
    /// The primary of each slot.
    owners: Vec<Option<Address>>,
    /// What nodes are called in redirections -> where they are reached, which may be a host name.
    addresses: HashMap<Address, Address>,
}

/// The nodes that one handle talks to, each with one connection.
pub(super) struct Nodes {
    connector: Arc<Connector>,
    open: RwLock<HashMap<Address, Arc<Node>>>,
}

/// A node of the cluster, whether it has slots or not.
pub(super) struct Member {
    pub(super) address: Address,
    pub(super) is_replica: bool,
}

impl SlotMap {
    pub(super) fn new(connector: Arc<Connector>, seeds: Vec<Address>, has_tls: bool) -> Self {
        let known = Known { owners: vec![None; SLOTS], addresses: HashMap::new() };
        Self { seeds, has_tls, known: RwLock::new(known), latest: Mutex::new(None), nodes: Nodes::new(connector) }
    }

    /// The primary of a slot, as far as is known.
    pub(super) fn owner(&self, slot: u16) -> Option<Address> {
        self.known().owners[usize::from(slot)].clone()
    }

    /// The primaries that have slots.
    ///
    /// # Errors
    /// When a slot has none: what is in it would be missed.
    pub(super) fn owners(&self) -> Result<HashSet<Address>, Failure> {
        let known = self.known();
        let all: Option<HashSet<Address>> = known.owners.iter().cloned().collect();
        all.ok_or_else(|| no_owner(known.owners.iter().position(Option::is_none).unwrap_or_default()))
    }

    /// Where the node is that a redirection from `asked` names: `SLOT HOST:PORT`. `None` when it does not say.
    pub(super) fn named(&self, redirection: &str, asked: &Address) -> Option<Address> {
        let (host, port) = redirection.split(' ').nth(1)?.rsplit_once(':')?;
        let address = Address { host: host_of(Some(host), None, asked)?, port: port.parse().ok()? };
        Some(self.known().addresses.get(&address).cloned().unwrap_or(address))
    }

    /// Notes what a redirection told.
    pub(super) fn patch(&self, slot: u16, owner: Address) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).owners[usize::from(slot)] = Some(owner);
    }

    /// Whether it is one of the nodes that the map names.
    pub(super) fn lists(&self, address: &Address) -> bool {
        self.known().addresses.values().any(|known| known == address)
    }

    /// Reads the map again. Goes on in a task of its own, whether somebody waits for it or not. One at a time, and not more often than
    /// each [`PAUSE`]: then the result of the latest is given.
    pub(super) fn refresh(self: &Arc<Self>) -> impl Future<Output = Result<(), Failure>> + use<> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((began, refresh)) = &*latest
            && (refresh.peek().is_none() || began.elapsed() < PAUSE)
        {
            return refresh.clone();
        }
        let map = Arc::clone(self);
        let refresh = async move {
            let known = map.ask(cmd("CLUSTER").arg("SLOTS"), Known::read, Known::is_whole).await?;
            *map.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            Ok(())
        };
        let refresh = refresh.boxed().shared();
        tokio::spawn(refresh.clone());
        *latest = Some((Instant::now(), refresh.clone()));
        refresh
    }

    /// All nodes that have not failed, also those without slots and those that `CLUSTER SLOTS` omits: replicas that have not received
    /// anything yet.
    pub(super) async fn members(&self) -> Result<Vec<Member>, Failure> {
        let port = if self.has_tls { "tls-port" } else { "port" };
        let read = |reply, asked: &Address| read_members(reply, asked, port);
        Ok(self.ask(cmd("CLUSTER").arg("SHARDS"), read, |(_, slots)| *slots == SLOTS).await?.0)
    }

    /// Asks all known nodes at once; the first answer that is about all slots counts. A node that has just joined, or has lost
    /// the others, knows only a part.
    async fn ask<T>(
        &self,
        question: &Cmd,
        read: impl Fn(Value, &Address) -> Option<T>,
        is_whole: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let deadline = Deadline::after(CALL_TIMEOUT);
        let mut asked: HashSet<Address> = self.known().addresses.values().cloned().collect();
        asked.extend(self.seeds.iter().cloned());
        let ask = async |address: Address| {
            let node = self.nodes.at(&address, |address| self.lists(address));
            let reply = node.call(question, deadline).await?;
            read(reply, &address).ok_or_else(|| Failure::Unreachable(format!("{address} does not know the cluster")))
        };
        let mut answers: FuturesUnordered<_> = asked.into_iter().map(ask).collect();
        let (mut part, mut why) = (None, None);
        let mut end = deadline.at;
        while let Ok(Some(answer)) = timeout_at(end, answers.next()).await {
            match answer {
                Ok(answer) if is_whole(&answer) => return Ok(answer),
                Ok(answer) => {
                    part.get_or_insert(answer);
                    end = end.min(Instant::now() + GRACE);
                }
                // It is only a question.
                Err(Failure::NoReply(text)) => why = Some(Failure::Unreachable(text)),
                // That of another node may help, if there is one.
                Err(Failure::Barred(text)) => why = why.or(Some(Failure::Barred(text))),
                Err(failure) => why = Some(failure),
            }
        }
        part.ok_or_else(|| why.unwrap_or_else(|| Failure::Unreachable("no node of the cluster answers".to_owned())))
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure when nobody has a slot.
pub(super) fn no_owner(slot: usize) -> Failure {
    Failure::Unreachable(format!("no node of the cluster has slot {slot}"))
}

impl Known {
    /// Reads the reply to `CLUSTER SLOTS`; `None` when the node knows no slots.
    fn read(reply: Value, asked: &Address) -> Option<Self> {
        let mut known = Self { owners: vec![None; SLOTS], addresses: HashMap::new() };
        for range in Vec::<Vec<Value>>::from_redis_value(reply).ok()? {
            let [first, last, nodes @ ..] = &*range else { return None };
            let [first, last] = [first, last].map(|slot| u16::from_redis_value_ref(slot).map(usize::from));
            let mut nodes = nodes.iter().map(|node| known.node(node, asked)).collect::<Option<Vec<_>>>()?.into_iter();
            known.owners.get_mut(first.ok()?..=last.ok()?)?.fill(nodes.next()?);
        }
        known.owners.iter().any(Option::is_some).then_some(known)
    }

    fn is_whole(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }

    /// Notes a node: `[endpoint, port, id, {ip, hostname}]`. `Some(None)` when it does not say where it is.
    fn node(&mut self, node: &Value, asked: &Address) -> Option<Option<Address>> {
        let Value::Array(node) = node else { return None };
        let endpoint: Option<String> = FromRedisValue::from_redis_value_ref(node.first()?).ok()?;
        let port = u16::from_redis_value_ref(node.get(1)?).ok()?;
        let more =
            node.get(3).map(HashMap::<String, String>::from_redis_value_ref).transpose().ok()?.unwrap_or_default();
        let hostname = more.get("hostname").map(String::as_str);
        let Some(host) = host_of(endpoint.as_deref(), hostname, asked) else { return Some(None) };
        let address = Address { host, port };
        for name in
            [endpoint.as_deref(), more.get("ip").map(String::as_str), Some(&*address.host)].into_iter().flatten()
        {
            self.addresses.insert(Address { host: name.into(), port }, address.clone());
        }
        Some(Some(address))
    }
}

/// Reads the reply to `CLUSTER SHARDS`: the nodes, and the number of slots that they have.
fn read_members(reply: Value, asked: &Address, port: &str) -> Option<(Vec<Member>, usize)> {
    let (mut members, mut slots) = (Vec::new(), 0);
    for mut shard in Vec::<HashMap<String, Value>>::from_redis_value(reply).ok()? {
        for range in Vec::<usize>::from_redis_value(shard.remove("slots")?).ok()?.chunks(2) {
            slots += range.last()?.checked_sub(range[0])? + 1;
        }
        for node in Vec::<HashMap<String, Value>>::from_redis_value(shard.remove("nodes")?).ok()? {
            let text = |name: &str| node.get(name).and_then(|value| String::from_redis_value_ref(value).ok());
            if text("health")?.starts_with("fail") {
                continue;
            }
            let host = host_of(text("endpoint").as_deref(), text("hostname").as_deref(), asked);
            let port = node.get(port).and_then(|port| u16::from_redis_value_ref(port).ok());
            if let Some((host, port)) = host.zip(port) {
                members.push(Member { address: Address { host, port }, is_replica: text("role")? != "master" });
            }
        }
    }
    if members.is_empty() { None } else { Some((members, slots)) }
}

/// The host of a node: its name, which a certificate can have, or its address, or if it has told neither, where it was heard of.
fn host_of(endpoint: Option<&str>, hostname: Option<&str>, asked: &Address) -> Option<Arc<str>> {
    match hostname.filter(|name| !["", "?"].contains(name)).or(endpoint) {
        // It is to have a name, and has none.
        Some("?") => None,
        None | Some("") => Some(Arc::clone(&asked.host)),
        Some(host) => Some(host.into()),
    }
}

impl Nodes {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, open: RwLock::default() }
    }

    /// The same nodes by other connections.
    pub(super) fn with_own_connections(&self) -> Self {
        Self::new(Arc::clone(&self.connector))
    }

    /// A node. When it is a new one, those go that are neither in use nor `still_known`.
    pub(super) fn at(&self, address: &Address, still_known: impl Fn(&Address) -> bool) -> Arc<Node> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = open.get(address) {
            return Arc::clone(node);
        }
        drop(open);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|address, node| Arc::strong_count(node) > 1 || still_known(address));
        let way = || Arc::new(Way::Direct(self.connector.at(address.host.to_string(), address.port)));
        Arc::clone(open.entry(address.clone()).or_insert_with(|| Arc::new(Node::new(way()))))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn node(endpoint: Value, port: i64, more: &[(&str, &str)]) -> Value {
        let more = more.iter().map(|(name, value)| (text(name), text(value))).collect();
        Value::Array(vec![endpoint, Value::Int(port), text("id"), Value::Map(more)])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn a_host_name_is_preferred_and_an_empty_host_is_the_one_that_was_asked() {
        let reply = Value::Array(vec![
            range(0, 1, vec![node(text("10.0.0.1"), 7001, &[("hostname", "one.example")])]),
            range(2, 2, vec![node(text("10.0.0.2"), 7002, &[]), node(text("10.0.0.3"), 7003, &[])]),
            range(3, 3, vec![node(text(""), 7004, &[])]),
            range(4, 4, vec![node(Value::Nil, 7005, &[("ip", "10.0.0.5")])]),
            range(5, 5, vec![node(text("?"), 7006, &[("ip", "10.0.0.6")])]),
        ]);
        let asked = address("seed", 7000);
        let known = Known::read(reply, &asked).unwrap();
        let owner = |slot: usize| known.owners[slot].as_ref().map(Address::to_string);
        let owners: Vec<_> = (0..7).map(owner).collect();
        let expected = ["one.example:7001", "one.example:7001", "10.0.0.2:7002", "seed:7004", "seed:7005"];
        assert_eq!(owners[..5], expected.map(|owner| Some(owner.to_owned())));
        assert_eq!(owners[5..], [None, None]);
        assert_eq!(known.addresses[&address("10.0.0.1", 7001)], address("one.example", 7001));
        assert_eq!(known.addresses[&address("10.0.0.5", 7005)], address("seed", 7005));
        assert!(known.addresses.contains_key(&address("10.0.0.3", 7003)), "replicas are known, too");
    }

    #[test]
    fn a_node_that_knows_no_slots_gives_no_map() {
        let asked = address("seed", 7000);
        assert!(Known::read(Value::Array(vec![]), &asked).is_none());
        assert!(Known::read(Value::Int(1), &asked).is_none());
        assert!(Known::read(Value::Array(vec![range(0, 16384, vec![node(text("a"), 1, &[])])]), &asked).is_none());
    }
}
