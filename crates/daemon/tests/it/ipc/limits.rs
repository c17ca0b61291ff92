//! Limits: each refuses clearly, at once, and is free again when what it counts is over.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::json;

use super::{shell, up};
use crate::support::{Ipc, parse};

#[test]
fn one_connection_too_many_is_told_so_and_closed() {
    let (_node, daemon, ipc) = up("[api]\nconnections = 3\n");
    let held: Vec<_> = (0..3).map(|_| ipc.stream("/v1/events", "")).collect();
    let refused = ipc.get("/v1/node");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.header("retry-after").is_some());
    let why = refused.problem(429, "exhausted");
    assert!(
        why.contains("3 connections") && why.contains("`api.connections`"),
        "{why}"
    );
    let refusals =
        "tinkerbell_api_connections_refused_total{transport=\"ipc\",reason=\"too_many\"}";
    assert_eq!(daemon.get("/metrics").metric(refusals), 1.0);
    drop(held);
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_connections{transport=\"ipc\"}") == 0.0
    });
    ipc.get("/v1/node").with(200);
}

/// A request that is taken in and not answered, since its body does not come.
fn unanswered(ipc: &Ipc) -> UnixStream {
    let mut stream = ipc.connect();
    write!(
        stream,
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999\r\n\r\n"
    )
    .expect("sent");
    // That it is asked for its body shows that it was taken in.
    let interim = parse(&mut BufReader::new(&stream).take_head()).expect("an interim answer");
    assert_eq!(interim.status, 100);
    stream
}

trait TakeHead {
    /// Only the head of an answer that has no body and leaves the connection open.
    fn take_head(self) -> BufReader<std::io::Cursor<Vec<u8>>>;
}

impl<T: std::io::Read> TakeHead for BufReader<T> {
    fn take_head(mut self) -> BufReader<std::io::Cursor<Vec<u8>>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = std::io::BufRead::read_until(&mut self, b'\n', &mut head);
            assert!(
                read.is_ok_and(|read| read > 0),
                "a head ends with an empty line"
            );
        }
        BufReader::new(std::io::Cursor::new(head))
    }
}

#[test]
fn one_request_too_many_is_refused() {
    let (_node, daemon, ipc) = up("[api]\nrequests = 2\n");
    let held = [unanswered(&ipc), unanswered(&ipc)];
    let why = ipc.get("/v1/node").problem(429, "exhausted");
    assert!(
        why.contains("2 requests") && why.contains("`api.requests`"),
        "{why}"
    );
    drop(held);
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_connections{transport=\"ipc\"}") == 0.0
    });
    ipc.get("/v1/node").with(200);
}

#[test]
fn one_stream_too_many_is_refused_by_client_and_in_all() {
    let (_node, daemon, ipc) = up("[api]\nstreams_per_client = 2\nstreams = 3\n");
    let mut held = vec![ipc.stream("/v1/events", ""), ipc.stream("/v1/events", "")];
    let why = ipc.get("/v1/events").problem(429, "exhausted");
    let me = std::process::id();
    assert!(
        why.contains(&format!("pid {me} has 2 streams"))
            && why.contains("`api.streams_per_client`"),
        "{why}"
    );
    // What is no stream goes on.
    let job = ipc.submit(&shell("true"));
    held.pop();
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_streams") == 1.0
    });
    ipc.all_of(&job);
    drop(held);
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_streams") == 0.0
    });

    let (_node, _daemon, ipc) = up("[api]\nstreams = 1\n");
    let _held = ipc.stream("/v1/events", "");
    let why = ipc.get("/v1/events").problem(429, "exhausted");
    assert!(
        why.contains("1 streams") && why.contains("`api.streams`"),
        "{why}"
    );
}

#[test]
fn what_is_too_large_is_refused_before_it_is_held() {
    let (_node, daemon, ipc) =
        up("[api]\nmessage_size = \"64KiB\"\n[limits]\nspec_size = \"8KiB\"\n");
    let long = "x".repeat(16 * 1024);
    let why = ipc
        .post("/v1/jobs", &shell(&long))
        .problem(413, "too_large");
    assert!(why.contains("`limits.spec_size`"), "{why}");
    let longer = json!(long.repeat(8));
    let why = ipc.post("/v1/jobs", &longer).problem(413, "too_large");
    assert!(
        why.contains("65536 bytes") && why.contains("`api.message_size`"),
        "{why}"
    );

    // A giant announces itself, or comes in pieces: it is not waited for in either case.
    let memory = super::streams::resident_kib(daemon.pid());
    let announced = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n{}";
    let answer = String::from_utf8_lossy(&ipc.raw(announced)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut chunked =
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..1024 {
        chunked.extend_from_slice(b"8000\r\n");
        chunked.resize(chunked.len() + 0x8000, b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    let answer = String::from_utf8_lossy(&ipc.raw(&chunked)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:.100}");
    let grown = super::streams::resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    ipc.get("/v1/node").with(200);
}

#[test]
fn one_live_job_too_many_is_refused_and_may_come_later() {
    let (_node, _daemon, ipc) = up("[limits]\nlive_jobs = 1\n");
    let job = ipc.submit_plan(&super::asking());
    let refused = ipc.post("/v1/jobs", &shell("true"));
    assert_eq!(refused.json()["retry_after_ms"], 1000);
    assert!(
        refused
            .problem(429, "exhausted")
            .contains("`limits.live_jobs`")
    );
    ipc.post(&format!("/v1/jobs/{job}/cancel"), &json!({}))
        .with(202);
    ipc.all_of(&job);
    ipc.submit(&shell("true"));
}
