//! The transport `a2a` against the real binary, by the protocol's official clients for Python and JavaScript over all three
//! bindings, and for the command line over two; and by bare HTTP where what is said must be exact. The agent is that of `examples/a2a.toml`.

#[cfg(feature = "ipc")]
mod call;
mod cli;
mod conformance;
mod push;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Node, certificate, end_of, exchange, repository, skip};

const BINDINGS: [&str; 3] = ["JSONRPC", "HTTP+JSON", "GRPC"];

/// The agent, up and running.
fn up() -> (Node, Daemon) {
    let config = std::fs::read_to_string(repository().join("examples/a2a.toml"))
        .expect("the example is in the repository");
    let node = Node::new(&config);
    let daemon = start(&node, "127.0.0.1:0");
    (node, daemon)
}

fn start(node: &Node, listen: &str) -> Daemon {
    let mut command = node.command(&[]);
    command
        .env("RUST_LOG", "info")
        .env("TINKERBELL_A2A__LISTEN", listen);
    let mut daemon = Daemon::spawn(&mut command);
    daemon.ready();
    daemon
}

/// Where it serves a2a, as it has said.
fn address(daemon: &Daemon) -> String {
    let said = daemon.has_logged("serving a2a");
    let address = said[0]["address"].as_str();
    address.expect("the line holds an address").to_owned()
}

/// An official client of the protocol, and what drives it.
struct Sdk {
    program: PathBuf,
    script: &'static str,
    /// Where its packages are.
    packages: PathBuf,
}

/// The client for Python; `None` if this machine has none.
fn python(test: &str) -> Option<Sdk> {
    let packages = repository().join("target/tools/a2a-sdk");
    let program = packages.join("bin/python");
    if program.exists() {
        return Some(Sdk {
            program,
            script: "client.py",
            packages,
        });
    }
    skip(test, "no a2a-sdk: `cargo xtask test` gets it");
    None
}

/// The client for JavaScript; `None` if this machine has none.
fn javascript(test: &str) -> Option<Sdk> {
    let packages = repository().join("target/tools/a2a-js");
    if packages.join("node_modules/@a2a-js/sdk").exists() {
        return Some(Sdk {
            program: PathBuf::from("node"),
            script: "client.mjs",
            packages,
        });
    }
    skip(test, "no @a2a-js/sdk: `cargo xtask test` gets it");
    None
}

/// The official client, at work.
struct Client {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Client {
    fn new(sdk: &Sdk, address: &str, binding: &str) -> Self {
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/a2a");
        let mut child = Command::new(&sdk.program)
            .arg(format!("{scripts}/{}", sdk.script))
            .args([&format!("http://{address}"), binding])
            .env("A2A_SDK", &sdk.packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client can be started");
        let asks = child.stdin.take().expect("it was piped");
        let says = BufReader::new(child.stdout.take().expect("it was piped"));
        Self { child, asks, says }
    }

    #[track_caller]
    fn ask(&mut self, asked: &Value) -> Value {
        writeln!(self.asks, "{asked}").expect("the client listens");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the client answers");
        serde_json::from_str(&line).expect("it answers in JSON")
    }

    #[track_caller]
    fn ok(&mut self, op: &str, request: Value) -> Value {
        self.on(op, "", request)
    }

    /// Asks for something of one of its streams.
    #[track_caller]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "requests are made in place, so that a test reads well"
    )]
    fn on(&mut self, op: &str, stream: &str, request: Value) -> Value {
        let mut said = self.ask(&json!({"op": op, "stream": stream, "request": request}));
        assert!(said.get("error").is_none(), "{op}: {said}");
        said["ok"].take()
    }

    #[track_caller]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "requests are made in place, so that a test reads well"
    )]
    fn error(&mut self, op: &str, request: Value) -> String {
        let said = self.ask(&json!({"op": op, "request": request}));
        let kind = said["error"]["type"].as_str();
        kind.unwrap_or_else(|| panic!("{op} is no error: {said}"))
            .to_owned()
    }

    /// Makes sure that a request is refused as one that makes no sense. The client for JavaScript has one error for the two
    /// that the protocol has for this, and over HTTP+JSON and gRPC takes the one for any.
    #[track_caller]
    fn malformed(&mut self, op: &str, request: Value, error: &str) {
        let said = self.error(op, request);
        let by_javascript = ["RequestMalformedError", "A2AError"];
        assert!(
            said == error || by_javascript.contains(&said.as_str()),
            "{said}"
        );
    }

    #[track_caller]
    fn send(&mut self, id: &str, text: &str) -> Value {
        let said = self.ok("send", message(id, text));
        said["task"].clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message(id: &str, text: &str) -> Value {
    json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]}})
}

fn answer(id: &str, text: &str, task: &Value) -> Value {
    let mut message = message(id, text);
    message["message"]["taskId"] = task["id"].clone();
    message
}

fn state(task: &Value) -> &str {
    let state = task["status"]["state"].as_str().unwrap_or_default();
    state.trim_start_matches("TASK_STATE_")
}

fn said(task: &Value) -> &str {
    task["status"]["message"]["parts"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

/// The texts of a task's messages, each with who said it.
fn history(task: &Value) -> Vec<String> {
    let messages = task["history"].as_array().cloned().unwrap_or_default();
    messages
        .iter()
        .map(|message| {
            let who = message["role"].as_str().unwrap_or_default();
            let text = message["parts"][0]["text"].as_str().unwrap_or_default();
            format!("{}: {text}", who.trim_start_matches("ROLE_").to_lowercase())
        })
        .collect()
}

/// What a stream showed, each in a word or two.
fn shown(events: &[Value]) -> Vec<String> {
    let shown = |event: &Value| {
        if let Some(task) = event.get("task") {
            return format!("task {}", state(task));
        }
        if let Some(update) = event.get("statusUpdate") {
            return format!("{} {}", state(update), said(update))
                .trim_end()
                .to_owned();
        }
        if let Some(update) = event.get("artifactUpdate") {
            let name = update["artifact"]["artifactId"]
                .as_str()
                .unwrap_or_default();
            let flag = |key: &str| update[key].as_bool().unwrap_or(false);
            let append = if flag("append") { "+" } else { "" };
            let last = if flag("lastChunk") { "." } else { "" };
            return format!("{append}{name}{last}");
        }
        "message".to_owned()
    };
    events.iter().map(shown).collect()
}

/// The agent, as other tests ask it: by bare HTTP+JSON.
pub(crate) struct Agent(String);

impl Agent {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self(address(daemon))
    }

    /// Sends a message, and gives the task that came of it, once it waits or is over.
    #[track_caller]
    pub(crate) fn send(&self, id: &str, text: &str) -> Value {
        let body = message(id, text).to_string();
        let answer = post(&self.0, "/message:send", &[("A2A-Version", "1.0")], &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut answer: Value = serde_json::from_str(&answer.body).expect("it answers in JSON");
        answer["task"].take()
    }

    /// A task as it stands.
    #[track_caller]
    pub(crate) fn task(&self, id: &str) -> Value {
        let head = format!(
            "GET /tasks/{id} HTTP/1.1\r\nHost: {}\r\nA2A-Version: 1.0\r\nConnection: close\r\n\r\n",
            self.0
        );
        let answer = exchange(self.0.parse().expect("it is an address"), &head);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("it answers in JSON")
    }
}

fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
    let named = |name: &str| {
        headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name))
    };
    if !named("Host") {
        head += &format!("Host: {address}\r\n");
    }
    if !named("Content-Type") {
        head += "Content-Type: application/json\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let address = address.parse().expect("it is an address");
    exchange(address, &format!("{head}Connection: close\r\n\r\n{body}"))
}

#[test]
fn the_card_says_what_the_config_says_and_what_is_served() {
    let (_node, daemon) = up();
    let address = address(&daemon);
    let get = |extra: &str| {
        let head = format!(
            "GET /.well-known/agent-card.json HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{extra}\r\n"
        );
        exchange(address.parse().unwrap(), &head)
    };
    let answer = get("");
    assert_eq!(answer.status, 200);
    let card: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(card["name"], "Workshop");
    assert_eq!(card["capabilities"]["streaming"], true);
    assert_eq!(card["capabilities"]["pushNotifications"], true);
    let bindings: Vec<&str> = card["supportedInterfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interface| interface["protocolBinding"].as_str().unwrap())
        .collect();
    assert_eq!(bindings, BINDINGS);
    let skills = card["skills"].as_array().unwrap();
    assert_eq!(skills.len(), 9);
    assert_eq!(skills[0]["id"], "echo");
    assert_eq!(skills[0]["examples"][0], "hello");
    let etag = answer.header("etag").expect("a card has a tag").to_owned();
    assert_eq!(get(&format!("If-None-Match: {etag}\r\n")).status, 304);
}

#[test]
fn the_client_for_python_sends_streams_asks_cancels_and_lists_over_every_binding() {
    let test = "the_client_for_python_sends_streams_asks_cancels_and_lists_over_every_binding";
    if let Some(python) = python(test) {
        sends_streams_asks_cancels_and_lists(&python);
    }
}

#[test]
fn the_client_for_javascript_sends_streams_asks_cancels_and_lists_over_every_binding() {
    let test = "the_client_for_javascript_sends_streams_asks_cancels_and_lists_over_every_binding";
    if let Some(javascript) = javascript(test) {
        sends_streams_asks_cancels_and_lists(&javascript);
    }
}

fn sends_streams_asks_cancels_and_lists(sdk: &Sdk) {
    let (_node, daemon) = up();
    let address = address(&daemon);
    for binding in BINDINGS {
        let mut client = Client::new(sdk, &address, binding);
        let id = |name: &str| format!("{name}-{binding}");

        // To its end, and the same again: one task.
        let task = client.send(&id("m"), "hello");
        assert_eq!(state(&task), "COMPLETED", "{task}");
        assert_eq!(said(&task), "You said: hello");
        assert_eq!(task["artifacts"][0]["parts"][0]["text"], "hello");
        assert_eq!(history(&task), ["user: hello", "agent: You said: hello"]);
        assert_eq!(client.send(&id("m"), "hello")["id"], task["id"]);
        let again = message(&id("m"), "something else");
        client.malformed("send", again, "InvalidRequestError");

        // A command.
        let counted = client.send(&id("count"), "one two three");
        let output = &counted["artifacts"][0]["parts"][0]["text"];
        assert_eq!(output.as_str().expect("it is a text").trim(), "3");

        // A message instead of a task.
        let greeted = client.ok("send", message(&id("greet"), "hi"));
        assert_eq!(greeted["message"]["parts"][0]["text"], "Good day!");
        client.on("stream", "greet", message(&id("greet-2"), "hi"));
        let events = client.on("rest", "greet", json!({}));
        assert_eq!(shown(events.as_array().expect("it is a list")), ["message"]);

        // Questions and answers.
        let task = client.send(&id("paint"), "paint it");
        assert_eq!(
            (state(&task), said(&task)),
            ("INPUT_REQUIRED", "Which colour?")
        );
        let asked = client.ok("send", answer(&id("a1"), "blue", &task));
        assert_eq!(said(&asked["task"]), "blue, really?");
        client.malformed(
            "send",
            answer(&id("a2"), "well", &task),
            "InvalidParamsError",
        );
        let done = client.ok("send", answer(&id("a3"), "yes", &task));
        assert_eq!(state(&done["task"]), "COMPLETED");
        assert_eq!(
            history(&done["task"]),
            [
                "user: paint it",
                "agent: Which colour?",
                "user: blue",
                "agent: blue, really?",
                "user: yes",
                "agent: The wall is blue.",
            ]
        );
        let late = client.error("send", answer(&id("a4"), "green", &task));
        assert_eq!(late, "UnsupportedOperationError");
        let two = client.ok("get_task", json!({"id": task["id"], "historyLength": 2}));
        assert_eq!(history(&two), ["user: yes", "agent: The wall is blue."]);
        let task = client.send(&id("unlock"), "please");
        assert_eq!(state(&task), "AUTH_REQUIRED");

        // Failures.
        assert_eq!(state(&client.send(&id("forge"), "x")), "REJECTED");
        let failed = client.send(&id("stumble"), "stones");
        assert_eq!(state(&failed), "FAILED");
        assert!(said(&failed).contains("fell over stones"), "{failed}");

        // Artifacts of each kind, in a stream and in the task.
        client.on("stream", "report", message(&id("report"), "it"));
        let events = client.on("rest", "report", json!({}));
        let events = events.as_array().expect("it is a list");
        assert!(shown(&events[..1])[0].starts_with("task "), "{events:?}");
        let artifacts: Vec<String> = shown(events)
            .into_iter()
            .filter(|shown| shown.ends_with('.') || shown.contains("summary"))
            .collect();
        let streamed = [
            "summary",
            "+summary",
            "+summary",
            "+summary.",
            "figures.",
            "table.",
            "more.",
        ];
        // What was handed out before the stream began is in its first event.
        let in_task = events[0]["task"]["artifacts"]
            .as_array()
            .map_or(0, Vec::len);
        if in_task == 0 {
            assert_eq!(artifacts, streamed);
        }
        assert_eq!(shown(events).last().expect("there is one"), "COMPLETED");
        let id_of = events[0]["task"]["id"].clone();
        let task = client.ok("get_task", json!({"id": id_of}));
        let part = |index: usize| task["artifacts"][index]["parts"][0].clone();
        assert_eq!(
            task["artifacts"][0]["parts"]
                .as_array()
                .expect("it is a list")
                .len(),
            4
        );
        assert_eq!(part(1)["data"]["of"], "it");
        assert_eq!(part(2)["raw"], "YSxiCjEsMgo=");
        assert_eq!(part(2)["mediaType"], "text/csv");
        assert_eq!(part(2)["filename"], "table.csv");
        assert_eq!(part(3)["url"], "https://example.org/more.html");

        // At once, and cancelled.
        let mut brew = message(&id("brew"), "brew");
        brew["configuration"] = json!({"returnImmediately": true});
        let task = client.ok("send", brew)["task"].clone();
        assert!(["SUBMITTED", "WORKING"].contains(&state(&task)), "{task}");
        let cancelled = client.ok("cancel_task", json!({"id": task["id"]}));
        assert_eq!(state(&cancelled), "CANCELED");
        let again = client.error("cancel_task", json!({"id": task["id"]}));
        assert_eq!(again, "TaskNotCancelableError");
        let over = client.error("subscribe_all", json!({"id": task["id"]}));
        assert_eq!(over, "UnsupportedOperationError");

        // Lists.
        let context = format!("context-{binding}");
        for number in 0..3 {
            let mut message = message(&id(&format!("in-context-{number}")), "hello");
            message["message"]["contextId"] = context.clone().into();
            client.ok("send", message);
        }
        let asked = json!({"contextId": context, "pageSize": 2, "status": "TASK_STATE_COMPLETED"});
        let page = client.ok("list_tasks", asked.clone());
        assert_eq!(
            (
                page["tasks"].as_array().expect("it is a list").len(),
                &page["totalSize"]
            ),
            (2, &json!(3))
        );
        let mut next = asked;
        next["pageToken"] = page["nextPageToken"].clone();
        let last = client.ok("list_tasks", next);
        assert_eq!(last["tasks"].as_array().expect("it is a list").len(), 1);
        assert!(
            last["nextPageToken"]
                .as_str()
                .unwrap_or_default()
                .is_empty()
        );

        // What there is not.
        // A client of HTTP+JSON takes a path apart by itself, so that one never comes here.
        let elsewhere = match binding {
            "HTTP+JSON" => "nobody..",
            _ => "../../etc/passwd",
        };
        for unknown in ["0191d1f0-0000-7000-8000-000000000000", "nobody", elsewhere] {
            assert_eq!(
                client.error("get_task", json!({"id": unknown})),
                "TaskNotFoundError"
            );
        }
        let mut image = message(&id("image"), "x");
        image["message"]["parts"] = json!([{"raw": "AQ==", "mediaType": "image/png"}]);
        assert_eq!(client.error("send", image), "ContentTypeNotSupportedError");
    }
}

#[test]
fn a_stream_that_python_takes_up_again_after_a_kill_misses_nothing() {
    if let Some(sdk) = python("a_stream_that_python_takes_up_again_after_a_kill_misses_nothing") {
        takes_up_a_stream_again(&sdk);
    }
}

#[test]
fn a_stream_that_javascript_takes_up_again_after_a_kill_misses_nothing() {
    let test = "a_stream_that_javascript_takes_up_again_after_a_kill_misses_nothing";
    if let Some(sdk) = javascript(test) {
        takes_up_a_stream_again(&sdk);
    }
}

fn takes_up_a_stream_again(sdk: &Sdk) {
    let (node, daemon) = up();
    let listen = address(&daemon);
    let mut client = Client::new(sdk, &listen, "JSONRPC");
    let task = client.send("paint-1", "paint");
    assert_eq!(state(&task), "INPUT_REQUIRED");
    drop(client);
    daemon.killed();

    let daemon = start(&node, "127.0.0.1:0");
    let address = address(&daemon);
    for binding in BINDINGS {
        let mut client = Client::new(sdk, &address, binding);
        client.on("subscribe", "s", json!({"id": task["id"]}));
        let first = client.on("next", "s", json!({}));
        assert_eq!(shown(&[first]), ["task INPUT_REQUIRED"], "{binding}");
    }
    let mut client = Client::new(sdk, &address, "HTTP+JSON");
    client.on("subscribe", "s", json!({"id": task["id"]}));
    client.on("next", "s", json!({}));
    // Sent again after the restart, the first message makes no second task.
    assert_eq!(client.send("paint-1", "paint")["id"], task["id"]);
    client.ok("send", answer("a-1", "red", &task));
    // An answer sent twice is taken once.
    client.ok("send", answer("a-1", "red", &task));
    client.ok("send", answer("a-2", "yes", &task));
    let events = client.on("rest", "s", json!({}));
    assert_eq!(
        shown(events.as_array().expect("it is a list")),
        [
            "WORKING",
            "INPUT_REQUIRED red, really?",
            "WORKING",
            "WORKING The wall is red.",
            "COMPLETED The wall is red.",
        ]
    );
    drop(daemon);
}

#[test]
fn a_signal_ends_open_streams_with_a_last_event_and_holds_nothing_up() {
    let Some(python) = python("a_signal_ends_open_streams_with_a_last_event_and_holds_nothing_up")
    else {
        return;
    };
    let (_node, daemon) = up();
    let address = address(&daemon);
    let mut clients: Vec<Client> = BINDINGS
        .iter()
        .map(|binding| {
            let mut client = Client::new(&python, &address, binding);
            client.on("stream", "s", message(&format!("brew-{binding}"), "brew"));
            loop {
                let event = client.on("next", "s", json!({}));
                if said(&event["statusUpdate"]) == "The water boils."
                    || said(&event["task"]) == "The water boils."
                {
                    break client;
                }
            }
        })
        .collect();
    daemon.signal(Signal::TERM);
    for client in &mut clients {
        let events = client.on("rest", "s", json!({}));
        let last = events
            .as_array()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default();
        assert_eq!(
            last["statusUpdate"]["metadata"]["streamEnd"], "stopping",
            "{events}"
        );
        assert_eq!(state(&last["statusUpdate"]), "WORKING");
    }
    daemon.ended().with(0);
}

#[test]
fn what_is_no_request_is_refused_in_the_words_of_the_binding() {
    let (_node, daemon) = up();
    let address = address(&daemon);
    let version = ("A2A-Version", "1.0");
    let rpc = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string()
    };
    for (headers, body, code) in [
        (&[version][..], "{".to_owned(), -32700),
        (&[version], "[]".to_owned(), -32600),
        (&[version], "\u{1F600}".to_owned(), -32700),
        (&[version], rpc("NoSuchMethod", json!({})), -32601),
        (&[version], rpc("GetTask", json!({"id": 3.5})), -32602),
        (
            &[version],
            rpc(
                "SendMessage",
                json!({"message": {"messageId": "x", "role": "ROLE_USER"}}),
            ),
            -32602,
        ),
        (&[version], rpc("GetTask", json!({"id": "x"})), -32001),
        (
            &[("A2A-Version", "9.9")],
            rpc("GetTask", json!({"id": "x"})),
            -32009,
        ),
        (&[], rpc("GetTask", json!({"id": "x"})), -32009),
    ] {
        let answer = post(&address, "/", headers, &body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(said["error"]["code"], code, "{body}: {said}");
    }
    for (headers, path, body, status) in [
        (&[version][..], "/message:send", "{", 400),
        (&[version], "/message:send", "{}", 400),
        (&[version], "/nowhere", "{}", 404),
        (&[version], "/tasks", "{}", 405),
        (
            &[("A2A-Version", "0.3")],
            "/message:send",
            r#"{"message":{"messageId":"v","role":"ROLE_USER","parts":[{"text":"x"}]}}"#,
            400,
        ),
        (
            &[version, ("Origin", "https://example.org")],
            "/message:send",
            "{}",
            403,
        ),
        (
            &[version, ("Host", "example.org")],
            "/message:send",
            "{}",
            403,
        ),
    ] {
        let answer = post(&address, path, headers, body);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(said["error"]["code"], status, "{path}: {said}");
    }
    let large = "x".repeat((2 << 20) + 1);
    assert_eq!(
        post(&address, "/message:send", &[version], &large).status,
        413
    );
    let extended = format!(
        "GET /extendedAgentCard HTTP/1.1\r\nHost: {address}\r\nA2A-Version: 1.0\r\nConnection: close\r\n\r\n"
    );
    let extended = exchange(address.parse().unwrap(), &extended);
    assert_eq!(extended.status, 400, "{}", extended.body);
    // After all of it, it serves.
    let body = message("after-all", "hello").to_string();
    assert_eq!(
        post(&address, "/message:send", &[version], &body).status,
        200
    );
}

#[test]
fn a_token_is_asked_for_by_all_but_the_card_and_opens_the_extended_one() {
    let node = Node::new(
        "[a2a]\nlisten = \"127.0.0.1:0\"\ntoken_env = \"A2A_TOKEN\"\n\
         [[a2a.skill]]\nid = \"a\"\ndescription = \"A\"\ndefault = true\nprogram = \"plan\"\n\
         steps = [{ id = \"say\", say = \"x\" }]\n\
         [[a2a.skill]]\nid = \"b\"\ndescription = \"B\"\nextended = true\nmatch = [{ text = \"b\" }]\nprogram = \"command\"\n\
         argv = [\"true\"]\n",
    );
    let mut daemon = Daemon::spawn(node.command(&[]).env("A2A_TOKEN", "s3cret"));
    daemon.ready();
    let address = address(&daemon);
    let get = |path: &str, extra: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nA2A-Version: 1.0\r\nConnection: close\r\n{extra}\r\n"
        );
        exchange(address.parse().unwrap(), &head)
    };
    let card = get("/.well-known/agent-card.json", "");
    assert_eq!(card.status, 200);
    let card: Value = serde_json::from_str(&card.body).unwrap();
    assert_eq!(card["skills"].as_array().unwrap().len(), 1);
    assert_eq!(
        card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"]["scheme"],
        "Bearer"
    );
    assert_eq!(get("/tasks", "").status, 401);
    assert_eq!(get("/tasks", "Authorization: Bearer wrong\r\n").status, 401);
    assert_eq!(get("/extendedAgentCard", "").status, 401);
    let extended = get("/extendedAgentCard", "Authorization: Bearer s3cret\r\n");
    let extended: Value = serde_json::from_str(&extended.body).unwrap();
    assert_eq!(extended["skills"].as_array().unwrap().len(), 2);
    assert_eq!(
        get("/tasks", "Authorization: Bearer s3cret\r\n").status,
        200
    );
}

/// The agent of `config`, with TLS.
const WITH_TLS: &str = "tls_cert_file = \"server.crt\"\ntls_key_file = \"server.key\"\n";
const ONE_SKILL: &str = "[[a2a.skill]]\nid = \"a\"\ndescription = \"A\"\ndefault = true\nprogram = \"plan\"\n\
                         output = \"{{ input.message.text }}\"\nsteps = [{ id = \"say\", say = \"x\" }]\n";

#[test]
fn tls_shows_who_serves_and_certificates_tell_who_asks() {
    let test = "tls_shows_who_serves_and_certificates_tell_who_asks";
    let listen = "[a2a]\nlisten = \"127.0.0.1:0\"\n";
    let node = Node::new(&format!("{listen}{WITH_TLS}{ONE_SKILL}"));
    let made = ["server", "client"].map(|name| certificate(&node, "ca", name));
    if let Some(reason) = made.into_iter().find_map(Result::err) {
        return skip(test, &reason);
    }
    certificate(&node, "other-ca", "stranger").expect("openssl was there a moment ago");
    let curl = |args: &[&str], url: &str| {
        let mut command = Command::new("curl");
        let place = node.place.path("");
        command.args(["-sS", "-m", "20"]).args(args).arg(url);
        end_of(command.current_dir(place).stdin(Stdio::null()))
    };
    let extended = ["-H", "A2A-Version: 1.0"];
    let serve = || {
        let mut daemon = Daemon::spawn(node.command(&[]).env("RUST_LOG", "info"));
        daemon.ready();
        let url = format!("https://{}", address(&daemon));
        (daemon, url)
    };

    let (daemon, url) = serve();
    let card = format!("{url}/.well-known/agent-card.json");
    for version in ["--http1.1", "--http2"] {
        let shown = curl(&["--cacert", "ca.crt", version], &card).with(0);
        let shown: Value = serde_json::from_str(&shown.stdout).expect("the card is JSON");
        assert_eq!(shown["supportedInterfaces"][0]["url"], url.as_str());
        assert!(shown.get("securitySchemes").is_none(), "{shown}");
    }
    // 60: the certificate leads nowhere that is trusted (curl(1)).
    curl(&["--cacert", "other-ca.crt"], &card).with(60);
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);

    let client_ca = "tls_client_ca_file = \"ca.crt\"\n";
    node.configure(&format!("{listen}{WITH_TLS}{client_ca}{ONE_SKILL}"));
    let (_daemon, url) = serve();
    let card = format!("{url}/.well-known/agent-card.json");
    let as_client = [
        "--cacert",
        "ca.crt",
        "--cert",
        "client.crt",
        "--key",
        "client.key",
    ];
    let shown = curl(&as_client, &card).with(0);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("the card is JSON");
    assert!(
        shown["securitySchemes"]["certificate"]["mtlsSecurityScheme"].is_object(),
        "{shown}"
    );
    let all: Vec<&str> = as_client.into_iter().chain(extended).collect();
    let shown = curl(&all, &format!("{url}/extendedAgentCard")).with(0);
    assert!(shown.stdout.contains("\"skills\""), "{}", shown.stdout);
    let as_stranger = [
        "--cacert",
        "ca.crt",
        "--cert",
        "stranger.crt",
        "--key",
        "stranger.key",
    ];
    for turned_away in [&as_stranger[..], &as_stranger[..2]] {
        let ended = curl(turned_away, &card);
        assert_ne!(ended.code, 0, "{}", ended.stdout);
    }
}
