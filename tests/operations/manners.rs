//! Pages in browsers, shells, packagers, and those who start it without tokens.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use hyper::body::Bytes;
use hyper::{HeaderMap, Request};

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Answer, Stockhold, program};

const SHOP: &str = "https://shop.example";

async fn ask(server: &Stockhold, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::builder().method(method).uri(server.url(path));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    server.send(request, Bytes::new()).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// A preflight, as a browser sends it for a page of this origin.
async fn preflight(server: &Stockhold, origin: &str, path: &str) -> Answer {
    let headers = [("origin", origin), ("access-control-request-method", "POST")];
    ask(server, "OPTIONS", path, &headers).await
}

#[tokio::test]
async fn pages_of_an_origin_that_is_listed_may_call() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "read reader-reader-01\n").unwrap();
    let origins = format!("http://localhost:3000,{SHOP}");
    let arguments = ["--cors-origin", &origins, "--token-file", tokens.to_str().unwrap()];
    let server = Stockhold::start_with(&redis, &arguments);
    // A browser sends no token with it.
    for path in ["/api/reservations/hold", "/api/inventory/tea/rules", "/nowhere"] {
        let answer = preflight(&server, SHOP, path).await;
        assert_eq!(answer.status, 204, "{path}");
        let told = |name: &str| header(&answer.headers, &format!("access-control-{name}")).unwrap().to_owned();
        assert_eq!(told("allow-origin"), SHOP);
        for method in ["GET", "POST", "PUT"] {
            assert!(told("allow-methods").split(", ").any(|allowed| allowed == method), "{method}");
        }
        for name in ["authorization", "content-type", "idempotency-key", "x-request-id"] {
            assert!(told("allow-headers").split(", ").any(|allowed| allowed == name), "{name}");
        }
        assert_eq!((told("max-age").as_str(), header(&answer.headers, "vary")), ("600", Some("origin")));
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
    // It may read answers, and errors too.
    let token = ("authorization", "Bearer reader-reader-01");
    for (headers, status) in [(&[("origin", SHOP), token][..], 200), (&[("origin", SHOP)], 401)] {
        let answer = ask(&server, "GET", "/api/inventory", headers).await;
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer.headers, "access-control-allow-origin"), Some(SHOP));
        assert!(header(&answer.headers, "access-control-expose-headers").unwrap().contains("x-request-id"));
    }
    // Others may not.
    for other in ["https://evil.example", "http://shop.example", "https://shop.example:8443", "null"] {
        let answer = preflight(&server, other, "/api/inventory").await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{other}");
        assert_eq!(header(&answer.headers, "vary"), Some("origin"));
        answer.problem(401, "unauthorized");
        let answer = ask(&server, "GET", "/api/inventory", &[("origin", other), token]).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{other}");
        answer.ok();
    }
    // What is no preflight.
    ask(&server, "OPTIONS", "/api/inventory", &[("origin", SHOP), token]).await.problem(403, "insufficient_scope");
}

#[tokio::test]
async fn without_the_setting_no_page_may_call() {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let answer = preflight(&server, SHOP, "/api/inventory").await;
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control") || name == "vary"));
    answer.problem(405, "method_not_allowed");
    let any = Stockhold::start_with(&redis, &["--cors-origin", "*"]);
    let answer = preflight(&any, SHOP, "/api/inventory").await;
    assert_eq!((answer.status.as_u16(), header(&answer.headers, "access-control-allow-origin")), (204, Some("*")));
    // The name by which it is called is checked all the same.
    let headers = [("origin", SHOP), ("access-control-request-method", "POST"), ("host", "evil.example")];
    ask(&any, "OPTIONS", "/api/inventory", &headers).await.problem(421, "host_not_allowed");
}

/// What the image sets is read from its Dockerfile.
#[tokio::test]
async fn a_server_without_tokens_warns_where_others_can_connect() {
    const WARNING: &str = "everybody who can connect may do everything";
    let redis = RedisServer::start_plain();
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::write(&tokens, "read reader-reader-01\n").unwrap();
    let dockerfile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).unwrap();
    let line = dockerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let of_image: Vec<_> = line.split(' ').map(|setting| setting.split_once('=').unwrap()).collect();
    let tokens = ["--token-file", tokens.to_str().unwrap()];
    for (variables, arguments, warns) in [
        (&of_image[..], &[][..], true),
        (&[], &["--host", "0.0.0.0", "--insecure-bind"], true),
        (&of_image, &tokens, false),
        (&[], &[], false),
    ] {
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = program(&["--port", "0", "--redis-url", &redis.url(), "--log", "warn"]);
        let server = Stockhold::run(command.args(arguments).envs(variables.iter().copied()).stderr(log));
        let answer = server.get("/livez").await;
        assert_eq!(answer.status, 200);
        drop(server);
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log.contains(WARNING), warns, "{variables:?} {arguments:?}: {log}");
    }
}

#[test]
fn a_shell_completes_the_arguments() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let printed = program(&["completions", shell]).output().unwrap();
        assert!(printed.status.success());
        assert!(String::from_utf8(printed.stdout).unwrap().contains("drain-seconds"), "{shell}");
    }
    let script = String::from_utf8(program(&["completions", "bash"]).output().unwrap().stdout).unwrap();
    let completed = |words: &str| {
        let count = words.split(' ').count();
        let last = words.rsplit(' ').next().unwrap();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={}; _stockhold stockhold '{last}' ''; echo \"${{COMPREPLY[@]}}\"",
            count - 1
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed("stockhold ser"), "serve");
    assert_eq!(completed("stockhold serve --drain"), "--drain-seconds");
    assert_eq!(program(&["completions", "csh"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn the_manual_has_every_command_and_setting() {
    let printed = program(&["man"]).output().unwrap();
    assert!(String::from_utf8(printed.stdout).unwrap().contains(".TH stockhold 1"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(program(&["man", pages.to_str().unwrap()]).status().unwrap().success());
    let names: BTreeSet<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for page in ["stockhold.1", "stockhold-serve.1", "stockhold-check.1", "stockhold-scripts-load.1"] {
        assert!(names.contains(std::ffi::OsStr::new(page)), "{page} in {names:?}");
    }
    let page = fs::read_to_string(pages.join("stockhold-serve.1")).unwrap().replace('\\', "");
    let help = String::from_utf8(program(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    for flag in help.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(page.contains(flag), "{flag}");
    }
}
