//! `stockhold check --compat`: a server on which something is missing, as on hosted ones, gets a line that says what will not work.

use redis::cmd;
use serde_json::Value;

use crate::support::redis_server::{IS_CLUSTER, RedisServer};
use crate::support::stockhold::program;

/// What it prints for a user, and its exit status.
fn tried(redis: &RedisServer, url: &str, arguments: &[&str]) -> (Vec<String>, i32) {
    let mut command = program(&["check", "--compat", "--redis-url", url]);
    if let Some(ca) = redis.ca() {
        command.arg("--redis-ca").arg(ca);
    }
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "");
    let printed = String::from_utf8(output.stdout).unwrap();
    (printed.lines().map(str::to_owned).collect(), output.status.code().unwrap())
}

/// The line about something, without its first column.
#[track_caller]
fn line<'a>(lines: &'a [String], what: &str) -> &'a str {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{what:<22} ")));
    line.unwrap_or_else(|| panic!("no line about {what}: {lines:#?}"))
}

/// The lines about what is needed: not the last one, and not one that names a node of a cluster.
fn needs(lines: &[String]) -> Vec<&String> {
    lines[..lines.len() - 1].iter().filter(|line| !line.ends_with(':')).collect()
}

#[track_caller]
fn says(lines: &[String], what: &str, verdict: &str, words: &str) {
    let line = line(lines, what);
    assert!(line.starts_with(verdict) && line.contains(words), "{what}: {line}");
}

async fn is_empty(redis: &RedisServer) -> bool {
    cmd("DBSIZE").query_async::<u64>(&mut redis.connection().await).await.unwrap() == 0
}

#[tokio::test]
async fn a_good_server_has_all() {
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let (lines, status) = tried(&redis, &redis.url(), &[]);
    assert_eq!(status, 0, "{lines:#?}");
    assert_eq!(*lines.last().unwrap(), format!("127.0.0.1:{}: stockhold can use it", redis.port()));
    let needs = needs(&lines);
    for need in &needs {
        assert!(need[23..].starts_with("ok"), "{need}");
    }
    assert!(is_empty(&redis).await);

    let (lines, status) = tried(&redis, &redis.url(), &["--json"]);
    let told: Value = serde_json::from_str(&lines.concat()).unwrap();
    assert_eq!((status, &told["usable"]), (0, &Value::Bool(true)));
    let needs_told = told["needs"].as_array().unwrap();
    assert_eq!(needs_told.len(), needs.len());
    assert!(needs_told.iter().all(|need| need["verdict"] == "ok"), "{told:#}");
}

/// Each time one right is missing: its line tells, and the others stay.
#[tokio::test]
async fn each_missing_right_has_its_line() {
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let mut admin = redis.connection().await;
    let (all, _) = tried(&redis, &redis.url(), &[]);
    let nothing = "";
    for (rule, what, verdict, words) in [
        (
            "-role",
            "ROLE",
            "warning",
            "`redis+sentinel://` cannot be used, and `scripts load` and `verify` reach no replicas",
        ),
        ("-wait", "WAIT", "warning", "`--durability wait:N` cannot be used"),
        ("-scan", "SCAN", "warning", "`check` cannot be used by this user"),
        ("-multi", "MULTI", "warning", "`check` cannot be used by this user"),
        ("-exec", "MULTI", "warning", "`check` cannot be used by this user"),
        ("-info", "INFO", "will not work", "does not start"),
        ("-script|load", "SCRIPT LOAD", "will not work", "cannot load the scripts"),
        ("-script|exists", "SCRIPT EXISTS", "will not work", "cannot tell whether Redis has lost the scripts"),
        ("-evalsha", "EVALSHA", "will not work", "no operation can be carried out"),
        ("resetkeys ~stockhold:*", "EVALSHA", "will not work", "no operation can be carried out"),
        ("resetkeys %R~*", "EVALSHA", "will not work", "no operation can be carried out"),
        ("-hset", "TIME, and a change", "will not work", "write at the time of Redis"),
        ("-time", "TIME, and a change", "will not work", "write at the time of Redis"),
        ("-pexpire", "TIME, and a change", "will not work", "write at the time of Redis"),
        // What some services forbid, and stockhold does not need.
        ("-config -keys -acl -debug -eval -monitor", nothing, "", ""),
        if *IS_CLUSTER {
            ("-asking", "ASKING", "warning", "keys cannot be reached while their slot moves")
        } else {
            ("-asking", nothing, "", "")
        },
    ] {
        let mut user = cmd("ACL");
        user.arg(&["SETUSER", "hosted", "reset", "on", ">secret", "~*", "&*", "+@all"]);
        user.arg(rule.split(' ').collect::<Vec<_>>()).exec_async(&mut admin).await.unwrap();
        let (lines, status) = tried(&redis, &redis.url_as("hosted", "secret"), &[]);
        assert_eq!(status, i32::from(verdict == "will not work"), "{rule}: {lines:#?}");
        if what == nothing {
            assert_eq!(lines, all);
            continue;
        }
        says(&lines, what, verdict, words);
        let mut others = lines[..lines.len() - 1].iter().filter(|line| !line.starts_with(what));
        // What needs the same right is told with it, or not at all.
        assert_eq!(others.find(|line| !all.contains(line)), None, "{rule}");
        assert!(is_empty(&redis).await, "{rule}");
    }
}

/// The user of the shipped file has what the server needs. Only `check` has another.
#[tokio::test]
async fn the_shipped_user_of_the_server_has_what_it_needs() {
    let redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let users = include_str!("../../redis/users.acl");
    let rules = users.lines().find_map(|line| line.strip_prefix("user stockhold-server ")).unwrap();
    let mut user = cmd("ACL");
    user.arg(&["SETUSER", "stockhold-server", ">secret"]).arg(words(rules));
    user.exec_async(&mut redis.connection().await).await.unwrap();
    let (lines, status) = tried(&redis, &redis.url_as("stockhold-server", "secret"), &[]);
    let lacking: Vec<_> = needs(&lines).into_iter().filter(|line| !line[23..].starts_with("ok")).collect();
    assert!(lacking.iter().all(|line| line.contains("`check` cannot be used by this user")), "{lacking:#?}");
    assert_eq!((lacking.len(), status), (2, 0));
}

/// The rules of a user, of which some are in parentheses.
fn words(rules: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in rules.split(' ') {
        match words.last_mut() {
            Some(last) if last.starts_with('(') && !last.ends_with(')') => *last += &format!(" {word}"),
            _ => words.push(word.to_owned()),
        }
    }
    words
}

#[tokio::test]
async fn settings_that_lose_stock_are_told() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru", "--maxmemory", "1gb"]);
    let (lines, status) = tried(&redis, &redis.url(), &[]);
    assert_eq!(status, 1);
    says(&lines, "maxmemory-policy", "will not work", "allkeys-lru: Redis may evict stock");
    says(&lines, "persistence", "warning", "appendonly is off");
    assert!(lines.last().unwrap().ends_with("stockhold cannot use it"));
}

#[tokio::test]
async fn replicas_and_their_master() {
    // The replica follows it by its address, which no node of a cluster does.
    let master = RedisServer::start_single(&["--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start_single(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    master.until_followed().await;
    let (lines, status) = tried(&master, &master.url(), &[]);
    assert_eq!(status, 0);
    says(&lines, "ROLE", "ok", "master with 1 replicas");
    says(&lines, "min-replicas-to-write", "warning", "an old master may take changes that will be lost");
    let (lines, status) = tried(&replica, &replica.url(), &[]);
    assert_eq!(status, 1);
    says(&lines, "ROLE", "will not work", "it is a replica: name the master");
    says(&lines, "TIME, and a change", "will not work", "refused at the moment: READONLY");

    let mut admin = master.connection().await;
    cmd("CONFIG").arg(&["SET", "min-replicas-to-write", "1"]).exec_async(&mut admin).await.unwrap();
    let (lines, _) = tried(&master, &master.url(), &[]);
    says(&lines, "min-replicas-to-write", "ok", "set; 1 good replicas");
    // Now it is one too few.
    cmd("CONFIG").arg(&["SET", "min-replicas-to-write", "2"]).exec_async(&mut admin).await.unwrap();
    let (lines, status) = tried(&master, &master.url(), &[]);
    assert_eq!(status, 1);
    says(&lines, "TIME, and a change", "will not work", "refused at the moment: NOREPLICAS");
    assert!(is_empty(&master).await);
}

#[tokio::test]
async fn a_node_of_a_cluster() {
    let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let mut admin = redis.connection().await;
    let (lines, _) = tried(&redis, &redis.url(), &[]);
    says(&lines, "EVALSHA", "will not work", "refused at the moment: CLUSTERDOWN");
    cmd("ACL")
        .arg(&["SETUSER", "hosted", "on", ">secret", "~*", "+@all", "-asking"])
        .exec_async(&mut admin)
        .await
        .unwrap();
    let (lines, status) = tried(&redis, &redis.url_as("hosted", "secret"), &[]);
    assert_eq!(status, 1);
    says(
        &lines,
        "cluster",
        "will not work",
        "it is a node of a Redis Cluster: --redis-url must begin with redis+cluster://",
    );
    says(&lines, "ASKING", "warning", "keys cannot be reached while their slot moves");
}

/// What cannot be reached is no finding: as for every check, status 2.
#[test]
fn without_a_server_nothing_is_told() {
    let output = program(&["check", "--compat", "--redis-url", "redis://127.0.0.1:1"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("cannot check: the Redis at 127.0.0.1:1") && output.stdout.is_empty(), "{said}");
}
