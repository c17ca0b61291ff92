//! Everybody below a supervisor, and how they are ended.
//!
//! SIGTERM is sent once to everybody there is; SIGKILL in rounds until nobody is left, because between a look at
//! `/proc` and the signal anybody may fork. A round first kills the command's whole process group, which the kernel
//! does in one piece (a fork in a group that is being killed fails, `copy_process` in `kernel/fork.c`), and then each
//! process that it finds. A process killed forks no more, so every round shrinks what is left.

use std::collections::HashSet;
use std::io;

use rustix::process::{Pid, Signal, kill_process_group};

use super::protocol::EndReport;
use super::sys::Reaped;
use crate::procfs::{self, Target};

/// The command and its descendants.
pub(super) struct Tree {
    /// The supervisor itself, above all of them.
    root: i32,
    /// The command, which leads a process group of its own.
    command: i32,
    command_is_reaped: bool,
    /// Who was told to end after the command was over; pid and start, since pids come again.
    leftovers: HashSet<(i32, u64)>,
    report: EndReport,
}

impl Tree {
    pub(super) fn new(command: i32) -> Self {
        Self {
            root: rustix::process::getpid().as_raw_nonzero().get(),
            command,
            command_is_reaped: false,
            leftovers: HashSet::new(),
            report: EndReport::default(),
        }
    }

    /// Adds up what a reaped child used; whether it was the command.
    pub(super) fn reaped(&mut self, child: &Reaped) -> bool {
        self.report.cpu_user_us += child.cpu_user_us;
        self.report.cpu_system_us += child.cpu_system_us;
        self.report.max_rss_kib = self.report.max_rss_kib.max(child.max_rss_kib);
        let is_command = child.pid == self.command && !self.command_is_reaped;
        self.command_is_reaped |= is_command;
        is_command
    }

    /// Asks everybody to end. A process that is stopped could not hear it: it is let go on.
    pub(super) fn terminate(&mut self) {
        // Who cannot be looked up now is found by the rounds of SIGKILL.
        for target in self.targets().unwrap_or_default() {
            target.signal(Signal::TERM);
            target.signal(Signal::CONT);
        }
    }

    /// One round of SIGKILL. Who cannot be looked up in this round may be in the next.
    pub(super) fn kill(&mut self) {
        self.kill_group();
        for target in self.targets().unwrap_or_default() {
            target.signal(Signal::KILL);
        }
    }

    /// While the command is not reaped, the number of its group cannot mean another one. After that it cannot as long
    /// as the group has a member, so one is looked for first.
    fn kill_group(&self) {
        let in_group = |(_, stat): &(i32, procfs::Stat)| stat.group == self.command;
        let is_ours = !self.command_is_reaped
            || procfs::descendants(self.root).is_ok_and(|found| found.iter().any(in_group));
        if is_ours && let Some(group) = Pid::from_raw(self.command) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Gets hold of everybody who is alive.
    fn targets(&mut self) -> io::Result<Vec<Target>> {
        let mut targets = Vec::new();
        for (pid, seen) in procfs::descendants(self.root)? {
            let is_same =
                || procfs::stat(pid).is_some_and(|now| now.started_ticks == seen.started_ticks);
            let Some(target) = Target::open(pid, is_same) else {
                continue;
            };
            if self.command_is_reaped && self.leftovers.insert((pid, seen.started_ticks)) {
                self.report.leftovers_ended += 1;
            }
            targets.push(target);
        }
        Ok(targets)
    }

    /// What it all came to, naming who is still there.
    pub(super) fn into_report(mut self) -> EndReport {
        let left = procfs::descendants(self.root).unwrap_or_default();
        self.report.unkillable = left.into_iter().map(|(pid, _)| pid).collect();
        self.report
    }
}
