//! The description at `/openapi.json`, held against what is really answered: every answer of a life's worth of requests
//! is validated against its schema, and schemathesis makes up requests of its own, good and bad.
//!
//! Validator and generator are written by others, in Python; `cargo xtask test` fetches them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{DEFAULTS, up};
use crate::support::{Answer, Daemon, Ipc, PATIENCE, repository, skip};

/// The Python that has what we need; none without `cargo xtask test`.
fn python() -> Option<PathBuf> {
    let python = repository().join("target/tools/python/bin/python");
    python.exists().then_some(python)
}

/// Jobs that are over and one that waits: named as `schemathesis.toml` names them.
fn seed(ipc: &Ipc) {
    let submit = |name: &str, steps: Value| {
        ipc.submit(&json!({"program": "plan", "name": name, "labels": {"of": "seed"}, "input": {"steps": steps}}))
    };
    let over = submit(
        "seeded",
        json!([
            {"id": "text", "artifact": {"name": "text", "text": "some text", "chunk_bytes": 4}},
            {"id": "data", "artifact": {"name": "data", "data": [1]}},
            {"id": "url", "artifact": {"name": "url", "url": "https://example.org"}},
            {"id": "make", "class": "workspace", "run": {"shell": "echo out; echo err >&2; echo x > file"}},
            {"id": "file", "needs": ["make"], "artifact": {"name": "file", "file": "file"}},
            {"id": "ask", "ask": {"prompt": "?", "deadline": "1ms", "default": 1}},
            {"id": "wait", "sleep": "1ms"},
            {"id": "skipped", "when": "false", "say": "never"},
            {"id": "again", "title": "Twice", "class": "read", "retry": {"attempts": 2, "backoff": "1ms"}, "may_fail": true,
             "run": {"shell": "exit 1"}},
            {"id": "say", "needs": ["again"], "say": "hello"},
        ]),
    );
    ipc.all_of(&over);
    let failed = submit("failed", json!([{"id": "fail", "fail": "on purpose"}]));
    ipc.all_of(&failed);
    let waiting = submit(
        "waiting",
        json!([{"id": "ask", "ask": {"prompt": "?", "deadline": "1h", "default": {"a": null}}}]),
    );
    ipc.until_waiting(&waiting);
}

/// Puts answers to a validator, one line each: the operation, the status, the media type, the body.
struct Validator(Daemon, std::process::ChildStdin);

impl Validator {
    fn start(python: &PathBuf) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/ipc/validate.py");
        let description = repository().join("crates/api/openapi.json");
        let mut command = Command::new(python);
        command.arg(script).arg(description).stdin(Stdio::piped());
        let mut process = Daemon::spawn(&mut command);
        let stdin = process.stdin();
        Self(process, stdin)
    }

    fn check(&mut self, operation: &str, answer: &Answer) {
        let media_type = answer.header("content-type").unwrap_or_default();
        let line = json!([operation, answer.status, media_type, answer.body]);
        writeln!(self.1, "{line}").expect("the validator reads");
    }

    fn check_stream(&mut self, messages: &[crate::support::Message]) {
        for message in messages {
            let schema = match message.event.as_str() {
                "event" => "Event",
                "output" => "LogPiece",
                "gap" => "Gap",
                "end" => "StreamEnd",
                other => panic!("an event of kind `{other}`"),
            };
            writeln!(self.1, "{}", json!([schema, message.data])).expect("the validator reads");
        }
    }

    /// What it found wrong must be nothing.
    fn ended(self) -> String {
        drop(self.1);
        self.0.ended().with(0).stdout
    }
}

#[test]
fn every_answer_is_as_the_description_says() {
    let Some(python) = python() else {
        return skip(
            "every_answer_is_as_the_description_says",
            "there is no Python with jsonschema",
        );
    };
    let (_node, daemon, ipc) = up(DEFAULTS);
    let live = ipc.stream("/v1/events?after=0&output=true", "");
    seed(&ipc);
    let mut validator = Validator::start(&python);
    for (operation, path) in [
        ("openapi", "/openapi.json"),
        ("node.show", "/v1/node"),
        ("node.dump", "/v1/node/dump"),
        ("events.history", "/v1/history"),
        ("events.history", "/v1/history?limit=2"),
        ("events.history", "/v1/history?limit=0"),
        ("job.list", "/v1/jobs"),
        ("job.list", "/v1/jobs?limit=1"),
        ("job.list", "/v1/jobs?limit=x"),
        ("job.show", "/v1/jobs/seeded"),
        ("job.show", "/v1/jobs/failed"),
        ("job.show", "/v1/jobs/waiting"),
        ("job.show", "/v1/jobs/nobody"),
        ("job.history", "/v1/jobs/seeded/history"),
        ("job.logs", "/v1/jobs/seeded/logs"),
        ("job.result", "/v1/jobs/seeded/result"),
        ("job.result", "/v1/jobs/failed/result"),
        ("job.result", "/v1/jobs/waiting/result"),
        ("job.artifacts", "/v1/jobs/seeded/artifacts"),
        ("job.artifact", "/v1/jobs/seeded/artifacts/text"),
    ] {
        validator.check(operation, &ipc.get(path));
    }
    let spec = super::shell("sleep 1000");
    for (operation, path, body) in [
        ("node.reload", "/v1/node/reload", json!({})),
        ("job.submit", "/v1/jobs", spec.clone()),
        (
            "job.submit",
            "/v1/jobs",
            json!({"program": "nothing", "input": {}}),
        ),
        ("job.submit", "/v1/jobs", json!([])),
        ("job.signal", "/v1/jobs/waiting/signals/other", json!(1)),
        (
            "job.cancel_many",
            "/v1/jobs/cancel",
            json!({"all": true, "dry_run": true}),
        ),
        ("job.cancel", "/v1/jobs/waiting/cancel", json!({})),
        (
            "job.cancel_many",
            "/v1/jobs/cancel",
            json!({"states": ["running"]}),
        ),
    ] {
        validator.check(operation, &ipc.post(path, &body));
    }
    for path in [
        "/v1/jobs/seeded/events",
        "/v1/jobs/failed/events",
        "/v1/jobs/waiting/events",
    ] {
        validator.check_stream(&ipc.stream(path, "").rest());
    }
    for path in ["/v1/jobs/seeded/logs", "/v1/jobs/failed/logs"] {
        validator.check_stream(&ipc.stream(path, "Accept: text/event-stream\r\n").rest());
    }
    validator.check(
        "node.drain",
        &ipc.post("/v1/node/drain", &json!({"stop": false})),
    );
    validator.check("job.submit", &ipc.post("/v1/jobs", &spec));
    validator.check("node.shutdown", &ipc.post("/v1/node/shutdown", &json!({})));
    validator.check_stream(&live.rest());
    daemon.ended().with(0);
    let said = validator.ended();
    // It says which kinds of events it has seen, so that none passes because it never came.
    for kind in [
        "answered",
        "artifact",
        "draining",
        "job_finished",
        "job_started",
        "job_submitted",
        "job_waiting",
        "message",
        "question",
        "step_finished",
        "step_output",
        "step_retrying",
        "step_started",
        "stopped",
    ] {
        assert!(
            said.contains(&format!("Event {kind}\n")),
            "no `{kind}` in:\n{said}"
        );
    }
}

/// Carries connections of TCP to the socket, for a client that knows no Unix sockets: until the daemon is gone.
fn bridge(ipc: &Ipc) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let socket = ipc.path().to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = UnixStream::connect(&socket) else {
                return;
            };
            let from_client = client.try_clone().expect("a descriptor");
            let to_server = server.try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                carry(from_client, &to_server, |to| to.shutdown(Shutdown::Write));
            });
            std::thread::spawn(move || carry(server, &client, |to| to.shutdown(Shutdown::Write)));
        }
    });
    address
}

fn carry<W>(mut from: impl Read, to: &W, close: impl FnOnce(&W) -> io::Result<()>)
where
    for<'a> &'a W: Write,
{
    let mut to_writer = to;
    // Either side may go away when it likes.
    let _ = io::copy(&mut from, &mut to_writer);
    let _ = close(to);
}

#[test]
fn schemathesis_finds_nothing_to_complain_of() {
    let Some(python) = python() else {
        return skip(
            "schemathesis_finds_nothing_to_complain_of",
            "there is no Python with schemathesis",
        );
    };
    let (node, daemon, ipc) = up(DEFAULTS);
    seed(&ipc);
    let url = format!("http://{}", bridge(&ipc));
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/ipc/schemathesis.toml"
    );
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .args([
            "--config-file",
            config,
            "run",
            &format!("{url}/openapi.json"),
            "--url",
            &url,
        ])
        .args(["--phases", "coverage,fuzzing", "--max-time", "30"])
        .env("NO_COLOR", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(node.place.path(""))
        .stdin(Stdio::null());
    let run = Daemon::spawn(&mut command);
    // It gives itself half a minute, on a machine that has time for it.
    assert!(run.ends_within(4 * PATIENCE), "{:?}", run.stdout.so_far());
    let run = run.ended();
    assert_eq!(run.code, 0, "{}", run.said());
    assert!(
        run.stdout.contains("No issues found") || run.stdout.contains("passed"),
        "{}",
        run.stdout
    );
    // It went on as if nothing had been.
    ipc.get("/v1/node").with(200);
    drop(daemon);
}
