//! `redis/users.acl` on a real server: each user can do its work, and can do nothing else except what `redis/README.md`
//! says.

#[path = "scripts/call.rs"]
#[allow(dead_code)]
mod call;
#[path = "scripts/contract.rs"]
#[allow(dead_code)]
mod contract;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use call::{
    Call, add, adjust, audit, audit_all, cart_hold, change_to, confirm, extend, hold, inventory, line, release,
    release_part, seed, sell, set, sweep, take_back, write_off,
};
use contract::Contract;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, Value, cmd};
use serde_json::json;
use support::redis_server::RedisServer;
use support::snapshot::Snapshot;
use support::stockhold::{Stockhold, program};
use tempfile::TempDir;

const SERVER: &str = "stockhold-server";
const CALLER: &str = "stockhold-caller";
const DEPLOYER: &str = "stockhold-deployer";
const AUDITOR: &str = "stockhold-auditor";
const USERS: [&str; 4] = [SERVER, CALLER, DEPLOYER, AUDITOR];

const FILE: &str = include_str!("../redis/users.acl");
const PASSWORD: &str = "for-this-test-only";

const A: &str = "00000000-0000-8007-8000-00000000000a";
const B: &str = "00000000-0000-8007-8000-00000000000b";
const C: &str = "00000000-0000-8007-8000-00000000000c";
const OTHER: &str = "00000000-0000-8007-8000-00000000000f";
const PART: &str = "00000000-0000-8007-8000-000000000010";
const LATE: &str = "00000000-0000-8007-8000-000000000011";
const D: &str = "00000000-0000-8007-8000-00000000000d";
const E: &str = "00000000-0000-8007-8000-00000000000e";
const F: &str = "00000000-0000-8007-8000-00000000000f";
/// In the list of the cart `full`.
const GONE: &str = "00000000-0000-8007-8000-000000000100";

/// Commands that have nothing to do with the scripts and that every user may call: to connect, and to find the nodes of a
/// cluster.
const CONNECTING: &[&str] = &["asking", "client", "cluster|shards", "cluster|slots", "hello", "ping"];

/// Commands that no user may call. Exception: the auditor may scan all keys, and read several in one transaction.
const DENIED_TO_ALL: &[&str] = &[
    "EVAL return(1) 0",
    "EVAL_RO return(1) 0",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION LIST",
    "FCALL f 0",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "SELECT 1",
    "CONFIG GET maxmemory",
    "CONFIG SET maxmemory 1",
    "CONFIG REWRITE",
    "ACL LIST",
    "ACL SETUSER stockhold-caller +@all",
    "SHUTDOWN NOSAVE",
    "DEBUG SLEEP 0",
    "MONITOR",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "CLIENT TRACKING on",
    "CLIENT CACHING yes",
    "REPLICAOF 127.0.0.1 1",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "MODULE LIST",
    "MULTI",
    "SUBSCRIBE news",
    "PSUBSCRIBE *",
    "PUBLISH news x",
    "MIGRATE 127.0.0.1 1 inventory:tea 0 1",
    "CLUSTER FAILOVER",
    "CLUSTER FORGET x",
    "CLUSTER MEET 127.0.0.1 1",
    "CLUSTER NODES",
    "CLUSTER RESET",
    "CLUSTER SETSLOT 1 STABLE",
    "READONLY",
    "DEL inventory:tea",
    "UNLINK inventory:tea",
    "EXPIRE inventory:tea 1",
    "PEXPIRE inventory:tea 1",
    "PEXPIRE stockhold:due 1",
    "PERSIST inventory:tea",
    "RENAME inventory:tea inventory:cup",
    "COPY inventory:tea inventory:cup",
    "DUMP inventory:tea",
    "RESTORE inventory:cup 0 x",
    "SORT stockhold:skus",
    "OBJECT ENCODING inventory:tea",
    "TYPE inventory:tea",
    "HDEL inventory:tea sku",
    "HINCRBY inventory:tea available 1",
    "SET inventory:cup x",
    "GET foo",
    "SET foo x",
    "HGET foo x",
    "HSET foo x y",
    "ZADD foo 1 x",
    "XADD foo * x y",
    "SADD foo x",
    "HSET xinventory:tea x y",
    "HSET {7}:other x y",
    "HSET stockhold:due x y",
    "ZADD inventory:tea 1 x",
    "SADD inventory:tea x",
    "XADD inventory:tea * x y",
    "EXISTS operation:x",
    "DEL cart:x",
    "HMGET cart:x sku",
    "EXPIRE cart:x 1",
    "ZADD cart:x 1 y",
    "DEL operation:x",
    "HGET operation:x sku",
    "ZADD operation:x 1 y",
    "XDEL inventory:audit 1-1",
    "HDEL stockhold:settings keepMs",
    "HDEL stockhold:scripts hold",
    "DEL stockhold:scripts",
];

/// A server with the users, each with [`PASSWORD`]; `default` stays open for the test itself.
struct Guarded {
    server: RedisServer,
    admin: MultiplexedConnection,
    _folder: TempDir,
}

impl Guarded {
    async fn start(file: &str) -> Self {
        // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
        let folder = tempfile::Builder::new().prefix("stockhold-acl-").tempdir_in("/tmp").unwrap();
        let path = folder.path().join("users.acl");
        fs::write(&path, file).unwrap();
        // DEBUG is enabled, so only the user's rules can refuse it.
        let options = ["--aclfile", path.to_str().unwrap(), "--enable-debug-command", "yes"];
        let server = RedisServer::start_with(&options);
        let admin = server.connection().await;
        Self { server, admin, _folder: folder }
    }

    async fn with_passwords() -> Self {
        Self::start(&FILE.replace(" on ", &format!(" on >{PASSWORD} "))).await
    }

    /// With the scripts loaded and published, and a SKU `tea` that has one unit on hold.
    async fn stocked() -> Self {
        let mut guarded = Self::with_passwords().await;
        guarded.load_scripts().await;
        for call in [seed("tea", 10, &[]), hold("each", &[line("tea", A)])] {
            evalsha(&mut guarded.admin, &call).await.unwrap();
        }
        guarded
    }

    async fn load_scripts(&mut self) {
        for (name, contract) in Contract::all() {
            let mut load = cmd("SCRIPT");
            let sha1: String = load.arg("LOAD").arg(&contract.source).query_async(&mut self.admin).await.unwrap();
            let mut publish = cmd("HSET");
            publish.arg("stockhold:scripts").arg(name).arg(sha1).exec_async(&mut self.admin).await.unwrap();
        }
    }

    /// The cart `full` lists as many reservations as it can, which are gone.
    async fn fill_cart(&mut self, prefix: &str) {
        let mut index = cmd("HSET");
        index.arg(format!("{prefix}cart:full"));
        for number in 100..200 {
            index.arg(format!("00000000-0000-8007-8000-{number:012}")).arg("tea");
        }
        index.exec_async(&mut self.admin).await.unwrap();
    }

    fn url(&self, user: &str) -> String {
        format!("redis://{user}:{PASSWORD}@127.0.0.1:{}/", self.server.port())
    }

    async fn connect(&self, user: &str) -> Result<MultiplexedConnection, RedisError> {
        let patience = Some(Duration::from_secs(20));
        let patient = AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
        Client::open(self.url(user)).unwrap().get_multiplexed_async_connection_with_config(&patient).await
    }

    /// Each command is refused as not permitted, and together they change nothing.
    async fn assert_refused(&mut self, user: &str, commands: &[&str]) {
        let mut redis = self.connect(user).await.unwrap();
        let before = Snapshot::take(&mut self.admin).await;
        for command in commands {
            let answer = run(&mut redis, command).await;
            let code = answer.as_ref().err().and_then(RedisError::code);
            assert_eq!(code, Some("NOPERM"), "{user}: {command} answered {answer:?}");
        }
        let changed = before.changed(&Snapshot::take(&mut self.admin).await);
        assert!(changed.is_empty(), "{user} changed {changed:?}");
    }

    async fn assert_allowed(&self, user: &str, commands: &[&str]) {
        let mut redis = self.connect(user).await.unwrap();
        for command in commands {
            let answer = run(&mut redis, command).await;
            assert!(answer.is_ok(), "{user}: {command} answered {answer:?}");
        }
    }

    /// Redis has not refused any user anything.
    async fn assert_no_denials(&mut self) {
        let log: Value = cmd("ACL").arg("LOG").query_async(&mut self.admin).await.unwrap();
        assert_eq!(log, Value::Array(vec![]));
    }
}

/// A command of words without spaces.
async fn run(redis: &mut MultiplexedConnection, command: &str) -> Result<Value, RedisError> {
    let mut words = command.split(' ');
    cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).query_async(redis).await
}

/// The rules of all users, sorted for each user: Redis 7.0 lists the commands in a different order at every start.
async fn rules(admin: &mut MultiplexedConnection) -> Vec<Vec<String>> {
    let users: Vec<String> = cmd("ACL").arg("LIST").query_async(admin).await.unwrap();
    let sorted = |user: &String| {
        let mut rules: Vec<_> = user.split(' ').map(|rule| rule.trim_matches(['(', ')']).to_owned()).collect();
        rules.sort();
        rules
    };
    users.iter().map(sorted).collect()
}

/// Calls as another service does: by the SHA-1 that is published now.
async fn evalsha(redis: &mut MultiplexedConnection, call: &Call) -> Result<Vec<Vec<String>>, RedisError> {
    let sha1: String = cmd("HGET").arg("stockhold:scripts").arg(call.script).query_async(redis).await?;
    cmd("EVALSHA").arg(sha1).arg(call.keys.len()).arg(&call.keys).arg(&call.args).query_async(redis).await
}

/// A script that callers do not need, but the auditor does.
const NO_SCRIPTS_OF_SHOPS: [&str; 1] = ["repair"];

/// The commands in the scripts for callers; in lower case.
fn inner_commands() -> BTreeSet<String> {
    commands_of(|name| !NO_SCRIPTS_OF_SHOPS.contains(&name))
}

/// The commands in some of the scripts, read from their text; in lower case.
fn commands_of(is_one: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    for (name, contract) in Contract::all().filter(|(name, _)| is_one(name)) {
        for line in contract.source.lines().map(str::trim).filter(|line| !line.starts_with("--")) {
            // A text that is no JSON is an answer, not a failure.
            let line = line.replace("pcall(cjson.decode", "");
            assert!(!line.contains("pcall"), "{name}.lua: {line}");
            for call in line.split("call(").skip(1) {
                let command = call.strip_prefix('\'').and_then(|call| call.split('\'').next());
                let command = command.unwrap_or_else(|| panic!("{name}.lua: cannot tell the command in {line}"));
                commands.insert(command.to_ascii_lowercase());
            }
        }
    }
    commands
}

/// The commands that the file grants to a user, on any keys.
fn granted(user: &str) -> BTreeSet<String> {
    let rules = FILE.lines().find_map(|line| line.strip_prefix(&format!("user {user} "))).unwrap();
    rules.split(' ').filter_map(|rule| rule.trim_start_matches('(').strip_prefix('+')).map(str::to_owned).collect()
}

fn with(commands: BTreeSet<String>, more: &[&str]) -> BTreeSet<String> {
    commands.into_iter().chain(CONNECTING.iter().chain(more).map(|name| (*name).to_owned())).collect()
}

#[test]
fn the_file_grants_exactly_the_commands_of_the_scripts() {
    assert_eq!(granted(CALLER), with(inner_commands(), &["evalsha", "hgetall"]));
    let server = [
        "evalsha",
        "hgetall",
        "hsetnx",
        "info",
        "role",
        "script|exists",
        "script|load",
        "wait",
        "xtrim",
        "zrangebyscore",
    ];
    assert_eq!(granted(SERVER), with(inner_commands(), &server));
    let deployer = ["hget", "hgetall", "hset", "hsetnx", "role", "script|exists", "script|load", "time"];
    assert_eq!(granted(DEPLOYER), with(BTreeSet::new(), &deployer));
    let own = commands_of(|name| ["audit", "repair", "sweep"].contains(&name));
    let auditor = [
        "evalsha",
        "exec",
        "hgetall",
        "hsetnx",
        "multi",
        "role",
        "scan",
        "script|exists",
        "script|load",
        "xinfo|stream",
        "zscan",
    ];
    assert_eq!(granted(AUDITOR), with(own, &auditor));
}

#[test]
fn the_file_holds_four_users_and_no_password() {
    let names: Vec<_> = FILE.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(names, USERS);
    let secret = |rule: &&str| rule.starts_with(['>', '#', '<', '!']) || *rule == "nopass";
    assert_eq!(FILE.split_whitespace().find(secret), None);
}

#[test]
fn rights_on_a_key_hold_for_its_sharded_form() {
    // Of these there is one for all shards.
    let is_of_all = |rules: &str| ["stockhold:scripts", "stockhold:layout"].iter().any(|key| rules.contains(key));
    for selector in FILE.split(['(', ')', '\n']).filter(|rules| rules.contains('~') && !is_of_all(rules)) {
        let patterns = selector.split(' ').filter_map(|rule| rule.strip_prefix('~'));
        let (sharded, plain): (Vec<_>, Vec<_>) = patterns.partition(|pattern| pattern.starts_with('{'));
        assert_eq!(sharded, plain.iter().map(|pattern| format!("{{*}}:{pattern}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn nobody_logs_in_before_a_password_is_set() {
    let mut guarded = Guarded::start(FILE).await;
    for user in USERS {
        let refusal = guarded.connect(user).await.err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::AuthenticationFailed, "{user}: {refusal}");
        run(&mut guarded.admin, &format!("ACL SETUSER {user} >{PASSWORD}")).await.unwrap();
        guarded.assert_allowed(user, &["PING", "CLIENT ID"]).await;
    }
}

/// How users are set up on a Redis that already runs. When the lines are sent again, as after an upgrade, only the
/// lines count; passwords stay.
#[tokio::test]
async fn the_lines_can_be_sent_to_a_running_server_again_and_again() {
    let mut from_file = Guarded::with_passwords().await;
    let mut guarded = Guarded::start("").await;
    let mut lists = Vec::new();
    for round in 0..2 {
        for line in FILE.lines() {
            run(&mut guarded.admin, &line.replacen("user ", "ACL SETUSER ", 1)).await.unwrap();
        }
        for user in USERS.iter().filter(|_| round == 0) {
            run(&mut guarded.admin, &format!("ACL SETUSER {user} >{PASSWORD}")).await.unwrap();
        }
        lists.push(rules(&mut guarded.admin).await);
        // Rights that somebody has granted by hand meanwhile are taken back.
        for user in USERS {
            run(&mut guarded.admin, &format!("ACL SETUSER {user} +@all ~* &* (+@all ~*)")).await.unwrap();
        }
        guarded.assert_allowed(CALLER, &["GET foo"]).await;
    }
    assert_eq!(lists[0], lists[1]);
    assert_eq!(lists[0], rules(&mut from_file.admin).await);
}

#[tokio::test]
async fn the_caller_runs_every_script_on_every_path() {
    let mut guarded = Guarded::with_passwords().await;
    guarded.load_scripts().await;
    let mut redis = guarded.connect(CALLER).await.unwrap();
    for prefix in ["", "{7}:"] {
        guarded.fill_cart(prefix).await;
        let of_cart = [("tea", E, 1)];
        // Without a TTL: a sale of what had expired, and had one, takes it away.
        let settings = format!("HSET {prefix}stockhold:settings keepMs 0");
        let lapsing = |id| hold("each", &[line("tea", id).ttl_ms(1)]);
        let walk = [
            (seed("tea", 10, &[]), vec!["SEEDED"]),
            (hold("each", &[line("tea", A), line("tea", B)]), vec!["HELD", "HELD"]),
            (hold("each", &[line("tea", A)]), vec!["REPLAYED"]),
            (hold("each", &[line("tea", A).cart("cart-2")]), vec!["CONFLICT"]),
            (hold("each", &[line("tea", C).quantity(99)]), vec!["INSUFFICIENT"]),
            (hold("all", &[line("tea", C), line("tea", D).quantity(99)]), vec!["WITHDRAWN", "INSUFFICIENT"]),
            (hold("all", &[line("tea", C), line("tea", D)]), vec!["HELD", "HELD"]),
            (hold("each", &[line("cup", "00000000-0000-8007-8000-000000000004")]), vec!["UNKNOWN_SKU"]),
            (extend("each", &[("tea", A, 1_200_000)]), vec!["EXTENDED"]),
            (change_to("tea", A, 3, OTHER), vec!["CHANGED"]),
            (change_to("tea", A, 3, OTHER), vec!["REPLAYED"]),
            (change_to("tea", A, 99, ""), vec!["INSUFFICIENT"]),
            (release_part("tea", A, 2, ""), vec!["CHANGED"]),
            (confirm("each", &[("tea", A, "token")]), vec!["CONFIRMED"]),
            (confirm("each", &[("tea", A, "token")]), vec!["REPLAYED"]),
            (release("all", &[("tea", B, ""), ("tea", C, "")]), vec!["RELEASED", "RELEASED"]),
            (release("each", &[("tea", B, "")]), vec!["NOT_ACTIVE"]),
            (seed("tea", 5, &[D]), vec!["SEEDED"]),
            (hold("each", &[line("tea", PART).quantity(2), line("tea", LATE).ttl_ms(1)]), vec!["HELD", "HELD"]),
            (sell("tea", PART, "", 1, ""), vec!["CONFIRMED"]),
            (sell("tea", LATE, "token", 0, ""), vec!["EXPIRED"]),
            (sell("tea", LATE, "token", 0, "reacquire"), vec!["CONFIRMED"]),
            (lapsing("00000000-0000-8007-8000-000000000001"), vec!["HELD"]),
            (confirm("each", &[("tea", "00000000-0000-8007-8000-000000000001", "")]), vec!["EXPIRED"]),
            (lapsing("00000000-0000-8007-8000-000000000002"), vec!["HELD"]),
            (sweep("tea", &["00000000-0000-8007-8000-000000000002"]), vec!["SWEPT"]),
            (hold("each", &[line("tea", "00000000-0000-8007-8000-000000000003")]), vec!["HELD"]),
            (adjust("each", &[add("tea", A, 3).once(), add("tea", A, 3).once()]), vec!["ADJUSTED", "REPLAYED"]),
            (adjust("each", &[add("tea", B, -99)]), vec!["INSUFFICIENT"]),
            (adjust("all", &[set("pot", B, 1).create(), add("cup", C, 1)]), vec!["WITHDRAWN", "UNKNOWN_SKU"]),
            (take_back("tea", A, C, 1).once(), vec!["RETURNED"]),
            (take_back("tea", A, C, 1).once(), vec!["REPLAYED"]),
            (write_off("tea", A, D, 1), vec!["EXCEEDS"]),
            (cart_hold(E, &of_cart).cart("full").call(), vec!["FULL"]),
            (cart_hold(E, &of_cart).cart("full").once().others(&[GONE]).call(), vec!["HELD"]),
            (cart_hold(E, &of_cart).cart("full").once().call(), vec!["REPLAYED"]),
            (release("each", &[("tea", E, "")]), vec!["RELEASED"]),
            (inventory("tea", 10), vec!["STOCK", "ACTIVE"]),
            (audit("tea", 2, ""), vec!["EVENT", "EVENT"]),
            (audit_all(2, ""), vec!["EVENT", "EVENT"]),
        ];
        for (call, expected) in walk {
            if call.script == "sell" {
                run(&mut guarded.admin, &settings).await.unwrap();
            }
            let call = call.in_shard(prefix);
            let replies = evalsha(&mut redis, &call).await.unwrap_or_else(|error| panic!("{call:?}: {error}"));
            let words: Vec<_> = replies.iter().map(|reply| reply[0].as_str()).collect();
            assert_eq!(words, expected, "{call:?}");
            // Longer than the shortest hold lasts.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // A cart is kept as long as the operator has set: here forever.
    let forever = cmd("HSET").arg("stockhold:settings").arg("keepMs").arg(0).exec_async(&mut guarded.admin).await;
    forever.unwrap();
    evalsha(&mut redis, &cart_hold(D, &[("tea", F, 1)]).call()).await.unwrap();
    // The calls reached every command of the scripts: no command was granted but never tried.
    let stats: String = cmd("INFO").arg("commandstats").query_async(&mut guarded.admin).await.unwrap();
    for command in inner_commands() {
        assert!(stats.contains(&format!("cmdstat_{command}:")), "no script called {command}");
    }
    guarded.assert_no_denials().await;
}

#[tokio::test]
async fn the_caller_may_do_nothing_else() {
    let mut guarded = Guarded::stocked().await;
    guarded.assert_refused(CALLER, DENIED_TO_ALL).await;
    // How much history is kept, and for how long, is decided by the operator.
    guarded.assert_refused(CALLER, &["XTRIM inventory:audit MAXLEN 0", "HSET stockhold:settings keepMs 1"]).await;
    let more = [
        "SCRIPT LOAD return(1)",
        "SCRIPT EXISTS x",
        "INFO",
        "HSET stockhold:scripts hold x",
        "HSETNX stockhold:scripts other x",
        "HGETALL inventory:tea",
        "HDEL reservation:x sku",
        "ZSCAN stockhold:skus 0",
        "ZRANGEBYSCORE stockhold:due 0 1",
    ];
    guarded.assert_refused(CALLER, &more).await;
    guarded.assert_allowed(CALLER, &["HGETALL stockhold:scripts", "HGET stockhold:scripts hold", "TIME"]).await;
    // SCRIPT FLUSH had no effect.
    let mut redis = guarded.connect(CALLER).await.unwrap();
    assert_eq!(evalsha(&mut redis, &inventory("tea", 0)).await.unwrap()[0][0], "STOCK");
}

/// Redis checks all keys of a call before it starts the script: no partial change.
#[tokio::test]
async fn a_script_on_a_key_that_is_not_stock_is_refused_before_it_starts() {
    let mut guarded = Guarded::stocked().await;
    let mut redis = guarded.connect(CALLER).await.unwrap();
    let before = Snapshot::take(&mut guarded.admin).await;
    let items = [line("tea", B), line("tea", C)];
    for foreign in ["foo", "stockhold:scripts", "shop:reservation:x"] {
        let mut call = hold("each", &items);
        *call.keys.last_mut().unwrap() = foreign.into();
        let refusal = evalsha(&mut redis, &call).await.unwrap_err();
        assert_eq!(refusal.code(), Some("NOPERM"), "{refusal}");
    }
    assert_eq!(before.changed(&Snapshot::take(&mut guarded.admin).await), Vec::<String>::new());
    evalsha(&mut redis, &hold("each", &items)).await.unwrap();
}

/// Somebody else may load scripts into this Redis: the caller can call them, and is limited to its own rights inside
/// them.
#[tokio::test]
async fn a_foreign_script_gives_the_caller_no_more_rights() {
    let mut guarded = Guarded::stocked().await;
    let mut redis = guarded.connect(CALLER).await.unwrap();
    let before = Snapshot::take(&mut guarded.admin).await;
    for source in ["return redis.call('DEL', KEYS[1])", "return redis.call('SET', 'foo', 'x')"] {
        let mut load = cmd("SCRIPT");
        let sha1: String = load.arg("LOAD").arg(source).query_async(&mut guarded.admin).await.unwrap();
        let answer = run(&mut redis, &format!("EVALSHA {sha1} 1 inventory:tea")).await;
        let refusal = answer.unwrap_err().to_string();
        // The words of Redis 7.0, and those of later versions.
        assert!(["can't run this command", "no permissions"].iter().any(|words| refusal.contains(words)), "{refusal}");
    }
    assert_eq!(before.changed(&Snapshot::take(&mut guarded.admin).await), Vec::<String>::new());
}

/// The limit of what an ACL can do, as `redis/README.md` says.
#[tokio::test]
async fn the_caller_can_write_by_hand_what_the_scripts_write() {
    let guarded = Guarded::stocked().await;
    let limits = [
        "HSET inventory:tea available 1000",
        "ZREM stockhold:due tea",
        "ZADD stockhold:skus 0 other",
        &format!("PEXPIRE reservation:{A} 1"),
        &format!("PERSIST reservation:{A}"),
        "XADD inventory:audit MAXLEN 1 * event hold",
    ];
    guarded.assert_allowed(CALLER, &limits).await;
}

#[tokio::test]
async fn the_deployer_loads_and_publishes_and_never_touches_stock() {
    let mut guarded = Guarded::with_passwords().await;
    let url = guarded.url(DEPLOYER);
    for step in ["load", "verify"] {
        let output = program(&["scripts", step, "--redis-url", &url]).output().unwrap();
        assert!(output.status.success(), "{step}: {output:?}");
    }
    guarded.assert_no_denials().await;
    evalsha(&mut guarded.admin, &seed("tea", 10, &[])).await.unwrap();
    guarded.assert_refused(DEPLOYER, DENIED_TO_ALL).await;
    let mut redis = guarded.connect(DEPLOYER).await.unwrap();
    assert_eq!(evalsha(&mut redis, &inventory("tea", 0)).await.unwrap_err().code(), Some("NOPERM"));
    let stock = ["HGET inventory:tea sku", "HGETALL inventory:tea", "HSET inventory:tea x y", "INFO"];
    guarded.assert_refused(DEPLOYER, &stock).await;
}

#[tokio::test]
async fn the_auditor_checks_and_repairs_and_does_nothing_else() {
    let mut guarded = Guarded::stocked().await;
    let url = guarded.url(AUDITOR);
    run(&mut guarded.admin, &format!("DEL reservation:{A}")).await.unwrap();
    run(&mut guarded.admin, "HINCRBY inventory:tea confirmed 1").await.unwrap();
    run(&mut guarded.admin, "ZREM stockhold:skus tea").await.unwrap();
    run(&mut guarded.admin, "SCRIPT FLUSH").await.unwrap();
    for (arguments, status) in [(&["--repair"][..], 1), (&["--repair", "--apply"], 0), (&[], 0)] {
        let output = program(&["check", "--redis-url", &url]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("the audit has "), "{output:?}");
    }
    guarded.assert_no_denials().await;
    let refused: Vec<_> =
        DENIED_TO_ALL.iter().copied().filter(|command| !["SCAN 0", "MULTI"].contains(command)).collect();
    guarded.assert_refused(AUDITOR, &refused).await;
    guarded.assert_refused(AUDITOR, &["ZCARD stockhold:skus", "INFO", "HSET stockhold:due x y"]).await;
    guarded.assert_refused(AUDITOR, &["HMGET operation:x sku", "HSET operation:x sku tea"]).await;
    guarded.assert_refused(AUDITOR, &["XINFO STREAM inventory:tea", "XINFO GROUPS inventory:audit"]).await;
    // What callers may do through the scripts is forbidden to the auditor.
    let mut redis = guarded.connect(AUDITOR).await.unwrap();
    assert_eq!(evalsha(&mut redis, &inventory("tea", 0)).await.unwrap_err().code(), Some("NOPERM"));
}

#[tokio::test]
async fn the_server_user_is_refused_what_the_server_does_not_need() {
    let mut guarded = Guarded::stocked().await;
    guarded.assert_refused(SERVER, DENIED_TO_ALL).await;
    guarded.assert_refused(SERVER, &["ZSCAN stockhold:skus 0", "HGET stockhold:scripts hold"]).await;
    // It trims the audit, and nothing else.
    guarded.assert_refused(SERVER, &["XTRIM inventory:tea MAXLEN 0"]).await;
}

#[tokio::test]
async fn the_program_serves_a_whole_walk_as_the_server_user() {
    let mut guarded = Guarded::with_passwords().await;
    let server = Stockhold::spawn(&["--port", "0", "--redis-url", &guarded.url(SERVER)]);
    assert_eq!(server.get("/readyz").await.ok()["status"], "ready");
    server.seed("tea", 10).await;
    let [sold, given_up, left] =
        [server.held("tea", 1).await, server.held("tea", 2).await, server.held("tea", 3).await];
    server.post(&format!("/api/reservations/{sold}/extend"), json!({ "ttlSeconds": 900 })).await.ok();
    for (verb, quantity) in [("change", 3), ("release", 2)] {
        let path = format!("/api/reservations/{sold}/{verb}");
        server.post_with(&path, json!({ "quantity": quantity }), Some(verb)).await.ok();
    }
    server.confirm(&sold).await.ok();
    server.release(&given_up).await.ok();
    assert_eq!(server.get(&format!("/api/reservations/{left}")).await.ok()["state"], "active");
    assert_eq!(server.counts("tea").await, [6, 3, 1]);
    let order = json!({ "cartId": "cart-1", "sku": "tea", "quantity": 7 });
    server.post("/api/reservations/hold", order).await.problem(409, "insufficient_inventory");
    for delta in [2, -2] {
        let key = Some(if delta > 0 { "delivery" } else { "theft" });
        server.post_with("/api/inventory/tea/adjust", json!({ "delta": delta }), key).await.ok();
    }
    let back = format!("/api/reservations/{sold}/return");
    server.post_with(&back, json!({ "quantity": 1, "restock": true }), Some("parcel")).await.ok();
    assert_eq!(server.events("tea", 20).await.len(), 12);
    assert_eq!(server.get("/api/audit").await.ok()["events"].as_array().unwrap().len(), 12);

    // Only the sweeper can expire it: no request reads the stock meanwhile.
    let lapsing = format!("reservation:{}", server.held_for("tea", 1, 1).await);
    let deadline = Instant::now() + Duration::from_secs(20);
    let read = format!("HGET {lapsing} state");
    while run(&mut guarded.admin, &read).await.unwrap() != Value::BulkString("released".into()) {
        assert!(Instant::now() < deadline, "never swept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // A Redis that lost its scripts gets them again, and a seed over a live hold drains it.
    run(&mut guarded.admin, "SCRIPT FLUSH").await.unwrap();
    server.seed("tea", 5).await;
    assert_eq!(server.counts("tea").await, [5, 0, 0]);
    assert_eq!(server.get("/readyz").await.status, 200);
    guarded.assert_no_denials().await;
}
