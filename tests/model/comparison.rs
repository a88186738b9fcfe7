//! Makes the same calls on Redis and on the model, and compares.

use std::iter;
use std::thread::sleep;
use std::time::Duration;

use redis::{Connection, Pipeline, RedisResult, Value, cmd, pipe};
use stockhold::scripts::Catalogue;

use crate::call::{Act, Call, PREFIX, SKUS, STRANGERS, Step, reservation_id};
use crate::moving::{Moving, OF_MANY_SLOTS, REFUSALS, Side, connect};
use crate::request::Fault;
use crate::rules::Answer;
use crate::state::{ENTRIES_PER_NODE, Model, Turn};
use crate::stored::{READ_ALL, Stores, epoch_ms};
use crate::support::redis_server::RedisServer;
use crate::tally::Tally;

/// An option of redis-server that makes it trim in small steps.
const ENTRIES: &str = "--stream-node-max-entries";

pub struct Comparison {
    pub tally: Tally,
    /// The move of the slot in which all sequences are, if there is one.
    pub moving: Option<Moving>,
    redis: Connection,
    scripts: Catalogue,
    read_all: String,
    model: Model,
    /// The ids of all events of the sequence.
    ids: Vec<String>,
    _server: RedisServer,
}

/// What differs between Redis and the model after `length` steps.
pub struct Difference {
    pub length: usize,
    pub why: String,
}

/// The result of a call in Redis.
struct Seen {
    /// Or the error with which a node of a cluster refuses.
    answer: Result<Answer, String>,
    stores: Stores,
    /// Epoch ms before the call, after it, and after everything was read.
    began: u64,
    ended: u64,
    read: u64,
}

impl Comparison {
    /// On a Redis that is no cluster.
    pub fn start() -> Self {
        Self::on(RedisServer::start_single(&[ENTRIES, &ENTRIES_PER_NODE.to_string()]), None)
    }

    /// On a cluster, at one side of a slot that moves to another node.
    pub fn start_moving(side: Side) -> Self {
        let per_node = ENTRIES_PER_NODE.to_string();
        let options = [ENTRIES, &per_node];
        let server = RedisServer::start_cluster(&options);
        let mut moving = Moving::from(&server, &options, side);
        load(moving.goal());
        Self::on(server, Some(moving))
    }

    fn on(server: RedisServer, moving: Option<Moving>) -> Self {
        let mut redis = connect(&server);
        Self {
            tally: Tally::default(),
            moving,
            read_all: load(&mut redis),
            redis,
            scripts: Catalogue::embedded(),
            model: Model::default(),
            ids: Vec::new(),
            _server: server,
        }
    }

    /// Plays a sequence, from an empty Redis on.
    pub fn play(&mut self, steps: &[Step], pause: Duration) -> Result<(), Difference> {
        cmd("FLUSHALL").exec(&mut self.redis).unwrap();
        (self.model, self.ids) = (Model::default(), Vec::new());
        self.model.on_shard = self.moving.is_some();
        self.tally.sequences += 1;
        for (n, step) in steps.iter().enumerate() {
            sleep(pause);
            match (&step.act, step.call(&self.model, &self.ids)) {
                (_, Some(call)) => {
                    let call = if self.model.on_shard { call.on_shard() } else { call };
                    self.compare(&call).map_err(|why| Difference { length: n + 1, why })?;
                }
                (Act::OnShard, _) => self.model.on_shard |= n == 0,
                (Act::WaitMs(ms), _) => sleep(Duration::from_millis(*ms)),
                (Act::Keep(keep_ms), _) => {
                    self.set("keepMs", *keep_ms);
                    self.model.keep_ms = *keep_ms;
                }
                (Act::ExtendMax(max_ms), _) => {
                    self.set("extendMaxMs", *max_ms);
                    self.model.extend_max_ms = *max_ms;
                }
                (Act::FillCart { cart, most }, _) => self.fill_cart(cart, *most),
                (Act::Trim(most), _) => self.trim(*most),
                (Act::Ahead { id, ms }, _) => self.put_ahead(&reservation_id(id), *ms),
                (act, None) => panic!("{act:?} is no call"),
            }
        }
        self.compare_whole_audit().map_err(|why| Difference { length: steps.len(), why })
    }

    /// The name of a key as Redis has it.
    fn key(&self, name: &str) -> String {
        format!("{}{name}", if self.model.on_shard { PREFIX } else { "" })
    }

    fn put_ahead(&mut self, id: &str, ms: u64) {
        let key = self.key(&format!("reservation:{id}"));
        let prefix = self.key("");
        let Some(record) = self.model.records.get_mut(id).filter(|record| record.state == "active") else { return };
        record.created_at += ms;
        // What was not extended was not updated: it has the one time.
        if !record.is_updated {
            record.updated_at = record.created_at;
        }
        record.expires_at += ms;
        let (created, expires) = (record.created_at, record.expires_at);
        let mut commands = pipe();
        commands.cmd("HSET").arg(key);
        commands.arg("createdAt").arg(created).arg("expiresAt").arg(expires);
        commands.cmd("ZADD").arg(format!("{prefix}inventory:{}:active", record.sku)).arg(expires).arg(id);
        commands.exec(&mut self.redis).unwrap();
    }

    fn fill_cart(&mut self, cart: &str, most: usize) {
        let key = self.key(&format!("cart:{cart}"));
        let listed = &mut self.model.carts.entry(cart.to_owned()).or_default().listed;
        for id in STRANGERS.map(|id| reservation_id(&id)) {
            if listed.len() < most && !listed.contains_key(&id) {
                cmd("HSET").arg(&key).arg(&id).arg(SKUS[0]).exec(&mut self.redis).unwrap();
                listed.insert(id, SKUS[0].to_owned());
            }
        }
    }

    /// Makes a call. If there is a move, the slot moves meanwhile; a call that is refused then is made again when the slot stays.
    fn compare(&mut self, call: &Call) -> Result<(), String> {
        if let Some(moving) = &mut self.moving {
            moving.begin(&mut self.redis);
            let outcome = self.attempt(call);
            let moving = self.moving.as_mut().expect("it was there");
            moving.end(&mut self.redis, call.script, !matches!(outcome, Ok(None)));
            if outcome?.is_none() {
                return Ok(());
            }
        }
        match self.attempt(call)? {
            Some(code) if code != OF_MANY_SLOTS => Err(format!("{} in a slot that stays: {code}", call.script)),
            _ => Ok(()),
        }
    }

    /// Makes a call, and returns the error with which a node of a cluster refused it, if it did. The model agrees if there is a moment at
    /// which it gives the same answer and stores the same; with a refusal, if nothing is changed.
    fn attempt(&mut self, call: &Call) -> Result<Option<String>, String> {
        let since = self.ids.len();
        let seen = self.call(call)?;
        self.ids.extend(seen.stores.new_events());
        self.tally.calls += 1;
        let seen_answer = match &seen.answer {
            Ok(answer) => answer,
            Err(code) => {
                let mut model = self.model.clone();
                model.see_dropped(&seen.stores.keys, &seen.stores.dropped_at, seen.read);
                let differences = Stores::from_model(&model, since).differences(&seen.stores);
                return match differences[..] {
                    [] => Ok(Some(code.clone())),
                    _ => Err(format!("{} failed with {code}, and changed:\n{}", call.script, differences.join("\n"))),
                };
            }
        };
        match seen_answer {
            Ok(lines) => lines.iter().for_each(|line| self.tally.add(call.script, &line[0])),
            Err(Fault::BadArgs) => self.tally.add(call.script, "BADARGS"),
            Err(Fault::BadKey) => self.tally.add(call.script, "BADKEY"),
        }

        let mut least: Option<Vec<String>> = None;
        for (gone_before, began, now) in moments(&self.model, &seen) {
            let mut model = self.model.clone();
            let answer = model.step(call, &Turn { gone_before, began, now, ended: seen.ended, ids: &self.ids });
            model.see_dropped(&seen.stores.keys, &seen.stores.dropped_at, seen.read);
            let mut differences = Stores::from_model(&model, since).differences(&seen.stores);
            if answer != *seen_answer {
                differences.insert(0, format!("answer\n  model  {answer:?}\n  Redis  {seen_answer:?}"));
            }
            if differences.is_empty() {
                self.model = model;
                return Ok(None);
            }
            if least.as_ref().is_none_or(|least| differences.len() < least.len()) {
                least = Some(differences);
            }
        }
        Err(least.expect("there is at least one moment").join("\n"))
    }

    /// As the operator does it.
    fn set(&mut self, setting: &str, value: Option<u64>) {
        let settings = self.key("stockhold:settings");
        match value {
            Some(value) => cmd("HSET").arg(settings).arg(setting).arg(value).exec(&mut self.redis),
            None => cmd("HDEL").arg(settings).arg(setting).exec(&mut self.redis),
        }
        .unwrap();
    }

    /// As the sweeper does it.
    fn trim(&mut self, most: usize) {
        let audit = self.key("inventory:audit");
        cmd("XTRIM").arg(&audit).arg("MAXLEN").arg("~").arg(most).exec(&mut self.redis).unwrap();
        let kept = cmd("XLEN").arg(&audit).query(&mut self.redis).unwrap();
        self.model.trim(most, kept);
    }

    /// The call between two reads of the clock, and then everything that is stored.
    fn call(&mut self, call: &Call) -> Result<Seen, String> {
        let sha1 = &self.scripts.get(call.script).expect("one of ours").sha1;
        // From the last known event on, without that one.
        let since = self.ids.last().map_or("-".to_owned(), |id| format!("({id}"));
        let is_cluster = self.moving.is_some();
        let away = self.moving.as_mut().and_then(Moving::away);
        let mut ask = Pipeline::new();
        let ask_there = |ask: &mut Pipeline| {
            if away.is_some() {
                ask.cmd("ASKING").ignore();
            }
        };
        ask.cmd("TIME");
        ask_there(&mut ask);
        ask.cmd("EVALSHA").arg(sha1).arg(call.keys.len()).arg(&call.keys).arg(&call.args).cmd("TIME");
        ask_there(&mut ask);
        ask.cmd("EVALSHA").arg(&self.read_all).arg(0).arg(since);
        let (began, answer, ended, all): (Value, RedisResult<Vec<Vec<String>>>, Value, Value) =
            ask.ignore_errors().query(away.unwrap_or(&mut self.redis)).unwrap();
        let answer = match answer {
            Ok(lines) => Ok(Ok(lines)),
            Err(error) => match error.code() {
                Some("BADARGS") => Ok(Err(Fault::BadArgs)),
                Some("BADKEY") => Ok(Err(Fault::BadKey)),
                Some(code) if is_cluster && REFUSALS.contains(&code) => Err(code.to_owned()),
                _ => return Err(format!("{} failed: {error}", call.script)),
            },
        };
        let (stores, read) = Stores::from_redis(all, &self.key(""));
        Ok(Seen { answer, stores, began: epoch_ms(began), ended: epoch_ms(ended), read })
    }

    /// What happened early in a sequence is still there, unchanged, at its end.
    fn compare_whole_audit(&mut self) -> Result<(), String> {
        let all = cmd("EVALSHA").arg(&self.read_all).arg(0).arg("-").query(&mut self.redis).unwrap();
        let (mut found, _) = Stores::from_redis(all, &self.key(""));
        let mut expected = Stores::from_model(&self.model, 0);
        for stores in [&mut found, &mut expected] {
            stores.keys.retain(|name, _| name == "inventory:audit");
            stores.dropped_at.clear();
        }
        match expected.differences(&found) {
            none if none.is_empty() => Ok(()),
            differences => Err(format!("when the whole audit is read:\n{}", differences.join("\n"))),
        }
    }
}

/// Loads all scripts, and returns the SHA-1 of [`READ_ALL`].
fn load(redis: &mut Connection) -> String {
    let mut load = |source: &str| cmd("SCRIPT").arg("LOAD").arg(source).query::<String>(redis).unwrap();
    for script in Catalogue::embedded().current() {
        load(script.source);
    }
    load(READ_ALL)
}

/// Before which moment the records may be gone that Redis drops, each with when the call can have begun and the times
/// that the script can have read. In the millisecond in which a record is to be dropped, a call finds it, unless Redis
/// drops it by itself before the call.
fn moments(model: &Model, seen: &Seen) -> Vec<(u64, u64, u64)> {
    let (first, last) = (seen.began, seen.ended);
    let records = model.records.values().map(|record| record.dropped_at);
    let dropped = records.chain(model.operations.values().map(|operation| operation.dropped_at));
    let drops = dropped.filter_map(|dropped_at| dropped_at.map(|(_, latest)| latest));
    let gone = drops.filter(|at| (first..=last).contains(at)).map(|at| (at + 1, at));
    let beginnings = iter::once((first, first)).chain(gone);
    beginnings.flat_map(|(gone_before, began)| (began..=last).map(move |now| (gone_before, began, now))).collect()
}
