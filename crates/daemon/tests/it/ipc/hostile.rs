//! What no client should send: the daemon says so, or closes, and serves everybody else as before.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;

use super::streams::resident_kib;
use super::{DEFAULTS, asking, up};
use crate::support::Ipc;

/// The status of each answer in what came back.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer).replace("HTTP/1.0 ", "HTTP/1.1 ");
    // A body ends without a line's end.
    let status = |line: &str| line.get(..3)?.parse().ok();
    text.split("HTTP/1.1 ").skip(1).filter_map(status).collect()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Requests that are nothing, each with the status that it is answered with; 0 for none at all.
fn nonsense(job: &str) -> Vec<(Vec<u8>, u16)> {
    let mut cases: Vec<(Vec<u8>, u16)> = vec![
        (b"\0\0\0\0\0\0\0\0\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"hello\r\n\r\n".to_vec(), 400),
        (b"GET /v1/node\r\n\r\n".to_vec(), 400),
        (b"GET /v1/node HTTP/9.9\r\n\r\n".to_vec(), 400),
        // The beginning of HTTP/2, which there is not.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 0),
        (b"GET  /v1/node HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400),
        (b"GET /v1/node HTTP/1.1\r\nHost\r\n\r\n".to_vec(), 400),
        (b"GET /v1/node HTTP/1.1\r\nHost : x\r\n\r\n".to_vec(), 400),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(), 400),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_vec(), 400),
        (b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_vec(), 400),
        (b"POST /v1/jobs HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), 400),
        (b"BREW /v1/jobs HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 405),
        (b"CONNECT x:1 HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 404),
        (b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 404),
        (b"TRACE /v1/node HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), 405),
        (b"GET /v1/node HTTP/1.0\r\n\r\n".to_vec(), 200),
        (format!("GET /v1/node HTTP/1.1\r\nBig: {}\r\n\r\n", "x".repeat(1_000_000)).into_bytes(), 431),
        (format!("GET /v1/node HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000)).into_bytes(), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)).into_bytes(), 414),
    ];
    for (target, status) in [
        ("/", 404),
        ("/v1/../../../../etc/passwd", 404),
        ("/v1/jobs/../node", 404),
        ("/v1/jobs/..%2f..%2f..%2fetc%2fpasswd", 404),
        ("/v1/jobs/%2e%2e", 404),
        ("/v1/jobs/%00", 404),
        ("/v1/jobs/%", 404),
        ("/v1/jobs/%zz", 404),
        ("/v1/jobs/%ff%fe", 400),
        ("/v1/jobs/%c0%af", 400),
        ("/v1/jobs/%f0%9f%a7%9a", 404),
        ("/v1/jobs//events", 404),
        ("/v1/jobs/?limit=1", 404),
        ("/v2/node", 404),
        ("/v1/node?x", 400),
        ("/v1/node?%ff=%fe", 400),
        ("/v1/jobs?limit=99999999999999999999999999", 400),
        ("/v1/jobs?before=' OR 1=1", 400),
        ("/v1/jobs?before=%27%20OR%201%3D1", 400),
        ("/v1/history?after=-1", 400),
        ("/v1/history?after=1e3", 400),
        ("/v1/events?output=yes", 400),
        ("http://elsewhere.example/v1/node", 200),
    ] {
        // A blank ends a request's target: what follows it is no version.
        cases.push((get(target), status));
    }
    for name in ["..%2f..%2fx", "%2e%2e", "a%00b"] {
        cases.push((get(&format!("/v1/jobs/{job}/artifacts/{name}")), 404));
    }
    let deep = "[".repeat(200_000);
    let nested = "[".repeat(400) + &"]".repeat(400);
    let bodies: [(&[u8], u16); 16] = [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"{", 400),
        (b"{}{}", 400),
        (b"\xff\xfe", 400),
        (
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"\xff\"]}}",
            400,
        ),
        (b"{\"program\":1,\"input\":{}}", 400),
        (
            b"{\"program\":\"command\",\"program\":\"plan\",\"input\":{}}",
            400,
        ),
        (b"{\"program\":\"command\",\"input\":{\"argv\":[]}}", 400),
        (
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"true\"]},\"labels\":{\"a\":1}}",
            400,
        ),
        (
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"true\"]},\"priority\":\"now\"}",
            400,
        ),
        (
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"true\"],\"x\":1e999}}",
            400,
        ),
        (
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"\\ud800\"]}}",
            400,
        ),
        (deep.as_bytes(), 400),
        (nested.as_bytes(), 400),
    ];
    for (body, status) in bodies {
        cases.push((post("/v1/jobs", "", body), status));
    }
    for body in [
        b"\xff".as_slice(),
        b"1e999",
        b"\"\\ud800\"",
        b"{\"\\udc00\":1}",
        deep.as_bytes(),
        nested.as_bytes(),
    ] {
        cases.push((post(&format!("/v1/jobs/{job}/signals/x"), "", body), 400));
    }
    cases.push((post("/v1/jobs", "Content-Type: text/html\r\n", b"{}"), 415));
    cases.push((
        post(
            "/v1/jobs",
            "Idempotency-Key: \u{fc}\r\n",
            b"{\"program\":\"command\",\"input\":{\"argv\":[\"true\"]}}",
        ),
        400,
    ));
    cases
}

fn still_serves(ipc: &Ipc) {
    ipc.get("/v1/node").with(200);
}

#[test]
fn nonsense_is_refused_and_everybody_else_is_served_as_before() {
    const ROUNDS: usize = 20;
    let (_node, daemon, ipc) = up(DEFAULTS);
    let job = ipc.submit_plan(&asking());
    ipc.until_waiting(&job);
    let cases = nonsense(&job);
    let (mut memory, mut wrong) = (0, Vec::new());
    for round in 0..ROUNDS {
        for (request, status) in &cases {
            let answer = ipc.raw(request);
            let expected: &[u16] = if *status == 0 { &[] } else { &[*status] };
            let body = String::from_utf8_lossy(&answer);
            if statuses(&answer) != expected {
                let request = String::from_utf8_lossy(request);
                wrong.push(format!("{status} expected:\n{request:.200}\n{body:.500}\n"));
            }
            let (_, body) = body.split_once("\r\n\r\n").unwrap_or_default();
            assert!(!body.contains("root:"), "{body}");
        }
        assert!(wrong.is_empty(), "{}", wrong.concat());
        // What the first round costs is kept: caches, buffers, threads.
        if round == ROUNDS / 4 {
            memory = resident_kib(daemon.pid());
        }
    }
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let shown = ipc.get(&format!("/v1/jobs/{job}")).with(200).json();
    assert_eq!(shown["state"], "waiting");
    assert_eq!(
        ipc.get("/v1/jobs").json()["jobs"].as_array().map(Vec::len),
        Some(1),
        "none of it became a job"
    );
    assert!(daemon.has_logged("work for a client died").is_empty());
}

#[test]
fn a_request_that_is_cut_off_anywhere_costs_nothing() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    let whole = post(
        "/v1/jobs",
        "Content-Type: application/json\r\n",
        super::shell("true").to_string().as_bytes(),
    );
    let mut memory = 0;
    for round in 0..4 {
        for length in 0..whole.len() {
            let mut stream = ipc.connect();
            stream.write_all(&whole[..length]).expect("sent");
            if length % 2 == 0 {
                // Only its half is closed: an answer could still be read.
                stream.shutdown(Shutdown::Write).expect("it can be closed");
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                assert!(
                    statuses(&answer).iter().all(|&status| status == 400),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
        if round == 0 {
            memory = resident_kib(daemon.pid());
        }
    }
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_connections{transport=\"ipc\"}") == 0.0
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    assert_eq!(
        ipc.get("/v1/jobs").json()["jobs"],
        json!([]),
        "half a job is none"
    );
}

#[test]
fn who_closes_half_of_a_connection_is_taken_to_be_gone() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    let halves: Vec<_> = ["/v1/node", "/v1/events", "/v1/jobs/nobody"]
        .into_iter()
        .map(|path| {
            let mut stream = ipc.connect();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            stream.shutdown(Shutdown::Write).expect("it can be closed");
            stream
        })
        .collect();
    for mut half in halves {
        // A stream to somebody who is gone would be one that nobody ends.
        let mut answer = Vec::new();
        half.read_to_end(&mut answer).expect("the connection ends");
    }
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_streams") == 0.0
    });
    still_serves(&ipc);
}

#[test]
fn requests_behind_one_another_are_answered_in_order_up_to_the_nonsense() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let one = "GET /v1/node HTTP/1.1\r\nHost: x\r\n\r\n";
    let other = "GET /v1/jobs/nobody HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = ipc.raw(format!("{one}{other}{one}\u{1f9da} what?\r\n\r\n{one}").as_bytes());
    assert_eq!(
        statuses(&answer),
        [200, 404, 200, 400],
        "{}",
        String::from_utf8_lossy(&answer)
    );
    still_serves(&ipc);
}

#[test]
fn a_payload_as_deep_as_may_be_harms_nobody() {
    let (node, daemon, ipc) = up(DEFAULTS);
    let job = ipc.submit_plan(&json!([
        {"id": "ask", "ask": {"prompt": "Well?"}},
        {"id": "say", "needs": ["ask"], "artifact": {"name": "a", "data": {"deep": ["{{ steps.ask }}"]}}},
    ]));
    let mut events = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
    let name = events.until("question").data["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    ipc.until_waiting(&job);
    let path = format!("/v1/jobs/{job}/signals/{name}");
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    // The deepest that is taken.
    let taken = (1..=128).rev().find(|&depth| {
        let answer = ipc.request("POST", &path, "", deep(depth).as_bytes());
        answer.status == 202 || answer.problem(400, "invalid").is_empty()
    });
    assert!(taken.is_some_and(|depth| depth >= 32), "{taken:?}");
    assert_eq!(events.until("end").data["reason"], "job_over");
    for path in [
        "",
        "/history",
        "/logs",
        "/result",
        "/artifacts",
        "/artifacts/a",
    ] {
        let answer = ipc.get(&format!("/v1/jobs/{job}{path}"));
        assert!(answer.status < 500, "{path}: {answer:?}");
    }
    daemon.killed();
    let _daemon = node.start();
    still_serves(&ipc);
}

#[test]
fn slow_senders_are_cut_off_in_time_and_meanwhile_keep_nobody_out() {
    const PATIENCE: Duration = Duration::from_secs(100);
    let (_node, daemon, ipc) = up(DEFAULTS);
    let begin = |bytes: &[u8]| {
        let mut stream = ipc.connect();
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        stream.write_all(bytes).expect("sent");
        stream
    };
    let mut heads: Vec<_> = (0..200)
        .map(|_| begin(b"GET /v1/node HTTP/1.1\r\nHost: x\r\nX: "))
        .collect();
    let mut bodies: Vec<_> = (0..200)
        .map(|_| begin(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{"))
        .collect();
    for _ in 0..100 {
        still_serves(&ipc);
        for slow in heads.iter_mut().chain(&mut bodies).step_by(7) {
            slow.write_all(b" ").expect("it is still there");
        }
    }
    for mut slow in bodies {
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer);
        assert_eq!(
            statuses(&answer),
            [408],
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    for mut slow in heads {
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer);
        assert!(
            statuses(&answer).iter().all(|&status| status == 408),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_connections{transport=\"ipc\"}") == 0.0
    });
    still_serves(&ipc);
}
