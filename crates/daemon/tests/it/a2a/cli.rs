//! The protocol's official command line.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{address, said, shown, state, up};
use crate::support::{repository, skip};

/// What it said, and whether it was content.
fn run(program: &Path, address: &str, transport: &str, args: &[&str]) -> (bool, Vec<Value>) {
    let output = Command::new(program)
        .args([
            "--agent-card",
            &format!("http://{address}"),
            "--transport",
            transport,
        ])
        .args(["--output", "json"])
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    let said = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    let values = serde_json::Deserializer::from_slice(&said).into_iter();
    let values = values.collect::<Result<_, _>>();
    let values = values
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", String::from_utf8_lossy(&said)));
    (output.status.success(), values)
}

#[test]
fn the_command_line_sends_streams_asks_cancels_and_sets_configs() {
    let test = "the_command_line_sends_streams_asks_cancels_and_sets_configs";
    let program = repository().join("target/tools/a2a-cli/bin/a2acli");
    if !program.exists() {
        return skip(test, "no a2a-cli: `cargo xtask test` gets it");
    }
    let (_node, daemon) = up();
    let address = address(&daemon);
    for transport in ["jsonrpc", "rest"] {
        let run = |args: &[&str]| run(&program, &address, transport, args);
        let ok = |args: &[&str]| {
            let (is_content, mut said) = run(args);
            assert!(is_content, "{args:?}: {said:?}");
            said.remove(0)
        };
        let task = ok(&["send", "hello"])["task"].clone();
        assert_eq!(
            (state(&task), said(&task)),
            ("COMPLETED", "You said: hello")
        );

        let (_, events) = run(&["send", "--stream", "report it"]);
        assert!(events.len() > 1, "{events:?}");
        assert_eq!(shown(&events).last().unwrap(), "COMPLETED");

        let task = ok(&["send", "paint it"])["task"].clone();
        let id = task["id"].as_str().unwrap();
        assert_eq!(state(&task), "INPUT_REQUIRED");
        let task = ok(&["send", "--task-id", id, "blue"])["task"].clone();
        assert_eq!(said(&task), "blue, really?");
        assert_eq!(said(&ok(&["task", "get", id])), "blue, really?");

        let url = "http://127.0.0.1:9/hook";
        let push = |args: &[&str]| ok(&[&["task", "push-config"], args].concat());
        let made = push(&["create", id, url, "--config-id", "c", "--token", "t"]);
        assert_eq!((&made["id"], &made["url"]), (&"c".into(), &url.into()));
        assert_eq!(push(&["get", id, "c"])["token"], "t");
        assert_eq!(push(&["list", id])["configs"][0]["id"], "c");
        run(&["task", "push-config", "delete", id, "c"]);
        let (is_there, _) = run(&["task", "push-config", "get", id, "c"]);
        assert!(!is_there);

        assert_eq!(state(&ok(&["task", "cancel", id])), "CANCELED");
        let listed = ok(&["task", "list"]);
        assert!(listed["tasks"].as_array().unwrap().len() >= 3, "{listed}");
        let (is_there, refused) = run(&["task", "get", "nobody"]);
        assert!(!is_there);
        assert_eq!(refused[0]["error"]["code"], "TASK_NOT_FOUND");
    }
}
