//! Redis's clock stops for a while and then jumps ahead: this clock alone decides expiry.
//!
//! libfaketime is between Redis and the system. When it reads its file at each read of the clock, that takes most of
//! Redis's time. So it does so only during this fault. Otherwise the clock runs, ahead by the sum of the jumps. It
//! never goes back: a record would be updated before it was created.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::cmd;
use tokio::time::sleep;

use super::faults::{Fault, FaultInjector};
use super::journal::Told;
use super::sha_client::Caller;
use super::world::order_of;
use crate::support::redis_server::RedisServer;

/// The time of holds that lapse, by any other clock, while this clock stands still.
const SHORT_MS: u64 = 150;
/// The time of a hold that is longer than the jump.
const LONG_MS: u64 = 60_000;
/// The clock is stopped at this time ahead: Redis has not read a later time.
const MARGIN_MS: u64 = 20;

/// How far Redis's clock is ahead of the machine's.
pub struct Clock {
    library: PathBuf,
    ahead_ms: i64,
}

impl Clock {
    /// `None` where libfaketime is not installed.
    pub fn find() -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = folders.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
        let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
        libraries.find(|library| library.exists()).map(|library| Self { library, ahead_ms: 0 })
    }

    /// The environment for a clock that is set by a file while Redis runs.
    fn adjustable(&self, file: &Path) -> Vec<(String, String)> {
        let file = file.to_str().unwrap();
        let settings = [("FAKETIME_TIMESTAMP_FILE", file), ("FAKETIME_NO_CACHE", "1"), ("FAKETIME_FMT", "%s")];
        // The seconds in the file are UTC.
        [self.environment(), settings.map(owned).into(), vec![owned(("TZ", "UTC"))]].concat()
    }

    /// The environment for a clock that runs, with its offset.
    fn running(&self) -> Vec<(String, String)> {
        [self.environment(), vec![owned(("FAKETIME", &self.ahead()))]].concat()
    }

    fn environment(&self) -> Vec<(String, String)> {
        // jemalloc reads the clock before the library is ready, so the C library's own allocator is loaded first.
        let preload = format!("{}:libc.so.6", self.library.display());
        [("LD_PRELOAD", &*preload), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1")].map(owned).into()
    }

    /// The offset as libfaketime reads it.
    fn ahead(&self) -> String {
        assert!(self.ahead_ms >= 0, "the clock goes back");
        format!("+{}.{:03}", self.ahead_ms / 1000, self.ahead_ms % 1000)
    }
}

impl FaultInjector {
    pub async fn step_clock(&mut self) {
        let turn = self.times(Fault::ClockSteps);
        let mut clock = self.clock.take().expect("a clock that can be set");
        let file = self.redis.folder().join("clock");
        fs::write(&file, clock.ahead()).unwrap();
        self.redis.set_environment(clock.adjustable(&file));
        self.redis.restart();

        let mut stopped_at = 0;
        while_stopped(&self.redis, || {
            stopped_at = now_ms().checked_add_signed(clock.ahead_ms).unwrap() + MARGIN_MS;
            // Half a millisecond more, so that it is not rounded down to the millisecond before.
            write(&file, &format!("{}.{:03}5", stopped_at / 1000, stopped_at % 1000));
        });
        let mut caller = Caller::new(&self.world);
        let name = |what| format!("clock-{turn}-{what}");
        let mut in_time = order_of("hot", &name("in-time"), 1, SHORT_MS);
        let mut too_late = order_of("hot", &name("too-late"), 1, SHORT_MS);
        let mut long = order_of("hot", &name("long"), 1, LONG_MS);
        for order in [&mut in_time, &mut too_late, &mut long] {
            assert_eq!(caller.until_known("hold", order).await, Told::Done);
        }
        sleep(Duration::from_millis(self.rng.u64(200..600))).await;
        assert_eq!(redis_ms(&self.redis).await, stopped_at, "the clock does not stand still");
        // No time has passed.
        assert_eq!(caller.until_known("confirm", &mut in_time).await, Told::Done, "{in_time:?}");

        let step = self.rng.u64(1000..3000);
        while_stopped(&self.redis, || {
            clock.ahead_ms = i64::try_from(stopped_at + step).unwrap() - i64::try_from(now_ms()).unwrap();
            write(&file, &clock.ahead());
        });
        assert_eq!(caller.until_known("confirm", &mut too_late).await, Told::Never, "{too_late:?}");
        assert_eq!(caller.until_known("confirm", &mut long).await, Told::Done, "{long:?}");
        assert!(redis_ms(&self.redis).await >= stopped_at + step, "the clock has not jumped");

        self.redis.set_environment(clock.running());
        self.redis.restart();
        self.clock = Some(clock);
        self.world.file([in_time, too_late, long]).await;
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Redis cannot read the clock while it is set.
fn while_stopped(redis: &RedisServer, set: impl FnOnce()) {
    redis.stop_process();
    set();
    redis.continue_process();
}

/// Atomically: the file may be read at any time.
fn write(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

async fn redis_ms(redis: &RedisServer) -> u64 {
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(&mut redis.connection().await).await.unwrap();
    seconds * 1000 + micros / 1000
}
