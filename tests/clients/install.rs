//! What the examples need: the client libraries, which are installed from their registries into the build folder once
//! for each version of their lists, and the Rust example, which is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Python with redis-py.
pub static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = folder("python");
    let python = folder.join("bin/python");
    once(&folder, &["clients/python/requirements.txt"], || {
        let python3 = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output();
        expect("python3 -m venv (Debian: apt-get install python3 python3-venv)", python3);
        let requirements = source("clients/python/requirements.txt");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        expect("pip install", Command::new(&python).args(pip).arg(requirements).output());
    });
    python
});

/// A folder with the Node example, its library, and the buyers that import it.
pub static NODE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = folder("node");
    once(&folder, &["clients/node/package.json", "clients/node/package-lock.json"], || {
        fs::create_dir_all(&folder).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source("clients/node").join(file), folder.join(file)).unwrap();
        }
        let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        expect("npm ci (Debian: apt-get install nodejs npm)", npm);
    });
    for program in ["clients/node/stockhold.mjs", "tests/clients/fleet.mjs"] {
        let program = source(program);
        fs::copy(&program, folder.join(program.file_name().unwrap())).unwrap();
    }
    folder
});

/// The Rust example, built like this test.
pub static RUST: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "client", "--target-dir"]).arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        build.arg("--release");
    }
    expect("cargo build", build.output());
    profile.join("examples/client")
});

/// A path of the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(name)
}

/// Runs `install` unless the folder was made from the same lists.
fn once(folder: &Path, lists: &[&str], install: impl FnOnce()) {
    let wanted: String = lists.iter().map(|list| fs::read_to_string(source(list)).unwrap()).collect();
    let stamp = folder.join("installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let _ = fs::remove_file(&stamp);
    install();
    fs::write(stamp, wanted).unwrap();
}

fn expect(what: &str, output: std::io::Result<std::process::Output>) {
    let output = output.unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}
