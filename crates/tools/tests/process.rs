//! Running commands, through the toolbox, with real processes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use runtime::CancelReason;
use serde_json::json;
use support::Bench;
use tools::ProcessOutcome;

#[test]
fn exit_codes_are_the_commands_own() {
    let mut bench = Bench::new();
    let result = bench
        .run(json!({ "argv": ["echo", "hello", "$HOME"] }))
        .ok();
    assert_eq!(result.outcome, ProcessOutcome::Exited);
    assert_eq!((result.exit_code, result.signal), (Some(0), None));
    assert_eq!(
        (result.stdout.as_str(), result.stdout_bytes),
        ("hello $HOME\n", 12)
    );
    assert!(result.is_drained && !result.is_lossy);
    for code in [1, 7, 127, 255] {
        let (error, result) = bench.shell(&format!("echo no >&2; exit {code}")).failed();
        assert_eq!(
            (error.code.as_str(), error.retryable),
            ("exit_status", true)
        );
        assert_eq!(
            (result.outcome, result.exit_code),
            (ProcessOutcome::Exited, Some(code))
        );
        assert_eq!(result.stderr, "no\n");
    }
    bench.assert_nobody_left();
}

#[test]
fn an_end_by_signal_is_no_exit_code() {
    let mut bench = Bench::new();
    for signal in [9, 15, 11] {
        let (error, result) = bench.shell(&format!("kill -{signal} $$")).failed();
        assert_eq!(error.code, "signalled");
        assert_eq!(result.outcome, ProcessOutcome::Signalled);
        assert_eq!((result.exit_code, result.signal), (None, Some(signal)));
    }
}

#[test]
fn what_cannot_start_says_why() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    let script = |name: &str, text: &str, mode| {
        std::fs::write(workspace.join(name), text).unwrap();
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(workspace.join(name), permissions).unwrap();
    };
    script("plain", "#!/bin/sh\n", 0o644);
    script("orphan", "#!/nowhere/interpreter\n", 0o755);
    script("noise", "neither ELF nor script\n", 0o755);
    use ProcessOutcome::{NotExecutable, NotFound, SpawnFailed};
    let cases = [
        (
            json!(["no-such-program-at-all"]),
            None,
            NotFound,
            Some(127),
            "not found on PATH",
        ),
        (
            json!(["/no/such/program"]),
            None,
            NotFound,
            Some(127),
            "was not found",
        ),
        (
            json!(["./orphan"]),
            None,
            NotFound,
            Some(127),
            "interpreter",
        ),
        (
            json!(["./plain"]),
            None,
            NotExecutable,
            Some(126),
            "cannot execute",
        ),
        (
            json!(["/"]),
            None,
            NotExecutable,
            Some(126),
            "cannot execute",
        ),
        (json!(["./noise"]), None, NotExecutable, Some(126), "#!"),
        (
            json!(["true"]),
            Some("missing"),
            SpawnFailed,
            None,
            "working directory",
        ),
        (
            json!(["true"]),
            Some("plain"),
            SpawnFailed,
            None,
            "working directory",
        ),
    ];
    for (argv, cwd, outcome, exit_code, words) in cases {
        let (error, result) = bench.run(json!({ "argv": argv, "cwd": cwd })).failed();
        assert_eq!(
            (result.outcome, result.exit_code),
            (outcome, exit_code),
            "{argv}"
        );
        assert!(error.message.contains(words), "{argv}: {}", error.message);
        assert!(!error.retryable, "{argv}");
    }
    bench.assert_nobody_left();
}

#[test]
fn a_spec_that_makes_no_sense_is_refused_before_anything_starts() {
    let mut bench = Bench::new();
    symlink("/", bench.workspace().join("out")).unwrap();
    let cases = [
        (json!({}), "needs `argv` or `shell`"),
        (json!({ "argv": ["a"], "shell": "b" }), "not both"),
        (json!({ "argv": [""] }), "is empty"),
        (json!({ "argv": ["a\0b"] }), "NUL"),
        (json!({ "argv": ["a"], "env": { "A=B": "c" } }), "A=B"),
        (
            json!({ "argv": ["a"], "env": { "TINKERBELL_NODE": "x" } }),
            "TINKERBELL_NODE",
        ),
        (json!({ "argv": ["a"], "cwd": "../elsewhere" }), "leads out"),
        (json!({ "argv": ["a"], "cwd": "out" }), "leads out"),
        (json!({ "argv": ["a"], "grace_ms": u64::MAX }), "grace"),
        (json!({ "argv": ["a"], "colour": "red" }), "colour"),
        (json!("ls"), "does not fit"),
    ];
    for (input, words) in cases {
        let error = bench.run(input.clone()).refused();
        assert_eq!(
            (error.code.as_str(), error.retryable),
            ("invalid_input", false),
            "{input}"
        );
        assert!(error.message.contains(words), "{input}: {}", error.message);
    }
}

#[test]
fn input_arrives_whole_and_its_end_is_seen() {
    let mut bench = Bench::new();
    // More than a pipe holds, so that writing and reading must go on side by side.
    let text = "0123456789abcdef".repeat(64 * 1024);
    let result = bench.run(json!({ "argv": ["cat"], "stdin": text })).ok();
    assert_eq!((result.stdout_bytes, result.stdout_cut), (1 << 20, 0));
    assert_eq!(result.stdout, text);
    // Nobody reads it: no SIGPIPE, no error, no wait.
    bench.run(json!({ "argv": ["true"], "stdin": text })).ok();
    // Without input a reader sees the end at once.
    assert_eq!(bench.run(json!({ "argv": ["cat"] })).ok().stdout_bytes, 0);
}

#[test]
fn output_over_the_limit_keeps_both_ends_and_exact_counts() {
    let mut bench = Bench::new();
    let line = "printf begin; head -c 3000000 /dev/zero | tr '\\0' x; printf end; printf e >&2";
    let result = bench
        .run(json!({ "shell": line, "output_limit_bytes": 100 }))
        .ok();
    assert_eq!(result.stdout_bytes, 3_000_008);
    assert_eq!(result.stdout_cut, 3_000_008 - 100);
    assert!(result.stdout.starts_with("beginxxx") && result.stdout.ends_with("xxxend"));
    assert!(
        result.stdout.contains("[… 2999908 bytes cut …]"),
        "{}",
        result.stdout
    );
    assert_eq!(
        (
            result.stderr.as_str(),
            result.stderr_bytes,
            result.stderr_cut
        ),
        ("e", 1, 0)
    );
}

#[test]
fn a_spec_cannot_ask_for_more_output_than_the_daemon_allows() {
    let mut bench = Bench::with(|options| options.output_limit_max_bytes = 10);
    let result = bench
        .run(json!({ "argv": ["printf", "0123456789abc"], "output_limit_bytes": 1_000_000 }))
        .ok();
    assert_eq!((result.stdout_bytes, result.stdout_cut), (13, 3));
}

#[test]
fn binary_output_is_counted_in_bytes_and_called_lossy() {
    let mut bench = Bench::new();
    let result = bench.shell("printf '\\377\\000a\\303'").ok();
    assert_eq!(result.stdout, "\u{fffd}\0a\u{fffd}");
    assert_eq!((result.stdout_bytes, result.stdout_cut), (4, 0));
    assert!(result.is_lossy);
}

#[test]
fn a_timeout_ends_the_grandchild_that_left_its_session_and_holds_the_pipe() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "setsid sh -c 'trap \"\" TERM HUP; echo ready $$; while :; do sleep 1000; done' & wait"
    }));
    let grandchild = running.ready(1);
    let asked_at = Instant::now();
    bench.cancel(&running, CancelReason::TimedOut);
    let (error, result) = running.wait().failed();
    // The grace is 300 ms; the rest is for a machine that is busy.
    assert!(
        asked_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked_at.elapsed()
    );
    assert_eq!((error.code.as_str(), error.retryable), ("timed_out", true));
    assert_eq!(result.outcome, ProcessOutcome::TimedOut);
    assert!(
        result.stdout.starts_with("ready "),
        "partial output is kept: {result:?}"
    );
    assert!(result.is_drained);
    assert!(grandchild[0].is_over());
    bench.assert_nobody_left();
}

#[test]
fn a_request_to_end_gives_the_grace_it_promises() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "trap 'echo cleaned up; exit 3' TERM; echo ready $$; while :; do sleep 0.01; done",
        "grace_ms": 60_000
    }));
    running.ready(1);
    bench.cancel(&running, CancelReason::Cancelled);
    let (error, result) = running.wait().failed();
    assert_eq!((error.code.as_str(), error.retryable), ("cancelled", false));
    assert_eq!(
        (result.outcome, result.exit_code),
        (ProcessOutcome::Cancelled, Some(3))
    );
    assert!(result.stdout.ends_with("cleaned up\n"));
}

#[test]
fn the_grace_holds_for_descendants_of_a_command_that_is_over_first() {
    let mut bench = Bench::with(|options| options.leftover_grace = Duration::ZERO);
    let inner = "trap 'echo cleaned up; exit' TERM; echo ready $$; while :; do sleep 0.01; done";
    let mut running = bench.start(json!({
        "argv": ["sh", "-c", "setsid sh -c \"$1\" & wait", "sh", inner],
        "grace_ms": 60_000
    }));
    running.ready(1);
    bench.cancel(&running, CancelReason::Cancelled);
    let (_, result) = running.wait().failed();
    assert!(result.stdout.ends_with("cleaned up\n"), "{result:?}");
    bench.assert_nobody_left();
}

#[test]
fn who_ignores_sigterm_is_killed_after_the_grace() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "trap '' TERM; echo ready $$; while :; do sleep 1000; done",
        "grace_ms": 50
    }));
    let stubborn = running.ready(1);
    bench.cancel(&running, CancelReason::TimedOut);
    let (_, result) = running.wait().failed();
    assert_eq!(
        (result.outcome, result.signal),
        (ProcessOutcome::TimedOut, Some(9))
    );
    assert!(stubborn[0].is_over());
    bench.assert_nobody_left();
}

#[test]
fn a_stopped_command_hears_the_request_to_end() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "trap 'echo heard; exit 0' TERM; echo ready $$; kill -STOP $$; while :; do sleep 0.01; done",
        "grace_ms": 60_000
    }));
    running.ready(1);
    bench.cancel(&running, CancelReason::Cancelled);
    let (_, result) = running.wait().failed();
    assert!(result.stdout.ends_with("heard\n"), "{result:?}");
}

#[test]
fn what_a_finished_command_left_running_is_ended() {
    let mut bench = Bench::new();
    // A daemon in the old style: forked twice, a session of its own, stubborn, and holding the pipes.
    let daemon = "trap '' TERM HUP; echo ready $$; echo > up; while :; do sleep 1000; done";
    let mut running = bench.start(json!({
        "argv": ["sh", "-c", "mkfifo up; ( setsid sh -c \"$1\" & ); read up < up; exit 5", "sh", daemon]
    }));
    let daemonised = running.ready(1);
    let (_, result) = running.wait().failed();
    assert_eq!(
        (result.outcome, result.exit_code),
        (ProcessOutcome::Exited, Some(5))
    );
    assert!(
        result.leftovers_ended >= 1 && result.is_drained,
        "{result:?}"
    );
    assert!(daemonised[0].is_over());
    bench.assert_nobody_left();
}

#[test]
fn a_small_fork_bomb_is_ended_to_the_last_process() {
    let mut bench = Bench::new();
    // A full binary tree of shells, 63 in all, each fifth one in a session of its own.
    let line = "bomb() { if [ $1 -gt 0 ]; then bomb $(($1-1)) & bomb $(($1-1)) & fi; \
                [ $1 -eq 0 ] && setsid sh -c 'trap \"\" TERM; echo ready $$; exec sleep 1000'; wait; }; bomb 5";
    let mut running = bench.start(json!({ "shell": line }));
    let leaves = running.ready(32);
    bench.cancel(&running, CancelReason::TimedOut);
    let (_, result) = running.wait().failed();
    assert_eq!(result.unkillable, Vec::<i32>::new());
    assert!(leaves.iter().all(support::Process::is_over));
    bench.assert_nobody_left();
}

#[test]
fn processes_that_keep_forking_while_they_are_killed_do_not_get_away() {
    let mut bench = Bench::with(|options| options.grace = Duration::ZERO);
    // Outside the command's group, each process starts another and is gone: whoever a look finds is not there at the
    // next one.
    let runner = "trap '' TERM; echo ready $$; while :; do ( ( sleep 0.02 & ) & ); done";
    let mut running = bench.start(json!({ "argv": ["setsid", "--wait", "sh", "-c", runner] }));
    running.ready(1);
    bench.cancel(&running, CancelReason::Cancelled);
    let (_, result) = running.wait().failed();
    assert_eq!(result.unkillable, Vec::<i32>::new());
    bench.assert_nobody_left();
}

#[test]
fn the_environment_is_clean_and_says_whose_command_it_is() {
    let mut bench = Bench::with(|options| options.inherited_variables = vec!["PATH".to_owned()]);
    let result = bench
        .run(json!({ "argv": ["env"], "env": { "GIVEN": "a b" } }))
        .ok();
    let mut names: Vec<&str> = result
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    let expected = [
        "GIVEN",
        "PATH",
        "TINKERBELL_ATTEMPT",
        "TINKERBELL_IDEMPOTENCY_KEY",
        "TINKERBELL_JOB_ID",
        "TINKERBELL_NODE",
        "TINKERBELL_START_DIR",
        "TINKERBELL_STEP",
    ];
    assert_eq!(names, expected);
    let id = support::job();
    assert!(
        result
            .stdout
            .contains(&format!("TINKERBELL_IDEMPOTENCY_KEY={id}-0\n"))
    );
    assert!(result.stdout.contains("GIVEN=a b\n"));
}

#[test]
fn commands_start_unprivileged_with_no_descriptor_of_ours_and_in_a_group_of_their_own() {
    let mut bench = Bench::new();
    let line = "cat /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo; ulimit -c; \
                [ $$ = \"$(ps -o pgid= -p $$ | tr -d ' ')\" ] && echo leads";
    let result = bench.shell(line).ok();
    assert!(
        result.stdout.contains("NoNewPrivs:\t1\n"),
        "{}",
        result.stdout
    );
    // The fourth is the listing's own.
    assert!(result.stdout.contains("\n0 1 2 3 \n"), "{}", result.stdout);
    assert!(result.stdout.contains("\n0\nleads\n"), "{}", result.stdout);
}

#[test]
fn a_hundred_commands_at_once() {
    let mut bench = Bench::new();
    let running: Vec<_> = (0..100)
        .map(|n| bench.start(json!({ "shell": format!("cat; exit {n}"), "stdin": format!("{n}") })))
        .collect();
    for (n, running) in running.into_iter().enumerate() {
        let ran = running.wait();
        let result = if n == 0 { ran.ok() } else { ran.failed().1 };
        assert_eq!(result.stdout, n.to_string());
        assert_eq!(result.exit_code, i32::try_from(n).ok());
    }
    assert_eq!(bench.tools.running(), 0);
    bench.assert_nobody_left();
}

#[test]
fn whoever_watches_and_does_not_read_holds_up_nothing() {
    let mut bench = Bench::new();
    let _stalled = bench
        .pal
        .subscribe(pal::Filter::default(), pal::StartAt::Now);
    let result = bench.shell("head -c 20000000 /dev/zero").ok();
    assert_eq!(result.stdout_bytes, 20_000_000);
}

#[test]
fn a_command_cancelled_before_it_starts_does_not_start() {
    let mut bench = Bench::new();
    let marker = bench.workspace().join("ran");
    for _ in 0..20 {
        let running = bench.start(json!({ "argv": ["touch", "ran"] }));
        bench.cancel(&running, CancelReason::Cancelled);
        let error = running.wait().0;
        // However the race goes, the effect ends once; if the command won it, it really did run.
        assert!(error.is_err_and(|error| error.code == "cancelled") || marker.exists());
    }
    assert_eq!(bench.tools.running(), 0);
    bench.assert_nobody_left();
}

#[test]
fn a_lost_supervisor_is_told_and_takes_its_command_along() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "trap '' TERM; echo ready $PPID; echo ready $$; while :; do sleep 1000; done"
    }));
    let processes = running.ready(2);
    let supervisor = rustix::process::Pid::from_raw(processes[0].pid).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let error = running.wait().refused();
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("supervisor_lost", true)
    );
    assert!(processes[1].is_over());
    bench.assert_nobody_left();
}

#[test]
fn a_supervisor_that_is_asked_to_end_ends_its_command() {
    let mut bench = Bench::new();
    let mut running = bench.start(json!({
        "shell": "echo ready $PPID; while :; do sleep 1000; done"
    }));
    let supervisor = running.ready(1)[0].pid;
    // It takes signals in just after the start of its command, and then leaves the command's directory.
    let cwd = format!("/proc/{supervisor}/cwd");
    let until = Instant::now() + support::STUCK;
    while std::fs::read_link(&cwd).unwrap() != std::path::Path::new("/") {
        assert!(
            Instant::now() < until,
            "the supervisor stays where its command is"
        );
        std::thread::yield_now();
    }
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    let (_, result) = running.wait().failed();
    assert_eq!(
        (result.outcome, result.signal),
        (ProcessOutcome::Signalled, Some(15))
    );
}

#[test]
fn an_effect_nobody_knows_is_refused() {
    let mut bench = Bench::new();
    let call = bench.call("process.fly", json!({}));
    let error = bench.start_call(call).wait().refused();
    assert_eq!(
        (error.code.as_str(), error.retryable),
        ("unknown_effect", false)
    );
    assert!(error.message.contains("process.fly") && error.message.contains("process.run"));
}
