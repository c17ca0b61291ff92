//! Stopping: within the grace, with nobody left behind, and at once if that is insisted on.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Entry, Node, are_over};

const GRACE: Duration = Duration::from_secs(2);

/// Jobs whose tools do not listen to SIGTERM. Half of them can be run again without a word; the outcome of the others
/// is unknown, and their plan says to do them again all the same.
fn deaf_jobs(count: usize) -> String {
    let mut config = format!(
        "[shutdown]\ngrace = \"{}s\"\n[process]\nkill_grace = \"300ms\"\n",
        GRACE.as_secs()
    );
    for number in 0..count {
        let class = if number % 2 == 0 { "read" } else { "external" };
        write!(
            config,
            "[[job]]\nname = \"deaf-{number}\"\nprogram = \"command\"\nclass = \"{class}\"\non_interrupted = \"rerun\"\n\
             shell = '''trap \"\" TERM; cd $TINKERBELL_START_DIR; echo {number} > up\n\
             test -e enough || while :; do sleep 1000; done'''\n"
        )
        .expect("text takes text");
    }
    config
}

#[test]
fn sigterm_ends_tools_that_ignore_it_within_the_grace_and_jobs_go_on_at_the_next_start() {
    const JOBS: usize = 50;
    let node = Node::new(&deaf_jobs(JOBS));
    let up = node.place.fifo("up");
    let daemon = node.start();
    up.wait_for_count(JOBS);
    let processes = node.processes();
    assert!(processes.len() >= 2 * JOBS, "{} processes", processes.len());

    let asked_at = Instant::now();
    daemon.signal(Signal::TERM);
    let ended = daemon.ended().with(0);
    let took = asked_at.elapsed();
    assert!(took < GRACE + Duration::from_secs(1), "{took:?}");
    assert!(ended.stderr.contains("stopped cleanly"), "{}", ended.stderr);
    // The daemon was their keeper: when it is gone, so are they, without a wait.
    let left = node.processes();
    assert!(left.is_empty(), "{left:?}");

    let journal = node.journal();
    assert_eq!(
        journal.of_kind("finished").count(),
        0,
        "no job may have ended by our stopping"
    );
    assert_eq!(journal.entries.last().map(Entry::kind), Some("stopped"));

    node.place.write("enough", "");
    node.run(&["--set", "node.exit_when_idle=true"]).with(0);
    let journal = node.journal();
    let completed = journal
        .of_kind("finished")
        .filter(|entry| entry.ending() == Some("completed"));
    assert_eq!(completed.count(), JOBS);
    assert_eq!(
        journal.of_kind("submitted").count(),
        JOBS,
        "none was made twice"
    );
    // The half that runs again by itself was ended at once, the other half was given its time first; of neither is it
    // known how far it came.
    let again = journal.of_kind("starting").count();
    let unknown = journal
        .of_kind("completed")
        .filter(|entry| entry.ending() == Some("interrupted"));
    assert_eq!((again, unknown.count()), (JOBS / 2, JOBS / 2));
}

#[test]
fn a_second_signal_ends_at_once() {
    for (signal, number, code) in [(Signal::TERM, 15, 143), (Signal::INT, 2, 130)] {
        let node = Node::new(&deaf_jobs(2));
        let up = node.place.fifo("up");
        let mut daemon = node.start();
        up.wait_for_count(2);
        let processes = node.processes();

        daemon.signal(signal);
        daemon.logged(&format!("stopping: signal {number}"));
        let asked_at = Instant::now();
        daemon.signal(signal);
        daemon.ended().with(code);
        assert!(asked_at.elapsed() < GRACE / 2, "{:?}", asked_at.elapsed());
        // Nobody is left to end them but their supervisors, which see that the daemon is gone.
        are_over(&processes);
        node.run(&["log", "verify"]).with(0);
    }
}

#[test]
fn nothing_to_do_is_stopped_at_once() {
    let node = Node::new("# the defaults\n");
    let daemon = node.start();
    let asked_at = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);
    assert!(
        asked_at.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked_at.elapsed()
    );
}

#[test]
fn a_signal_during_the_boot_is_not_lost() {
    let node = Node::new(&deaf_jobs(1));
    let _up = node.place.fifo("up");
    let daemon = node.spawn();
    daemon.stderr.wait_for(0, "the first phase", |line| {
        line.contains("\"phase\":\"config\"")
    });
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);
}
