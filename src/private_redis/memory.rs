//! How much memory the private redis-server may use. Above the limit, Redis refuses holds and still settles them.
//! Without a limit, the system would kill it, or other processes.

use std::fs::read_to_string;
use std::path::Path;
use std::time::Duration;

use ::redis::{FromRedisValue, InfoDict, cmd};
use tokio::time::sleep;
use tracing::warn;

use crate::redis::Redis;

/// How often memory use is checked.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Percent of the limit: above the first it warns, below the second it may warn again.
const WARNING: [u64; 2] = [80, 75];

/// Three quarters of the memory that this process may use, in bytes. The rest is for other programs, and for what Redis
/// needs besides its data, such as the copy that rewrites its file. 0 (no limit) where that memory is not known:
/// outside Linux.
pub fn default_maxmemory() -> u64 {
    memory(Path::new("/")).unwrap_or(0) / 4 * 3
}

/// The memory of the machine, of this process's control group, or of a parent group, whichever is least.
fn memory(root: &Path) -> Option<u64> {
    let meminfo = read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"));
    let total = total?.trim().parse::<u64>().ok()? * 1024;
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let (_, group) = line.split_once(':')?;
        let (controllers, path) = group.split_once(':')?;
        // Version 2 has one hierarchy for all; version 1 has one for memory.
        let (hierarchy, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let hierarchy = root.join(hierarchy);
        // In a container the path may be that of the machine, and not exist here: then the root is used.
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        // `max` is not a number, so there is no limit.
        above.filter_map(|group| read_to_string(hierarchy.join(group).join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.chain([total]).min()
}

/// Warns when the redis-server at a port comes near its limit. Runs while it is polled.
pub(super) async fn watch(port: u16) {
    let Ok(redis) = Redis::open(&format!("redis://127.0.0.1:{port}")) else { return std::future::pending().await };
    let [warn_at, calm_below] = WARNING;
    let mut near = false;
    loop {
        let memory = redis.call(cmd("INFO").arg("memory")).await.ok();
        let memory = memory.and_then(|reply| InfoDict::from_redis_value(reply).ok());
        let numbers = memory.and_then(|info| info.get::<u64>("used_memory").zip(info.get::<u64>("maxmemory")));
        if let Some((used, limit)) = numbers.filter(|(_, limit)| *limit > 0) {
            let percent = used.saturating_mul(100) / limit;
            if percent >= warn_at && !near {
                warn!(
                    "redis-server uses {percent} % of its memory ({limit} bytes, --redis-maxmemory); beyond it, holds are refused"
                );
            }
            near = percent >= if near { calm_below } else { warn_at };
        }
        sleep(WATCH_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    const MEMINFO: &str = "MemTotal:       8000000 kB\nMemFree:        7000000 kB\n";
    const MACHINE: u64 = 8_000_000 * 1024;

    /// A system with these files, below `/`.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", MEMINFO);
        let v2 = ("proc/self/cgroup", "0::/shop.slice/stockhold.service\n");
        let v1 = ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/3f9c\n0::/\n");
        let own = |limit| ("sys/fs/cgroup/shop.slice/stockhold.service/memory.max", limit);
        let around = |limit| ("sys/fs/cgroup/shop.slice/memory.max", limit);
        let container = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n");
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (files, expected) in [
            (&[machine][..], MACHINE),
            (&[machine, v2], MACHINE),
            (&[machine, v2, own("max\n")], MACHINE),
            (&[machine, v2, own("2000\n"), around("max\n")], 2000),
            (&[machine, v2, own("2000\n"), around("1000\n")], 1000),
            (&[machine, v2, ("sys/fs/cgroup/memory.max", "3000\n")], 3000),
            (&[machine, v1, container], 4000),
            (&[machine, v1, unlimited], MACHINE),
            (&[machine, v1, unlimited, ("sys/fs/cgroup/memory/docker/3f9c/memory.limit_in_bytes", "5000\n")], 5000),
        ] {
            assert_eq!(memory(system(files).path()), Some(expected), "{files:?}");
        }
        assert_eq!(memory(system(&[]).path()), None, "no Linux");
    }
}
