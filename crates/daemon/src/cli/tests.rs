//! The command line as it is typed.

use super::*;
use crate::config::{Config, Origin};

fn parse(line: &str) -> Result<Cli, Quit> {
    Cli::parse_from_args(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_line_that_makes_no_sense_is_a_usage_error() {
    for line in [
        "tinkerbell --nonsense",
        "tinkerbell -v -q",
        "tinkerbell job run",
        "tinkerbell job run f --json --raw",
        "tinkerbell log cat --from here",
        "tinkerbell health --timeout 5",
        "tinkerbell completions dosbox",
        "tinkerbell config",
    ] {
        let quit = parse(line).unwrap_err();
        assert_eq!(quit.code(), 64, "{line}: {}", quit.text());
    }
    assert!(
        parse("tinkerbell --sett a=b")
            .unwrap_err()
            .text()
            .contains("--set")
    );
}

#[test]
fn help_and_version_are_no_errors() {
    for line in [
        "tinkerbell --help",
        "tinkerbell job run -h",
        "tinkerbell -V",
        "tinkerbell log --version",
    ] {
        assert_eq!(parse(line).unwrap_err().code(), 0, "{line}");
    }
    let short = parse("tinkerbell -V").unwrap_err().text();
    assert_eq!(short, format!("tinkerbell {VERSION}\n"));
    let long = parse("tinkerbell --version").unwrap_err().text();
    assert_eq!(
        long,
        format!("tinkerbell {VERSION}\ncommit: {COMMIT}\nfeatures: {FEATURES}\n")
    );
}

#[test]
fn global_flags_stand_before_and_after_the_command() {
    for line in [
        "tinkerbell --set wal.sync=never config show",
        "tinkerbell config show --set wal.sync=never",
    ] {
        assert_eq!(
            parse(line).unwrap().global.sets,
            ["wal.sync=never"],
            "{line}"
        );
    }
}

#[test]
fn the_value_of_set_may_hold_anything() {
    let cli = parse("tinkerbell --set a=b=c --set x=-1").unwrap();
    assert_eq!(cli.global.sets, ["a=b=c", "x=-1"]);
}

#[test]
fn verbosity_is_a_layer_of_the_config() {
    let filter = |line: &str, rust_log: &str| {
        let environment = Environment::of_variables([("RUST_LOG", rust_log)]);
        let options = parse(line).unwrap().global.load_options(environment, true);
        let loaded = Config::load(&options).unwrap();
        let origin = loaded.provenance.of("log.filter").to_string();
        (loaded.config.log.filter.as_str().to_owned(), origin)
    };
    let said = |filter: &str, origin: &str| (filter.to_owned(), origin.to_owned());
    assert_eq!(filter("tinkerbell", ""), said("info", "default"));
    assert_eq!(filter("tinkerbell -v", ""), said("debug", "-v"));
    assert_eq!(filter("tinkerbell -vvv", ""), said("trace", "-vv"));
    assert_eq!(filter("tinkerbell -q", ""), said("warn", "-q"));
    assert_eq!(
        filter("tinkerbell -v --set log.filter=off", ""),
        said("off", "--set log.filter")
    );
    assert_eq!(
        filter("tinkerbell -v --set log.filter=off", "error"),
        said("error", "env RUST_LOG")
    );
}

#[test]
fn health_asks_where_the_config_says() {
    let target = |line: &str, listen: &str| {
        let Some(Command::Health(args)) = parse(line).unwrap().command else {
            panic!("{line}")
        };
        args.target(listen.parse().unwrap())
    };
    assert_eq!(
        target("tinkerbell health", "127.0.0.1:3000"),
        "http://127.0.0.1:3000/livez?verbose"
    );
    assert_eq!(
        target("tinkerbell health --ready", "0.0.0.0:80"),
        "http://127.0.0.1:80/readyz?verbose"
    );
    assert_eq!(
        target("tinkerbell health --json", "[::]:80"),
        "http://[::1]:80/health"
    );
    let url = "tinkerbell health --url http://10.0.0.1:3000/";
    assert_eq!(
        target(url, "127.0.0.1:1"),
        "http://10.0.0.1:3000/livez?verbose"
    );
}

#[test]
fn config_check_says_whether_and_what() {
    let check = |sets: &[&str]| {
        let options = LoadOptions {
            sets: sets.iter().map(|set| SetFlag::new(set)).collect(),
            ..LoadOptions::default()
        };
        let (mut out, mut messages) = (Vec::new(), Vec::new());
        let code = check_config(&options, &mut out, &mut messages).unwrap();
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(messages).unwrap(),
        )
    };
    let (code, out, messages) = check(&[]);
    assert_eq!((code, messages.as_str()), (0, ""));
    assert!(out.contains("is valid"), "{out}");

    let (code, out, messages) = check(&["wal.snyc=always", "wal.sync=allways"]);
    assert_eq!((code, out.as_str()), (78, ""));
    insta::assert_snapshot!(messages, @r"
        error: unknown key `wal.snyc`
          --> --set wal.snyc
          help: did you mean `sync`?

        error: expected `always`, `interval` or `never` for `wal.sync`, found the string `allways`
          --> --set wal.sync
          help: did you mean `always`?

        the config is refused: 2 errors
        ");
}

#[test]
fn config_show_as_json_says_where_everything_comes_from() {
    let options = LoadOptions {
        environment: Environment::of_variables([("TINKERBELL_WAL__SYNC", "interval")]),
        sets: vec![SetFlag::new("wal.sync=never")],
        ..LoadOptions::default()
    };
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    assert_eq!(
        show_config(&options, true, &mut out, &mut messages).unwrap(),
        0
    );
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let sync = &shown["values"]["wal.sync"];
    assert_eq!(
        (&sync["value"], &sync["origin"]),
        (&"never".into(), &"--set wal.sync".into())
    );
    assert_eq!(
        sync["overrides"][0],
        Origin::Env("TINKERBELL_WAL__SYNC".into()).to_string()
    );
    assert_eq!(shown["schema"], 1);
}

#[test]
fn completions_and_man_page_come_from_the_same_definition() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut out = Vec::new();
        write_completions(shell, &mut out);
        assert!(
            String::from_utf8(out).unwrap().contains("completions"),
            "{shell}"
        );
    }
    let mut out = Vec::new();
    write_man_page(&mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("tinkerbell"));
}
