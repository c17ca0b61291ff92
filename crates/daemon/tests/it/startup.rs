//! Start-up jobs: submitted at every boot, run once.

use crate::support::{Daemon, Node, repository};

/// Runs until nothing is left to do, showing the activity; what was shown.
fn run_shown(node: &Node) -> String {
    let shown = [
        "--set",
        "node.exit_when_idle=true",
        "--set",
        "activity.show=true",
        "-q",
    ];
    node.run(&shown).with(0).stdout
}

fn once(text: &str, more: &str) -> String {
    format!(
        "[[job]]\nname = \"once\"\nprogram = \"plan\"\n{more}[[job.steps]]\nid = \"write\"\n\
         run.shell = \"echo {text} >> $TINKERBELL_START_DIR/effects\"\n"
    )
}

#[test]
fn a_job_that_is_done_is_known_to_be_done() {
    let node = Node::new(&once("a", "output = { place = \"nowhere\" }\n"));
    let shown = run_shown(&node);
    assert!(
        shown.contains("\njob once is done\n  place       nowhere\n"),
        "{shown}"
    );
    for part in ["log cat --job once --data-dir", "replay once --data-dir"] {
        assert!(shown.contains(part), "{shown}");
    }
    let shown = run_shown(&node);
    assert!(
        shown.contains("job once was done already; nothing was repeated\n  place       nowhere\n"),
        "{shown}"
    );
    assert_eq!(node.place.read("effects"), "a\n");
    assert_eq!(node.journal().of_kind("submitted").count(), 1);
}

#[test]
fn a_job_that_was_interrupted_is_not_said_to_have_been_done() {
    let node = Node::new(
        "[[job]]\nname = \"long\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"first\"\n\
         run.shell = \"echo first >> $TINKERBELL_START_DIR/effects\"\n[[job.steps]]\nid = \"second\"\n\
         needs = [\"first\"]\nclass = \"read\"\n\
         run.shell = \"cd $TINKERBELL_START_DIR; echo up > up; test -e enough || sleep 1000\"\n",
    );
    let up = node.place.fifo("up");
    let daemon = node.start();
    up.wait_for_count(1);
    daemon.killed();
    node.place.write("enough", "");
    let shown = run_shown(&node);
    assert!(
        shown.contains("job long is done; it went on where an earlier run had left it\n"),
        "{shown}"
    );
    assert_eq!(node.place.read("effects"), "first\n");
}

#[test]
fn a_job_that_has_changed_is_refused_kept_or_run_again_as_the_config_says() {
    let node = Node::new(&once("a", ""));
    run_shown(&node);

    node.configure(&once("b", ""));
    let shown = run_shown(&node);
    assert!(
        shown.contains("job once has changed since it was run as"),
        "{shown}"
    );
    let journal = node.journal();
    assert!(shown.contains(journal.job("once")), "{shown}");
    assert_eq!(node.place.read("effects"), "a\n");

    node.configure(&once("b", "on_change = \"keep\"\n"));
    let shown = run_shown(&node);
    assert!(shown.contains("job once was done already"), "{shown}");
    assert_eq!(node.place.read("effects"), "a\n");

    node.configure(&once("b", "on_change = \"rerun\"\n"));
    let shown = run_shown(&node);
    assert!(shown.contains("job once is done\n"), "{shown}");
    assert_eq!(node.place.read("effects"), "a\nb\n");
    assert_eq!(node.journal().jobs["once"].len(), 2);

    let shown = run_shown(&node);
    assert!(shown.contains("job once was done already"), "{shown}");
    assert_eq!(node.place.read("effects"), "a\nb\n");
}

#[test]
fn a_refused_job_does_not_keep_the_others_from_running() {
    // Only in force at run time: the config knows the limit of steps, but not what the log holds.
    let node = Node::new(&once("a", ""));
    run_shown(&node);
    let other = "[[job]]\nname = \"other\"\nprogram = \"command\"\nargv = [\"true\"]\n";
    node.configure(&format!("{}{other}", once("b", "")));
    let shown = run_shown(&node);
    assert!(
        shown.contains("job once has changed") && shown.contains("job other is done"),
        "{shown}"
    );
}

#[test]
fn the_daemon_stays_when_it_is_not_to_exit_when_idle() {
    let node = Node::new(&once("a", ""));
    let daemon = node.start();
    daemon.get_until("/metrics", |metrics| {
        metrics.metric("tinkerbell_runtime_live_jobs") == 0.0
    });
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[test]
fn the_first_command_of_the_readme_works_and_works_again() {
    let node = Node::new("# the example is used\n");
    let example = repository()
        .join("examples/first-run.toml")
        .display()
        .to_string();
    let run = || {
        let mut command = node.command(&["--config", &example]);
        Daemon::spawn(command.current_dir(repository()))
            .ended()
            .with(0)
            .stdout
    };
    let shown = run();
    for part in [
        "List the source files",
        "Write the report",
        "job first-run is done",
        "files surveyed",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    let journal = node.journal();
    let report = node
        .data_dir()
        .join("workspaces")
        .join(journal.job("first-run"))
        .join("report.md");
    let report = std::fs::read_to_string(report).expect("there is a report");
    assert!(
        report.contains("# The sources") && report.contains("| daemon |"),
        "{report}"
    );

    let shown = run();
    assert!(
        shown.contains("job first-run was done already; nothing was repeated"),
        "{shown}"
    );
    assert_eq!(node.journal().of_kind("submitted").count(), 1);
    let replayed = node.run(&["replay", "first-run"]).with(0);
    assert!(replayed.stdout.contains("completed"), "{}", replayed.stdout);
}
