//! The commands, their settings and their exit status.

use std::fs::File;
use std::io::pipe;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::cmd;

use crate::support::redis_server::RedisServer;
use crate::support::snapshot::Snapshot;
use crate::support::stockhold::{Stockhold, finish, program, run};

type Variables<'a> = &'a [(&'a str, &'a str)];

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn ready_tells_by_its_exit_status() {
    let mut redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let port = server.address.port().to_string();
    let ready = |port: &str| program(&["ready", "--port", port]).output().unwrap();
    let yes = ready(&port);
    assert_eq!((yes.status.code(), yes.stdout.as_slice()), (Some(0), &b"{\"status\":\"ready\"}\n"[..]));
    redis.kill();
    assert_eq!(ready(&port).status.code(), Some(1));
    drop(server);
    let nobody = ready(&port);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("/readyz"));
}

#[test]
fn settings_have_limits() {
    for bad in [
        &["--sweep-interval-ms", "0"][..],
        &["--audit-max", "-1"],
        &["--keep-seconds", "forever"],
        &["--extend-max-seconds", "2592001"],
        &["--keep-alive-seconds", "0"],
        &["--keep-alive-seconds", "3601"],
        &["--cors-origin", ""],
        &["--cors-origin", "shop.example"],
        &["--cors-origin", "https://shop.example/"],
        &["--cors-origin", "https://shop.example,,"],
        &["--drain-seconds", "-1"],
        &["--drain-seconds", "3601"],
        &["--host", "example"],
        &["--port", "65536"],
        &["--allowed-hosts", ""],
        &["--allowed-hosts", "shop.example:80"],
        &["--allowed-hosts", "http://shop.example"],
        &["--allowed-hosts", "shop.example,,"],
        &["--redis-maxmemory", "4"],
        &["--redis-maxmemory", "15mb"],
        &["--redis-maxmemory", "1tb"],
        &["--redis-maxmemory", "+1gb"],
        &["--redis-maxmemory", "99999999999gb"],
    ] {
        assert_eq!(program(bad).output().unwrap().status.code(), Some(2), "{bad:?}");
    }
    let bad_url = program(&["--redis-url", "http://:secret@localhost"]).output().unwrap();
    let said = String::from_utf8(bad_url.stderr).unwrap();
    assert!(bad_url.status.code() == Some(1) && said.contains("--redis-url") && !said.contains("secret"), "{said}");
}

#[test]
fn help_names_every_setting() {
    let (status, help) = run(&mut program(&["--help"]));
    for word in ["serve", "scripts", "check", "ready", "serve --help"] {
        assert!(help.contains(word) && status == 0, "{word} in {help}");
    }
    let (_, help) = run(&mut program(&["serve", "--help"]));
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for flag in help.split_whitespace().filter(|word| word.starts_with("--") && !["--help", "--"].contains(word)) {
        let variable = format!("[env: STOCKHOLD_{}", flag.trim_start_matches('-').to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "{variable} in {help}");
    }
    assert!(help.matches("[env: STOCKHOLD_").count() >= 14, "{help}");
}

/// A flag overrides a variable, and `STOCKHOLD_` overrides the name that other programs use too.
#[tokio::test]
async fn a_setting_may_be_a_variable() {
    let redis = RedisServer::start();
    let (url, nowhere) = (redis.url(), "redis://127.0.0.1:1");
    let cases: [(&[&str], Variables); 4] = [
        (&["--port", "0", "--redis-url", &url], &[("STOCKHOLD_PORT", "abc"), ("STOCKHOLD_REDIS_URL", nowhere)]),
        (
            &[],
            &[
                ("STOCKHOLD_PORT", "0"),
                ("PORT", "abc"),
                ("STOCKHOLD_REDIS_URL", &url),
                ("REDIS_URL", nowhere),
                ("STOCKHOLD_LOG", "error"),
                ("RUST_LOG", "="),
            ],
        ),
        (&["serve"], &[("PORT", "0"), ("REDIS_URL", &url), ("STOCKHOLD_INSECURE_BIND", "1"), ("STOCKHOLD_HOST", "::")]),
        (&[], &[("PORT", "0"), ("REDIS_URL", &url), ("STOCKHOLD_PORT", ""), ("STOCKHOLD_REDIS_URL", "")]),
    ];
    for (arguments, variables) in cases {
        Stockhold::run(program(arguments).envs(variables.iter().copied())).get("/readyz").await.ok();
    }
    for (variable, value) in [
        ("PORT", "abc"),
        ("STOCKHOLD_PORT", "abc"),
        ("STOCKHOLD_SWEEP_INTERVAL_MS", "abc"),
        ("STOCKHOLD_DURABILITY", "wait:0"),
        ("STOCKHOLD_INSECURE_BIND", "perhaps"),
    ] {
        let (status, said) = run(program(&[]).env(variable, value));
        assert!(status == 2 && said.contains(value), "{variable}={value}: {status} {said}");
    }
}

/// Empty variables that compose passes on, variables that Kubernetes sets for a Service named redis or stockhold, and
/// variables of other programs.
#[tokio::test]
async fn variables_that_are_empty_or_not_ours_are_ignored() {
    let empty = "BIND_ADDRESS PORT REDIS_URL REDIS_PORT TOKEN_FILE INSECURE_BIND RUST_LOG STOCKHOLD_HOST STOCKHOLD_PORT \
                 STOCKHOLD_TOKEN_FILE STOCKHOLD_INSECURE_BIND STOCKHOLD_REDIS_URL STOCKHOLD_REDIS_SERVER \
                 STOCKHOLD_REDIS_PORT STOCKHOLD_REDIS_MAXMEMORY STOCKHOLD_DATA_DIR STOCKHOLD_MAX_BATCH STOCKHOLD_DURABILITY \
                 STOCKHOLD_SWEEP_INTERVAL_MS STOCKHOLD_AUDIT_MAX STOCKHOLD_KEEP_SECONDS STOCKHOLD_KEEP_ALIVE_SECONDS \
                 STOCKHOLD_ALLOWED_HOSTS STOCKHOLD_LOG STOCKHOLD_REDIS_CA STOCKHOLD_REDIS_CERT STOCKHOLD_REDIS_KEY \
                 STOCKHOLD_REDIS_PASSWORD_FILE STOCKHOLD_DRAIN_SECONDS STOCKHOLD_CORS_ORIGIN \
                 STOCKHOLD_LOG_FORMAT STOCKHOLD_SHARDS";
    let foreign = [
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_SERVER", "10.0.0.1"),
        ("STOCKHOLD_PORT", "tcp://10.0.0.2:80"),
        ("STOCKHOLD_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("BIND_ADDRESS", "nowhere"),
        ("DATA_DIR", "/nowhere"),
        ("TOKEN_FILE", "/nowhere"),
        ("MAX_BATCH", "many"),
    ];
    for variables in [empty.split(' ').map(|name| (name, "")).collect(), foreign.to_vec()] {
        // One shard, which a cluster refuses, is what a server has that is told nothing.
        let redis = RedisServer::start_single(&[]);
        let url = redis.url();
        let arguments = ["--port", "0", "--redis-url", &url];
        Stockhold::run(program(&arguments).envs(variables.iter().copied())).get("/readyz").await.ok();
        for command in [&["check", "--redis-url", &url][..], &["scripts", "verify", "--redis-url", &url]] {
            let (status, said) = run(program(command).envs(variables.iter().copied()));
            assert_eq!(status, 0, "{command:?}: {said}");
        }
    }
}

/// The settings of a server do not affect other commands.
#[tokio::test]
async fn a_command_reads_only_its_own_settings() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let (url, port) = (redis.url(), server.address.port().to_string());
    let others = [
        ("STOCKHOLD_MAX_BATCH", "abc"),
        ("STOCKHOLD_DURABILITY", "abc"),
        ("STOCKHOLD_KEEP_ALIVE_SECONDS", "abc"),
        ("STOCKHOLD_LOG", "="),
    ];
    let redis_only = [("PORT", "abc"), ("STOCKHOLD_HOST", "abc")];
    let serving =
        [("STOCKHOLD_SWEEP_INTERVAL_MS", "abc"), ("STOCKHOLD_KEEP_SECONDS", "abc"), ("STOCKHOLD_REDIS_PORT", "x")];
    let commands: [(&[&str], Variables); 5] = [
        (&["ready", "--port", &port], &serving),
        (&["check", "--redis-url", &url], &redis_only),
        (&["scripts", "verify", "--redis-url", &url], &redis_only),
        (&["scripts"], &serving),
        (&["--version"], &serving),
    ];
    for (arguments, foreign) in commands {
        let (status, said) = run(program(arguments).envs(others).envs(foreign.iter().copied()));
        assert_eq!(status, 0, "{arguments:?}: {said}");
    }
}

#[test]
fn a_filter_that_lets_nothing_through_is_refused() {
    for filter in ["json", "hyper=debug", "=", "info,stockhold=loud", "stockhold=off"] {
        let (status, said) = run(&mut program(&["--redis-url", "redis://127.0.0.1:1", "--log", filter]));
        assert!(status == 1 && said.contains("--log") && said.contains("info"), "{filter}: {status} {said}");
    }
    let redis = RedisServer::start();
    for filter in ["off", "error", "stockhold=error,hyper=debug", "error,hyper=off"] {
        Stockhold::start_with(&redis, &["--log", filter]);
    }
}

/// Commands that read a Redis find the private one on the port that the server was given.
#[tokio::test]
async fn the_private_redis_is_found_on_its_port() {
    let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
    let port = free_port().to_string();
    let data = folder.path().to_str().unwrap();
    let server = Stockhold::spawn(&["--port", "0", "--redis-port", &port, "--data-dir", data]);
    server.seed("tea", 5).await;
    for command in [&["check"][..], &["scripts", "verify"], &["scripts", "load"]] {
        let (status, said) = run(program(command).env("STOCKHOLD_REDIS_PORT", &port));
        assert_eq!(status, 0, "{command:?}: {said}");
        let (status, said) = run(program(command).args(["--redis-port", &port]));
        assert_eq!(status, 0, "{command:?}: {said}");
    }
    let (_, said) = run(program(&["check"]).env("STOCKHOLD_REDIS_PORT", &port));
    assert!(said.contains("\n1 SKUs, 1 events"), "{said}");
}

/// A wrong database looks like one where all is well.
#[tokio::test]
async fn a_check_of_an_empty_redis_fails() {
    let redis = RedisServer::start();
    let mut connection = redis.connection().await;
    cmd("SET").arg("cache:1").arg("x").exec_async(&mut connection).await.unwrap();
    let before = Snapshot::take(&mut connection).await;
    let url = redis.url_as("", "secret") + "0";
    let plain = redis.url();
    let address = format!("127.0.0.1:{}", redis.port());
    for arguments in [&[][..], &["tea"], &["--json"], &["--repair", "--apply"], &["tea", "--repair", "--apply"]] {
        let (status, said) = run(program(&["check", "--redis-url", &plain]).args(arguments));
        assert!(status == 2 && said.contains(&address) && said.contains("nothing of stockhold"), "{status} {said}");
    }
    let after = Snapshot::take(&mut connection).await;
    assert_eq!(before.changed(&after), Vec::<String>::new(), "it left something there");
    // A password that is not needed is refused, and is not shown.
    let (status, said) = run(&mut program(&["check", "--redis-url", &url]));
    assert!(status == 2 && said.contains(&address) && !said.contains("secret"), "{status} {said}");
    let (status, said) = run(&mut program(&["check", "--redis-url", "redis://127.0.0.1:1/3"]));
    assert!(status == 2 && said.contains("127.0.0.1:1/3"), "{status} {said}");

    // A Redis with scripts and without stock is valid: nothing has been put on sale yet.
    let server = Stockhold::start(&redis);
    assert_eq!(run(&mut program(&["check", "--redis-url", &plain])).0, 0);
    server.seed("tea", 5).await;
    assert_eq!(run(&mut program(&["check", "--redis-url", &plain, "tea"])).0, 0);
    let (status, said) = run(&mut program(&["check", "--redis-url", &plain, "tea", "tee"]));
    assert!(status == 1 && said.contains("tee ") && said.contains("unreadable"), "{status} {said}");
}

#[tokio::test]
async fn a_check_of_another_database_of_the_same_redis_fails() {
    // A cluster has only one.
    let redis = RedisServer::start_single(&[]);
    let server = Stockhold::start(&redis);
    server.seed("tea", 5).await;
    let [other, address] = [format!("{}1", redis.url()), format!("127.0.0.1:{}/1", redis.port())];
    let (status, said) = run(&mut program(&["check", "--redis-url", &other]));
    assert!(status == 2 && said.contains(&address), "{status} {said}");
}

#[tokio::test]
async fn a_closed_reader_is_not_a_failure() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let (url, port) = (redis.url(), server.address.port().to_string());
    let closed = || pipe().unwrap().1;
    for (arguments, expected) in [
        (&["scripts", "list"][..], 0),
        (&["scripts", "list", "--json"], 0),
        (&["scripts", "load", "--redis-url", &url], 0),
        (&["scripts", "verify", "--redis-url", &url], 0),
        (&["check", "--redis-url", &url], 0),
        (&["check", "--redis-url", &url, "--json"], 0),
        (&["check", "--redis-url", "redis://127.0.0.1:1"], 2),
        (&["ready", "--port", &port], 0),
        (&["ready", "--port", "1"], 1),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["--port", "65536"], 2),
        (&["serve", "--redis-url", "nowhere"], 1),
    ] {
        let mut child = program(arguments).stdout(closed()).stderr(closed()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "{arguments:?} does not end"),
            }
            sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let (status, said) = finish(program(&["scripts", "list"]).stdout(full));
        assert!(status == 1 && said.contains("No space left"), "{status} {said}");
    }
}

#[tokio::test]
async fn a_server_whose_output_nobody_reads_serves() {
    let redis = RedisServer::start();
    let port = free_port().to_string();
    let mut command = program(&["--redis-url", &redis.url(), "--port", &port]);
    let mut server = command.stdout(pipe().unwrap().1).stderr(pipe().unwrap().1).spawn().unwrap();
    let ready = || run(&mut program(&["ready", "--port", &port])).0 == 0;
    while !ready() {
        assert_eq!(server.try_wait().unwrap(), None, "it ended");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test]
async fn a_node_of_a_cluster_is_refused_at_the_start() {
    let bus = free_port().to_string();
    let node = RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let mut connection = node.connection().await;
    let command = |arguments: &[&str]| {
        let mut command = program(&["--port", "0", "--redis-url", &node.url()]);
        run(command.args(arguments))
    };
    let refusal = |(status, said): (i32, String)| {
        assert_eq!(status, 1, "{said}");
        let address = format!("127.0.0.1:{}", node.port());
        assert!(said.contains(&address) && said.contains("Redis Cluster") && !said.contains("listens"), "{said}");
    };
    refusal(command(&[]));
    // And when the cluster is complete: this node serves all slots.
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16383).exec_async(&mut connection).await.unwrap();
    refusal(command(&[]));
    let keys: usize = cmd("DBSIZE").query_async(&mut connection).await.unwrap();
    assert_eq!(keys, 0, "nothing was written there");
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
