//! The examples in the documents are run, and must print what the documents say.

use std::path::Path;
use std::process::Command;

mod support;

use support::redis_server::RedisServer;
use support::stockhold::Stockhold;

/// A shell block, and the block of its output.
struct Example {
    commands: String,
    output: String,
}

/// Every ```sh block that is followed by a block of output.
fn examples(document: &str) -> Vec<Example> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let blocks: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
    let shell = |block: &&&str| block.starts_with("sh\n");
    let pairs = blocks.windows(2).filter(|pair| shell(&&pair[0]) && pair[1].starts_with('\n'));
    pairs.map(|pair| Example { commands: pair[0][3..].to_owned(), output: pair[1][1..].to_owned() }).collect()
}

/// The text without what differs from run to run: times, and stream ids that begin with one.
fn timeless(text: &str) -> String {
    let mut shown = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
        } else {
            shown += if digits.len() == 13 { "TIME" } else { &digits };
            shown.push(c);
            digits.clear();
        }
    }
    shown.trim_end().to_owned()
}

#[test]
fn the_examples_of_the_contract_print_what_it_says() {
    assert!(run("lua/README.md") >= 8, "they are found");
}

#[test]
fn the_examples_of_the_clients_print_what_they_should() {
    assert!(run("clients/README.md") >= 1, "they are found");
}

/// Runs the examples of a document one after the other on a fresh server. Returns the number of examples.
fn run(document: &str) -> usize {
    let redis = RedisServer::start();
    let server = Stockhold::start(&redis);
    let examples = examples(document);
    for example in &examples {
        let port = format!("redis-cli -p {}", redis.port());
        // With this option redis-cli prints here as it does on a terminal, but not where a script reads its output.
        let commands = example.commands.replace("redis-cli -p 6390", &port);
        let commands = commands.replace("localhost:8080", &server.address.to_string());
        let commands: String = commands
            .split_inclusive('\n')
            .map(|line| {
                if line.starts_with("redis-cli") {
                    line.replacen("redis-cli", "redis-cli --no-raw", 1)
                } else {
                    line.to_owned()
                }
            })
            .collect();
        let mut shell = Command::new("sh");
        shell.args(["-euc", &commands]).env("REDIS_URL", redis.url()).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = shell.output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(timeless(&printed), timeless(&example.output), "{}", example.commands);
    }
    examples.len()
}
