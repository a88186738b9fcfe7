//! Plants one bug after another in a copy of the source, and reports how soon a test fails.
//!
//! Not a test itself: it compiles everything once for each bug. `make sabotage`.

mod bugs;

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};
use std::{env, fs};

use bugs::{BUGS, Bug, Catcher};

/// A bug must be caught within this time.
const BOUND: Duration = Duration::from_secs(60);
/// Some bugs show in only one of a hundred sequences.
const MODEL_CASES: &str = "1000";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all bugs were caught. With words as arguments: only the bugs whose titles contain one of them.
fn run() -> Outcome<bool> {
    let words: Vec<_> = env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = root.join("target/sabotage");
    copy_sources(root, &copy)?;
    let is_wanted = |bug: &&Bug| words.is_empty() || words.iter().any(|word| bug.what.contains(word.as_str()));
    // A test that already fails without a bug proves nothing.
    for catcher in [Catcher::Model, Catcher::Torture, Catcher::Sentinel, Catcher::Cluster] {
        if !BUGS.iter().filter(is_wanted).any(|bug| bug.caught_by == catcher) {
            continue;
        }
        if let (_, Some(symptom)) = watch(catcher, &copy)? {
            return Err(format!("{} fails without any bug: {symptom}", catcher.test()).into());
        }
    }
    let (mut caught, mut planted) = (0, 0);
    println!("| planted bug | caught by | within | as |\n|---|---|---:|---|");
    for bug in BUGS.iter().filter(is_wanted) {
        planted += 1;
        let file = copy.join(bug.file);
        let good = fs::read_to_string(&file)?;
        fs::write(&file, good.replacen(bug.good, bug.bad, 1))?;
        let (took, symptom) = catch(bug, &copy)?;
        fs::write(&file, good)?;
        let in_time = symptom.is_some() && took < BOUND;
        caught += usize::from(in_time);
        let symptom = symptom.unwrap_or_else(|| "**NOT CAUGHT**".to_owned());
        println!("| {} | {} | {:.1} s | {symptom} |", bug.what, bug.caught_by.test(), took.as_secs_f64());
    }
    println!("\n{caught} of {planted} caught, each within {BOUND:?}");
    Ok(caught == planted)
}

/// Copies all files that git knows, as they are now.
fn copy_sources(root: &Path, copy: &Path) -> Outcome<()> {
    let listed = succeed(Command::new("git").args(["ls-files", "-z"]).current_dir(root))?;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let to = copy.join(name);
        fs::create_dir_all(to.parent().ok_or("a file is in a folder")?)?;
        let from = root.join(name);
        // An unchanged file need not be compiled again. A copy keeps the mode, because some files are executed.
        let is_same = fs::metadata(&to).is_ok_and(|to| fs::metadata(&from).is_ok_and(|from| to.mode() == from.mode()))
            && fs::read(&to).ok() == Some(fs::read(&from)?);
        if !is_same {
            fs::copy(from, &to)?;
        }
    }
    Ok(())
}

/// How long the test ran, and what it printed if it failed.
fn catch(bug: &Bug, copy: &Path) -> Outcome<(Duration, Option<String>)> {
    if bug.file.starts_with("lua/") {
        let sums = succeed(Command::new("sh").args(["-c", "sha1sum *.lua"]).current_dir(copy.join("lua")))?;
        fs::write(copy.join("lua/SHA1SUMS"), sums.stdout)?;
    }
    watch(bug.caught_by, copy)
}

/// Runs a test of the copy.
fn watch(catcher: Catcher, copy: &Path) -> Outcome<(Duration, Option<String>)> {
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        // A first failure is enough: there is no need for the shortest sequence.
        cargo.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("MODEL_CASES", MODEL_CASES).env("RUST_BACKTRACE", "0");
        cargo.env_remove("CARGO_TARGET_DIR").current_dir(copy).args(["test", "--quiet", "--test", catcher.test()]);
        cargo
    };
    succeed(cargo().arg("--no-run"))?;
    let started = Instant::now();
    let output = cargo().arg("--").args(catcher.parts()).output()?;
    let took = started.elapsed();
    Ok((took, (!output.status.success()).then(|| symptom(&output))))
}

/// What was wrong, in one line: the first line of the panic, or the line after the calls that the model lists there.
fn symptom(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    let mut said = said.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let first = said.next().unwrap_or("it ended otherwise");
    let told = if first.ends_with("of this sequence:") { said.find(|line| !line.starts_with(' ')) } else { None };
    told.map_or(first.to_owned(), |key| format!("{key} differs")).replace('|', "/").chars().take(90).collect()
}

fn succeed(command: &mut Command) -> Outcome<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}
