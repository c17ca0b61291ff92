//! The config as a user meets it: layers, provenance, what a reload can apply, and the example file.

use std::fs;
use std::path::{Path, PathBuf};

use daemon::config::schema::KEYS;
use daemon::config::{
    Config, ConfigErrors, Environment, HostName, LoadOptions, Loaded, Origin, SecretSource,
    SetFlag, Size, Sync, diff, example, show_json, show_toml,
};

/// A directory to write config files to.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("a file can be written there");
        path
    }

    fn load(&self, content: &str) -> Loaded {
        let options = LoadOptions {
            path: Some(self.write("tinkerbell.toml", content)),
            ..defaults()
        };
        Config::load(&options).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// A text with this directory's path taken out.
    fn strip(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn defaults() -> LoadOptions {
    LoadOptions {
        environment: Environment::of_variables([("HOME", "/home/wendy")]),
        ..LoadOptions::default()
    }
}

fn example_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config.example.toml")
}

#[test]
fn without_a_file_the_defaults_run() {
    let loaded = Config::load(&defaults()).expect("the defaults are valid");
    insta::assert_snapshot!(show_toml(&loaded));
    assert!(loaded.warnings.is_empty() && loaded.config.jobs.is_empty());
}

/// To write the file anew after a change of the schema: `UPDATE_EXAMPLE=1 cargo test -p daemon --test config`.
#[test]
fn the_example_file_is_what_the_schema_says() {
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        fs::write(example_file(), example()).expect("the example can be written");
    }
    let written = fs::read_to_string(example_file()).unwrap_or_default();
    assert!(
        written == example(),
        "config.example.toml is stale: run this test with UPDATE_EXAMPLE=1"
    );
}

#[test]
fn the_example_file_is_valid_and_changes_nothing() {
    let options = LoadOptions {
        path: Some(example_file()),
        ..defaults()
    };
    let example = Config::load(&options).unwrap_or_else(|errors| panic!("{errors}"));
    let default = Config::load(&defaults()).expect("the defaults are valid");
    assert!(diff(&default.config, &example.config).is_empty());
    // Every key that has a fixed default is really there, and not only in a comment.
    let unset = KEYS
        .iter()
        .filter(|key| example.provenance.of(key.path) == Origin::Default);
    let unset: Vec<&str> = unset.map(|key| key.path).collect();
    assert_eq!(
        unset,
        [
            "node.name",
            "node.data_dir",
            "http.token_env",
            "http.token_file",
            "grpc.token_env",
            "grpc.token_file",
            "grpc.tls_cert_file",
            "grpc.tls_key_file",
            "grpc.tls_client_ca_file",
            "a2a.public_url",
            "a2a.token_env",
            "a2a.token_file",
            "a2a.tls_cert_file",
            "a2a.tls_key_file",
            "a2a.tls_client_ca_file",
            "a2a.name",
            "a2a.provider",
            "a2a.provider_url",
            "a2a.documentation_url",
            "a2a.icon_url"
        ]
    );
}

#[test]
fn the_example_file_is_valid_with_everything_commented_in() {
    let text = fs::read_to_string(example_file()).expect("the example is there");
    let is_setting = |line: &&str| {
        line.strip_prefix("# ").is_some_and(|line| {
            line.starts_with("[[")
                || line
                    .split_once(" = ")
                    .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        })
    };
    let settings: Vec<&str> = text
        .lines()
        .map(|line| if is_setting(&line) { &line[2..] } else { line })
        // There is one token; and the job's own file is not there.
        .filter(|line| !line.starts_with("token_env"))
        .collect();
    let place = Place::new();
    fs::create_dir(place.0.path().join("jobs")).expect("a directory can be made");
    place.write(
        "jobs/report.toml",
        "program = \"plan\"\n[[steps]]\nid = \"a\"\nrun = { argv = [\"true\"] }\n",
    );
    let path = place.write("all.toml", &settings.join("\n"));
    let options = LoadOptions {
        path: Some(path),
        offline: true,
        ..defaults()
    };
    let loaded = Config::load(&options).unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> = loaded
        .config
        .jobs
        .iter()
        .map(|job| job.name.as_str())
        .collect();
    assert_eq!(names, ["greet", "nightly-report"]);
    assert_eq!(loaded.config.node.name.as_str(), "agent-7");
}

#[test]
fn later_layers_win_and_every_value_knows_its_own() {
    let place = Place::new();
    let options = LoadOptions {
        path: Some(place.write(
            "t.toml",
            "[wal]\nsync = \"interval\"\nretention = \"1h30m\"\nsegment_size = \"1GB\"\n",
        )),
        environment: Environment::of_variables([
            ("TINKERBELL_WAL__SYNC", "always"),
            ("TINKERBELL_WAL__RETENTION", "2d"),
            ("TINKERBELL_HTTP__ALLOWED_HOSTS", "a.example, B.example"),
            // Set to nothing, as a manifest's template may leave it: not set.
            ("TINKERBELL_LIMITS__LIVE_JOBS", ""),
            // What Kubernetes puts there for a service called tinkerbell.
            ("TINKERBELL_PORT", "tcp://10.0.0.1:3000"),
            ("TINKERBELL_SERVICE_HOST", "10.0.0.1"),
        ]),
        sets: vec![
            SetFlag::new("wal.sync=never"),
            SetFlag::new("wal.sync=interval"),
        ],
        offline: false,
    };
    let loaded = Config::load(&options).unwrap_or_else(|errors| panic!("{errors}"));
    let wal = &loaded.config.wal;
    assert_eq!(
        (wal.sync, wal.segment_size),
        (Sync::Interval, Size::bytes(1_000_000_000))
    );
    assert_eq!(wal.retention.to_string(), "2d");
    let hosts: Vec<&str> = loaded
        .config
        .http
        .allowed_hosts
        .iter()
        .map(HostName::as_str)
        .collect();
    assert_eq!(hosts, ["a.example", "b.example"]);

    let shown = place.strip(&show_toml(&loaded));
    let line = |key: &str| {
        shown
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
    };
    insta::assert_snapshot!(
        [line("sync ="), line("retention"), line("segment_size"), line("live_jobs")].join("\n"),
        @r#"
        sync = "interval"                         # --set wal.sync, over --set wal.sync, env TINKERBELL_WAL__SYNC, t.toml:2:8
        retention = "2d"                          # env TINKERBELL_WAL__RETENTION, over t.toml:3:13
        segment_size = "1GB"                      # t.toml:4:16
        live_jobs = 100000                        # default
        "#
    );
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let place = Place::new();
    let first =
        place.load("[node]\nname = \"n\"\n[log]\nfilter = \"info,a[b{c=\\\"d\\\"}]=debug\"\n");
    let second = place.load(&show_toml(&first));
    assert!(diff(&first.config, &second.config).is_empty());
}

#[test]
fn jobs_are_shown_without_their_bodies() {
    let place = Place::new();
    let loaded = place.load(
        "[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"x\", \"hunter2\"]\nenv = { TOKEN = \"hunter2\" }\n",
    );
    for shown in [show_toml(&loaded), show_json(&loaded).to_string()] {
        assert!(
            shown.contains("argv") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

#[test]
fn a_reload_tells_what_it_can_apply() {
    let place = Place::new();
    let job = "[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"true\"]\n";
    let old = place.load(job).config;
    assert!(diff(&old, &place.load(&format!("# moved\n\n{job}")).config).is_empty());
    let new = format!(
        "[log]\nfilter = \"debug\"\nformat = \"json\"\n[shutdown]\ngrace = \"1m\"\n{job}env = {{}}\n"
    );
    let changes = diff(&old, &place.load(&new).config);
    assert_eq!(changes.hot, ["log.filter", "shutdown.grace"]);
    assert_eq!(changes.cold, ["log.format", "job"]);
}

#[test]
fn paths_are_shown_as_they_are_whatever_the_working_directory() {
    let place = Place::new();
    let loaded =
        place.load("[node]\ndata_dir = \"state\"\n[http]\ntoken_file = \"/dev/../etc/hostname\"\n");
    let here = std::env::current_dir().expect("there is a working directory");
    assert_eq!(loaded.config.node.data_dir, here.join("state"));
    assert!(show_toml(&loaded).contains(&here.join("state").display().to_string()));
}

#[test]
fn a_short_shutdown_shortens_what_nobody_chose() {
    let place = Place::new();
    let loaded = place.load("[shutdown]\ngrace = \"1s\"\n");
    assert_eq!(loaded.config.process.kill_grace.to_string(), "1s");
}

#[test]
fn rust_log_wins_over_all_and_is_no_obstacle() {
    let load = |rust_log: &str| {
        let options = LoadOptions {
            environment: Environment::of_variables([("RUST_LOG", rust_log)]),
            sets: vec![SetFlag::new("log.filter=warn")],
            ..LoadOptions::default()
        };
        Config::load(&options).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let loaded = load("runtime=trace");
    assert_eq!(loaded.config.log.filter.as_str(), "runtime=trace");
    assert!(show_toml(&loaded).contains("env RUST_LOG, over --set log.filter"));

    let loaded = load("runtime=loud");
    assert_eq!(loaded.config.log.filter.as_str(), "warn");
    assert!(
        loaded.warnings[0].to_string().contains("`RUST_LOG`"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn a_token_opens_the_way_to_other_addresses() {
    let place = Place::new();
    let token = place.write("token", "letmein\n");
    let text = format!(
        "[http]\nlisten = \"0.0.0.0:3000\"\ntoken_file = {:?}\n",
        token.display().to_string()
    );
    let loaded = place.load(&text);
    let source = loaded.config.http.token().expect("a token is set");
    assert_eq!(source, SecretSource::File(token));
    assert!(
        source
            .read(&Environment::default())
            .expect("it is there")
            .matches("letmein")
    );
    assert!(!show_toml(&loaded).contains("letmein"));
}

#[test]
fn a_config_can_be_checked_away_from_its_machine() {
    let place = Place::new();
    let path = place.write("t.toml", "[http]\ntoken_env = \"ONLY_THERE\"\n");
    let options = LoadOptions {
        path: Some(path),
        ..defaults()
    };
    let error: ConfigErrors = Config::load(&options).expect_err("the variable is not set");
    assert!(error.to_string().contains("ONLY_THERE"));
    assert!(
        Config::load(&LoadOptions {
            offline: true,
            ..options
        })
        .is_ok()
    );
}

#[test]
fn a_job_may_be_in_a_file_of_its_own() {
    let place = Place::new();
    place.write(
        "report.json",
        r#"{"program": "plan", "title": "Report", "labels": {"a": "1"},
 "steps": [{"id": "a", "say": "hi"}]}"#,
    );
    let loaded = place.load("[[job]]\nname = \"r\"\nfile = \"report.json\"\nlabels = { b = \"2\" }\npriority = \"low\"\n");
    let job = &loaded.config.jobs[0].job;
    assert_eq!(job.title.as_deref(), Some("Report"));
    assert_eq!(job.labels.len(), 2);
    assert_eq!(job.priority.as_str(), "low");
    assert_eq!(job.body.to_string(), r#"{"steps":[{"id":"a","say":"hi"}]}"#);
    assert!(
        job.source
            .locate("/steps")
            .to_string()
            .ends_with("report.json:2:2")
    );
}

#[test]
#[cfg(feature = "yaml")]
fn the_notation_makes_no_difference() {
    let place = Place::new();
    let load = |name: &str, content: &str| {
        let options = LoadOptions {
            path: Some(place.write(name, content)),
            ..defaults()
        };
        Config::load(&options)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .config
    };
    let toml = load(
        "a.toml",
        "[wal]\nsync = \"never\"\n[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"x\"]\n",
    );
    let json = load(
        "a.json",
        r#"{"wal":{"sync":"never"},"job":[{"name":"a","program":"command","argv":["x"]}]}"#,
    );
    let yaml = load(
        "a.yml",
        "wal:\n  sync: never\njob:\n- name: a\n  program: command\n  argv: [x]\n",
    );
    assert!(diff(&toml, &json).is_empty());
    assert!(diff(&toml, &yaml).is_empty());
    assert_eq!(yaml.wal.sync, Sync::Never);
}
