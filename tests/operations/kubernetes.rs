//! The deployment for Kubernetes, by the schemas of Kubernetes, and with the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::redis_server::RedisServer;
use crate::support::stockhold::{Stockhold, program};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A Python with the validator, which has the schemas of many versions; installed once for each version of the list.
fn validator() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("operations/python");
    let (wanted, stamp) = (read("tests/operations/requirements.txt"), folder.join("installed-from"));
    let python = folder.join("bin/python");
    if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operations/requirements.txt");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(&python).args(pip).arg(list));
        fs::write(stamp, wanted).unwrap();
    }
    folder.join("bin/kubernetes-validate")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn it_is_as_the_schemas_have_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/kubernetes.yaml");
    let validator = validator();
    let validate = |version: &str, file: &Path| {
        let output = Command::new(&validator).args(["--strict", "-k", version]).arg(file).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    for version in ["1.28", "1.37"] {
        let (is_valid, said) = validate(version, &file);
        assert!(is_valid, "{said}");
        for resource in ["secret", "deployment", "service", "poddisruptionbudget"] {
            assert!(said.contains(&format!("passed for resource {resource}/stockhold")), "{resource}: {said}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, read("ops/kubernetes.yaml").replace("minAvailable", "minAvaliable")).unwrap();
    assert!(!validate("1.37", &wrong).0, "the validator finds nothing");
}

/// The program takes the settings that the deployment gives it, with files where it finds them.
#[tokio::test]
async fn the_program_takes_its_settings() {
    let deployment = read("ops/kubernetes.yaml");
    let settings: Vec<(&str, &str)> = deployment
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("- { name: STOCKHOLD_")?.strip_suffix("\" }")?.split_once(", value: \"")
        })
        .collect();
    assert!(settings.len() >= 5, "{settings:?}");
    let folder = tempfile::tempdir().unwrap();
    let tokens = deployment.split("tokens: |\n").nth(1).unwrap().split("---").next().unwrap();
    fs::write(folder.path().join("tokens"), tokens).unwrap();
    fs::write(folder.path().join("redis-password"), "change-me\n").unwrap();
    let redis = RedisServer::start_plain();
    let mut connection = redis.connection().await;
    let user = ["SETUSER", "stockhold-server", "on", ">change-me", "~*", "+@all"];
    redis::cmd("ACL").arg(&user).exec_async(&mut connection).await.unwrap();
    let mut command = program(&["serve", "--port", "0", "--log", "error"]);
    for (name, value) in settings {
        let value = value.replace("/etc/stockhold", folder.path().to_str().unwrap());
        let value = value.replace("@redis:6379", &format!("@127.0.0.1:{}", redis.port()));
        command.env(format!("STOCKHOLD_{name}"), value);
    }
    // So that the test need not wait at its end.
    let server = Stockhold::run(command.env("STOCKHOLD_DRAIN_SECONDS", "0"));
    server.get("/readyz").await.ok();
    server.get("/api/inventory").await.problem(401, "unauthorized");
}

/// Everything that is shipped with settings names only those that exist.
#[test]
fn all_settings_exist() {
    let help = String::from_utf8(program(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("STOCKHOLD_")).map(str::to_owned).collect()
    };
    let known = names(&help);
    for file in ["ops/kubernetes.yaml", "Dockerfile", "docker-compose.yml", "README.md", "docs/operations.md"] {
        let unknown: Vec<_> = names(&read(file)).difference(&known).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
    }
}
