//! Everything that can be wrong with a config, and what is said about it. One snapshot holds all: read it as a user
//! would, and mend the wording where it does not help.
#![cfg(feature = "yaml")]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use daemon::config::{Config, Environment, LoadOptions, SetFlag};

/// One wrong config.
struct Case {
    title: &'static str,
    file: Option<(&'static str, Vec<u8>)>,
    variables: Vec<(&'static str, &'static str)>,
    sets: Vec<&'static str>,
}

fn file(title: &'static str, name: &'static str, content: impl Into<Vec<u8>>) -> Case {
    Case {
        title,
        file: Some((name, content.into())),
        variables: Vec::new(),
        sets: Vec::new(),
    }
}

fn toml(title: &'static str, content: &str) -> Case {
    file(title, "tinkerbell.toml", content)
}

fn variable(title: &'static str, name: &'static str, value: &'static str) -> Case {
    Case {
        title,
        file: None,
        variables: vec![(name, value)],
        sets: Vec::new(),
    }
}

fn set(title: &'static str, set: &'static str) -> Case {
    Case {
        title,
        file: None,
        variables: Vec::new(),
        sets: vec![set],
    }
}

/// What is said about it, with the test's own directory taken out.
fn complaint(case: &Case) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(
        dir.path().join("job.toml"),
        "program = \"plan\"\nfile = \"x\"\n",
    )
    .expect("it can be written");
    let path = case.file.as_ref().map(|(name, content)| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("it can be written");
        path
    });
    let options = LoadOptions {
        path,
        environment: Environment::of_variables(case.variables.iter().copied()),
        sets: case.sets.iter().map(|set| SetFlag::new(set)).collect(),
        offline: false,
    };
    let errors = Config::load(&options).expect_err(case.title);
    errors
        .to_string()
        .replace(&format!("{}/", dir.path().display()), "")
}

fn report(cases: &[Case]) -> String {
    let mut report = String::new();
    for case in cases {
        writeln!(report, "## {}\n{}\n", case.title, complaint(case))
            .expect("a string takes any text");
    }
    report
}

#[test]
fn what_is_wrong_with_a_file() {
    let report = report(&[
        file("empty file", "tinkerbell.toml", ""),
        file("blank file", "tinkerbell.yaml", "\n\n  \n"),
        file("empty JSON", "tinkerbell.json", ""),
        file("unknown extension", "tinkerbell.ini", "[wal]\n"),
        file("no extension", "tinkerbell", "[wal]\n"),
        file(
            "not UTF-8",
            "tinkerbell.toml",
            b"[wal]\nsync = \"\xff\"\n".as_slice(),
        ),
        file("10 MB of junk", "tinkerbell.toml", vec![b'x'; 10_000_000]),
        file("1 MB of brackets", "tinkerbell.json", vec![b'['; 1_000_000]),
        toml("TOML syntax", "[wal]\nsync = \n"),
        toml(
            "two TOML syntax errors",
            "[wal]\nsync = \nretention == \"7d\"\n",
        ),
        toml("unclosed string", "[wal]\nsync = \"always\n"),
        toml("key twice", "[wal]\nsync = \"always\"\nsync = \"never\"\n"),
        toml("section twice", "[wal]\n[log]\n[wal]\n"),
        toml(
            "a number beyond 64 bits",
            "[limits]\nlive_jobs = 99999999999999999999\n",
        ),
        file(
            "JSON syntax",
            "tinkerbell.json",
            "{ \"wal\": { \"sync\": always } }",
        ),
        file(
            "JSON cut off",
            "tinkerbell.json",
            "{ \"wal\": {\n  \"sync\": \"always\"\n",
        ),
        file("JSON with text after it", "tinkerbell.json", "{}\n{}"),
        file(
            "JSON key twice",
            "tinkerbell.json",
            "{ \"wal\": {}, \"wal\": {} }",
        ),
        file("JSON list", "tinkerbell.json", "[1, 2]"),
        file("YAML syntax", "tinkerbell.yaml", "wal:\n  sync: [always\n"),
        file(
            "YAML indented by a tab",
            "tinkerbell.yaml",
            "wal:\n\tsync: always\n",
        ),
        file("YAML alias", "tinkerbell.yaml", "wal: &w {}\nlog: *w\n"),
        file("YAML scalar", "tinkerbell.yaml", "always\n"),
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_is_wrong_with_keys() {
    let report = report(&[
        toml("misspelt key", "[wal]\nsegmnt_size = \"64MiB\"\n"),
        toml("key with dashes", "[wal]\nsegment-size = \"64MiB\"\n"),
        toml("key of another section", "[wal]\nlive_jobs = 7\n"),
        toml("key without a section", "segment_size = \"64MiB\"\n"),
        toml("unknown key", "[watch]\ncolour = \"green\"\n"),
        toml("misspelt section", "[shutdwon]\ngrace = \"1s\"\n"),
        toml("unknown section", "[kubernetes]\n"),
        toml("section that is no table", "wal = 7\n"),
        toml("jobs for job", "[[jobs]]\nname = \"a\"\n"),
        toml(
            "key with a terminal's escape sequence",
            "[wal]\n\"\\u001b[2J\" = 1\n",
        ),
        variable("misspelt variable", "TINKERBELL_WAL__SNYC", "always"),
        variable(
            "unknown section in a variable",
            "TINKERBELL_KUBERNETES__SYNC",
            "always",
        ),
        variable("job in a variable", "TINKERBELL_JOB__NAME", "x"),
        set("misspelt flag", "http.listne=127.0.0.1:1"),
        set("flag without a value", "wal.sync"),
        set("flag without a section", "sync=always"),
        set("job in a flag", "job.name=x"),
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_is_wrong_with_values() {
    let report = report(&[
        toml("string for a number", "[limits]\nlive_jobs = \"100\"\n"),
        toml("fraction for a whole number", "[limits]\nlive_jobs = 1.5\n"),
        toml("negative number", "[limits]\nlive_jobs = -1\n"),
        toml("number out of range", "[limits]\nlive_jobs = 0\n"),
        toml("string for a truth value", "[http]\nenabled = \"true\"\n"),
        file(
            "YAML 1.1 truth value",
            "tinkerbell.yaml",
            "http:\n  enabled: yes\n",
        ),
        toml("table for a value", "[wal]\nsync = {}\n"),
        file("nothing for a value", "tinkerbell.yaml", "wal:\n  sync:\n"),
        toml("unknown word", "[wal]\nsync = \"alway\"\n"),
        toml("unit in the wrong case", "[wal]\nsegment_size = \"64mb\"\n"),
        toml(
            "unknown unit of size",
            "[wal]\nsegment_size = \"64 parsecs\"\n",
        ),
        toml("size out of range", "[wal]\nsegment_size = \"1kB\"\n"),
        toml("duration without a unit", "[shutdown]\ngrace = 30\n"),
        toml("unknown unit of time", "[shutdown]\ngrace = \"30sec\"\n"),
        toml("duration out of range", "[wal]\nsync_interval = \"2h\"\n"),
        toml("address without a port", "[http]\nlisten = \"127.0.0.1\"\n"),
        toml("port alone", "[http]\nlisten = 3000\n"),
        toml("port too high", "[http]\nlisten = \"127.0.0.1:70000\"\n"),
        toml(
            "name for an address",
            "[http]\nlisten = \"localhost:3000\"\n",
        ),
        toml(
            "URL for a host",
            "[http]\nallowed_hosts = [\"https://example.org\"]\n",
        ),
        toml(
            "pattern for a host",
            "[http]\nallowed_hosts = [\"ok.example\", \"*.example.org\"]\n",
        ),
        toml(
            "string for a list",
            "[http]\nallowed_hosts = \"example.org\"\n",
        ),
        toml("misspelt level", "[log]\nfilter = \"inof\"\n"),
        toml("filter that is none", "[log]\nfilter = \"runtime=loud\"\n"),
        toml("empty path", "[node]\ndata_dir = \"\"\n"),
        toml("path with a tilde", "[node]\ndata_dir = \"~/state\"\n"),
        toml("name with a space", "[node]\nname = \"agent 7\"\n"),
        toml(
            "secret in place of a variable's name",
            "[http]\ntoken_env = \"s3cr3t-t0ken\"\n",
        ),
        variable("value in a variable", "TINKERBELL_SHUTDOWN__GRACE", "soon"),
        set("value in a flag", "limits.live_jobs=many"),
        Case {
            sets: vec!["wal.sync=always"],
            ..toml(
                "wrong in the file, though a flag overrides it",
                "[wal]\nsync = \"sometimes\"\n",
            )
        },
        Case {
            variables: vec![("TINKERBELL_WAL__SYNC", "x")],
            sets: vec!["log.format=xml"],
            ..toml(
                "several at once, in the order of reading",
                "[wal]\nretention = 7\n[lgo]\n[http]\nlisten = 1\n",
            )
        },
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_contradicts_itself() {
    let report = report(&[
        toml(
            "open to others without a token",
            "[http]\nlisten = \"0.0.0.0:3000\"\n",
        ),
        toml(
            "two tokens",
            "[http]\ntoken_env = \"A\"\ntoken_file = \"/b\"\n",
        ),
        toml(
            "blobs larger than segments take",
            "[wal]\nsegment_size = \"1MiB\"\nblob_threshold = \"1MiB\"\n",
        ),
        toml(
            "tools outlive the shutdown",
            "[process]\nkill_grace = \"11s\"\n",
        ),
        toml(
            "token's variable is not set",
            "[http]\ntoken_env = \"NO_SUCH_VARIABLE\"\n",
        ),
        toml(
            "token's file is missing",
            "[http]\ntoken_file = \"/nowhere/token\"\n",
        ),
        Case {
            variables: vec![("T", "two words")],
            ..toml("token with a space", "[http]\ntoken_env = \"T\"\n")
        },
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_is_wrong_with_jobs() {
    let report = report(&[
        toml("no name", "[[job]]\nprogram = \"plan\"\n"),
        toml(
            "misspelt name",
            "[[job]]\nnaem = \"a\"\nprogram = \"plan\"\n",
        ),
        toml("no program", "[[job]]\nname = \"a\"\n"),
        toml(
            "unknown program",
            "[[job]]\nname = \"a\"\nprogram = \"shell\"\n",
        ),
        toml(
            "name with a space",
            "[[job]]\nname = \"a b\"\nprogram = \"plan\"\n",
        ),
        toml(
            "unknown priority",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\npriority = \"hihg\"\n",
        ),
        toml(
            "labels that are no table",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\nlabels = [\"x\"]\n",
        ),
        toml(
            "label that is no string",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\nlabels = { x = 1 }\n",
        ),
        toml("one bracket", "[job]\nname = \"a\"\n"),
        toml(
            "a name twice",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\n[[job]]\nname = \"a\"\nprogram = \"command\"\n",
        ),
        toml(
            "missing file",
            "[[job]]\nname = \"a\"\nfile = \"jobs/a.toml\"\n",
        ),
        toml(
            "body beside a file",
            "[[job]]\nname = \"a\"\nfile = \"job.toml\"\nargv = [\"true\"]\n",
        ),
        toml(
            "file of a file",
            "[[job]]\nname = \"a\"\nfile = \"job.toml\"\n",
        ),
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_is_wrong_with_skills_and_agents() {
    let skill = |rest: &str| {
        format!(
            "[[a2a.skill]]\nid = \"a\"\ndescription = \"A\"\nprogram = \"command\"\nargv = [\"true\"]\n{rest}"
        )
    };
    let agent =
        |rest: &str| format!("[[a2a.agent]]\nname = \"a\"\nurl = \"https://example.org\"\n{rest}");
    let report = report(&[
        toml("skill with one bracket", "[a2a.skill]\nid = \"a\"\n"),
        toml("skill that takes nothing", &skill("")),
        toml(
            "skill without a description",
            "[[a2a.skill]]\nid = \"a\"\ndefault = true\nprogram = \"plan\"\nsteps = []\n",
        ),
        toml(
            "two skills of one id",
            &(skill("default = true\n") + &skill("match = [{ text = \"x\" }]\n")),
        ),
        toml(
            "two default skills",
            &(skill("default = true\n") + &skill("default = true\n").replace("\"a\"\n", "\"b\"\n")),
        ),
        toml("rule of nothing", &skill("match = [{}]\n")),
        toml(
            "rule after nobody",
            &skill("match = [{ after = \"nobody\" }]\n"),
        ),
        toml(
            "unknown key of a rule",
            &skill("match = [{ txt = \"x\" }]\n"),
        ),
        toml(
            "key of start-up jobs",
            &skill("default = true\non_change = \"refuse\"\n"),
        ),
        toml(
            "extended without knowing anybody",
            &skill("default = true\nextended = true\n"),
        ),
        toml(
            "provider without a page",
            "[a2a]\nprovider = \"Example Ltd\"\n",
        ),
        toml("agent that is no table", "[a2a]\nagent = [\"a\"]\n"),
        toml("agent without an address", "[[a2a.agent]]\nname = \"a\"\n"),
        toml(
            "agent without a name",
            "[[a2a.agent]]\nurl = \"https://example.org\"\n",
        ),
        toml(
            "address without a scheme",
            "[[a2a.agent]]\nname = \"a\"\nurl = \"example.org\"\n",
        ),
        toml("unknown key of an agent", &agent("token = \"x\"\n")),
        toml(
            "two tokens of an agent",
            &agent("token_env = \"T\"\ntoken_file = \"f\"\n"),
        ),
        toml("two agents of one name", &(agent("") + &agent(""))),
        toml(
            "agent whose token is not there",
            &agent("token_env = \"NOT_SET\"\n"),
        ),
        toml(
            "agent whose certificates are not there",
            &agent("ca_file = \"/nowhere\"\n"),
        ),
    ]);
    insta::assert_snapshot!(report);
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("directory.toml")).expect("it can be made");
    symlink("circle.toml", at("circle.toml")).expect("it can be made");
    // A device that never ends.
    symlink("/dev/zero", at("endless.toml")).expect("it can be made");
    let complain = |path: &Path| {
        let options = LoadOptions {
            path: Some(path.to_owned()),
            ..LoadOptions::default()
        };
        let errors = Config::load(&options).expect_err("it cannot be read");
        errors
            .to_string()
            .replace(&format!("{}/", dir.path().display()), "")
    };
    let report: Vec<String> = [
        "missing.toml",
        "directory.toml",
        "circle.toml",
        "endless.toml",
    ]
    .map(|name| complain(&at(name)))
    .into();
    let report = report.join("\n\n");
    insta::assert_snapshot!(report);
}

#[test]
fn a_secret_is_never_repeated() {
    for case in [
        toml("as a name", "[http]\ntoken_env = \"hunter2-secret\"\n"),
        set("in a flag", "http.token=hunter2-secret"),
        set(
            "in a flag that names a variable",
            "http.token_env=hunter2-secret",
        ),
        toml(
            "as an unknown key's value",
            "[http]\ntoken = \"hunter2-secret\"\n",
        ),
        toml(
            "in a line that cannot be read",
            "[http]\ntoken = hunter2-secret\"\n",
        ),
        file(
            "in JSON that cannot be read",
            "c.json",
            "{\"http\": {\"token\": \"hunter2-secret\" x}}",
        ),
    ] {
        let complaint = complaint(&case);
        assert!(
            !complaint.contains("hunter2"),
            "{}: {complaint}",
            case.title
        );
    }
}

#[test]
fn all_mistakes_are_reported_together_and_by_place() {
    let text = "[limits]\nlive_jobs = 0\n[wal]\nsync = 1\nsegmnt_size = 1\n";
    let complaint = complaint(&toml("three", text));
    let places: Vec<&str> = complaint
        .lines()
        .filter_map(|line| line.strip_prefix("  --> tinkerbell.toml:"))
        .collect();
    assert_eq!(places, ["2:13", "4:8", "5:1"]);
}
