//! `job run`: one job in the foreground, its exit code ours.

use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Daemon, Ended, Node};

fn node_with(job: &str) -> Node {
    let node = Node::new("[shutdown]\ngrace = \"2s\"\n[process]\nkill_grace = \"200ms\"\n");
    node.place.write("job.toml", job);
    node
}

fn run(node: &Node, args: &[&str]) -> Ended {
    node.run(&[&["job", "run", "job.toml"], args].concat())
}

#[test]
fn the_exit_code_is_that_of_the_job() {
    for (job, code) in [
        ("program = \"command\"\nargv = [\"true\"]\n", 0),
        ("program = \"command\"\nshell = \"exit 7\"\n", 7),
        ("program = \"command\"\nshell = \"kill -9 $$\"\n", 137),
        ("program = \"command\"\nshell = \"kill -15 $$\"\n", 143),
        (
            "program = \"command\"\nargv = [\"/no/such/program\"]\n",
            127,
        ),
        (
            // Ended by us, with SIGTERM; the activity says why.
            "program = \"command\"\nshell = \"sleep 1000\"\ntimeout = \"50ms\"\n",
            143,
        ),
        (
            "program = \"plan\"\nsteps = [{ id = \"a\", say = \"hello\" }]\n",
            0,
        ),
        (
            "program = \"plan\"\nsteps = [{ id = \"a\", fail = \"no\" }]\n",
            1,
        ),
        (
            "program = \"plan\"\nsteps = [{ id = \"a\", run.shell = \"exit 7\", may_fail = true }]\n",
            0,
        ),
    ] {
        let node = node_with(job);
        let ended = run(&node, &[]);
        assert_eq!(ended.code, code, "{job}{}", ended.said());
        // It says where to look, to people only: standard error.
        assert!(
            ended.stderr.contains("tinkerbell replay"),
            "{}",
            ended.stderr
        );
        let journal = node.journal();
        assert_eq!(journal.of_kind("finished").count(), 1, "{job}");
    }
}

#[test]
fn every_line_of_json_is_an_event() {
    let node = node_with("program = \"command\"\nshell = \"echo one; echo two >&2\"\n");
    let ended = run(&node, &["--json"]).with(0);
    let events: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    let types: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(types.len(), events.len());
    assert_eq!(types.first(), Some(&"job_submitted"));
    assert_eq!(types.last(), Some(&"job_finished"));
    let output: String = events
        .iter()
        .filter(|event| event["type"] == "step_output" && event["stream"] == "stdout")
        .filter_map(|event| event["data"].as_str())
        .collect();
    assert_eq!(output, "one\n");
    assert_eq!(ended.stderr, "", "messages for people are not for programs");
}

#[test]
fn what_a_tool_prints_cannot_reach_the_terminal_as_a_command() {
    let node = node_with("program = \"command\"\nshell = \"printf '\\\\033[2Jcleared\\\\n'\"\n");
    let shown = run(&node, &[]).with(0).stdout;
    assert!(
        shown.contains("cleared") && !shown.contains('\u{1b}'),
        "{shown:?}"
    );
    let shown = run(&node, &["--raw"]).with(0).stdout;
    assert!(shown.contains("\u{1b}[2Jcleared"), "{shown:?}");
}

#[test]
fn inputs_from_the_command_line_reach_the_job() {
    let node = node_with(
        "program = \"plan\"\nsteps = [{ id = \"a\", say = \"{{ input.n + 1 }} {{ input.who }}\" }]\n",
    );
    let shown = run(&node, &["--input", "n=41", "--input", "who=Wendy"])
        .with(0)
        .stdout;
    assert!(shown.contains("42 Wendy"), "{shown}");
}

/// Runs the job with lines on its standard input.
fn answered(node: &Node, lines: &str) -> Ended {
    let mut command = node.command(&["job", "run", "job.toml"]);
    let mut daemon = Daemon::spawn(command.stdin(Stdio::piped()));
    daemon
        .stdin()
        .write_all(lines.as_bytes())
        .expect("it is read");
    daemon.ended()
}

const QUESTIONS: &str = "\
program = \"plan\"
[[steps]]
id = \"go\"
ask = { prompt = \"Really?\", approval = true }
[[steps]]
id = \"name\"
needs = [\"go\"]
ask = { prompt = \"Your name?\" }
[[steps]]
id = \"greet\"
needs = [\"name\"]
say = \"hello {{ steps.name.answer }}\"
";

#[test]
fn questions_are_answered_on_standard_input() {
    let node = node_with(QUESTIONS);
    let ended = answered(&node, "perhaps\ny\nWendy\n").with(0);
    assert!(ended.stdout.contains("hello Wendy"), "{}", ended.said());
    assert!(
        ended.stderr.contains("please answer y or n"),
        "{}",
        ended.stderr
    );

    let ended = answered(&node, "n\n").with(1);
    assert!(ended.stdout.contains("not approved"), "{}", ended.said());
}

#[test]
fn a_question_that_nobody_answers_takes_its_default() {
    let node = node_with(
        "program = \"plan\"\n[[steps]]\nid = \"name\"\n\
         ask = { prompt = \"Your name?\", deadline = \"20ms\", default = \"nobody\" }\n\
         [[steps]]\nid = \"greet\"\nneeds = [\"name\"]\nsay = \"hello {{ steps.name.answer }}\"\n",
    );
    let shown = run(&node, &[]).with(0).stdout;
    assert!(shown.contains("hello nobody"), "{shown}");
}

const DEAF: &str = "\
program = \"command\"
shell = \"trap '' INT TERM; cd $TINKERBELL_START_DIR; echo up > up; while :; do sleep 1000; done\"
";

#[test]
fn ctrl_c_cancels_the_job() {
    let node = node_with(DEAF);
    let up = node.place.fifo("up");
    let daemon = Daemon::spawn(&mut node.command(&["job", "run", "job.toml"]));
    up.wait_for_count(1);
    daemon.signal(Signal::INT);
    let ended = daemon.ended().with(130);
    assert!(ended.stdout.contains("cancelled"), "{}", ended.said());
    assert!(node.processes().is_empty());
    let journal = node.journal();
    let ending = journal
        .of_kind("finished")
        .next()
        .and_then(|entry| entry.ending());
    assert_eq!(ending, Some("cancelled"));
}

#[test]
fn ctrl_c_twice_ends_at_once_and_the_job_goes_on_being_cancelled_at_the_next_start() {
    let node = node_with(DEAF);
    let up = node.place.fifo("up");
    // Far longer than the test may take.
    let slow = [
        "--set",
        "shutdown.grace=1h",
        "--set",
        "process.kill_grace=1h",
    ];
    let args = [&["job", "run", "job.toml"][..], &slow].concat();
    let daemon = Daemon::spawn(&mut node.command(&args));
    up.wait_for_count(1);
    let processes = node.processes();
    daemon.signal(Signal::INT);
    let asked = "the job is being cancelled";
    daemon
        .stderr
        .wait_for(0, asked, |line| line.starts_with(asked));
    daemon.signal(Signal::INT);
    daemon.ended().with(130);
    crate::support::are_over(&processes);

    node.run(&["--set", "node.exit_when_idle=true"]).with(0);
    let journal = node.journal();
    let ending = journal
        .of_kind("finished")
        .next()
        .and_then(|entry| entry.ending());
    assert_eq!(ending, Some("cancelled"));
}

#[test]
fn a_killed_run_is_taken_up_by_the_next_daemon() {
    let node = node_with(
        "name = \"mine\"\nprogram = \"command\"\nclass = \"read\"\n\
         shell = \"cd $TINKERBELL_START_DIR; echo up > up; test -e enough || sleep 1000\"\n",
    );
    let up = node.place.fifo("up");
    let daemon = Daemon::spawn(&mut node.command(&["job", "run", "job.toml"]));
    up.wait_for_count(1);
    daemon.killed();
    node.place.write("enough", "");
    node.run(&["--set", "node.exit_when_idle=true"]).with(0);
    let journal = node.journal();
    let last = journal
        .entries_of("mine")
        .last()
        .and_then(|entry| entry.ending());
    assert_eq!(last, Some("completed"));
}
