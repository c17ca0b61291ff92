//! What becomes of commands when the daemon dies without a word.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Process, STUCK, SUPERVISOR, fresh_node_id};
use tempfile::TempDir;

/// A daemon of one command, in a process of its own.
struct Daemon {
    child: Child,
    stdout: BufReader<ChildStdout>,
    _dir: TempDir,
}

impl Daemon {
    /// Starts it behind `prefix`, a command line that ends in running its arguments.
    fn start(prefix: &[&str], node_id: &str, line: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let input = json!({ "shell": line }).to_string();
        let mut argv = prefix.to_vec();
        let data_dir = dir.path().to_str().unwrap();
        argv.extend([SUPERVISOR, data_dir, node_id, &input]);
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdout,
            _dir: dir,
        }
    }

    /// The next line of the command's output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn process(&mut self) -> Process {
        Process::of(self.line().parse().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

const STUBBORN_TREE: &str = "trap '' TERM HUP; echo $PPID; echo $$; \
    ( setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 1000; done' & ); \
    while :; do sleep 1000; done";

#[test]
fn a_daemon_killed_takes_everything_along() {
    let node_id = fresh_node_id();
    let mut daemon = Daemon::start(&[], &node_id, STUBBORN_TREE);
    let tree = [daemon.process(), daemon.process(), daemon.process()];
    assert!(!tree.iter().any(Process::is_over));
    daemon.signal(Signal::KILL);
    daemon.child.wait().unwrap();
    for process in &tree {
        assert!(
            process.is_over_within(STUCK),
            "process {} lives on",
            process.pid
        );
    }
}

#[test]
fn what_outlives_both_daemon_and_supervisor_is_found_by_its_mark() {
    let node_id = fresh_node_id();
    let mut daemon = Daemon::start(&[], &node_id, STUBBORN_TREE);
    let [supervisor, shell, daemonised] = [daemon.process(), daemon.process(), daemon.process()];
    // Stopped first, so that neither can do for the other what it would.
    daemon.signal(Signal::STOP);
    kill_process(Pid::from_raw(supervisor.pid).unwrap(), Signal::KILL).unwrap();
    daemon.signal(Signal::KILL);
    daemon.child.wait().unwrap();
    assert!(
        !shell.is_over() && !daemonised.is_over(),
        "the tree lives on by itself"
    );

    // Another node's leftovers are none of ours.
    assert_eq!(
        tools::leftovers::end_all(&format!("{node_id}0"))
            .unwrap()
            .ended,
        0
    );
    assert!(!shell.is_over());

    let report = tools::leftovers::end_all(&node_id).unwrap();
    assert!(report.ended >= 2, "{report:?}");
    assert_eq!(report.survivors, Vec::<i32>::new());
    assert!(shell.is_over() && daemonised.is_over());
    assert_eq!(tools::leftovers::end_all(&node_id).unwrap().ended, 0);
}

#[test]
fn a_daemon_that_ignores_signals_does_not_hand_that_on() {
    let node_id = fresh_node_id();
    let ignoring = ["sh", "-c", "trap '' INT HUP TERM USR1; exec \"$@\"", "sh"];
    let line = "grep -E '^Sig(Ign|Blk)' /proc/self/status";
    let mut daemon = Daemon::start(&ignoring, &node_id, line);
    for name in ["SigBlk", "SigIgn"] {
        let line = daemon.line();
        let (found, set) = line.split_once(":\t").unwrap();
        let set = u64::from_str_radix(set, 16).unwrap();
        // Signals 32 and 33 are libc's own (signal(7)): it lets nobody change them, whoever ignored them before us.
        let ours = set & !(0b11 << 31);
        assert_eq!((found, ours), (name, 0), "{line}");
    }
    daemon.child.wait().unwrap();
}

#[test]
fn a_descriptor_somebody_left_open_in_the_daemon_does_not_reach_a_command() {
    let node_id = fresh_node_id();
    let leaking = ["sh", "-c", "exec 9< /dev/null; exec \"$@\"", "sh"];
    let mut daemon = Daemon::start(&leaking, &node_id, "[ -e /proc/self/fd/9 ]; echo $?");
    assert_eq!(daemon.line(), "1");
    daemon.child.wait().unwrap();
}
