//! gRPC as others speak it: grpcio with reflection and health checking (`tests/clients/grpc_client.py`), and bytes that no
//! client sends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Daemon, Lines, Node, PATIENCE, certificate, repository, skip};

/// Python with grpcio; `cargo xtask test` puts it there.
pub(crate) fn python() -> Result<PathBuf, String> {
    let python = repository().join("target/tools/python-grpc/bin/python");
    match python.exists() {
        true => Ok(python),
        false => Err("no grpcio; `cargo xtask test` fetches it".to_owned()),
    }
}

/// Where it listens, as it has said.
pub(crate) fn address(daemon: &Daemon) -> String {
    let (_, line) = daemon
        .stderr
        .wait_for(0, "its address", |line| line.contains("serving grpc"));
    let line: serde_json::Value = serde_json::from_str(&line).expect("log lines are JSON");
    line["address"]
        .as_str()
        .expect("the line holds an address")
        .to_owned()
}

/// A client at work; killed when it is dropped.
pub(crate) struct Client {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    read: usize,
}

impl Client {
    pub(crate) fn start(
        python: &PathBuf,
        target: &str,
        options: &[&str],
        scenario: &[&str],
    ) -> Self {
        let script = repository().join("crates/daemon/tests/clients/grpc_client.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(target)
            .args(options)
            .args(scenario)
            // A proxy of this machine is not asked for what is on this machine.
            .env("no_proxy", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let stdout = child.stdout.take().expect("it was piped");
        let stderr = child.stderr.take().expect("it was piped");
        Self {
            stdout: Lines::of("a client's output", stdout),
            stderr: Lines::of("a client's errors", stderr),
            child,
            read: 0,
        }
    }

    /// Sends it a line.
    #[cfg(feature = "ipc")]
    pub(crate) fn tell(&self, line: &str) {
        let mut stdin = self.child.stdin.as_ref().expect("it was piped");
        writeln!(stdin, "{line}").expect("the client reads");
    }

    /// All that it says.
    #[cfg(feature = "ipc")]
    pub(crate) fn lines(&self) -> Lines {
        self.stdout.clone()
    }

    /// The next line it says.
    #[track_caller]
    fn says(&mut self) -> String {
        let read = self.read;
        self.read += 1;
        self.stdout.wait_for(read, "a line", |_| true).1
    }

    /// Waits for its end, which must be a good one.
    #[track_caller]
    fn ends_well(mut self) -> Vec<String> {
        let said = self.stdout.all();
        let status = self.child.wait().expect("a child can be waited for");
        assert!(
            status.success(),
            "{said:?}\n{}",
            self.stderr.all().join("\n")
        );
        said
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the client's errors:\n{}", self.stderr.all().join("\n"));
        }
    }
}

const LOOPBACK: &str = "[grpc]\nlisten = [\"127.0.0.1:0\"]\n";

/// A node that serves gRPC, and Python to speak it; nothing if there is none.
fn serving(test: &str, config: &str) -> Option<(Node, Daemon, PathBuf)> {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            skip(test, &reason);
            return None;
        }
    };
    let node = Node::new(config);
    let daemon = node.start();
    Some((node, daemon, python))
}

#[track_caller]
fn run(python: &PathBuf, target: &str, options: &[&str], scenario: &str) {
    Client::start(python, target, options, &[scenario]).ends_well();
}

#[test]
fn everything_that_can_be_done_with_jobs_is_done_by_grpcio() {
    let test = "everything_that_can_be_done_with_jobs_is_done_by_grpcio";
    let Some((_node, daemon, python)) = serving(test, LOOPBACK) else {
        return;
    };
    run(&python, &address(&daemon), &[], "jobs");
    let metrics = daemon.get("/metrics").body;
    for line in [
        "tinkerbell_api_requests_total{transport=\"grpc\",method=\"job.submit\",code=\"ok\"}",
        "tinkerbell_api_requests_total{transport=\"grpc\",method=\"job.submit\",code=\"conflict\"}",
        "tinkerbell_api_requests_total{transport=\"grpc\",method=\"health.check\",code=\"ok\"}",
        "tinkerbell_api_requests_total{transport=\"grpc\",method=\"reflection\",code=\"ok\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn what_is_refused_has_a_code_a_text_and_details() {
    let test = "what_is_refused_has_a_code_a_text_and_details";
    let config = format!("{LOOPBACK}[api]\nmessage_size = \"4KiB\"\nstreams = 4\n");
    let Some((_node, daemon, python)) = serving(test, &config) else {
        return;
    };
    run(&python, &address(&daemon), &[], "refusals");
}

#[test]
fn a_unix_socket_serves_its_owner() {
    let test = "a_unix_socket_serves_its_owner";
    let config = "[grpc]\nlisten = [\"sockets/grpc.sock\"]\n";
    let Some((node, daemon, python)) = serving(test, config) else {
        return;
    };
    let socket = node.place.path("sockets/grpc.sock");
    run(&python, &format!("unix:{}", socket.display()), &[], "here");
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);
    assert!(!socket.exists(), "it is removed at the end");
}

/// Waits where its test says; the question is answered by a client.
const ASKS: &str = r#"{"steps":[
    {"id":"a","run":{"shell":"echo a"}},
    {"id":"may","needs":["a"],"ask":{"prompt":"go on?","approval":true}},
    {"id":"b","needs":["may"],"run":{"shell":"echo b"}}]}"#;

#[test]
fn a_watch_that_resumes_after_a_kill_misses_nothing_and_tells_nothing_twice() {
    let test = "a_watch_that_resumes_after_a_kill_misses_nothing_and_tells_nothing_twice";
    let Some((node, daemon, python)) = serving(test, LOOPBACK) else {
        return;
    };
    let target = address(&daemon);
    let job = Client::start(&python, &target, &[], &["submit", ASKS])
        .ends_well()
        .remove(0);
    let mut watching = Client::start(&python, &target, &[], &["watch", &job, "0"]);
    let mut told = Vec::new();
    loop {
        let line = watching.says();
        let is_question = line.ends_with(" question");
        told.push(line);
        if is_question {
            break;
        }
    }
    daemon.killed();
    let mut rest = watching.ends_well().split_off(told.len());
    assert_eq!(rest.pop().as_deref(), Some("lost"));
    told.append(&mut rest);

    let daemon = node.start();
    let target = address(&daemon);
    let last = told
        .last()
        .and_then(|line| line.split(' ').next())
        .expect("it told something");
    let mut watching = Client::start(&python, &target, &[], &["watch", &job, last]);
    Client::start(&python, &target, &[], &["signal", &job, "may"]).ends_well();
    loop {
        let line = watching.says();
        if line.starts_with("end ") {
            assert_eq!(line, "end 1", "the job is over");
            break;
        }
        told.push(line);
    }
    watching.ends_well();
    let mut whole = Client::start(&python, &target, &[], &["watch", &job, "0"]).ends_well();
    whole.pop();
    let numbers = |lines: &[String]| -> Vec<String> {
        let lines = lines
            .iter()
            .filter(|line| !line.ends_with(" job_recovered"));
        lines.cloned().collect()
    };
    assert_eq!(numbers(&told), numbers(&whole));
}

#[test]
fn open_streams_end_with_the_daemon_and_hold_nothing_up() {
    let test = "open_streams_end_with_the_daemon_and_hold_nothing_up";
    let config = format!("{LOOPBACK}[shutdown]\ngrace = \"60s\"\n");
    let Some((node, mut daemon, python)) = serving(test, &config) else {
        return;
    };
    let mut go = node.place.barrier("go");
    let mut client = Client::start(&python, &address(&daemon), &[], &["shutdown"]);
    assert_eq!(client.says(), "open");
    daemon.signal(Signal::TERM);
    daemon.logged("stopping: signal 15");
    assert_eq!(client.says(), "refused");
    go.release(1);
    assert_eq!(client.says(), "ended");
    client.ends_well();
    daemon.ended().with(0);
}

/// A client that holds a connection and a stream open and reads nothing more of it.
#[test]
fn a_client_that_is_gone_without_a_word_holds_no_shutdown_up() {
    let node = Node::new(LOOPBACK);
    let daemon = node.start();
    let address: SocketAddr = address(&daemon).parse().expect("it is one of TCP");
    let mut silent = TcpStream::connect(address).expect("it listens");
    silent.write_all(PREFACE).expect("it is taken");
    let _half_open = TcpStream::connect(address).expect("it listens");
    // Its settings are here, so the connection is served.
    silent.read_exact(&mut [0; 9]).expect("it answers");
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);
}

#[test]
fn drain_and_shutdown_are_asked_for() {
    let test = "drain_and_shutdown_are_asked_for";
    let Some((_node, daemon, python)) = serving(test, LOOPBACK) else {
        return;
    };
    run(&python, &address(&daemon), &[], "node_shutdown");
    daemon.ended().with(0);
}

#[test]
fn beyond_the_last_connection_a_client_is_told_so() {
    let test = "beyond_the_last_connection_a_client_is_told_so";
    let config = format!("{LOOPBACK}[api]\nconnections = 1\n");
    let Some((_node, daemon, python)) = serving(test, &config) else {
        return;
    };
    run(&python, &address(&daemon), &[], "full");
}

#[test]
fn without_the_token_there_is_only_health() {
    let test = "without_the_token_there_is_only_health";
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip(test, &reason),
    };
    let node = Node::new("[grpc]\nlisten = [\"127.0.0.1:0\"]\ntoken_file = \"token\"\n");
    node.place.write("token", "let-me-in\n");
    let daemon = node.start();
    let target = address(&daemon);
    run(&python, &target, &["--token", "let-me-in"], "here");
    run(&python, &target, &[], "no_token");
}

#[test]
fn tls_shows_who_serves_and_asks_who_calls() {
    let test = "tls_shows_who_serves_and_asks_who_calls";
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip(test, &reason),
    };
    let with_tls =
        format!("{LOOPBACK}tls_cert_file = \"server.crt\"\ntls_key_file = \"server.key\"\n");
    let node = Node::new(&with_tls);
    let made = ["server", "client"].map(|name| certificate(&node, "ca", name));
    if let Some(reason) = made.into_iter().find_map(Result::err) {
        return skip(test, &reason);
    }
    certificate(&node, "other-ca", "stranger").expect("openssl was there a moment ago");
    let file = |name: &str| node.place.path(name).display().to_string();
    let (ca, other_ca) = (file("ca.crt"), file("other-ca.crt"));
    let identity = |name: &str| {
        let (crt, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        [
            "--ca".to_owned(),
            ca.clone(),
            "--cert".to_owned(),
            crt,
            "--key".to_owned(),
            key,
        ]
    };

    let daemon = node.start();
    let target = address(&daemon);
    run(&python, &target, &["--ca", &ca], "here");
    run(&python, &target, &["--ca", &other_ca], "turned_away");
    run(&python, &target, &[], "turned_away");
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);

    node.configure(&format!("{with_tls}tls_client_ca_file = \"ca.crt\"\n"));
    let daemon = node.start();
    let target = address(&daemon);
    let [client, stranger] = ["client", "stranger"].map(identity);
    run(
        &python,
        &target,
        &client.each_ref().map(String::as_str),
        "here",
    );
    run(
        &python,
        &target,
        &stranger.each_ref().map(String::as_str),
        "turned_away",
    );
    run(&python, &target, &["--ca", &ca], "turned_away");
}

#[test]
fn a_port_for_other_machines_takes_a_token_or_their_certificates() {
    let node = Node::new("[grpc]\nlisten = [\"0.0.0.0:50051\"]\n");
    let refused = node.run(&["config", "check"]).with(78);
    assert!(
        refused.stderr.contains("grpc.tls_client_ca_file"),
        "{}",
        refused.stderr
    );
    node.configure("[grpc]\ntls_cert_file = \"a\"\n");
    let refused = node.run(&["config", "check"]).with(78);
    assert!(
        refused.stderr.contains("`grpc.tls_key_file`"),
        "{}",
        refused.stderr
    );
    node.configure("[grpc]\nlisten = [\"localhost:50051\"]\n");
    let refused = node.run(&["config", "check"]).with(78);
    assert!(
        refused.stderr.contains("127.0.0.1:50051"),
        "{}",
        refused.stderr
    );
    node.place.write("a", "not PEM");
    node.configure("[grpc]\ntls_cert_file = \"a\"\ntls_key_file = \"a\"\n");
    let refused = node.run(&["config", "check"]).with(78);
    assert!(refused.stderr.contains("certificate"), "{}", refused.stderr);
}

#[test]
fn a_port_in_use_ends_the_boot_and_names_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let node = Node::new(&format!("[grpc]\nlisten = [\"{address}\"]\n"));
    let ended = node.spawn().ended().with(78);
    assert!(
        ended.stderr.contains("cannot serve grpc"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("`grpc.listen`"), "{}", ended.stderr);
    let holder = format!("pid {}", std::process::id());
    assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
}

/// What begins a connection of HTTP/2 (RFC 9113, section 3.4), and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of HTTP/2 (RFC 9113, section 4.1), with a length that need not be that of its payload.
fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The headers of a call, as HPACK literals without an index (RFC 7541, section 6.2.2).
fn headers(path: &str, content_type: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", content_type),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("it is short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

#[test]
fn a_client_that_takes_no_answer_is_cut_off() {
    let node = Node::new(&format!("{LOOPBACK}[api]\nstall = \"100ms\"\n"));
    let daemon = node.start();
    let address: SocketAddr = address(&daemon).parse().expect("it is one of TCP");
    let list = headers("/tinkerbell.v1.NodeService/Get", "application/grpc");
    let length = u32::try_from(list.len()).expect("it is short");
    // SETTINGS_INITIAL_WINDOW_SIZE (4) is 0: no answer may be sent.
    let bytes = [
        PREFACE.to_vec(),
        frame(6, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(length, HEADERS, END_HEADERS, 1, &list),
        frame(5, DATA, END_STREAM, 1, &[0; 5]),
    ];
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it can be set");
    stream.write_all(&bytes.concat()).expect("it is taken");
    // Its end comes from the server, since this side holds the connection open.
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn whatever_bytes_come_the_daemon_serves_on() {
    let test = "whatever_bytes_come_the_daemon_serves_on";
    let Some((_node, daemon, python)) = serving(test, LOOPBACK) else {
        return;
    };
    let address: SocketAddr = address(&daemon).parse().expect("it is one of TCP");
    let get = headers("/tinkerbell.v1.JobService/Get", "application/grpc");
    let length = u32::try_from(get.len()).expect("it is short");
    let call = frame(length, HEADERS, END_HEADERS, 1, &get);
    let with_data = |payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("it is short");
        [call.clone(), frame(length, DATA, END_STREAM, 1, payload)].concat()
    };
    let form = headers("/tinkerbell.v1.JobService/Get", "text/plain");
    let form_length = u32::try_from(form.len()).expect("it is short");
    let preface = |bytes: Vec<u8>| [PREFACE.to_vec(), bytes].concat();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "noise",
            (0..4096)
                .map(|n: u32| u8::try_from(n * 37 % 251).unwrap_or(0))
                .collect(),
        ),
        ("half a preface", PREFACE[..10].to_vec()),
        (
            "a frame cut off",
            preface(frame(100, HEADERS, END_HEADERS, 1, &get[..20])),
        ),
        (
            "a frame too large",
            preface(frame(0x00ff_ffff, DATA, 0, 1, b"x")),
        ),
        (
            "no header block",
            preface(frame(4, HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff")),
        ),
        (
            "a message cut off",
            preface(with_data(b"\0\0\0\0\x64\x0a\x02ab")),
        ),
        (
            "a giant's length",
            preface(with_data(b"\0\xff\xff\xff\xff\x0a")),
        ),
        ("no prefix", preface(with_data(b"\0\0"))),
        (
            "no flag of compression",
            preface(with_data(b"\x07\0\0\0\0")),
        ),
        (
            "a web page's form",
            preface(frame(
                form_length,
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &form,
            )),
        ),
        (
            "stream 0",
            preface(frame(length, HEADERS, END_HEADERS, 0, &get)),
        ),
    ];
    for (what, bytes) in bad {
        let mut stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{what}: {error}"));
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it can be set");
        // The server may have hung up before the last byte.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            let is_reset = error.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(is_reset, "{what}: {error}");
        }
    }
    // What is slow holds a place, and nothing else.
    let _slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream
                .write_all(&preface(call.clone()))
                .expect("it is taken");
            stream
        })
        .collect();
    run(&python, &address.to_string(), &[], "jobs");
    assert!(!daemon.ends_within(Duration::ZERO));
}
