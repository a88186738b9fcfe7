//! The processes that hold a lock through their standard input: the redis-server that got it, and its forks.

use std::fs::File;

/// How strongly a process is told to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Force {
    /// It may write its data to disk; a frozen process is woken for that.
    Terminate,
    Kill,
}

/// Tells them to end. Returns how many there are, if that is known.
#[cfg(target_os = "linux")]
pub(super) fn end(lock: &File, force: Force) -> anyhow::Result<usize> {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use anyhow::Context;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    let signals = match force {
        Force::Terminate => &[Signal::TERM, Signal::CONT][..],
        Force::Kill => &[Signal::KILL],
    };
    let ours = lock.metadata()?;
    let holds = |process: &Path| {
        let file = std::fs::metadata(process.join("fd/0"));
        let info = std::fs::read_to_string(process.join("fdinfo/0"));
        // A process that only reads the file has no such line.
        file.is_ok_and(|file| (file.dev(), file.ino()) == (ours.dev(), ours.ino()))
            && info.is_ok_and(|info| info.contains("FLOCK"))
    };
    let mut found = 0;
    for entry in std::fs::read_dir("/proc").context("cannot look for the redis-server that was left behind")? {
        let process = entry?.path();
        let number = process.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(id) = number.and_then(Pid::from_raw) else { continue };
        // The handle first: another process may get the same number, but not the same handle.
        let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else { continue };
        if holds(&process) {
            found += 1;
            for signal in signals {
                // The process may have ended meanwhile.
                let _ = pidfd_send_signal(&handle, *signal);
            }
        }
    }
    Ok(found)
}

/// Other systems do not show reliably which processes these are.
#[cfg(not(target_os = "linux"))]
pub(super) fn end(_: &File, _: Force) -> anyhow::Result<usize> {
    Ok(0)
}
