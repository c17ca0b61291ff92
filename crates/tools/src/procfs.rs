//! Reading `/proc`: who is whose child, who is alive, who carries which mark.
//!
//! Everything here is a look at something that changes while it is looked at. So a process is only ever signalled
//! through a pidfd, opened *before* a second look confirms that the number still means the process that was meant:
//! a pidfd never comes to mean another one. And nobody relies on one look having seen everybody: callers look again
//! until nobody is left.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The largest environment that is looked through; `execve(2)` allows arguments and environment 6 MiB together.
const ENVIRON_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One letter, as `ps` shows it: `Z` is over and waits to be reaped.
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// How many threads it has, the first one included for as long as any lives.
    pub(crate) threads: u32,
    /// Clock ticks from boot to its start; with the pid it names one process of this boot.
    pub(crate) started_ticks: u64,
}

impl Stat {
    /// Whether it is over already (a zombie, or about to vanish). A process whose first thread has left looks like a
    /// zombie too, while its other threads go on.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

/// Reads a process's stat; `None` if there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, second of the fields, may hold anything, also spaces and parentheses: the fields are counted from the
/// last closing parenthesis (proc_pid_stat(5)).
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields = std::str::from_utf8(&text[after_name..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Fields 20 and 22 of the file; the three above were fields 3 to 5.
    let threads = fields.nth(14)?.parse().ok()?;
    let started_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        group,
        threads,
        started_ticks,
    })
}

/// All process ids there are.
pub(crate) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// All living descendants of a process, nearest first.
///
/// Reads the children's lists of threads where the kernel keeps them (CONFIG_PROC_CHILDREN), else everybody's parent.
pub(crate) fn descendants(root: i32) -> io::Result<Vec<(i32, Stat)>> {
    match children_by_list(root) {
        Some(children) => {
            let mut found = Vec::new();
            let mut queue = children;
            let mut seen = std::collections::HashSet::from([root]);
            while let Some(pid) = queue.pop() {
                if !seen.insert(pid) {
                    continue;
                }
                queue.extend(children_by_list(pid).unwrap_or_default());
                if let Some(stat) = stat(pid).filter(|stat| !stat.is_over()) {
                    found.push((pid, stat));
                }
            }
            Ok(found)
        }
        None => descendants_by_parent(root),
    }
}

/// The children that a process's threads have, over or alive; `None` if the kernel keeps no such lists (or the
/// process is gone).
fn children_by_list(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                let pids = list.split_ascii_whitespace();
                children.extend(pids.filter_map(|pid| pid.parse::<i32>().ok()));
            }
            // A thread that ended meanwhile handed its children to another one; the next look finds them there.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(children)
}

fn descendants_by_parent(root: i32) -> io::Result<Vec<(i32, Stat)>> {
    let everybody: Vec<(i32, Stat)> = pids()?.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut family = std::collections::HashSet::from([root]);
    // A child may stand before its parent in the list: go round until nobody is added.
    loop {
        let before = family.len();
        for (pid, stat) in &everybody {
            if family.contains(&stat.parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    Ok(everybody
        .into_iter()
        .filter(|(pid, stat)| *pid != root && family.contains(pid) && !stat.is_over())
        .collect())
}

/// A process that can be signalled and waited for without ever meaning another one.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Target {
    /// Gets hold of a process, if `is_meant` still says so once nobody else can take its place.
    pub(crate) fn open(pid: i32, is_meant: impl FnOnce() -> bool) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        is_meant().then_some(Self { pid, pidfd })
    }

    /// Sends a signal; whether there was anybody to send it to.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.pidfd, signal).is_ok()
    }
}

/// Whether the environment a process was started with holds all these `NAME=value` entries.
///
/// A program that writes over its environment (some servers show their status in `ps` that way) hides its mark.
pub(crate) fn has_marks(pid: i32, marks: &[Vec<u8>]) -> bool {
    let mut environ = read_environ(&format!("/proc/{pid}/environ"));
    if environ.is_empty() {
        // Where the first thread has left, only the others still have an address space to look into.
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        environ = threads
            .flatten()
            .filter_map(|thread| Some(read_environ(thread.path().join("environ").to_str()?)))
            .find(|environ| !environ.is_empty())
            .unwrap_or_default();
    }
    marks
        .iter()
        .all(|mark| environ.split(|&byte| byte == 0).any(|entry| entry == mark))
}

/// Empty if it cannot be read: a kernel thread, a zombie, or somebody else's.
fn read_environ(path: &str) -> Vec<u8> {
    let mut environ = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(ENVIRON_MAX_BYTES).read_to_end(&mut environ));
    read.map(|_| environ).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let line = b"42 (a) Z 1 (x) S 7 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            (
                stat.state,
                stat.parent,
                stat.group,
                stat.threads,
                stat.started_ticks
            ),
            (b'S', 7, 40, 1, 12345)
        );
    }

    #[test]
    fn both_ways_of_finding_descendants_agree() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let us = i32::try_from(std::process::id()).unwrap();
        let is_child = |(found, stat): &(i32, Stat)| *found == pid && stat.parent == us;
        assert!(descendants_by_parent(us).unwrap().iter().any(is_child));
        assert!(descendants(us).unwrap().iter().any(is_child));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
