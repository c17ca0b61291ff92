//! The other direction: a plan of one daemon hands work to the agent of another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use super::{address, start};
use crate::support::{Daemon, Ipc, Node};

/// What the agent can do: shout, ask, hold on until it is let go, and fail.
const REMOTE: &str = r#"
[[a2a.skill]]
id = "shout"
description = "Says it louder"
default = true
program = "plan"
output = "{{ input.message.text | upper }}"
steps = [
    { id = "data", artifact = { name = "figures", data = { n = "{{ input.message.text | length }}" } } },
    { id = "write", run = { shell = "printf 'a\\000b' > blob.bin" } },
    { id = "file", needs = ["write"], artifact = { name = "blob", file = "blob.bin", media_type = "application/x-blob" } },
]

[[a2a.skill]]
id = "ask"
description = "Asks back"
match = [{ text = "^ask" }]
program = "plan"
output = "{{ steps.colour.answer }}, then"
steps = [{ id = "colour", ask = { prompt = "Which colour?" } }]

[[a2a.skill]]
id = "hold"
description = "Holds on"
match = [{ text = "^hold" }]
program = "plan"
output = "let go"
steps = [
    { id = "say", say = "holding on" },
    { id = "hold", run = { shell = 'read _ < "$TINKERBELL_START_DIR/go"' }, class = "read" },
]

[[a2a.skill]]
id = "refuse"
description = "Does not"
match = [{ text = "^refuse" }]
program = "plan"
steps = [{ id = "no", fail = { message = "not today", code = "rejected" } }]
"#;

/// The agent.
fn remote() -> (Node, Daemon, String) {
    let node = Node::new(REMOTE);
    let daemon = start(&node, "127.0.0.1:0");
    let address = address(&daemon);
    (node, daemon, address)
}

/// Who hands work to it.
fn caller(url: &str) -> (Node, Daemon) {
    let config = format!(
        "[ipc]\nenabled = true\n[a2a]\nenabled = false\n[[a2a.agent]]\nname = \"remote\"\nurl = \"http://{url}\"\n"
    );
    let node = Node::new(&config);
    let daemon = node.start();
    (node, daemon)
}

/// A plan of one call, whose answer is the plan's output.
fn call(text: &str) -> Value {
    json!({"program": "plan", "input": {
        "steps": [{"id": "it", "call": {"agent": "remote", "text": text, "forward": true},
                   "retry": {"backoff": "20ms", "max_backoff": "100ms"}}],
        "output": "{{ steps.it }}",
    }})
}

/// The end of a job.
#[track_caller]
fn end(ipc: &Ipc, job: &str) -> Value {
    ipc.all_of(job);
    ipc.get(&format!("/v1/jobs/{job}/result")).with(200).json()
}

#[track_caller]
fn tasks(node: &Node) -> Vec<Value> {
    let listed = Ipc::of(node).get("/v1/jobs").with(200).json();
    listed["jobs"].as_array().cloned().expect("a list of jobs")
}

#[test]
fn what_an_agent_gives_is_what_the_step_gives() {
    let (remote_node, _remote, url) = remote();
    let (node, _daemon) = caller(&url);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("hello"));
    let events = ipc.all_of(&job);
    let ended = end(&ipc, &job);
    assert_eq!(ended["state"], "completed", "{ended}");
    let given = &ended["output"]["output"];
    assert_eq!(given["state"], "completed");
    assert_eq!(given["text"], "HELLO");
    assert_eq!(given["data"], json!({"n": 5}));
    assert_eq!(tasks(&remote_node).len(), 1);
    let artifacts: Vec<_> = events
        .iter()
        .filter(|event| event.kind() == "artifact")
        .map(|event| event.data["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(artifacts, ["figures", "blob", "output"]);
    let blob = ipc.get(&format!("/v1/jobs/{job}/artifacts/blob")).with(200);
    assert_eq!(blob.body.as_bytes(), b"a\0b");
    assert_eq!(blob.header("content-type"), Some("application/x-blob"));
}

#[test]
fn an_agent_that_refuses_or_is_not_known_fails_the_step_with_its_word() {
    let (_remote_node, _remote, url) = remote();
    let (node, _daemon) = caller(&url);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("refuse this"));
    let ended = end(&ipc, &job);
    assert_eq!(ended["state"], "failed", "{ended}");
    let error = ended.to_string();
    assert!(error.contains("rejected: not today"), "{error}");

    let mut stranger = call("x");
    stranger["input"]["steps"][0]["call"]["agent"] = "nobody".into();
    let job = ipc.submit(&stranger);
    let error = end(&ipc, &job).to_string();
    assert!(
        error.contains("no agent `nobody`: there are `remote`"),
        "{error}"
    );
}

#[test]
fn what_an_agent_asks_is_asked_here_and_the_answer_goes_back() {
    let (_remote_node, _remote, url) = remote();
    let (node, daemon) = caller(&url);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("ask me"));
    ipc.until_waiting(&job);
    // The question is in the journal, so it outlives both.
    daemon.killed();
    let _daemon = node.start();
    ipc.until_waiting(&job);
    let shown = ipc.get(&format!("/v1/jobs/{job}")).with(200).json();
    assert!(shown.to_string().contains("Which colour?"), "{shown}");
    ipc.post(&format!("/v1/jobs/{job}/signals/it"), &json!("green"))
        .with(202);
    let ended = end(&ipc, &job);
    assert_eq!(ended["output"]["output"]["text"], "green, then", "{ended}");
}

#[test]
fn a_task_is_taken_up_again_whoever_of_the_two_dies() {
    let (remote_node, remote, url) = remote();
    let mut go = remote_node.place.barrier("go");
    let (node, daemon) = caller(&url);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("hold on"));
    let follows = |count: usize| {
        let mut stream = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
        for _ in 0..count {
            while stream.until("step_started").data["step"] != "it.follow" {}
        }
    };
    follows(1);
    daemon.killed();
    let _daemon = node.start();
    remote.killed();
    let _remote = start(&remote_node, &url);
    go.release(2);
    let ended = end(&ipc, &job);
    assert_eq!(ended["output"]["output"]["text"], "let go", "{ended}");
    assert_eq!(tasks(&remote_node).len(), 1);
}

#[test]
fn cancelling_a_job_cancels_the_task_that_it_waits_for() {
    let (remote_node, _remote, url) = remote();
    let _go = remote_node.place.barrier("go");
    let (node, _daemon) = caller(&url);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("hold on"));
    let mut stream = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
    while stream.until("step_started").data["step"] != "it.follow" {}
    ipc.post(&format!("/v1/jobs/{job}/cancel"), &json!({}))
        .with(202);
    let task = tasks(&remote_node)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    assert_eq!(end(&Ipc::of(&remote_node), &task)["state"], "cancelled");
}

/// Stands between the two, and loses the answer to every message for as long as it is told to.
struct Lossy {
    address: String,
    loses: Arc<AtomicBool>,
    messages: Arc<AtomicUsize>,
    /// Tells of every answer that is lost.
    lost: mpsc::Receiver<()>,
    /// Where what comes goes to, once that is known.
    to: Arc<std::sync::OnceLock<String>>,
}

impl Lossy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (loses, messages) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let to = Arc::<std::sync::OnceLock<String>>::default();
        let (tell, lost) = mpsc::channel();
        let shared = (Arc::clone(&loses), Arc::clone(&messages), Arc::clone(&to));
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let (loses, messages, to) = shared.clone();
                let Some(to) = to.get() else { continue };
                let Ok(far) = TcpStream::connect(to) else {
                    continue;
                };
                pass(near, far, &loses, &messages, &tell);
            }
        });
        Self {
            address,
            loses,
            messages,
            lost,
            to,
        }
    }
}

fn pass(
    near: TcpStream,
    far: TcpStream,
    loses: &Arc<AtomicBool>,
    messages: &Arc<AtomicUsize>,
    tell: &mpsc::Sender<()>,
) {
    let has_message = Arc::new(AtomicBool::new(false));
    let (mut from_near, mut to_near) = (near.try_clone().expect("a socket"), near);
    let (mut from_far, mut to_far) = (far.try_clone().expect("a socket"), far);
    let (seen, messages) = (Arc::clone(&has_message), Arc::clone(messages));
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_near.read(&mut buffer) {
            if String::from_utf8_lossy(&buffer[..length]).contains("\"SendMessage\"") {
                seen.store(true, Ordering::SeqCst);
                messages.fetch_add(1, Ordering::SeqCst);
            }
            if to_far.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let (loses, tell) = (Arc::clone(loses), tell.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_far.read(&mut buffer) {
            if has_message.load(Ordering::SeqCst) && loses.load(Ordering::SeqCst) {
                let _ = tell.send(());
            } else if to_near.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_message_whose_answer_was_lost_is_not_sent_twice() {
    let lossy = Lossy::new();
    let remote_node = Node::new(REMOTE);
    let mut command = remote_node.command(&[]);
    command
        .env("RUST_LOG", "info")
        .env("TINKERBELL_A2A__LISTEN", "127.0.0.1:0")
        .env(
            "TINKERBELL_A2A__PUBLIC_URL",
            format!("http://{}", lossy.address),
        );
    let mut remote = Daemon::spawn(&mut command);
    remote.ready();
    lossy.to.set(address(&remote)).expect("it is set once");
    let (node, daemon) = caller(&lossy.address);
    let ipc = Ipc::of(&node);
    let job = ipc.submit(&call("hello"));
    lossy.lost.recv().expect("the agent answers");
    daemon.killed();
    lossy.loses.store(false, Ordering::SeqCst);
    let _daemon = node.start();
    let ended = end(&ipc, &job);
    assert_eq!(ended["output"]["output"]["text"], "HELLO", "{ended}");
    assert_eq!(lossy.messages.load(Ordering::SeqCst), 1);
    assert_eq!(tasks(&remote_node).len(), 1);
}

#[test]
fn a_token_goes_to_the_agent_that_it_is_for_and_nowhere_else() {
    let node = Node::new(REMOTE);
    let mut command = node.command(&[]);
    command
        .env("RUST_LOG", "info")
        .env("TINKERBELL_A2A__LISTEN", "127.0.0.1:0")
        .env("TINKERBELL_A2A__TOKEN_ENV", "TOKEN")
        .env("TOKEN", "s3cret");
    let mut remote = Daemon::spawn(&mut command);
    remote.ready();
    let url = address(&remote);
    let config = |host: &str| {
        let (_, port) = url.rsplit_once(':').expect("a port");
        format!(
            "[a2a]\nenabled = false\n[[a2a.agent]]\nname = \"remote\"\nurl = \"http://{host}:{port}\"\n\
             token_env = \"REMOTE_TOKEN\"\n"
        )
    };
    let ask = |host: &str| {
        let caller = Node::new(&config(host));
        let mut daemon = Daemon::spawn(caller.command(&[]).env("REMOTE_TOKEN", "s3cret"));
        daemon.ready();
        let ipc = Ipc::of(&caller);
        let job = ipc.submit(&call("hello"));
        end(&ipc, &job)
    };
    let ended = ask("127.0.0.1");
    assert_eq!(ended["output"]["output"]["text"], "HELLO", "{ended}");
    // The card names 127.0.0.1, which is not what the config calls it.
    let error = ask("localhost").to_string();
    assert!(
        error.contains("its token goes to http://localhost"),
        "{error}"
    );
}
