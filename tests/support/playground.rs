//! `redis/playground.sh`: what a newcomer tries first.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::redis_server::free_ports;
use super::stockhold::{Stockhold, program};

/// Where all of it is, in this run and in later ones.
pub struct Playground {
    kind: &'static str,
    folder: TempDir,
    /// Of Redis.
    pub ports: Vec<u16>,
    sentinel_ports: Vec<u16>,
}

impl Playground {
    /// One with so many Redis servers and sentinels. Nothing is started yet.
    pub fn new(kind: &'static str, redis: usize, sentinels: usize) -> Self {
        // Not TMPDIR: a server that runs in a chroot sees the same folder only under /tmp.
        let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
        let mut ports = free_ports(redis + sentinels);
        let sentinel_ports = ports.split_off(redis);
        Self { kind, folder, ports, sentinel_ports }
    }

    /// Starts all of it, and a server with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Stockhold {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis/playground.sh");
        let server = program(&[&["serve", "--port", "0"], arguments].concat());
        let mut command = Command::new(script);
        command.arg(self.kind).arg(self.folder.path()).arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        for (name, ports) in [("REDIS_PORTS", &self.ports), ("SENTINEL_PORTS", &self.sentinel_ports)] {
            command.env(name, ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "));
        }
        Stockhold::run(&mut command)
    }

    /// Kills a Redis as the playground says.
    pub fn kill(&self, port: u16) {
        let pid = fs::read_to_string(self.folder.path().join(format!("redis-{port}/redis.pid"))).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    }

    /// Stops all of it, as Ctrl-C does, which a shell cannot catch where it is ignored, as by tests in the background.
    pub fn stop(&self, mut server: Stockhold) {
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(143));
        for port in self.ports.iter().chain(&self.sentinel_ports) {
            assert!(TcpStream::connect(("127.0.0.1", *port)).is_err(), "{port} is still in use");
        }
    }
}
