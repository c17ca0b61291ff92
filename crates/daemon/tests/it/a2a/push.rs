//! Push notifications, against a receiver that says what the test has it say.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver as Channel, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    Client, Sdk, address, answer, history, javascript, message, post, python, said, shown, start,
    state, up,
};
use crate::support::{Daemon, Lines, Node, PATIENCE, exchange, skip};

const VERSION: (&str, &str) = ("A2A-Version", "1.0");

/// A notification as it came.
#[derive(Debug)]
struct Notification {
    head: String,
    body: Value,
    /// Where the answer goes, if it was held back.
    held: Option<TcpStream>,
}

impl Notification {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// What it is told from others by.
    fn id(&self) -> String {
        let id = self.header("webhook-id");
        id.expect("each has an id").to_owned()
    }

    fn shown(&self) -> String {
        shown(std::slice::from_ref(&self.body)).remove(0)
    }
}

/// What a receiver does next; it takes everything when there is nothing more.
enum Says {
    Answer(&'static str),
    /// Nothing: the test has the connection.
    Nothing,
}

struct Receiver {
    address: SocketAddr,
    received: Channel<Notification>,
    script: Arc<Mutex<VecDeque<Says>>>,
}

impl Receiver {
    fn new(script: impl IntoIterator<Item = Says>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let script: Arc<Mutex<VecDeque<Says>>> = Arc::new(Mutex::new(script.into_iter().collect()));
        let (sender, received) = channel();
        let says = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (sender, says) = (sender.clone(), Arc::clone(&says));
                std::thread::spawn(move || serve(stream, &sender, &says));
            }
        });
        Self {
            address,
            received,
            script,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/hook?key=s3cret-key", self.address)
    }

    #[track_caller]
    fn next(&self) -> Notification {
        let next = self.received.recv_timeout(PATIENCE);
        next.expect("a notification comes")
    }

    /// What comes, up to and including what is shown like this.
    #[track_caller]
    fn until(&self, last: &str) -> Vec<Notification> {
        let mut all = Vec::new();
        loop {
            all.push(self.next());
            if all.last().is_some_and(|next| next.shown() == last) {
                return all;
            }
        }
    }

    fn has_nothing(&self) -> bool {
        self.received.try_recv().is_err()
    }
}

/// Serves the requests of one connection.
fn serve(stream: TcpStream, sender: &Sender<Notification>, script: &Mutex<VecDeque<Says>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut stream = stream;
    loop {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok());
        let mut body = vec![0; length.expect("it says how long it is")];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = serde_json::from_slice(&body).expect("a notification is JSON");
        let says = script.lock().expect("nobody panics with it").pop_front();
        let (answer, held) = match says {
            Some(Says::Nothing) => (None, Some(stream.try_clone().expect("as above"))),
            Some(Says::Answer(answer)) => (Some(answer), None),
            None => (Some("204 No Content"), None),
        };
        let _ = sender.send(Notification { head, body, held });
        let Some(answer) = answer else { return };
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn shown_of(all: &[Notification]) -> Vec<String> {
    all.iter().map(Notification::shown).collect()
}

/// Sends a message over HTTP+JSON, and gives the task.
#[track_caller]
fn send(address: &str, mut message: Value, push: Option<Value>, at_once: bool) -> Value {
    let mut configuration = json!({"returnImmediately": at_once});
    if let Some(push) = push {
        configuration["taskPushNotificationConfig"] = push;
    }
    message["configuration"] = configuration;
    let answer = post(address, "/message:send", &[VERSION], &message.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    said["task"].clone()
}

fn configs_of(task: &Value) -> String {
    let id = task["id"].as_str().expect("a task has an id");
    format!("/tasks/{id}/pushNotificationConfigs")
}

/// Asks for something about a config.
fn ask(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nA2A-Version: 1.0\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let address = address.parse().expect("it is an address");
    let answer = exchange(address, &head);
    let said = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer.status, said)
}

#[track_caller]
fn create(address: &str, task: &Value, config: &Value) -> Value {
    let (status, said) = ask(address, "POST", &configs_of(task), &config.to_string());
    assert_eq!(status, 200, "{said}");
    said
}

/// Waits until a task is over, by a receiver of its own that begins now.
#[track_caller]
fn finish_paint(address: &str, task: &Value) {
    let over = Receiver::new([]);
    create(address, task, &json!({"id": "over", "url": over.url()}));
    send(address, answer("colour", "red", task), None, true);
    over.until("INPUT_REQUIRED red, really?");
    send(address, answer("sure", "yes", task), None, true);
    over.until("COMPLETED The wall is red.");
}

#[test]
fn every_event_arrives_in_its_order_however_often_it_is_put_off() {
    let node = Node::new(
        &std::fs::read_to_string(crate::support::repository().join("examples/a2a.toml")).unwrap(),
    );
    let mut command = node.command(&[]);
    command
        .env("RUST_LOG", "debug")
        .env("TINKERBELL_A2A__LISTEN", "127.0.0.1:0");
    let mut daemon = Daemon::spawn(&mut command);
    daemon.ready();
    let address = address(&daemon);
    let receiver = Receiver::new([
        Says::Answer("503 Service Unavailable"),
        Says::Answer("429 Too Many Requests\r\nRetry-After: 0"),
    ]);
    let config = json!({
        "id": "mine",
        "url": receiver.url(),
        "token": "s3cret-token",
        "authentication": {"scheme": "Bearer", "credentials": "s3cret-word"},
    });
    let task = send(
        &address,
        message("report-1", "report it"),
        Some(config),
        true,
    );
    let all = receiver.until("COMPLETED");
    let first = all[0].id();
    assert_eq!([all[1].id(), all[2].id()], [first.clone(), first]);
    assert_eq!([&all[1].body, &all[2].body], [&all[0].body; 2]);
    assert_eq!(
        shown_of(&all[2..]),
        [
            "WORKING",
            "summary",
            "+summary",
            "+summary",
            "+summary.",
            "figures.",
            "table.",
            "more.",
            "COMPLETED",
        ]
    );
    let ids: std::collections::BTreeSet<String> = all.iter().map(Notification::id).collect();
    assert_eq!(ids.len(), all.len() - 2);
    for notification in &all {
        assert!(
            notification
                .head
                .starts_with("POST /hook?key=s3cret-key HTTP/1.1")
        );
        let update = [
            &notification.body["statusUpdate"],
            &notification.body["artifactUpdate"],
        ];
        assert!(update.iter().any(|update| update["taskId"] == task["id"]));
        for (name, value) in [
            ("content-type", "application/a2a+json"),
            ("x-a2a-notification-token", "s3cret-token"),
            ("authorization", "Bearer s3cret-word"),
        ] {
            assert_eq!(notification.header(name), Some(value));
        }
    }
    // What it shows to the receiver as ours is told to nobody, and none of it is in the daemon's own log.
    let (_, listed) = ask(&address, "GET", &configs_of(&task), "");
    assert_eq!(listed["configs"][0]["id"], "mine");
    assert!(!listed.to_string().contains("s3cret-word"), "{listed}");
    let (_, tasks) = ask(&address, "GET", "/tasks", "");
    assert_eq!(tasks["totalSize"], 1, "{tasks}");
    let metrics = daemon.get_until("/metrics", |answer| {
        answer
            .body
            .contains("tinkerbell_api_push_notifications_total{result=\"taken\"} 9")
    });
    assert!(
        metrics.body.contains("{result=\"put_off\"} 2"),
        "{}",
        metrics.body
    );
    let log = daemon.stderr.so_far().join("\n");
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn what_was_not_taken_before_a_kill_is_sent_again_and_nothing_is_left_out() {
    let (node, daemon) = up();
    let here = address(&daemon);
    let receiver = Receiver::new([Says::Nothing]);
    let config = json!({"id": "mine", "url": receiver.url()});
    let task = send(&here, message("paint-1", "paint"), Some(config), false);
    assert_eq!(state(&task), "INPUT_REQUIRED");
    let held = receiver.next();
    // The task goes on without it.
    let task = send(&here, answer("a-1", "red", &task), None, false);
    assert_eq!(said(&task), "red, really?");
    daemon.killed();

    receiver.script.lock().unwrap().push_back(Says::Nothing);
    let daemon = start(&node, "127.0.0.1:0");
    let again = receiver.next();
    assert_eq!((again.id(), &again.body), (held.id(), &held.body));
    // Taken now, but the daemon does not live to know it.
    daemon.killed();
    let daemon = start(&node, "127.0.0.1:0");
    let here = address(&daemon);
    let (status, found) = ask(&here, "GET", &format!("{}/mine", configs_of(&task)), "");
    assert_eq!((status, &found["url"]), (200, &json!(receiver.url())));
    let mut all = receiver.until("INPUT_REQUIRED red, really?");
    assert_eq!((all[0].id(), &all[0].body), (held.id(), &held.body));
    send(&here, answer("a-2", "yes", &task), None, true);
    all.extend(receiver.until("COMPLETED The wall is red."));
    assert_eq!(
        shown_of(&all),
        [
            "INPUT_REQUIRED Which colour?",
            "WORKING",
            "INPUT_REQUIRED red, really?",
            "WORKING",
            "WORKING The wall is red.",
            "COMPLETED The wall is red.",
        ]
    );
    assert!(receiver.has_nothing());
}

#[test]
fn a_config_that_is_deleted_or_replaced_sends_nothing_any_more() {
    let (_node, daemon) = up();
    let address = address(&daemon);
    let task = send(&address, message("paint-1", "paint"), None, false);
    let (deleted, replaced, next) = (
        Receiver::new([Says::Nothing]),
        Receiver::new([Says::Nothing]),
        Receiver::new([]),
    );
    create(&address, &task, &json!({"id": "a", "url": deleted.url()}));
    create(&address, &task, &json!({"id": "b", "url": replaced.url()}));
    // Not told again what the client has been told.
    assert!(deleted.has_nothing());
    let task = send(&address, answer("early", "blue", &task), None, false);
    let at_work = [deleted.next(), replaced.next()];
    let path = format!("{}/a", configs_of(&task));
    for _ in 0..2 {
        assert_eq!(ask(&address, "DELETE", &path, "").0, 200);
    }
    create(&address, &task, &json!({"id": "b", "url": next.url()}));
    for held in at_work {
        let mut held = held.held.expect("it was held back");
        assert_eq!(
            held.read(&mut [0]).unwrap_or(0),
            0,
            "it is being sent still"
        );
    }
    assert_eq!(ask(&address, "GET", &path, "").0, 404);
    let (_, listed) = ask(&address, "GET", &configs_of(&task), "");
    assert_eq!(listed["configs"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["configs"][0]["url"], next.url());

    // Made again, it begins anew.
    let again = Receiver::new([]);
    create(&address, &task, &json!({"id": "a", "url": again.url()}));
    create(&address, &task, &json!({"id": "a", "url": again.url()}));
    send(&address, answer("sure", "yes", &task), None, true);
    for receiver in [&again, &next] {
        let all = receiver.until("COMPLETED The wall is blue.");
        assert_eq!(all.len(), 3, "{all:?}");
    }
    assert!(deleted.has_nothing() && replaced.has_nothing());
}

#[test]
fn a_receiver_that_refuses_misses_one_and_one_that_is_gone_gets_no_more() {
    let (_node, daemon) = up();
    let address = address(&daemon);
    let task = send(&address, message("paint-1", "paint"), None, false);
    let refuses = Receiver::new([
        Says::Answer("404 Not Found"),
        Says::Answer("302 Found\r\nLocation: http://127.0.0.1:1/"),
    ]);
    let gone = Receiver::new([Says::Answer("410 Gone")]);
    create(
        &address,
        &task,
        &json!({"id": "refuses", "url": refuses.url()}),
    );
    create(&address, &task, &json!({"id": "gone", "url": gone.url()}));
    finish_paint(&address, &task);
    let all = refuses.until("COMPLETED The wall is red.");
    assert_eq!(all.len(), 5, "{all:?}");
    let ids: std::collections::BTreeSet<String> = all.iter().map(Notification::id).collect();
    assert_eq!(ids.len(), 5);
    gone.next();
    let metrics = daemon.get_until("/metrics", |answer| {
        answer
            .body
            .contains("tinkerbell_api_push_notifications_total{result=\"refused\"} 3")
    });
    assert!(
        !metrics.body.contains("{result=\"put_off\"}"),
        "{}",
        metrics.body
    );
    assert!(gone.has_nothing());
}

#[test]
fn a_task_that_is_over_keeps_its_configs_until_they_are_deleted() {
    let (node, daemon) = up();
    let here = address(&daemon);
    let task = send(&here, message("echo-1", "hello"), None, false);
    assert_eq!(state(&task), "COMPLETED");
    let receiver = Receiver::new([]);
    let config = json!({"id": "late", "url": receiver.url(), "token": "t"});
    create(&here, &task, &config);
    daemon.killed();
    let daemon = start(&node, "127.0.0.1:0");
    let here = address(&daemon);
    let path = format!("{}/late", configs_of(&task));
    let (status, found) = ask(&here, "GET", &path, "");
    assert_eq!((status, &found["token"]), (200, &json!("t")), "{found}");
    for _ in 0..2 {
        assert_eq!(ask(&here, "DELETE", &path, "").0, 200);
        assert_eq!(ask(&here, "GET", &path, "").0, 404);
    }
    create(&here, &task, &config);
    assert_eq!(ask(&here, "GET", &path, "").0, 200);
    assert!(receiver.has_nothing());
}

#[test]
fn what_may_not_be_is_refused_and_leaves_nothing_behind() {
    let config = std::fs::read_to_string(crate::support::repository().join("examples/a2a.toml"))
        .unwrap()
        .replace(
            "listen = \"127.0.0.1:3003\"",
            "push_configs = 2\npublic_url = \"https://agents.example.org\"\npush_hosts = [\"127.0.0.2\"]",
        );
    let node = Node::new(&config);
    let daemon = start(&node, "127.0.0.1:0");
    let address = address(&daemon);
    let task = send(&address, message("paint-1", "paint"), None, false);
    for (config, why) in [
        (
            json!({"url": "http://127.0.0.1:1/x"}),
            "`127.0.0.1` is an address",
        ),
        (
            json!({"url": "https://localhost/x"}),
            "`localhost` is an address",
        ),
        (json!({"url": "https://169.254.169.254/x"}), "is an address"),
        (json!({"url": "http://example.org/x"}), "without TLS"),
        (json!({"url": "ftp://127.0.0.2/x"}), "begins with `ftp:`"),
        (json!({"url": "http://u:s3cret@127.0.0.2/x"}), "has a user"),
        (
            json!({"url": "http://127.0.0.2/x", "token": "s3cret\r\nA: b"}),
            "token",
        ),
        (
            json!({"url": "http://127.0.0.2/x", "authentication": {"scheme": "a b", "credentials": "s3cret"}}),
            "authentication.scheme",
        ),
        (
            json!({"url": "http://127.0.0.2/x", "id": "x".repeat(513)}),
            "id is longer",
        ),
    ] {
        let (status, said) = ask(&address, "POST", &configs_of(&task), &config.to_string());
        let text = said["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{config}: {said}");
        assert!(
            text.contains(why) && !text.contains("s3cret"),
            "{config}: {said}"
        );
        // With a message, there is no task either.
        let mut message = message("never", "hello");
        message["configuration"] = json!({"taskPushNotificationConfig": config});
        let answer = post(&address, "/message:send", &[VERSION], &message.to_string());
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
    let (_, tasks) = ask(&address, "GET", "/tasks", "");
    assert_eq!(tasks["totalSize"], 1, "{tasks}");
    // Without an id it is known by its address.
    let made = create(&address, &task, &json!({"url": "http://127.0.0.2:1/x"}));
    let same = create(&address, &task, &json!({"url": "http://127.0.0.2:1/x"}));
    assert_eq!(made, same);
    create(
        &address,
        &task,
        &json!({"id": "2", "url": "http://127.0.0.2:1/y"}),
    );
    let third = json!({"id": "3", "url": "http://127.0.0.2:1/z"}).to_string();
    let (status, said) = ask(&address, "POST", &configs_of(&task), &third);
    assert_eq!(status, 400);
    assert!(said.to_string().contains("a2a.push_configs"), "{said}");
    // Another under an id that is there is not one more.
    create(
        &address,
        &task,
        &json!({"id": "2", "url": "http://127.0.0.2:1/z"}),
    );
    let path = "/tasks/0191d1f0-0000-7000-8000-000000000000/pushNotificationConfigs";
    for (method, path) in [
        ("POST", path.to_owned()),
        ("GET", path.to_owned()),
        ("DELETE", format!("{path}/2")),
    ] {
        assert_eq!(ask(&address, method, &path, &third).0, 404, "{method}");
    }
}

#[test]
fn without_room_for_configs_there_are_no_push_notifications() {
    let node = Node::new(
        "[a2a]\nlisten = \"127.0.0.1:0\"\npush_configs = 0\n[[a2a.skill]]\nid = \"a\"\ndescription = \"A\"\ndefault = true\n\
         program = \"plan\"\nsteps = [{ id = \"say\", say = \"x\" }]\n",
    );
    let mut daemon = Daemon::spawn(&mut node.command(&[]));
    daemon.ready();
    let address = address(&daemon);
    let (_, card) = ask(&address, "GET", "/.well-known/agent-card.json", "");
    assert_eq!(card["capabilities"]["pushNotifications"], false);
    let task = send(&address, message("m", "x"), None, false);
    let config = json!({"url": "http://127.0.0.1:1/x"}).to_string();
    let (status, said) = ask(&address, "POST", &configs_of(&task), &config);
    assert_eq!(status, 400);
    assert!(
        said.to_string().contains("PUSH_NOTIFICATION_NOT_SUPPORTED"),
        "{said}"
    );
}

#[test]
fn the_client_for_python_sets_and_deletes_configs_over_every_binding() {
    if let Some(sdk) = python("the_client_for_python_sets_and_deletes_configs_over_every_binding") {
        sets_and_deletes_configs(&sdk);
    }
}

#[test]
fn the_client_for_javascript_sets_and_deletes_configs_over_every_binding() {
    let test = "the_client_for_javascript_sets_and_deletes_configs_over_every_binding";
    if let Some(sdk) = javascript(test) {
        sets_and_deletes_configs(&sdk);
    }
}

fn sets_and_deletes_configs(sdk: &Sdk) {
    let (_node, daemon) = up();
    let address = address(&daemon);
    for binding in super::BINDINGS {
        let receiver = Receiver::new([]);
        let mut client = Client::new(sdk, &address, binding);
        let mut asked = message(&format!("paint-{binding}"), "paint it");
        asked["configuration"] = json!({"taskPushNotificationConfig": {
            "id": "sent",
            "url": receiver.url(),
            "token": "t-1",
            "authentication": {"scheme": "Basic", "credentials": "dTpw"},
        }});
        let task = client.ok("send", asked)["task"].clone();
        let first = receiver.until("INPUT_REQUIRED Which colour?");
        assert_eq!(first[0].header("authorization"), Some("Basic dTpw"));
        assert_eq!(first[0].header("x-a2a-notification-token"), Some("t-1"));

        let set = json!({"taskId": task["id"], "id": "set", "url": receiver.url()});
        let made = client.ok("create_task_push_notification_config", set);
        assert_eq!((&made["id"], &made["taskId"]), (&json!("set"), &task["id"]));
        let one = json!({"taskId": task["id"], "id": "set"});
        let found = client.ok("get_task_push_notification_config", one.clone());
        assert_eq!(found["url"], receiver.url());
        let all = json!({"taskId": task["id"]});
        let listed = client.ok("list_task_push_notification_configs", all.clone());
        assert_eq!(
            listed["configs"].as_array().expect("it is a list").len(),
            2,
            "{listed}"
        );
        client.ok("delete_task_push_notification_config", one.clone());
        client.ok("delete_task_push_notification_config", one.clone());
        let gone = client.error("get_task_push_notification_config", one);
        assert_eq!(gone, "TaskNotFoundError");
        let bad = json!({"taskId": task["id"], "url": "http://10.0.0.1/x"});
        client.malformed(
            "create_task_push_notification_config",
            bad,
            "InvalidParamsError",
        );

        client.ok("send", answer(&format!("a1-{binding}"), "blue", &task));
        let done = client.ok("send", answer(&format!("a2-{binding}"), "yes", &task));
        assert_eq!(
            history(&done["task"]).last().expect("there is one"),
            "agent: The wall is blue."
        );
        let rest = receiver.until("COMPLETED The wall is blue.");
        assert_eq!(rest.len(), 5, "{rest:?}");
    }
}

/// A certificate for `localhost` that nobody has signed but itself, and its key.
fn certificate(node: &Node, name: &str) -> Option<(PathBuf, PathBuf)> {
    let paths = [".pem", ".key"].map(|end| node.place.path(&format!("{name}{end}")));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-out")
        .arg(&paths[0])
        .arg("-keyout")
        .arg(&paths[1])
        .stderr(Stdio::null())
        .status();
    let [certificate, key] = paths;
    made.is_ok_and(|made| made.success())
        .then_some((certificate, key))
}

#[test]
fn a_receiver_with_tls_is_known_by_the_roots_of_this_machine() {
    let test = "a_receiver_with_tls_is_known_by_the_roots_of_this_machine";
    let config =
        std::fs::read_to_string(crate::support::repository().join("examples/a2a.toml")).unwrap();
    let node = Node::new(&config);
    let certificates = ["receiver", "another"].map(|name| certificate(&node, name));
    let [Some((certificate, key)), Some((another, _))] = certificates else {
        return skip(test, "no openssl");
    };
    let trusting = |trusted: &std::path::Path| {
        let mut command = node.command(&[]);
        command
            .env("TINKERBELL_A2A__LISTEN", "127.0.0.1:0")
            .env("RUST_LOG", "info")
            .env("SSL_CERT_FILE", trusted);
        let mut daemon = Daemon::spawn(&mut command);
        daemon.ready();
        daemon
    };

    // What it gets goes to its standard output, and what it is given on its standard input is its answer.
    let mut server = Command::new("openssl")
        .args(["s_server", "-4", "-accept", "127.0.0.1:0", "-cert"])
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it was there a moment ago");
    let mut input = server.stdin.take().unwrap();
    let output = Lines::of("the receiver", server.stdout.take().unwrap());
    let (_, accepts) = output.wait_for(0, "its port", |line| line.starts_with("ACCEPT"));
    let port = accepts.rsplit(':').next().unwrap().trim().to_owned();
    let url = format!("https://localhost:{port}/hook");
    let is_request = |line: &str| line.starts_with("POST /hook HTTP/1.1");

    let daemon = trusting(&another);
    let push = json!({"id": "tls", "url": url});
    send(
        &address(&daemon),
        message("greet-me", "hello"),
        Some(push),
        true,
    );
    daemon.get_until("/metrics", |answer| {
        answer
            .body
            .contains("tinkerbell_api_push_notifications_total{result=\"put_off\"} 1")
    });
    assert!(!output.so_far().iter().any(|line| is_request(line)));
    daemon.killed();

    let daemon = trusting(&certificate);
    output.wait_for(0, "the request", is_request);
    output.wait_for(0, "its headers", |line| line.starts_with("content-length:"));
    // One answer at a time: the second event comes only when the first is taken.
    input
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    daemon.get_until("/metrics", |answer| {
        answer
            .body
            .contains("tinkerbell_api_push_notifications_total{result=\"taken\"} 1")
    });
    let _ = server.kill();
    let _ = server.wait();
}

/// A hundred chunks, a question, and a last word.
#[cfg(feature = "ipc")]
const LONG: &str = r#"
[[a2a.skill]]
id = "long"
description = "Has much to say"
default = true
program = "plan"

[[a2a.skill.steps]]
id = "chunks"
artifact = { name = "text", text = "{{ input.message.text }}", chunk_bytes = 1 }

[[a2a.skill.steps]]
id = "more"
needs = ["chunks"]
ask = { prompt = "More?" }

[[a2a.skill.steps]]
id = "end"
needs = ["more"]
say = "That was it."
"#;

#[cfg(feature = "ipc")]
#[test]
fn a_config_is_a_job_whose_history_is_folded_which_shows_no_secrets_and_can_be_replayed() {
    let node = Node::new(LONG);
    let daemon = start(&node, "127.0.0.1:0");
    let here = address(&daemon);
    let receiver = Receiver::new([]);
    let push = json!({
        "id": "mine",
        "url": receiver.url(),
        "token": "s3cret-token",
        "authentication": {"scheme": "Bearer", "credentials": "s3cret-word"},
    });
    let task = send(&here, message("long", &"x".repeat(100)), Some(push), false);
    let all = receiver.until("INPUT_REQUIRED More?");
    // WORKING, the chunks, the question.
    assert_eq!(all.len(), 102);

    let json = |args: &[&str]| -> Value {
        let ended = node.run(args).with(0);
        serde_json::from_str(&ended.stdout).expect("it is JSON")
    };
    let named = format!("push {}", task["id"].as_str().unwrap());
    let listed = json(&["job", "list", "--json", "--name", &named]);
    let job = listed["jobs"][0]["id"]
        .as_str()
        .expect("there is one")
        .to_owned();
    let shown = json(&["job", "show", &job, "--json"]);
    assert_eq!(
        (&shown["program"], &shown["labels"]["a2a.push.id"]),
        (&json!("a2a.push"), &json!("mine"))
    );
    assert_eq!(shown["input"]["to"]["authentication"]["scheme"], "Bearer");
    for secret in ["s3cret-token", "s3cret-word"] {
        assert!(!shown.to_string().contains(secret), "{shown}");
    }

    daemon.killed();
    let daemon = start(&node, "127.0.0.1:0");
    let here = address(&daemon);
    send(&here, answer("no", "no", &task), None, true);
    let rest = receiver.until("COMPLETED That was it.");
    // The question again, if the daemon did not live to know that it was taken.
    let question = all[101].id();
    let rest: Vec<_> = rest.iter().filter(|next| next.id() != question).collect();
    assert_eq!(rest.len(), 3, "{rest:?}");
    node.run(&["job", "logs", &job, "--follow"]).with(0);
    let over = json(&["job", "show", &job, "--json"]);
    assert_eq!(
        (&over["state"], &over["result"]["output"]["sent"]),
        (&json!("completed"), &json!(105)),
        "{over}"
    );
    daemon.signal(rustix::process::Signal::TERM);
    daemon.ended().with(0);
    let entries = node.run(&["log", "cat"]).with(0).stdout;
    assert!(entries.contains("checkpoint"), "its history was folded");
    node.run(&["replay", &job, "--json"]).with(0);
}
