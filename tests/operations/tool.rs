//! A tool of the operators that runs in the background, with its own folder.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command};

use tempfile::TempDir;

/// Debian keeps some of them where only the administrator's shell looks.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin", "/sbin"];

/// A running tool; killed on drop.
pub struct Tool {
    process: Child,
    folder: TempDir,
    name: &'static str,
}

impl Tool {
    /// Starts a program in a new folder with these files. Its output goes to the file `log`.
    pub fn start(name: &'static str, arguments: &[&str], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("stockhold-test-").tempdir_in("/tmp").unwrap();
        for (file, text) in files {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = command(name);
        let process = command.args(arguments).current_dir(&folder).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self { process: process.unwrap(), folder, name }
    }

    /// Fails when it has ended.
    pub fn assert_runs(&mut self) {
        let ended = self.process.try_wait().unwrap();
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(ended.is_none(), "{} ended: {}", self.name, log());
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that the project's Makefile installs.
///
/// # Panics
/// When it is not there: a test without its tool proves nothing.
pub fn command(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    let program = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    Command::new(
        program.unwrap_or_else(|| panic!("there is no {name}: `make test` installs it, or install its package")),
    )
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
