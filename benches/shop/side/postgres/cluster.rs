//! A PostgreSQL of the benchmark's own: its data in a private folder, reached by a socket in it, gone when dropped. One that
//! runs already is not touched.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::schema::{BOOKS, EMPTY, STOCK, TABLES};

/// What a careful administrator sets on a machine of a few gigabytes that has no replica.
const SETTINGS: [&str; 14] = [
    "listen_addresses=",
    "max_connections=50",
    "shared_buffers=256MB",
    "fsync=on",
    "full_page_writes=on",
    // Nobody replicates it.
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_buffers=16MB",
    // No checkpoint has to be early.
    "max_wal_size=4GB",
    "min_wal_size=1GB",
    "checkpoint_timeout=15min",
    "random_page_cost=1.1",
    "autovacuum=on",
    "autovacuum_naptime=10s",
];

const PATIENCE: Duration = Duration::from_secs(20);

/// Ticks of the processor times in /proc, which Linux fixes at 100 a second.
const TICK: Duration = Duration::from_millis(10);

pub struct Cluster {
    postmaster: Child,
    folder: TempDir,
}

impl Cluster {
    /// With empty tables. `None` where PostgreSQL is not installed.
    pub async fn start() -> Option<Self> {
        let programs = programs()?;
        let folder =
            tempfile::Builder::new().prefix("stockhold-bench-").tempdir_in("/tmp").expect("/tmp takes a folder");
        let owner = owner();
        if let Some(owner) = &owner {
            let (user, group) = (owner.uid.as_raw(), owner.gid.as_raw());
            chown(folder.path(), Some(user), Some(group)).expect("root may give a folder away");
        }
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if let Some(owner) = &owner {
                command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
            }
            let log = File::options().create(true).append(true).open(folder.path().join("log")).expect("a log");
            command.current_dir(folder.path()).env("LC_ALL", "C").stdin(Stdio::null());
            command.stdout(log.try_clone().expect("a log")).stderr(log).arg("-D").arg(folder.path().join("data"));
            command
        };
        let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let mut initdb = run("initdb");
        initdb.args(["--auth=trust", "--username=shop", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        assert!(initdb.status().expect("initdb can be run").success(), "initdb: {}", log());
        let mut postgres = run("postgres");
        postgres.arg("-k").arg(folder.path()).args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let mut postmaster = postgres.spawn().expect("postgres can be run");
        let deadline = Instant::now() + PATIENCE;
        let client = loop {
            if let Ok(client) = connect(folder.path()).await {
                break client;
            }
            let ended = postmaster.try_wait().expect("its status can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "postgres does not start: {}", log());
            sleep(Duration::from_millis(20)).await;
        };
        let cluster = Self { postmaster, folder };
        client.batch_execute(TABLES).await.expect("the tables can be made");
        Some(cluster)
    }

    /// How to reach its database, in the words of libpq.
    pub fn database(&self) -> String {
        database(self.folder.path())
    }

    /// Units of each SKU, and nothing else: no reservation, no event, nothing to vacuum, a checkpoint behind it.
    pub async fn stock(&self, skus: &[String], quantity: u64) {
        let client = connect(self.folder.path()).await.expect("postgres accepts connections");
        client.batch_execute(EMPTY).await.expect("the tables can be emptied");
        client.execute(STOCK, &[&skus, &(quantity as i64)]).await.expect("the SKUs are stocked");
        for tidy in ["VACUUM ANALYZE", "CHECKPOINT"] {
            client.batch_execute(tidy).await.unwrap_or_else(|error| panic!("{tidy}: {error}"));
        }
    }

    /// How many holds and confirms are stored, after making sure that counts, reservations and events agree.
    pub async fn audited(&self, quantity: u64) -> [u64; 2] {
        let client = connect(self.folder.path()).await.expect("postgres accepts connections");
        let row = client.query_one(BOOKS, &[&(quantity as i64)]).await.expect("the books can be read");
        assert!(row.get::<_, bool>(0), "counts, reservations and events agree");
        [1, 2].map(|column| row.get::<_, i64>(column) as u64)
    }

    /// Processor time that all its processes have used, in user and system mode. Zero where there is no /proc.
    pub fn cpu(&self) -> Duration {
        let Ok(processes) = fs::read_dir("/proc") else { return Duration::ZERO };
        let postmaster = self.postmaster.id();
        let mut ticks = 0;
        for process in processes.flatten() {
            let Ok(stat) = fs::read_to_string(process.path().join("stat")) else { continue };
            // The name, in parentheses, may have spaces. After it: state, parent, ...
            let Some((id, rest)) = stat.split_once(" (") else { continue };
            let Some((_, rest)) = rest.rsplit_once(") ") else { continue };
            let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or_default()).collect();
            // Of the postmaster also the time of its children that have ended.
            let until = if id == postmaster.to_string() {
                15
            } else if fields[1] == u64::from(postmaster) {
                13
            } else {
                continue;
            };
            ticks += fields[11..until].iter().sum::<u64>();
        }
        TICK * u32::try_from(ticks).expect("it runs for less than a year")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ends all its processes at once; nobody needs the data. One that already ended is no reason to fail.
        let _ = kill(Pid::from_raw(self.postmaster.id() as i32), Signal::SIGQUIT);
        let _ = self.postmaster.wait();
    }
}

fn database(folder: &Path) -> String {
    format!("host={} user=shop dbname=postgres", folder.display())
}

async fn connect(folder: &Path) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&database(folder), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Whom PostgreSQL runs as: it refuses to be run by root.
fn owner() -> Option<User> {
    let user = |name| User::from_name(name).ok().flatten();
    Uid::effective().is_root().then(|| user("postgres").or_else(|| user("nobody")).expect("there is a user but root"))
}

/// The version, for the report.
pub fn version() -> Option<String> {
    let output = Command::new(programs()?.join("postgres")).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The folder of PostgreSQL's programs: one on the path, or the newest of those where Debian, PostgreSQL's own packages
/// and Homebrew install them.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_both = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file());
    std::env::split_paths(&path).find(has_both).or_else(|| {
        let places = ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"];
        let mut folders: Vec<_> =
            places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten().collect();
        folders.sort_by_key(|folder| version_in(&folder.file_name().to_string_lossy()));
        folders.iter().rev().map(|folder| folder.path().join("bin")).find(has_both)
    })
}

/// The number at the end of a name such as `postgresql@17`.
fn version_in(name: &str) -> Option<u32> {
    name.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
