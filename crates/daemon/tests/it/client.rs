//! The verbs that ask a running daemon, as they are typed.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::CommandFactory;
use daemon::cli::Cli;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Daemon, Ended, Node, PATIENCE, end_of, skip};

const QUIET: &str =
    "[watch]\nconfig = false\n[process]\nkill_grace = \"200ms\"\n[shutdown]\ngrace = \"2s\"\n";

/// Submits a job file and gives its id.
fn submit(node: &Node, job: &str, args: &[&str]) -> String {
    node.place.write("job.toml", job);
    let args = [&["job", "submit", "job.toml"], args].concat();
    node.run(&args).with(0).stdout.trim().to_owned()
}

/// Runs a shell line as a job to its end, and gives its id.
fn done(node: &Node, name: &str, line: &str) -> String {
    let args = [
        "job", "submit", "--follow", "--json", "--name", name, "--", "sh", "-c", line,
    ];
    let ended = node.run(&args);
    let first = ended.stdout.lines().next().unwrap_or_default();
    let first: Value = serde_json::from_str(first).expect("every line is JSON");
    first["job"].as_str().expect("it says the job").to_owned()
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.said()))
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines
        .map(|line| line.expect("every line is JSON"))
        .collect()
}

/// Waits until the daemon has a stream open.
fn wait_for_a_stream(node: &Node) {
    let until = Instant::now() + PATIENCE;
    while json(&node.run(&["node", "show", "--json"]).with(0))["streams"] != 1 {
        assert!(Instant::now() < until, "nobody watches");
    }
}

/// What a command's output is for people.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Rows below headings; the key of the rows in JSON.
    Rows(&'static str),
    /// A heading and a value on each line.
    One,
    /// A text, which JSON has under this key.
    Text(&'static str),
    /// Something for each line of JSON.
    Lines,
}

/// Every command that prints data, with `@` where a job's name ends in the form: `t` for a table, `j` for JSON.
const WALK: &[(&str, Shape)] = &[
    ("job submit asking.toml", Shape::Text("job")),
    ("job submit --follow -- true", Shape::Lines),
    ("job list", Shape::Rows("jobs")),
    (
        "job list --all-pages --state waiting,completed",
        Shape::Rows("jobs"),
    ),
    ("job show done", Shape::One),
    ("job show retrying", Shape::One),
    ("job show approve@", Shape::One),
    ("job watch done", Shape::Lines),
    ("job watch done --output --after 1", Shape::Lines),
    ("job logs done", Shape::Lines),
    ("job logs done --follow", Shape::Lines),
    ("job result done", Shape::One),
    ("job artifacts giving", Shape::Rows("artifacts")),
    ("job signal signal@ go {\"a\":1}", Shape::One),
    ("job approve approve@", Shape::One),
    ("job deny deny@", Shape::One),
    ("job cancel --state waiting --dry-run", Shape::Rows("jobs")),
    ("job cancel cancel@", Shape::Rows("jobs")),
    ("node show", Shape::One),
    ("node dump", Shape::Text("text")),
    ("node reload", Shape::One),
    ("context list", Shape::Rows("contexts")),
    ("context show", Shape::One),
    ("node drain --no-stop", Shape::One),
    ("node shutdown", Shape::One),
];

const ASKING: &str =
    "program = \"plan\"\n[[steps]]\nid = \"go\"\nask = { prompt = \"Really?\", approval = true }\n";

#[test]
fn every_command_prints_a_table_and_the_same_as_json() {
    let node = Node::new(QUIET);
    node.place.write("asking.toml", ASKING);
    let mut daemon = node.start();
    done(&node, "done", "echo out; echo err >&2");
    for form in ["t", "j"] {
        for job in ["signal", "approve", "deny", "cancel"] {
            submit(&node, ASKING, &["--name", &format!("{job}{form}")]);
        }
    }
    let retrying = "program = \"command\"\nshell = \"exit 9\"\nretry = { attempts = 3, backoff = \"1h\", max_backoff = \"1h\" }\n";
    submit(&node, retrying, &["--name", "retrying", "--label", "a=b"]);
    let giving =
        "program = \"plan\"\n[[steps]]\nid = \"a\"\nartifact = { name = \"n\", text = \"hi\" }\n";
    submit(&node, giving, &["--name", "giving"]);
    node.run(&["job", "logs", "giving", "--follow"]).with(0);
    // Until its first try has failed.
    let watch = ["job", "watch", "retrying", "--json"];
    let watcher = Daemon::spawn(&mut node.command(&watch));
    let retried = |line: &str| line.contains("step_retrying");
    watcher.stdout.wait_for(0, "a retry", retried);
    watcher.killed();
    node.run(&["context", "add", "here", "data/ipc.sock"])
        .with(0);

    for (line, shape) in WALK {
        let run = |form: &str, more: &[&str]| {
            let line = line.replace('@', form);
            let words: Vec<&str> = line.split(' ').collect();
            // What follows `--` is the job's.
            let (ours, jobs) = match words.iter().position(|word| *word == "--") {
                Some(at) => words.split_at(at),
                None => (words.as_slice(), &[][..]),
            };
            node.run(&[ours, more, jobs].concat()).with(0)
        };
        let table = run("t", &[]);
        if *line == "node shutdown" {
            daemon.ended().with(0);
            daemon = node.start();
        }
        let program = run("j", &["--json"]);
        hold(line, *shape, &table.stdout, &program);
    }
    daemon.ended().with(0);
}

/// Holds a table and JSON against each other.
fn hold(line: &str, shape: Shape, table: &str, program: &Ended) {
    let key = |heading: &str| heading.to_lowercase().replace(' ', "_");
    let has = |object: &Value, headings: &[String]| {
        assert!(headings.len() > 1, "{line}: {table}");
        for heading in headings {
            assert!(
                object.get(heading).is_some(),
                "{line}: no `{heading}` in {object}"
            );
        }
    };
    let headings = |line: &str| -> Vec<String> {
        line.split("  ")
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(key)
            .collect()
    };
    match shape {
        Shape::Rows(of) => {
            let headings = headings(table.lines().next().unwrap_or_default());
            let all = json(program);
            let rows = all[of]
                .as_array()
                .unwrap_or_else(|| panic!("{line}: {all}"));
            assert!(!rows.is_empty(), "{line}: {all}");
            for row in rows {
                has(row, &headings);
            }
            assert!(table.lines().count() > 1, "{line}: {table}");
        }
        Shape::One => {
            let object = json(program);
            let whole: Vec<&str> = table.lines().take_while(|line| !line.is_empty()).collect();
            let left = whole.iter().map(|line| headings(line).remove(0));
            has(&object, &left.collect::<Vec<_>>());
            // Tables below it: a line that names them, then rows.
            let below = table.lines().skip(whole.len() + 1).collect::<Vec<_>>();
            for pair in below.windows(2).filter(|pair| pair[0].ends_with(':')) {
                let rows = object[pair[0].trim_end_matches(':')].as_array();
                let rows = rows.unwrap_or_else(|| panic!("{line}: {object}"));
                rows.iter().for_each(|row| has(row, &headings(pair[1])));
            }
        }
        Shape::Text(of) => {
            assert!(!table.is_empty(), "{line}");
            assert!(json(program)[of].is_string(), "{line}: {}", program.stdout);
        }
        Shape::Lines => {
            let lines = json_lines(&program.stdout);
            assert!(
                lines.iter().all(Value::is_object) && !lines.is_empty(),
                "{line}"
            );
        }
    }
}

#[test]
fn the_walk_leaves_no_command_out() {
    let walked: BTreeSet<String> = WALK
        .iter()
        .map(|(line, _)| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    for noun in Cli::command().get_subcommands() {
        for verb in noun.get_subcommands() {
            let name = format!("{} {}", noun.get_name(), verb.get_name());
            let asks = verb.get_arguments().any(|arg| arg.get_id() == "socket");
            let prints = verb.get_arguments().any(|arg| arg.get_id() == "json");
            let is_ours = asks || noun.get_name() == "context";
            assert!(!asks || prints, "{name} has no --json");
            if is_ours && prints {
                assert!(walked.contains(&name), "{name} is not walked");
            }
        }
    }
}

#[test]
fn following_splits_the_streams_and_ends_with_the_jobs_code() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    let follow = |line: &str| node.run(&["job", "submit", "--follow", "--", "sh", "-c", line]);
    let ended = follow("echo out; echo err >&2; exit 7").with(7);
    assert_eq!(ended.stdout, "out\n");
    assert!(ended.stderr.contains("err\n"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("out\n"), "{}", ended.stderr);
    follow("kill -9 $$").with(137);
    let ended = follow("true").with(0);
    assert_eq!(ended.stdout, "");

    // The same of a job that is over, and without following.
    let list = json(&node.run(&["job", "list", "--json"]).with(0));
    let first = list["jobs"][2]["id"].as_str().expect("it has an id");
    for (args, code) in [(&["--follow"][..], 7), (&[], 0)] {
        let ended = node
            .run(&[&["job", "logs", first], args].concat())
            .with(code);
        assert_eq!(ended.stdout, "out\n", "{args:?}");
        assert!(ended.stderr.starts_with("err\n"), "{}", ended.stderr);
    }
    let ended = node
        .run(&["job", "logs", first, "--stream", "stderr"])
        .with(0);
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        ("", "err\n")
    );
}

/// Prints a line, waits to be let on, prints another.
const HELD: &str = "program = \"command\"\nclass = \"read\"\n\
    shell = \"cd $TINKERBELL_START_DIR; echo one; echo up > up; read _ < go; echo two; exit 5\"\n";

#[test]
fn logs_of_a_job_that_has_not_begun_are_waited_for() {
    let node = Node::new(&format!("{QUIET}[limits]\nrunning_effects = 1\n"));
    let up = node.place.fifo("up");
    let mut go = node.place.barrier("go");
    let _daemon = node.start();
    submit(&node, HELD, &["--name", "ahead"]);
    up.wait_for_count(1);
    submit(
        &node,
        "program = \"command\"\nshell = \"echo mine; exit 3\"\n",
        &["--name", "behind"],
    );
    let follower = Daemon::spawn(&mut node.command(&["job", "logs", "behind", "--follow"]));
    let waits =
        |line: &str| line.contains("has not begun") && line.contains("limits.running_effects");
    follower.stderr.wait_for(0, "a word that it waits", waits);
    assert!(follower.stdout.so_far().is_empty());
    go.release(1);
    let ended = follower.ended().with(3);
    assert_eq!(ended.stdout, "mine\n");
}

#[test]
fn what_a_job_prints_is_followed_over_a_kill_and_shown_once() {
    let node = Node::new(QUIET);
    let up = node.place.fifo("up");
    let mut go = node.place.barrier("go");
    let daemon = node.start();
    let id = submit(&node, HELD, &[]);
    up.wait_for_count(1);
    let follower = Daemon::spawn(&mut node.command(&["job", "logs", &id, "--follow"]));
    follower.stdout.wait_for_count(1);
    daemon.killed();
    let lost = |line: &str| line.contains("looking for the daemon again");
    follower
        .stderr
        .wait_for(0, "a word that the daemon is gone", lost);
    let _daemon = node.start();
    // It is begun again, and prints its first line again.
    up.wait_for_count(2);
    follower
        .stderr
        .wait_for(0, "a word that it is back", |line| {
            line.contains("found it")
        });
    go.release(1);
    let ended = follower.ended().with(5);
    assert_eq!(ended.stdout, "one\ntwo\n", "{}", ended.stderr);
}

/// Number and kind of each event that is in the log.
fn numbered(lines: &[Value]) -> Vec<(u64, String)> {
    let of = |line: &Value| Some((line["lsn"].as_u64()?, line["type"].as_str()?.to_owned()));
    lines.iter().filter_map(of).collect()
}

#[test]
fn watching_a_job_misses_nothing_when_the_daemon_is_killed() {
    let node = Node::new(QUIET);
    let up = node.place.fifo("up");
    let mut go = node.place.barrier("go");
    let mut daemon = node.start();
    let id = submit(&node, HELD, &["--name", "held"]);
    up.wait_for_count(1);
    let watcher = Daemon::spawn(&mut node.command(&["job", "watch", "held", "--json"]));
    watcher
        .stdout
        .wait_for(0, "its step", |line| line.contains("step_started"));
    for kills in 1..=2 {
        daemon.killed();
        let lost = "looking for the daemon again";
        watcher
            .stderr
            .wait_for((kills - 1) * 2, lost, |line| line.contains(lost));
        daemon = node.start();
        up.wait_for_count(1 + kills);
        watcher
            .stderr
            .wait_for(kills * 2 - 1, "found it", |line| line.contains("found it"));
    }
    go.release(1);
    let watched = json_lines(&watcher.ended().with(0).stdout);
    let whole = node.run(&["job", "watch", &id, "--json"]).with(0);
    let whole = json_lines(&whole.stdout);
    assert_eq!(numbered(&watched), numbered(&whole));
    assert!(numbered(&whole).len() > 3, "{whole:?}");
    let last = watched.last().expect("it has an end");
    assert_eq!(
        (&last["type"], &last["state"]),
        (&"end".into(), &"failed".into())
    );
    // From the middle on.
    let (lsn, _) = numbered(&whole)[0];
    let rest = node.run(&["job", "watch", &id, "--json", "--after", &lsn.to_string()]);
    assert_eq!(numbered(&json_lines(&rest.stdout)), numbered(&whole)[1..]);
}

#[test]
fn a_watcher_that_had_seen_nothing_misses_nothing_either() {
    let node = Node::new(QUIET);
    let daemon = node.start();
    let watcher = Daemon::spawn(&mut node.command(&["job", "watch", "--json"]));
    wait_for_a_stream(&node);
    daemon.killed();
    // It is over before anybody can come back to watch.
    node.configure(
        "[node]\nexit_when_idle = true\n[ipc]\nenabled = false\n[[job]]\nname = \"first\"\nprogram = \"command\"\nargv = [\"true\"]\n",
    );
    node.run(&[]).with(0);
    node.configure(QUIET);
    let daemon = node.start();
    let finished = |line: &str| line.contains("job_finished");
    watcher.stdout.wait_for(0, "the job", finished);
    watcher.signal(Signal::INT);
    let watched = json_lines(&watcher.ended().with(130).stdout);
    let kinds: Vec<&str> = watched
        .iter()
        .filter_map(|line| line["type"].as_str())
        .collect();
    assert!(kinds.contains(&"job_submitted"), "{kinds:?}");
    drop(daemon);
}

#[test]
fn ctrl_c_ends_the_following_and_not_the_job() {
    let node = Node::new(QUIET);
    let up = node.place.fifo("up");
    let mut go = node.place.barrier("go");
    let _daemon = node.start();
    node.place.write("job.toml", HELD);
    let args = ["job", "submit", "job.toml", "--name", "held", "--follow"];
    let follower = Daemon::spawn(&mut node.command(&args));
    up.wait_for_count(1);
    follower.stdout.wait_for_count(1);
    follower.signal(Signal::INT);
    let ended = follower.ended().with(130);
    assert!(
        ended
            .stderr
            .contains("goes on; to end it: tinkerbell job cancel"),
        "{}",
        ended.stderr
    );
    let shown = json(&node.run(&["job", "show", "held", "--json"]).with(0));
    assert_eq!(shown["state"], "running");
    go.release(1);
    node.run(&["job", "logs", "held", "--follow"]).with(5);
}

#[test]
fn a_daemon_that_does_not_come_back_is_not_looked_for_for_ever() {
    let node = Node::new(QUIET);
    let daemon = node.start();
    let watch = ["job", "watch", "--json", "--reconnect", "0s"];
    let watcher = Daemon::spawn(&mut node.command(&watch));
    wait_for_a_stream(&node);
    daemon.killed();
    watcher.ended().with(69);
}

#[test]
fn a_job_is_submitted_once_for_a_key_and_its_mistakes_have_places() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    let job = "program = \"command\"\nargv = [\"true\"]\n";
    let first = submit(&node, job, &["--key", "k"]);
    assert_eq!(submit(&node, job, &["--key", "k"]), first);
    let other = node
        .run(&["job", "submit", "--key", "k", "--", "false"])
        .with(1);
    assert!(other.stderr.contains(&first), "{}", other.stderr);
    let input = "program = \"plan\"\nsteps = [{ id = \"a\", say = \"{{ input.n }}\" }]\n";
    let id = submit(
        &node,
        input,
        &["--input", "n=41", "--priority", "high", "--label", "a=b"],
    );
    let shown = json(&node.run(&["job", "show", &id, "--json"]).with(0));
    assert_eq!(
        (
            &shown["input"]["input"]["n"],
            &shown["priority"],
            &shown["labels"]["a"]
        ),
        (&41.into(), &"high".into(), &"b".into())
    );

    // The daemon finds what is wrong, the file's place is ours to tell.
    node.place.write(
        "bad.toml",
        "program = \"plan\"\n[[steps]]\nid = \"a\"\nsayy = \"x\"\n",
    );
    let refused = node.run(&["job", "submit", "bad.toml"]).with(1);
    assert!(
        refused.stderr.contains("bad.toml:4:1"),
        "{}",
        refused.stderr
    );
    node.run(&["job", "submit", "nowhere.toml"]).with(78);

    let mut command = node.command(&["job", "submit", "-"]);
    let mut piped = Daemon::spawn(command.stdin(Stdio::piped()));
    let text = b"{\"program\": \"command\", \"argv\": [\"true\"], \"name\": \"piped\"}";
    std::io::Write::write_all(&mut piped.stdin(), text).expect("it is read");
    piped.ended().with(0);
    node.run(&["job", "logs", "piped", "--follow"]).with(0);
}

#[test]
fn lists_are_filtered_and_paged() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    for n in 0..4 {
        submit(
            &node,
            ASKING,
            &[
                "--name",
                &format!("a{n}"),
                "--label",
                &format!("even={}", n % 2 == 0),
            ],
        );
    }
    done(&node, "over", "true");
    let names = |args: &[&str]| {
        let list = json(
            &node
                .run(&[&["job", "list", "--json"], args].concat())
                .with(0),
        );
        let jobs = list["jobs"].as_array().expect("a list").clone();
        let names = jobs
            .iter()
            .filter_map(|job| job["name"].as_str().map(str::to_owned));
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["over", "a3", "a2", "a1", "a0"]);
    assert_eq!(names(&["--limit", "2"]), ["over", "a3"]);
    assert_eq!(
        names(&["--all-pages", "--label", "even=true"]),
        ["a2", "a0"]
    );
    assert_eq!(names(&["--state", "completed"]), ["over"]);
    assert_eq!(names(&["--name", "a1"]), ["a1"]);
    let some = node.run(&["job", "list", "--limit", "2"]).with(0);
    assert!(some.stderr.contains("--all-pages"), "{}", some.stderr);
    let cancelled = node
        .run(&["job", "cancel", "--label", "even=true", "--reason", "odd"])
        .with(0);
    assert_eq!(cancelled.stdout.lines().count(), 3, "{}", cancelled.stdout);
    let watched = node.run(&["job", "logs", "a0", "--follow"]).with(1);
    assert!(watched.stderr.contains("odd"), "{}", watched.stderr);
    assert_eq!(names(&["--state", "waiting"]), ["a3", "a1"]);
}

#[test]
fn questions_are_answered_by_approve_deny_and_signal() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    submit(&node, ASKING, &["--name", "yes"]);
    submit(&node, ASKING, &["--name", "no"]);
    node.run(&["job", "approve", "yes"]).with(0);
    node.run(&["job", "deny", "no"]).with(0);
    node.run(&["job", "logs", "yes", "--follow"]).with(0);
    node.run(&["job", "logs", "no", "--follow"]).with(1);
    let over = node.run(&["job", "approve", "yes"]).with(1);
    assert!(over.stderr.contains("asks nothing"), "{}", over.stderr);

    let name = "program = \"plan\"\n[[steps]]\nid = \"who\"\nask = { prompt = \"Name?\" }\n\
         [[steps]]\nid = \"say\"\nneeds = [\"who\"]\nsay = \"hello {{ steps.who.answer }}\"\n";
    submit(&node, name, &["--name", "named"]);
    let wrong = node.run(&["job", "approve", "named"]).with(1);
    assert!(
        wrong.stderr.contains("job signal named who TEXT"),
        "{}",
        wrong.stderr
    );
    node.run(&["job", "signal", "named", "who", "Wendy"])
        .with(0);
    let watched = node.run(&["job", "watch", "named"]).with(0);
    assert!(watched.stdout.contains("hello Wendy"), "{}", watched.stdout);

    let two = ASKING.to_owned()
        + "[[steps]]\nid = \"also\"\nask = { prompt = \"And?\", approval = true }\n";
    submit(&node, &two, &["--name", "two"]);
    let several = node.run(&["job", "approve", "two"]).with(1);
    assert!(several.stderr.contains("go, also"), "{}", several.stderr);
    for question in ["go", "also"] {
        node.run(&["job", "approve", "two", question]).with(0);
    }
    node.run(&["job", "logs", "two", "--follow"]).with(0);
}

#[test]
fn artifacts_are_listed_printed_and_written() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    let giving = "program = \"plan\"\n[[steps]]\nid = \"a\"\n\
        artifact = { name = \"n/../x y.txt\", media_type = \"text/plain\", text = \"one\\ntwo\\n\", chunk_bytes = 3 }\n";
    submit(&node, giving, &["--name", "giving"]);
    node.run(&["job", "logs", "giving", "--follow"]).with(0);
    let name = "n/../x y.txt";
    let printed = node.run(&["job", "artifacts", "giving", name]).with(0);
    assert_eq!(printed.stdout, "one\ntwo\n");
    node.run(&["job", "artifacts", "giving", name, "--output", "out.txt"])
        .with(0);
    assert_eq!(node.place.read("out.txt"), "one\ntwo\n");
    node.run(&["job", "artifacts", "giving", "none"]).with(1);
}

#[test]
fn the_daemon_that_is_meant_is_the_first_that_is_said() {
    let (one, two) = (Node::new(QUIET), Node::new(QUIET));
    let (_one, _two) = (one.start(), two.start());
    let socket = |node: &Node| node.data_dir().join("ipc.sock").display().to_string();
    done(&one, "at-one", "true");
    done(&two, "at-two", "true");
    // From the place of the first, with its config.
    let asked = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = one.command(&[&["job", "list"], args].concat());
        let ended = end_of(command.envs(variables.iter().copied())).with(0);
        match (
            ended.stdout.contains("at-one"),
            ended.stdout.contains("at-two"),
        ) {
            (true, false) => 1,
            (false, true) => 2,
            _ => panic!("{}", ended.said()),
        }
    };
    let (at_one, at_two) = (socket(&one), socket(&two));
    assert_eq!(asked(&[], &[]), 1);
    assert_eq!(asked(&["--socket", &at_two], &[]), 2);
    assert_eq!(asked(&[], &[("TINKERBELL_SOCKET", &at_two)]), 2);
    one.run(&["context", "add", "first", &at_one]).with(0);
    one.run(&["context", "add", "second", &at_two]).with(0);
    assert_eq!(asked(&["--context", "second"], &[]), 2);
    assert_eq!(asked(&[], &[("TINKERBELL_CONTEXT", "second")]), 2);
    one.run(&["context", "use", "second"]).with(0);
    assert_eq!(asked(&[], &[]), 2);
    // Each before the next.
    let both = [
        ("TINKERBELL_SOCKET", at_one.as_str()),
        ("TINKERBELL_CONTEXT", "second"),
    ];
    assert_eq!(asked(&[], &both), 1);
    assert_eq!(asked(&["--context", "second"], &both), 2);
    assert_eq!(
        asked(&["--context", "second", "--socket", &at_one], &both),
        1
    );
    assert_eq!(asked(&[], &[("TINKERBELL_CONTEXT", "first")]), 1);

    let list = json(&one.run(&["context", "list", "--json"]).with(0));
    assert_eq!(list["contexts"][1]["address"], at_two);
    assert_eq!(list["contexts"][1]["in_use"], true);
    one.run(&["context", "remove", "second"]).with(0);
    assert_eq!(asked(&[], &[]), 1);
    one.run(&["context", "remove", "second"]).with(64);
}

#[test]
fn contexts_that_are_wrong_are_named_by_file_and_line() {
    let node = Node::new(QUIET);
    std::fs::create_dir_all(node.place.path("xdg/tinkerbell")).expect("a directory can be made");
    for (text, place, what) in [
        (
            "[contexts]\na = \"vsock:x\"\n",
            "contexts.toml:2:5",
            "no address",
        ),
        ("[contexts]\n\"a b\" = \"/s\"\n", "contexts.toml:2:1", "a b"),
        (
            "current = \"b\"\n[contexts]\na = \"/s\"\n",
            "contexts.toml:1:11",
            "no context `b`",
        ),
        ("\nnonsense = 1\n", "contexts.toml:2:1", "nonsense"),
        ("\n[contexts\n", "contexts.toml:2:", ""),
    ] {
        node.place.write("xdg/tinkerbell/contexts.toml", text);
        let mut command = node.command(&["job", "list"]);
        let ended = end_of(command.env("XDG_CONFIG_HOME", node.place.path("xdg"))).with(78);
        for part in [place, what] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
    }
    node.run(&["context", "add", "a b", "/s"]).with(64);
    node.run(&["context", "add", "a", "vsock:"]).with(64);
}

#[test]
fn a_daemon_that_is_not_there_is_named_and_how_to_mend_it() {
    let node = Node::new(QUIET);
    for (args, parts) in [
        (&[][..], ["data/ipc.sock", "`node.data_dir` of the config"]),
        (&["--socket", "/nowhere/s"], ["/nowhere/s", "--socket"]),
        (
            &["--socket", "tinkerbell.toml"],
            ["tinkerbell.toml", "--socket"],
        ),
    ] {
        let ended = node.run(&[&["job", "list"], args].concat()).with(69);
        for part in parts.into_iter().chain(["help: start one"]) {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
        assert_eq!(ended.stdout, "");
    }
    node.run(&["job", "list", "--socket", "vsock:x"]).with(64);
    node.run(&["job", "list", "--context", "none"]).with(64);
    node.configure("[ipc]\nlisten = 3\n");
    node.run(&["job", "list"]).with(78);
}

#[test]
fn refusals_are_said_and_exit_with_one() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    submit(&node, ASKING, &["--name", "asks"]);
    done(&node, "done", "true");
    for (args, part) in [
        (
            &["job", "show", "../node"][..],
            "no job is called `../node`",
        ),
        (&["job", "watch", "nobody"], "job list"),
        (&["job", "result", "asks"], "not over"),
        (&["job", "signal", "done", "x"], "is over"),
        (&["job", "cancel", "done", "nobody"], ""),
    ] {
        let ended = node.run(args).with(1);
        assert!(ended.stderr.contains(part), "{args:?}: {}", ended.said());
    }
    for args in [
        &["job", "cancel"][..],
        &["job", "cancel", "asks", "--all"],
        &["job", "submit"],
        &["job", "submit", "f", "--", "true"],
        &["job", "list", "--state", "asleep"],
        &["job", "list", "--label", "x"],
    ] {
        node.run(args).with(64);
    }
}

#[test]
fn reload_says_by_its_code_what_became_of_it() {
    let node = Node::new(QUIET);
    let mut daemon = node.start();
    node.run(&["node", "reload"]).with(0);
    node.configure(&format!("{QUIET}[limits]\nlive_jobs = 7\n"));
    let ended = node.run(&["node", "reload"]).with(4);
    assert!(
        ended.stdout.contains("limits.live_jobs"),
        "{}",
        ended.stdout
    );
    node.configure("[limits]\nlive_jobs = \"many\"\n");
    let socket = node.data_dir().join("ipc.sock").display().to_string();
    let ended = node
        .run(&["node", "reload", "--json", "--socket", &socket])
        .with(3);
    assert_eq!(json(&ended)["accepted"], false);
    daemon.logged("config not reloaded");
    let ended = node.run(&["node", "drain", "--socket", &socket]).with(0);
    assert!(ended.stdout.contains("draining"), "{}", ended.stdout);
    daemon.ended().with(0);
}

const HOSTILE: &str = "printf '\\033[2Jcleared\\302\\2332J\\n'";

#[test]
fn what_jobs_print_is_harmless_on_a_terminal_unless_it_is_asked_for() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip(
            "what_jobs_print_is_harmless_on_a_terminal",
            "there is no `script`",
        );
    }
    let node = Node::new(QUIET);
    let _daemon = node.start();
    done(&node, "hostile", HOSTILE);
    let on_terminal = |args: &str| {
        let line = format!("{} {args}", env!("CARGO_BIN_EXE_tinkerbell"));
        let ours = node.command(&[]);
        let environment = ours
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs(environment);
        script
            .env("SHELL", "/bin/sh")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        end_of(script.current_dir(node.place.path("")))
            .with(0)
            .stdout
    };
    for args in [
        "job logs hostile",
        "job logs hostile --follow",
        "job watch hostile --output",
    ] {
        let shown = on_terminal(args);
        assert!(!shown.contains(['\x1b', '\u{9b}']), "{args}: {shown:?}");
    }
    assert!(on_terminal("job logs hostile").contains("␛[2Jcleared"));
    assert!(on_terminal("job logs hostile --raw").contains("\x1b[2Jcleared"));
    // A program gets the bytes.
    let piped = node.run(&["job", "logs", "hostile"]).with(0).stdout;
    assert_eq!(piped, "\x1b[2Jcleared\u{9b}2J\n");
}

#[test]
fn names_and_labels_cannot_command_a_terminal() {
    let node = Node::new(QUIET);
    let _daemon = node.start();
    let name = "x\x1b[2J\u{202e}\nSTATE";
    submit(
        &node,
        ASKING,
        &["--name", name, "--label", "a=\x1b]0;b\x07"],
    );
    for args in [
        &["job", "list"][..],
        &["job", "show", name],
        &["job", "watch", name, "--reconnect", "0s"],
    ] {
        let ended = match args[1] {
            "watch" => {
                let watcher = Daemon::spawn(&mut node.command(args));
                watcher
                    .stdout
                    .wait_for(0, "the question", |line| line.contains("Really"));
                watcher.killed()
            }
            _ => node.run(args).with(0),
        };
        assert!(ended.stdout.contains("x␛[2J"), "{}", ended.said());
        assert!(
            !ended.said().contains(['\x1b', '\u{202e}', '\x07']),
            "{:?}",
            ended.said()
        );
    }
    // A program gets the name as it is.
    let list = json(&node.run(&["job", "list", "--json"]).with(0));
    assert_eq!(list["jobs"][0]["name"], name);
}

#[test]
fn completions_and_man_page_know_the_verbs() {
    let node = Node::new("");
    let page = node.run(&["man"]).with(0).stdout;
    for word in ["node", "context", "69"] {
        assert!(page.contains(word), "{word}");
    }
    let bash = node.run(&["completions", "bash"]).with(0).stdout;
    for word in ["submit", "approve", "--follow", "drain", "--socket"] {
        assert!(bash.contains(word), "{word}");
    }
}
