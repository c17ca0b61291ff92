//! Commands that are not about jobs, and signals that only ask for something.

use rustix::process::Signal;

use crate::support::{Node, Place, end_of};

#[test]
fn sigusr1_dumps_the_state_into_the_log() {
    let node = Node::new(
        "[[job]]\nname = \"waiter\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"held\"\n\
         run.shell = \"cd $TINKERBELL_START_DIR; echo up > up; read _ < go\"\n",
    );
    let up = node.place.fifo("up");
    let _go = node.place.barrier("go");
    let mut daemon = node.start();
    up.wait_for_count(1);
    daemon.signal(Signal::USR1);
    let dump = daemon.logged("state of scheduler, jobs and log:");
    let dump = dump["message"].as_str().unwrap_or_default();
    for part in [
        "1 live jobs",
        "1 effects running",
        "`waiter`",
        "`held` process.run running",
        "log: ",
        "tasks at",
    ] {
        assert!(dump.contains(part), "{part} is not in:\n{dump}");
    }
    daemon.signal(Signal::USR2);
    daemon.logged("SIGUSR2");
    assert_eq!(
        daemon.get("/readyz").status,
        200,
        "none of them disturbs the daemon"
    );
}

#[test]
fn completions_are_there_for_every_shell() {
    let place = Place::new();
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef tinkerbell"),
        ("fish", "complete -c tinkerbell"),
    ] {
        let ended = end_of(place.binary().args(["completions", shell])).with(0);
        assert!(ended.stdout.contains(part), "{shell}:\n{}", ended.stdout);
        for word in ["replay", "verify", "--config"] {
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(ended.stdout.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn the_man_page_names_every_command() {
    let page = end_of(Place::new().binary().arg("man")).with(0).stdout;
    assert!(page.contains(".TH tinkerbell 1"), "{page}");
    for word in [
        "config",
        "job",
        "log",
        "replay",
        "health",
        "completions",
        "Exit codes",
    ] {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn the_version_says_commit_and_features() {
    let place = Place::new();
    let long = end_of(place.binary().arg("--version")).with(0).stdout;
    let lines: Vec<&str> = long.lines().collect();
    let [version, commit, features] = lines.as_slice() else {
        panic!("{long}")
    };
    assert_eq!(*version, concat!("tinkerbell ", env!("CARGO_PKG_VERSION")));
    let commit = commit
        .strip_prefix("commit: ")
        .expect("the second line says the commit");
    let is_hash = |text: &str| text.len() == 12 && text.chars().all(|c| c.is_ascii_hexdigit());
    assert!(
        commit == "unknown" || is_hash(commit.trim_end_matches("-dirty")),
        "{commit}"
    );
    let features = features
        .strip_prefix("features: ")
        .expect("the third line says the features");
    assert_eq!(
        features.contains("yaml"),
        cfg!(feature = "yaml"),
        "{features}"
    );
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let node = Node::new("[node]\nexit_when_idle = true\n");
    node.run(&[]).with(0);
    let line = format!(
        "{} log cat | head -0; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_tinkerbell")
    );
    let mut shell = node.command(&[]);
    let environment: Vec<_> = shell
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    shell = std::process::Command::new("bash");
    shell.arg("-c").arg(line).env_clear().envs(environment);
    let ended = end_of(&mut shell).with(0);
    assert_eq!(ended.said(), "0\n");
}
