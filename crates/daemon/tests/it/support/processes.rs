//! The processes of a daemon: found by the mark that all of them carry.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::PATIENCE;

/// A process that was alive when it was found.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its command line, for messages.
    pub(crate) line: String,
    pidfd: OwnedFd,
}

impl Process {
    fn open(pid: u32) -> Option<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
        Some(Self {
            pid,
            line: read(pid, "cmdline")?.replace('\0', " "),
            pidfd: pidfd_open(raw, PidfdFlags::empty()).ok()?,
        })
    }

    /// Whether it is one of the small processes that stand between the daemon and a command.
    pub(crate) fn is_supervisor(&self) -> bool {
        self.line.contains("__supervise")
    }

    /// Sends it a signal, if it is still there: a pidfd is never another's.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

fn read(pid: u32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Everybody alive who was started with this variable.
pub(crate) fn marked(name: &str, value: &str) -> Vec<Process> {
    let mark = format!("{name}={value}");
    let is_marked = |pid: &u32| {
        read(*pid, "environ").is_some_and(|env| env.split('\0').any(|variable| variable == mark))
    };
    fs::read_dir("/proc")
        .expect("/proc can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_marked)
        .filter_map(Process::open)
        // Looked at again behind the pidfd, since the id may have become another's between the two.
        .filter(|process| is_marked(&process.pid))
        .collect()
}

/// Waits until all of them are over.
pub(crate) fn are_over(processes: &[Process]) {
    let until = Instant::now() + PATIENCE;
    for process in processes {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("patience is short");
        // A pidfd is readable once its process is over (pidfd_open(2)).
        let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
        let over = poll(&mut fds, Some(&left)).expect("a pidfd can be polled");
        assert!(over > 0, "still alive: {} {}", process.pid, process.line);
    }
}
