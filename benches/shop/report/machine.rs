//! What the figures were measured on, and what was measured.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::side::postgres;

/// Crates that carry the load, on either side.
const CRATES: [&str; 4] = ["hyper", "redis", "tokio", "tokio-postgres"];

pub struct Machine(Vec<(&'static str, String)>);

impl Machine {
    pub fn describe() -> Self {
        let cores = available_parallelism().map_or(0, usize::from);
        let redis_server = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let redis = output(&redis_server, &["--version"]);
        Self(vec![
            ("processor", format!("{}, {cores} cores", processor())),
            ("kernel", output("uname", &["-sr"])),
            ("date", Timestamp::now().strftime("%Y-%m-%d").to_string()),
            ("commit", output("git", &["describe", "--always", "--dirty", "--abbrev=12"])),
            ("rustc", output("rustc", &["--version"])),
            ("redis", redis.split(" sha=").next().unwrap_or_default().to_owned()),
            ("postgres", postgres::version().unwrap_or_else(|| "not installed".to_owned())),
            ("crates", crates()),
        ])
    }

    pub fn markdown(&self) -> String {
        let line = |(name, value): &(&str, String)| format!("- {name}: {value}\n");
        self.0.iter().map(line).collect()
    }

    pub fn to_json(&self) -> Value {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    }
}

/// Its model, as Linux or macOS tells it.
fn processor() -> String {
    let Ok(info) = fs::read_to_string("/proc/cpuinfo") else {
        return output("sysctl", &["-n", "machdep.cpu.brand_string"]);
    };
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned())
}

/// The versions that are locked.
fn crates() -> String {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap_or_default();
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", rest.split('"').next()?))
    };
    CRATES.iter().filter_map(|name| version(name)).collect::<Vec<_>>().join(", ")
}

/// What a command prints, or that it is unknown.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
