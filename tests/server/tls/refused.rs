//! What does not become better by waiting: the server says which setting to look at, and ends.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Secured, nowhere, text};
use crate::support::stockhold::program;
use crate::support::tls::Authority;

/// Runs a command that must fail, and returns what it says.
#[track_caller]
fn refused(command: &mut Command, expected: &[&str]) {
    let output = ends(command);
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {said}", output.status);
    for words in expected {
        assert!(said.contains(words), "{words:?} in: {said}");
    }
    assert!(!said.contains("s3cret") && !said.contains("stockhold listens"), "{said}");
}

/// What a command said, which must end soon.
fn ends(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// `serve` and a command of the operator both end with these words.
#[track_caller]
fn refuses(arguments: &[&str], expected: &[&str]) {
    refused(&mut program(&[&["--port", "0"], arguments].concat()), expected);
    refused(&mut program(&[&["settings"], arguments].concat()), expected);
}

#[test]
fn a_certificate_for_another_host() {
    let secured = Secured::start_as(&["redis.example", "10.0.0.1"], [1975, 4096], &[]);
    let (url, ca) = (secured.redis.url(), secured.ca());
    refuses(
        &["--redis-url", &url, "--redis-ca", &ca],
        &["not for 127.0.0.1, the host of --redis-url", "redis.example"],
    );
}

#[test]
fn a_certificate_out_of_its_time() {
    for (years, words) in
        [([1975, 2020], "has expired, 2020-01-01T00:00:00Z"), ([4000, 4096], "not valid before 4000-01-01T00:00:00Z")]
    {
        let secured = Secured::start_as(&["127.0.0.1"], years, &[]);
        refuses(&["--redis-url", &secured.redis.url(), "--redis-ca", &secured.ca()], &[words]);
    }
}

#[test]
fn a_certificate_of_an_authority_that_is_not_trusted() {
    let secured = Secured::start(&[]);
    let url = secured.redis.url();
    let words = ["from an authority that is not trusted", "--redis-ca"];
    refuses(&["--redis-url", &url], &words);
    let folder = tempfile::tempdir().unwrap();
    // Of another name, and of the same name with another key.
    for name in ["another authority", "an authority"] {
        let ca = text(&Authority::new(name).write(folder.path()));
        refuses(&["--redis-url", &url, "--redis-ca", &ca], &words);
        // The authority that is named is trusted, and those of the system no more.
        refused(
            program(&["--port", "0", "--redis-url", &url, "--redis-ca", &ca]).env("SSL_CERT_FILE", secured.ca()),
            &words,
        );
    }
}

#[test]
fn certificates_of_the_system_that_are_not_there() {
    let secured = Secured::start(&[]);
    let mut command = program(&["--port", "0", "--redis-url", &secured.redis.url()]);
    refused(
        command.env("SSL_CERT_FILE", nowhere()).env_remove("SSL_CERT_DIR"),
        &["cannot read the certificates that this system trusts", "--redis-ca"],
    );
}

/// As a Redis without TLS answers, unless it takes the handshake for the beginning of a command and waits for its end.
#[test]
fn an_answer_that_is_not_tls() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("rediss://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"-ERR unknown command\r\n");
        }
    });
    refuses(&["--redis-url", &url], &["does not speak TLS there", "--redis-url begins with redis://"]);
}

#[test]
fn a_redis_that_wants_a_certificate_of_its_clients() {
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let secured = Secured::start(&["--tls-auth-clients", "yes", "--tls-protocols", protocol]);
        let (url, ca) = (secured.redis.url(), secured.ca());
        let trust = ["--redis-url", &url, "--redis-ca", &ca];
        refuses(&trust, &["wants a certificate of its clients", "--redis-cert", "--redis-key"]);
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] =
            Authority::new("another authority").issue(&["shop"]).write(folder.path(), "client").map(|path| text(&path));
        let proof = ["--redis-cert", &certificate, "--redis-key", &key];
        refuses(&[trust, proof].concat(), &["does not accept our certificate (--redis-cert): UnknownCA"]);
    }
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let secured = Secured::start(&["--tls-auth-clients", "yes"]);
    let (url, ca, missing) = (secured.redis.url(), secured.ca(), text(&nowhere()));
    let [certificate, key] = secured.client();
    let other_key = secured.file("other.key", &secured.authority.issue(&["shop"]).key);
    let empty = secured.file("empty", "");
    let damaged =
        secured.file("damaged.pem", &std::fs::read_to_string(&certificate).unwrap().replace("-----END", "-----FIN"));
    let garbled = secured.file("garbled.pem", "-----BEGIN CERTIFICATE-----\nczNjcmV0\n-----END CERTIFICATE-----\n");
    let binary = secured.folder.path().join("binary");
    std::fs::write(&binary, b"s3cret\xff\n").unwrap();
    let trust = ["--redis-ca", &ca];
    for (files, words) in [
        (&["--redis-ca", &missing][..], &["cannot read /nowhere/at/all (--redis-ca): No such file"][..]),
        (&["--redis-ca", &empty], &["empty (--redis-ca): it has no certificate in PEM"]),
        (&["--redis-ca", &key], &["client.key (--redis-ca): it has no certificate in PEM"]),
        (&["--redis-ca", &damaged], &["damaged.pem (--redis-ca)", "a damaged one"]),
        (&["--redis-ca", &garbled], &["garbled.pem (--redis-ca): a certificate in it cannot be used"]),
        (&["--redis-cert", &missing, "--redis-key", &key], &["cannot read /nowhere/at/all (--redis-cert)"]),
        (&["--redis-cert", &certificate, "--redis-key", &missing], &["cannot read /nowhere/at/all (--redis-key)"]),
        (&["--redis-cert", &key, "--redis-key", &key], &["client.key (--redis-cert): it has no certificate"]),
        (
            &["--redis-cert", &certificate, "--redis-key", &certificate],
            &["client.pem (--redis-key): it has no private key"],
        ),
        (
            &["--redis-cert", &certificate, "--redis-key", &other_key],
            &["other.key (--redis-key): it is not the key of", "client.pem"],
        ),
        (
            &["--redis-cert", &garbled, "--redis-key", &key],
            &["garbled.pem (--redis-cert): it cannot be used with", "client.key"],
        ),
        (&["--redis-cert", &certificate], &["--redis-key"]),
        (&["--redis-key", &key], &["--redis-cert"]),
        (&["--redis-password-file", &missing], &["cannot read /nowhere/at/all (--redis-password-file)"]),
        (
            &["--redis-password-file", &empty],
            &["empty (--redis-password-file): its first line, the password, is empty"],
        ),
        (&["--redis-password-file", &text(&binary)], &["binary (--redis-password-file): it is not text in UTF-8"]),
    ] {
        refuses(
            &[&["--redis-url", &url][..], if files[0] == "--redis-ca" { &[][..] } else { &trust[..] }, files].concat(),
            words,
        );
    }
}

/// Even while there is nothing to connect to.
#[test]
fn files_are_read_before_redis_is_up() {
    let (nobody, missing) = ("rediss://127.0.0.1:1", text(&nowhere()));
    refuses(&["--redis-url", nobody, "--redis-ca", &missing], &["cannot read /nowhere/at/all (--redis-ca)"]);
    let plain = "redis://127.0.0.1:1";
    let words = ["cannot read /nowhere/at/all (--redis-password-file)"];
    refuses(&["--redis-url", plain, "--redis-password-file", &missing], &words);
}

#[test]
fn settings_that_do_not_go_together() {
    let secured = Secured::start(&[]);
    let (url, ca) = (secured.redis.url(), secured.ca());
    let [certificate, key] = secured.client();
    let password = secured.file("password", "s3cret");
    for plain in ["redis://127.0.0.1:1", "unix:///nowhere/at/all"] {
        let words = ["for TLS, and --redis-url does not begin with rediss://"];
        refuses(&["--redis-url", plain, "--redis-ca", &ca], &[&["--redis-ca is"], &words[..]].concat());
        let proof = ["--redis-cert", &certificate, "--redis-key", &key];
        refuses(&[&["--redis-url", plain], &proof[..]].concat(), &[&["--redis-cert is"], &words[..]].concat());
    }
    for (files, setting) in
        [(["--redis-ca", &ca], "--redis-ca"), (["--redis-password-file", &password], "--redis-password-file")]
    {
        refuses(&files, &[setting, "for the Redis of a --redis-url, and there is none"]);
    }
    let insecure = format!("{url}#insecure");
    refuses(&["--redis-url", &insecure, "--redis-ca", &ca], &["#insecure turns off the verification", "--redis-ca"]);
    let with_password = secured.redis.url_as("shop", "s3cret");
    refuses(
        &["--redis-url", &with_password, "--redis-ca", &ca, "--redis-password-file", &password],
        &["a password in --redis-url and another in --redis-password-file"],
    );
    for not_a_url in ["http://:s3cret@host", "redis+sentinel://:s3cret@host", "redis://:s3/cret@host", "s3cret"] {
        refuses(&["--redis-url", not_a_url], &["--redis-url (STOCKHOLD_REDIS_URL, REDIS_URL): not a Redis URL: "]);
    }
}

#[test]
fn a_wrong_user_or_password() {
    let secured =
        Secured::start(&["--requirepass", "right", "--user", "weak", "on", ">s3cret", "~*", "+@all", "-select"]);
    let ca = secured.ca();
    let url = |user: &str, password: &str| secured.redis.url_as(user, password);
    let file = secured.file("password", "s3cret\n");
    for (url, words) in [
        (url("", "s3cret"), &["the user or the password in --redis-url is wrong: WRONGPASS"][..]),
        // The user is not ignored where there is no password.
        (url("nobody", ""), &["the user or the password in --redis-url is wrong: WRONGPASS"]),
        (secured.redis.url(), &["it wants a password", "--redis-password-file", "NOAUTH"]),
        (url("weak", "s3cret") + "3", &["it does not open database 3, which --redis-url names", "no permissions"]),
        (url("", "right") + "99", &["it does not open database 99, which --redis-url names", "out of range"]),
    ] {
        refuses(&["--redis-url", &url, "--redis-ca", &ca], words);
    }
    let words = ["password (--redis-password-file), or the user in --redis-url is wrong: WRONGPASS"];
    refuses(&["--redis-url", &secured.redis.url(), "--redis-ca", &ca, "--redis-password-file", &file], &words);
}

/// A web server, for example: the port is wrong.
#[test]
fn what_is_no_redis() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    refuses(&["--redis-url", &url], &["what answers there is not Redis 7 or later"]);
}
