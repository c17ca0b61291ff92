//! Ending what an earlier life of the daemon left running.
//!
//! A daemon that is killed takes its commands along: each supervisor sees its socket end and kills everything below
//! it. Should the supervisors be killed too, their orphans run on, and a job that is run again would have two copies
//! of one tool at work. So every command carries the daemon's mark in its environment, which descendants inherit, and
//! before an interrupted effect goes on all that carries the mark is ended.
//!
//! The mark is looked for in the environment a program was started with. A process that starts its children with
//! another environment, or writes over its own, hides from this second net; it does not hide from the supervisor.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::procfs::{self, Target};

/// The variable that marks every process started for a daemon with that daemon's id.
pub const NODE_VARIABLE: &str = "TINKERBELL_NODE";

/// How long to go on before saying who is still there.
const GIVE_UP: Duration = Duration::from_secs(10);

/// How long one round waits for those it killed.
const ROUND: Duration = Duration::from_millis(500);

/// What was found and ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many processes were ended.
    pub ended: usize,
    /// Processes that SIGKILL did not end in time (uninterruptible sleep), or that are not ours to signal.
    pub survivors: Vec<i32>,
    /// How often all processes were looked through.
    pub scans: u32,
}

/// Variables that a process must all have been started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks(Vec<(String, String)>);

impl Marks {
    pub(crate) fn new(marks: Vec<(String, String)>) -> Self {
        assert!(
            !marks.is_empty(),
            "no marks would mean every process there is"
        );
        Self(marks)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn entries(&self) -> Vec<Vec<u8>> {
        self.iter()
            .map(|(name, value)| format!("{name}={value}").into_bytes())
            .collect()
    }
}

/// Ends, by SIGKILL, every process that was started for the daemon of this id: at boot, before any process effect
/// starts. Blocks until none is left, at most for about ten seconds.
///
/// # Errors
///
/// If `/proc` cannot be read.
///
/// # Panics
///
/// If `node_id` is empty.
pub fn end_all(node_id: &str) -> io::Result<Report> {
    assert!(!node_id.is_empty(), "a node id is never empty");
    end_marked(&Marks::new(vec![(
        NODE_VARIABLE.to_owned(),
        node_id.to_owned(),
    )]))
}

/// Ends every process that carries all the marks. Two looks in a row must find nobody, since a process that forks
/// between being looked for and being killed shows its child only to the next look.
pub(crate) fn end_marked(marks: &Marks) -> io::Result<Report> {
    let entries = marks.entries();
    let give_up_at = Instant::now() + GIVE_UP;
    let us = i32::try_from(std::process::id()).expect("because process ids are positive i32");
    let mut report = Report::default();
    let mut ended = HashSet::new();
    let mut empty_scans = 0;
    while empty_scans < 2 {
        let targets = marked(&entries, us)?;
        report.scans += 1;
        report.survivors = targets.iter().map(|target| target.pid).collect();
        if targets.is_empty() {
            empty_scans += 1;
            continue;
        }
        empty_scans = 0;
        if Instant::now() >= give_up_at {
            break;
        }
        for target in &targets {
            target.signal(Signal::KILL);
        }
        let over = wait_for_end(&targets);
        ended.extend(over);
    }
    report.ended = ended.len();
    Ok(report)
}

/// Everybody alive who carries the marks, but for ourselves.
fn marked(entries: &[Vec<u8>], us: i32) -> io::Result<Vec<Target>> {
    let is_meant = |pid| {
        procfs::has_marks(pid, entries) && procfs::stat(pid).is_some_and(|stat| !stat.is_over())
    };
    Ok(procfs::pids()?
        .filter(|&pid| pid != us && is_meant(pid))
        .filter_map(|pid| Target::open(pid, || is_meant(pid)))
        .collect())
}

/// Waits a round for the targets' ends; who is over.
fn wait_for_end(targets: &[Target]) -> Vec<i32> {
    let until = Instant::now() + ROUND;
    let mut waiting: Vec<&Target> = targets.iter().collect();
    let mut over = Vec::new();
    while !waiting.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let timeout = left
            .try_into()
            .expect("because half a second is a Timespec");
        // A pidfd is readable once its process is over (pidfd_open(2)).
        let mut fds: Vec<_> = waiting
            .iter()
            .map(|target| PollFd::new(&target.pidfd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let is_over: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut flags = is_over.into_iter();
        waiting.retain(|target| {
            let is_over = flags.next().unwrap_or(false);
            if is_over {
                over.push(target.pid);
            }
            !is_over
        });
    }
    over
}
