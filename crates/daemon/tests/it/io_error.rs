//! A disk that fails: nothing is acknowledged after that, and everything that was is there the next time.
//!
//! The real binary, with a library between it and the C library (`shim/failing_disk.c`) that lets the n-th sync or write
//! of the log fail, as a dying disk does. *Every* sync and every write of a small load has its turn, from the first of a
//! new log to the last.
//!
//! The reservation of space is not reached this way, since it is a system call without a library; `space` has a real full
//! disk for it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Daemon, Node, PATIENCE, end_of, skip};

/// Jobs of several classes, with a step that needs another. Each effect adds a line to a file that is not on the disk
/// that fails.
const LOAD: &str = "\
[[job]]
name = \"command\"
program = \"command\"
on_interrupted = \"continue\"
shell = \"echo command $TINKERBELL_STEP >> $TINKERBELL_START_DIR/effects\"
[[job]]
name = \"plan\"
program = \"plan\"
[[job.steps]]
id = \"read\"
class = \"read\"
run.shell = \"echo plan read >> $TINKERBELL_START_DIR/effects\"
[[job.steps]]
id = \"external\"
needs = [\"read\"]
on_interrupted = \"continue\"
run.shell = \"echo plan external >> $TINKERBELL_START_DIR/effects\"
";
const JOBS: usize = 2;
const ONE_SHOT: &str = "[node]\nexit_when_idle = true\n";

/// Compiles the library.
fn shim(node: &Node) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/failing_disk.c");
    let library = node.place.path("failing_disk.so");
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output()
        .map_err(|error| format!("no C compiler `cc`: {error}"))?;
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(library)
}

/// A disk of which one call fails.
struct FailingDisk {
    shim: PathBuf,
    /// `sync` or `write`.
    call: &'static str,
    which: Which,
}

enum Which {
    /// Counted from 1.
    Nth(usize),
    /// The next one after this file is there.
    Since(PathBuf),
}

impl FailingDisk {
    fn under(&self, node: &Node) -> Command {
        let mut command = node.command(&[]);
        command
            .env("LD_PRELOAD", &self.shim)
            .env("FAILING_DISK_BELOW", node.data_dir().join("wal"))
            .env("FAILING_DISK_TALLY", node.place.path("tally"))
            .env("FAILING_DISK_CALL", self.call);
        match &self.which {
            Which::Nth(nth) => command.env("FAILING_DISK_NTH", nth.to_string()),
            Which::Since(file) => command.env("FAILING_DISK_SINCE", file),
        };
        command
    }
}

/// What was done after the failure to a file that had failed: nothing may be, since nothing is known of it.
fn assert_left_alone(tally: &str) {
    let mut lines = tally
        .lines()
        .map(|line| line.splitn(3, ' ').collect::<Vec<_>>());
    let failed = lines.find(|words| words[1] == "failed");
    let failed = failed.expect("something has failed")[2].to_owned();
    for words in lines {
        assert_ne!(
            words[2], failed,
            "{} of a file that had failed:\n{tally}",
            words[0]
        );
    }
}

/// Whatever was acknowledged is there, over once, and nothing was done twice that must not be.
fn assert_goes_on(node: &Node, before: &BTreeMap<String, String>) {
    let ended = node.run(&[]).with(0);
    for (name, job) in ended.start_up_jobs() {
        let first = before.get(&name).unwrap_or(&job);
        assert_eq!(*first, job, "an acknowledged job was lost: {name}");
    }
    node.run(&["log", "verify"]).with(0);
    let journal = node.journal();
    assert_eq!(journal.jobs.len(), JOBS);
    for name in journal.jobs.keys() {
        let entries = journal.entries_of(name);
        let ends = entries.iter().filter(|entry| entry.kind() == "finished");
        let ends: Vec<_> = ends.map(|entry| entry.ending()).collect();
        assert_eq!(ends, [Some("completed")], "{name}");
        node.run(&["replay", name]).with(0);
    }
    let effects = node.place.read("effects");
    for effect in ["command sh", "plan external"] {
        let count = effects.lines().filter(|line| *line == effect).count();
        assert!(count <= 1, "{effect} was done twice:\n{effects}");
    }
}

/// Gives every call of a kind its turn to fail, until the load is done before it comes to that; says how many there are.
fn one_after_the_other(call: &'static str) -> Result<usize, String> {
    for nth in 1..200 {
        let node = Node::new(&format!("{ONE_SHOT}{LOAD}"));
        let library = shim(&node)?;
        let which = Which::Nth(nth);
        let disk = FailingDisk {
            shim: library,
            call,
            which,
        };
        let ended = end_of(&mut disk.under(&node));
        let tally = node.place.read("tally");
        let acknowledged: BTreeMap<_, _> = ended.start_up_jobs().into_iter().collect();
        if !tally.contains("failed") {
            assert_eq!(ended.code, 0, "{call} {nth}: {}", ended.stderr);
            assert_eq!(acknowledged.len(), JOBS);
            return Ok(nth - 1);
        }
        assert_eq!(ended.code, 74, "{call} {nth}: {}\n{tally}", ended.stderr);
        assert!(
            ended.stderr.contains("Input/output error"),
            "it does not say why: {}",
            ended.stderr
        );
        assert_left_alone(&tally);
        assert_goes_on(&node, &acknowledged);
    }
    panic!("there is no end of {call}s");
}

#[test]
fn whichever_sync_fails_nothing_is_acknowledged_on_the_strength_of_it() {
    match one_after_the_other("sync") {
        // A new log, its first epoch, two submissions, the entries of three effects, two ends, the last word.
        Ok(syncs) => assert!(syncs >= 10, "only {syncs} syncs"),
        Err(reason) => skip(
            "whichever_sync_fails_nothing_is_acknowledged_on_the_strength_of_it",
            &reason,
        ),
    }
}

#[test]
fn whichever_write_fails_the_log_stops_there() {
    match one_after_the_other("write") {
        Ok(writes) => assert!(writes >= 8, "only {writes} writes"),
        Err(reason) => skip("whichever_write_fails_the_log_stops_there", &reason),
    }
}

/// A daemon that was ready for a long time: it is not any more, from the failure to its end.
#[test]
fn a_daemon_whose_disk_fails_is_not_ready_and_says_why() {
    let node = Node::new(
        "[[job]]\nname = \"held\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"wait\"\n\
         class = \"read\"\nrun.shell = \"read _ < $TINKERBELL_START_DIR/go\"\n[[job.steps]]\nid = \"after\"\nneeds = [\"wait\"]\n\
         run.shell = \"echo after >> $TINKERBELL_START_DIR/effects\"\n",
    );
    let mut go = node.place.barrier("go");
    let library = match shim(&node) {
        Ok(library) => library,
        Err(reason) => {
            return skip(
                "a_daemon_whose_disk_fails_is_not_ready_and_says_why",
                &reason,
            );
        }
    };
    let trigger = node.place.path("trigger");
    let (call, which) = ("sync", Which::Since(trigger.clone()));
    let disk = FailingDisk {
        shim: library,
        call,
        which,
    };
    let mut daemon = Daemon::spawn(&mut disk.under(&node));
    daemon.ready();
    // The intent is durable, and nothing is on its way to the disk.
    let effects = "tinkerbell_runtime_running_effects";
    daemon.get_until("/metrics", |metrics| metrics.metric(effects) == 1.0);
    let address = daemon.address();
    let asked = std::thread::spawn(move || answers_until_gone(address));
    std::fs::write(&trigger, "").expect("a file can be written there");
    go.release(1);
    let ended = daemon.ended().with(74);
    assert!(ended.stderr.contains("could not sync"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Input/output error"),
        "{}",
        ended.stderr
    );
    assert_left_alone(&node.place.read("tally"));
    let answers = asked.join().expect("whoever asked goes home");
    assert_eq!(answers[0].0, 200, "it was ready before");
    let since = answers.iter().skip_while(|(status, _)| *status == 200);
    for (status, body) in since {
        assert_eq!(*status, 503, "ready again after a disk had failed");
        assert!(
            body.contains("[-]wal failed") || body.contains("[-]shutdown"),
            "{body}"
        );
    }
    assert_eq!(
        node.place.read("effects"),
        "",
        "it went on though its log had failed"
    );

    go.release(1);
    let daemon = node.start();
    let live = "tinkerbell_runtime_live_jobs";
    daemon.get_until("/metrics", |metrics| metrics.metric(live) == 0.0);
    assert_eq!(node.place.read("effects"), "after\n");
}

/// What `/readyz` says, until nobody is there to ask.
fn answers_until_gone(address: SocketAddr) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Ok(mut stream) = TcpStream::connect(address) {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let request =
            format!("GET /readyz?verbose HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        // It may go while it is asked.
        let done = stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_string(&mut answer));
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        if let (Ok(_), Some(status)) = (done, status) {
            answers.push((status, answer));
        }
    }
    answers
}
