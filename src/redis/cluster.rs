//! A Redis Cluster: every call goes to the node that has its slot, wherever that is meanwhile.
//!
//! A call that was refused because of its place, so that nothing was done, goes on until its deadline. A call whose reply was lost is
//! never sent again: it may have been carried out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Arg, Cmd, Pipeline, Value, cmd, pipe};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::connector::{Connector, Deadline};
use super::node::{Node, Outcomes};
use super::slot_map::{Address, Nodes, PAUSE, SlotMap, no_owner};
use super::slots::{slot, slot_of};
use super::{Failure, Files, OpenError, url};

/// What an attempt after a refusal must have left of the time of its call.
const LEAST_TIME: Duration = Duration::from_millis(100);

/// One handle of a cluster, with a connection to each node.
pub(super) struct Cluster {
    /// As in `--redis-url`.
    seeds: Vec<Arc<Connector>>,
    map: Arc<SlotMap>,
    nodes: Nodes,
}

/// What goes to one node as a whole: a command with a key and the commands without one that follow it, or a transaction.
struct Unit<'a> {
    slot: u16,
    commands: Vec<&'a Cmd>,
    is_transaction: bool,
}

/// What was tried: at which node, and how that ended.
type Tried = (Address, Result<Outcomes, Failure>);

impl Cluster {
    /// The cluster that a URL names; `None` when it is not the URL of a cluster.
    ///
    /// # Errors
    /// As for [`Connector::new`].
    pub(super) fn new(url: &str, files: &Files) -> Result<Option<Self>, OpenError> {
        let Some(nodes) = url::nodes(url)? else { return Ok(None) };
        files.need_no_sentinels()?;
        let (mut connectors, mut seeds) = (Vec::new(), Vec::new());
        let mut has_tls = false;
        for node in nodes {
            let connector = Connector::new(&node, files.clone())?;
            if let Some((host, port, is_by_tls)) = connector.host() {
                seeds.push(Address { host: host.into(), port });
                has_tls = is_by_tls;
            }
            connectors.push(Arc::new(connector));
        }
        let map = Arc::new(SlotMap::new(Arc::clone(&connectors[0]), seeds, has_tls));
        let nodes = Nodes::new(Arc::clone(&connectors[0]));
        Ok(Some(Self { seeds: connectors, map, nodes }))
    }

    /// The same cluster by other connections. What is known about it is shared.
    pub(super) fn with_own_connections(&self) -> Self {
        Self { seeds: self.seeds.clone(), map: Arc::clone(&self.map), nodes: self.nodes.with_own_connections() }
    }

    /// How to connect to the nodes that the URL names.
    pub(super) fn seeds(&self) -> &[Arc<Connector>] {
        &self.seeds
    }

    pub(super) async fn call(&self, command: &Cmd, deadline: Deadline) -> Result<Value, Failure> {
        let slot = slot_of(command).ok_or_else(|| no_key(command))?;
        self.call_in(slot, command, deadline).await
    }

    /// Sends a command without a key to the node that has a key.
    pub(super) async fn call_at(&self, key: &str, command: &Cmd, deadline: Deadline) -> Result<Value, Failure> {
        self.call_in(slot(key.as_bytes()), command, deadline).await
    }

    async fn call_in(&self, slot: u16, command: &Cmd, deadline: Deadline) -> Result<Value, Failure> {
        let unit = Unit { slot, commands: vec![command], is_transaction: false };
        self.follow(&unit, None, deadline).await?.swap_remove(0)
    }

    /// Sends commands of one slot together, in order, and returns one reply for each; the first error reply fails the whole. When the
    /// node refuses one because of its place, those after it are sent again, too.
    pub(super) async fn pipeline(&self, commands: &Pipeline, deadline: Deadline) -> Result<Vec<Value>, Failure> {
        let [multi, exec] = ["MULTI", "EXEC"].map(cmd);
        let mut units = Unit::all_of(commands)?;
        let slot = units[0].slot;
        if units.iter().any(|unit| unit.slot != slot) {
            return Err(refused("CROSSSLOT", "the keys of a pipeline are in several slots"));
        }
        let is_transaction = commands.is_transaction();
        if is_transaction {
            let inner = units.into_iter().flat_map(|unit| unit.commands);
            let commands = [&multi].into_iter().chain(inner).chain([&exec]).collect();
            units = vec![Unit { slot, commands, is_transaction }];
        }
        let mut replies = Vec::with_capacity(commands.len());
        let mut is_in_order = true;
        for (unit, tried) in units.iter().zip(self.try_together(self.map.owner(slot), &units, deadline).await) {
            let tried = tried.filter(|_| is_in_order);
            is_in_order = tried.as_ref().is_some_and(|(_, outcome)| unit.is_accepted(outcome));
            for outcome in self.follow(unit, tried, deadline).await? {
                replies.push(outcome?);
            }
        }
        if !is_transaction {
            return Ok(replies);
        }
        match replies.pop() {
            Some(Value::Array(replies)) => {
                replies.into_iter().map(|reply| reply.extract_error().map_err(super::sort)).collect()
            }
            other => Err(Failure::Malformed(format!("EXEC answered {other:?}"))),
        }
    }

    /// Sends commands of any slots, all at once, together to each node, and returns the outcome of each. The order of commands is not
    /// kept.
    ///
    /// # Errors
    /// When all have the same failure without an answer.
    pub(super) async fn each(&self, commands: &Pipeline, deadline: Deadline) -> Result<Outcomes, Failure> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_owner: HashMap<Option<Address>, Vec<(usize, Unit<'_>)>> = HashMap::new();
        for (place, unit) in Unit::all_of(commands)?.into_iter().enumerate() {
            by_owner.entry(self.map.owner(unit.slot)).or_default().push((place, unit));
        }
        let of_each_node = by_owner.into_iter().map(async |(owner, units)| {
            let (places, units): (Vec<usize>, Vec<Unit<'_>>) = units.into_iter().unzip();
            let tried = self.try_together(owner, &units, deadline).await;
            let followed = units.iter().zip(tried).map(|(unit, tried)| self.follow(unit, tried, deadline));
            let outcomes = join_all(followed).await.into_iter().zip(&units).map(|(outcome, unit)| match outcome {
                Ok(outcomes) => outcomes,
                Err(failure) => vec![Err(failure); unit.commands.len()],
            });
            places.into_iter().zip(outcomes).collect::<Vec<_>>()
        });
        let mut outcomes: Vec<_> = join_all(of_each_node).await.into_iter().flatten().collect();
        outcomes.sort_unstable_by_key(|(place, _)| *place);
        let outcomes: Outcomes = outcomes.into_iter().flat_map(|(_, outcomes)| outcomes).collect();
        let are_all = |is_one: fn(&Failure) -> bool| outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(is_one));
        let is_unknown = |failure: &Failure| matches!(failure, Failure::NoReply(_));
        let is_unsent = |failure: &Failure| matches!(failure, Failure::Unreachable(_) | Failure::Barred(_));
        if are_all(is_unknown) || are_all(is_unsent) {
            outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
            return Ok(Vec::new());
        }
        Ok(outcomes)
    }

    /// The primaries that have slots.
    ///
    /// # Errors
    /// When no node tells, or a slot has none.
    pub(super) async fn primaries(&self) -> Result<Vec<Arc<Node>>, Failure> {
        self.map.refresh().await?;
        Ok(self.map.owners()?.iter().map(|address| self.node(address)).collect())
    }

    /// All nodes that have not failed, and whether each is a replica.
    ///
    /// # Errors
    /// When no node tells.
    pub(super) async fn members(&self) -> Result<Vec<(Arc<Node>, bool)>, Failure> {
        let members = self.map.members().await?;
        Ok(members.into_iter().map(|member| (self.node(&member.address), member.is_replica)).collect())
    }

    /// The node that has a key, as far as is known.
    pub(super) fn node_of(&self, key: &str) -> Option<Arc<Node>> {
        Some(self.node(&self.map.owner(slot(key.as_bytes()))?))
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        self.nodes.at(address, |address| self.map.lists(address))
    }

    /// Tries units of commands, all together at one node. `None` for each when that node is not known.
    async fn try_together(&self, owner: Option<Address>, units: &[Unit<'_>], deadline: Deadline) -> Vec<Option<Tried>> {
        let Some(owner) = owner else { return units.iter().map(|_| None).collect() };
        let commands: Vec<&Cmd> = units.iter().flat_map(|unit| &unit.commands).copied().collect();
        let mut outcomes = send(&self.node(&owner), &commands, false, deadline).await;
        let share = |unit: &Unit<'_>| match &mut outcomes {
            Ok(outcomes) => Ok(outcomes.drain(..unit.commands.len()).collect()),
            Err(failure) => Err(failure.clone()),
        };
        units.iter().map(share).map(|outcome| Some((owner.clone(), outcome))).collect()
    }

    /// Sends a unit to the node that has its slot, until a node accepts it, or its outcome is unknown, or its time is over.
    async fn follow(&self, unit: &Unit<'_>, mut tried: Option<Tried>, deadline: Deadline) -> Result<Outcomes, Failure> {
        let mut redirected: Option<(Address, bool)> = None;
        let mut redirections = 0;
        loop {
            let (address, outcome) = match tried.take() {
                Some(tried) => tried,
                None => {
                    let (address, asking) = match redirected.take() {
                        Some(redirected) => redirected,
                        None => (self.owner(unit.slot, deadline).await?, false),
                    };
                    let outcome = send(&self.node(&address), &unit.commands, asking, deadline).await;
                    (address, outcome)
                }
            };
            let why = match outcome {
                Ok(outcomes) => match unit.refusal(&outcomes) {
                    None => return Ok(outcomes),
                    Some(refusal) => refusal.clone(),
                },
                Err(Failure::Unreachable(why)) => Failure::Unreachable(format!("{address}: {why}")),
                Err(Failure::Barred(why)) => {
                    let failure = Failure::Barred(format!("{address}, a node of the cluster: {why}"));
                    // Time does not change this, but the slot may have gone to another node.
                    drop(timeout_at(deadline.at, self.map.refresh()).await);
                    if self.map.owner(unit.slot).is_none_or(|owner| owner == address) {
                        return Err(failure);
                    }
                    failure
                }
                Err(Failure::NoReply(why)) => {
                    // The next call should not meet a node that is gone.
                    drop(self.map.refresh());
                    return Err(Failure::NoReply(format!("{address}: {why}")));
                }
                Err(failure) => return Err(failure),
            };
            redirected = self.redirection(unit.slot, &why, &address);
            redirections += usize::from(redirected.is_some());
            // Two nodes may name each other while the cluster changes.
            if redirected.is_none() || redirections > 2 {
                // An attempt that the deadline cuts short would have an unknown outcome: what is refused is certain.
                if Instant::now() + PAUSE + LEAST_TIME >= deadline.at {
                    return Err(why);
                }
                sleep(PAUSE).await;
            }
            if redirected.is_none() {
                drop(timeout_at(deadline.at, self.map.refresh()).await);
            }
            if Instant::now() >= deadline.at {
                return Err(why);
            }
        }
    }

    /// Where a refusal sends a call, and whether it is to ask there. Notes it if that is for good.
    fn redirection(&self, slot: u16, refusal: &Failure, asked: &Address) -> Option<(Address, bool)> {
        let Failure::Refused { code, message } = refusal else { return None };
        match code.as_str() {
            "ASK" => Some((self.map.named(message, asked)?, true)),
            "MOVED" => {
                let owner = self.map.named(message, asked)?;
                self.map.patch(slot, owner.clone());
                drop(self.map.refresh());
                Some((owner, false))
            }
            _ => None,
        }
    }

    /// The primary of a slot. Asks for the map until one is known.
    async fn owner(&self, slot: u16, deadline: Deadline) -> Result<Address, Failure> {
        loop {
            if let Some(owner) = self.map.owner(slot) {
                return Ok(owner);
            }
            let late = |_| Failure::Unreachable(format!("no answer from the cluster within {:?}", deadline.allowed));
            let refreshed = timeout_at(deadline.at, self.map.refresh()).await.map_err(late)?;
            match refreshed {
                Ok(()) if self.map.owner(slot).is_some() => {}
                Ok(()) | Err(Failure::Unreachable(_)) if Instant::now() + PAUSE < deadline.at => sleep(PAUSE).await,
                Ok(()) => return Err(no_owner(slot.into())),
                Err(failure) => return Err(failure),
            }
        }
    }
}

impl<'a> Unit<'a> {
    /// The units of a pipeline, in order: at least one.
    ///
    /// # Errors
    /// When it does not begin with a command that has a key.
    fn all_of(commands: &'a Pipeline) -> Result<Vec<Self>, Failure> {
        let mut units: Vec<Self> = Vec::with_capacity(commands.len());
        for command in commands.cmd_iter() {
            match (slot_of(command), units.last_mut()) {
                (Some(slot), _) => units.push(Self { slot, commands: vec![command], is_transaction: false }),
                (None, Some(unit)) => unit.commands.push(command),
                (None, None) => return Err(no_key(command)),
            }
        }
        if units.is_empty() { Err(refused("ERR", "an empty pipeline")) } else { Ok(units) }
    }

    fn is_accepted(&self, outcome: &Result<Outcomes, Failure>) -> bool {
        outcome.as_ref().is_ok_and(|outcomes| self.refusal(outcomes).is_none())
    }

    /// The refusal because of which nothing was done, and another node or a later time may do it.
    fn refusal<'b>(&self, outcomes: &'b [Result<Value, Failure>]) -> Option<&'b Failure> {
        // The commands after the first have no key. In a transaction, one that is refused keeps all from being done.
        let decisive = if self.is_transaction { outcomes } else { &outcomes[..1] };
        decisive.iter().filter_map(|outcome| outcome.as_ref().err()).find(|failure| {
            matches!(failure, Failure::Refused { code, .. } if [
                "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY",
            ].contains(&&**code))
        })
    }
}

/// Sends commands to one node, `asking` for the first of them.
async fn send(node: &Node, commands: &[&Cmd], asking: bool, deadline: Deadline) -> Result<Outcomes, Failure> {
    if let ([command], false) = (commands, asking) {
        return match node.call(command, deadline).await {
            Err(failure) if !matches!(failure, Failure::Refused { .. }) => Err(failure),
            outcome => Ok(vec![outcome]),
        };
    }
    let mut all = pipe();
    if asking {
        all.cmd("ASKING");
    }
    for command in commands {
        all.add_command((*command).clone());
    }
    let mut outcomes = node.each(all, deadline).await?;
    if asking
        && let Err(failure) = outcomes.remove(0)
        && matches!(&outcomes[0], Err(Failure::Refused { code, .. }) if code == "MOVED")
    {
        // Nobody may ask so: that has to be told, and not where it would lead.
        outcomes[0] = Err(failure);
    }
    Ok(outcomes)
}

fn no_key(command: &Cmd) -> Failure {
    let name = match command.args_iter().next() {
        Some(Arg::Simple(name)) => String::from_utf8_lossy(name),
        _ => "a command".into(),
    };
    refused("ERR", &format!("{name} has no key, so it is for one node of the cluster"))
}

fn refused(code: &str, message: &str) -> Failure {
    Failure::Refused { code: code.to_owned(), message: message.to_owned() }
}
