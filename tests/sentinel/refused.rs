//! What is wrong with the URL, or with what is there: in words, and at once where waiting does not help.

use crate::support::redis_server::RedisServer;
use crate::support::sentinel::{NAME, Sentinel, Watched};
use crate::support::stockhold::program;

/// A command ends with these words.
#[track_caller]
fn says(command: &[&str], arguments: &[String], words: &str) {
    let output = program(command).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains(words), "{words:?} in: {said}");
    assert!(!said.contains("s3cret"), "{said}");
}

fn at(url: &str) -> Vec<String> {
    vec!["--redis-url".to_owned(), url.to_owned()]
}

#[tokio::test]
async fn a_name_that_the_sentinels_do_not_know() {
    let redis = RedisServer::start();
    let sentinel = Sentinel::start(&redis, 1, &[]).await;
    let watched = Watched { redis: vec![redis], sentinels: vec![sentinel] };
    let wrong = watched.trusting(watched.url().replace(NAME, "shoe"));
    for command in ["serve", "settings", "check"] {
        says(&[command], &wrong, "the sentinels know no master of the name shoe: see master= in --redis-url");
    }
}

#[tokio::test]
async fn what_is_no_sentinel() {
    let redis = RedisServer::start_plain();
    let url = format!("redis+sentinel://127.0.0.1:{}/?master={NAME}", redis.port());
    for command in ["serve", "settings"] {
        says(&[command], &at(&url), "what answers there is no sentinel");
    }
}

#[test]
fn nobody_is_there() {
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:2/?master={NAME}");
    says(&["settings"], &at(&url), "no sentinel can be reached (127.0.0.1:");
}

#[test]
fn settings_that_do_not_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "s3cret").unwrap();
    let file = path.to_str().unwrap().to_owned();
    let with = |url: &str, setting: &str| [at(url), vec![setting.to_owned(), file.clone()]].concat();
    let sentinels = format!("redis+sentinel://:s3cret@127.0.0.1:1/?master={NAME}");
    for command in ["serve", "settings"] {
        let not_used =
            "--sentinel-password-file is for sentinels, and --redis-url does not begin with redis+sentinel://";
        for url in ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"] {
            says(&[command], &with(url, "--sentinel-password-file"), not_used);
        }
        says(&[command], &with(&sentinels, "--redis-ca"), "does not begin with rediss:// or rediss+sentinel://");
        says(&[command], &with(&sentinels, "--redis-password-file"), "another in --redis-password-file");
        let missing = vec!["--sentinel-password-file".to_owned(), "/nowhere/at/all".to_owned()];
        says(&[command], &[at(&sentinels), missing].concat(), "/nowhere/at/all (--sentinel-password-file)");
        for url in ["redis+sentinel://:s3cret@127.0.0.1:1", "redis+sentinel://:s3cret@127.0.0.1:1?master=x&pass=s3cret"]
        {
            says(&[command], &at(url), "--redis-url (STOCKHOLD_REDIS_URL, REDIS_URL): not a Redis URL: ");
        }
    }
}
