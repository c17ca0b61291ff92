//! Streams: from the beginning, resumed after anything, ended in order, and never held up by a reader that is too slow.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{DEFAULTS, asking, up};
use crate::support::{Ipc, Message};

/// What the log has, page by page.
fn history(ipc: &Ipc, path: &str, limit: usize) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = ipc
            .get(&format!("{path}?after={after}&limit={limit}"))
            .with(200)
            .json();
        let of_page = page["events"].as_array().expect("events");
        assert!(of_page.len() <= limit, "{page}");
        events.extend(of_page.iter().cloned());
        let Some(next) = page["next"].as_u64() else {
            return events;
        };
        assert_eq!(of_page.len(), limit, "only a full page has a next one");
        after = next;
    }
}

/// What happened, without when and for how long: as the log has it and as it was shown live are the same but for that.
fn facts(event: &Value) -> Value {
    let mut event = event.clone();
    for time in ["at_ms", "duration_us"] {
        event.as_object_mut().expect("an event").remove(time);
    }
    event
}

fn facts_of(messages: &[Message]) -> Vec<Value> {
    let durable = messages.iter().filter(|message| message.id.is_some());
    durable.map(|message| facts(&message.data)).collect()
}

fn steps(count: usize) -> Value {
    let step = |number: usize| json!({"id": format!("s{number}"), "say": format!("step {number}")});
    (0..count).map(step).collect()
}

#[test]
fn a_job_is_watched_from_its_beginning_whenever_one_comes() {
    let (node, _daemon, ipc) = up(DEFAULTS);
    let mut barrier = node.place.barrier("go");
    let job = ipc.submit_plan(&json!([
        {"id": "first", "say": "hello"},
        {"id": "wait", "needs": ["first"], "class": "read", "run": {"shell": "cd $TINKERBELL_START_DIR; echo here; read _ < go"}},
        {"id": "last", "needs": ["wait"], "say": "bye"},
    ]));
    let path = format!("/v1/jobs/{job}/events");
    let mut early = ipc.stream(&path, "");
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|message: &Message| message.kind() != "step_output")
    {
        seen.push(early.next().expect("the job is not over"));
    }
    // One comes in the middle, one at the end: both see all of it.
    let middle = ipc.stream(&path, "");
    barrier.release(1);
    seen.extend(early.rest());
    let middle = middle.rest();
    let late = ipc.stream(&path, "").rest();
    assert_eq!(facts_of(&seen), facts_of(&middle));
    assert_eq!(facts_of(&seen), facts_of(&late));
    let durable = facts_of(&seen);
    assert_eq!(
        durable,
        history(&ipc, &format!("/v1/jobs/{job}/history"), 3)
            .iter()
            .map(facts)
            .collect::<Vec<_>>()
    );
    assert_eq!(durable.first().expect("an event")["type"], "job_submitted");
    for messages in [&seen, &middle, &late] {
        assert_eq!(
            messages.last().expect("an end").data,
            json!({"reason": "job_over", "state": "completed"})
        );
        assert!(
            messages
                .windows(2)
                .all(|two| two[1].id.is_none() || two[0].id < two[1].id)
        );
    }
    let quiet = ipc.stream(&format!("{path}?output=false"), "").rest();
    assert!(quiet.iter().all(|message| message.kind() != "step_output"));

    // From any place on.
    for message in late.iter().filter(|message| message.id.is_some()) {
        let from = message.id.expect("an id");
        let rest = ipc
            .stream(&path, &format!("Last-Event-ID: {from}\r\n"))
            .rest();
        let expected: Vec<_> = late
            .iter()
            .filter(|message| message.id.is_some_and(|id| id > from))
            .cloned()
            .collect();
        assert_eq!(facts_of(&rest), facts_of(&expected), "after {from}");
        assert_eq!(
            rest.last().expect("an end").data,
            json!({"reason": "job_over", "state": "completed"})
        );
        assert_eq!(ipc.stream(&format!("{path}?after={from}"), "").rest(), rest);
    }
    for header in [
        "Last-Event-ID: x\r\n",
        "Last-Event-ID: -1\r\n",
        "Last-Event-ID: 18446744073709551616\r\n",
    ] {
        ipc.request("GET", &path, header, b"")
            .problem(400, "invalid");
    }
}

#[test]
fn a_watcher_that_comes_back_after_kills_has_missed_nothing_and_has_nothing_twice() {
    const JOBS: usize = 12;
    let (node, mut daemon, ipc) = up(DEFAULTS);
    let mut seen: Vec<Message> = Vec::new();
    let mut submitted = 0;
    for life in 0..4 {
        let last = seen.iter().filter_map(|message| message.id).max();
        let header = last.map_or_else(
            || "Last-Event-ID: 0\r\n".to_owned(),
            |id| format!("Last-Event-ID: {id}\r\n"),
        );
        let mut stream = ipc.stream("/v1/events", &header);
        if life < 3 {
            for _ in 0..JOBS / 3 {
                ipc.submit(&json!({"program": "plan", "input": {"steps": steps(5)}}));
                submitted += 1;
            }
        }
        // Killed in the middle of it, with whatever was on its way.
        let wanted = if life < 3 { 7 + life * 3 } else { usize::MAX };
        let mut taken = 0;
        while taken < wanted {
            let over = seen
                .iter()
                .filter(|message| message.kind() == "job_finished")
                .count();
            if life == 3 && over == submitted {
                break;
            }
            let message = stream.next().expect("the daemon lives");
            taken += usize::from(message.id.is_some());
            seen.push(message);
        }
        if life < 3 {
            daemon.killed();
            // What was on its way when it died is read too, up to where it is cut off.
            while let Ok(Some(message)) = stream.try_next() {
                seen.push(message);
            }
            daemon = node.start();
        }
    }
    let ids: Vec<_> = seen.iter().filter_map(|message| message.id).collect();
    assert!(
        ids.windows(2).all(|two| two[0] < two[1]),
        "in order, and none twice: {ids:?}"
    );
    let told = history(&ipc, "/v1/history", 17);
    assert_eq!(facts_of(&seen), told.iter().map(facts).collect::<Vec<_>>());
    assert_eq!(
        told.iter()
            .filter(|event| event["type"] == "job_finished")
            .count(),
        JOBS
    );
    drop(daemon);
}

#[test]
fn fifty_open_streams_hold_no_shutdown_up_and_each_has_its_end() {
    const GRACE: Duration = Duration::from_secs(5);
    let (node, mut daemon, ipc) = up("[shutdown]\ngrace = \"5s\"\n");
    let up = node.place.fifo("up");
    let running = ipc.submit_shell("cd $TINKERBELL_START_DIR; echo > up; sleep 1000");
    up.wait_for_count(1);
    let waiting = ipc.submit_plan(&asking());
    let paths = [
        "/v1/events".to_owned(),
        "/v1/events?after=0&output=true".to_owned(),
        format!("/v1/jobs/{waiting}/events"),
        format!("/v1/jobs/{running}/events"),
        format!("/v1/jobs/{running}/logs"),
    ];
    let open = |number: usize| {
        let path = &paths[number % paths.len()];
        ipc.stream(path, "Accept: text/event-stream\r\n")
    };
    let streams: Vec<_> = (0..50).map(open).collect();
    assert_eq!(ipc.get("/v1/node").json()["streams"], 50);
    let idle = ipc.connect();
    let mut half = ipc.connect();
    half.write_all(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .expect("sent");

    let asked_at = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.logged("stopping");
    // From here on nothing is served, but streams show how it ends.
    ipc.get("/v1/node").problem(503, "unavailable");
    let ended = daemon.ended().with(0);
    let took = asked_at.elapsed();
    // The job is given half of the grace to end by itself, and the streams end when it is over, at once.
    assert!(took < GRACE, "{took:?}");
    assert!(ended.stderr.contains("stopped cleanly"), "{}", ended.stderr);
    for stream in streams {
        let rest = stream.rest();
        let end = rest.last().expect("an end");
        assert_eq!(
            (end.event.as_str(), &end.data),
            ("end", &json!({"reason": "stopping"})),
            "{rest:?}"
        );
    }
    assert!(!ipc.path().exists(), "the socket is taken away");
    drop((idle, half));
}

#[test]
fn with_nothing_at_work_open_streams_delay_the_end_not_at_all() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    ipc.submit_plan(&asking());
    let streams: Vec<_> = (0..50)
        .map(|_| ipc.stream("/v1/events?after=0", ""))
        .collect();
    let asked_at = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);
    let took = asked_at.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for stream in streams {
        let rest = stream.rest();
        let kinds: Vec<_> = rest.iter().map(Message::kind).collect();
        assert!(
            kinds.contains(&"draining") && kinds.contains(&"stopped"),
            "{kinds:?}"
        );
        assert_eq!(rest.last().expect("an end").event, "end");
    }
}

/// Has a job print without an end, of which some comes every moment.
fn chatter(ipc: &Ipc) -> String {
    ipc.submit_shell("while :; do head -c 60000 /dev/zero | tr '\\0' x; echo; done")
}

#[test]
fn a_client_that_reads_nothing_is_disconnected_and_costs_no_memory() {
    let (_node, daemon, ipc) = up("[api]\nstall = \"500ms\"\n");
    let streams =
        |daemon: &crate::support::Daemon| daemon.get("/metrics").metric("tinkerbell_api_streams");
    let before = ipc.submit_plan(&asking());
    ipc.until_waiting(&before);
    daemon.get_until("/metrics", |_| streams(&daemon) == 0.0);
    let job = chatter(&ipc);
    let mut watched = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
    watched.until("step_output");
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut deaf = ipc.connect();
            write!(
                deaf,
                "GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            .expect("sent");
            deaf
        })
        .collect();
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_streams") >= 21.0
    });
    // Who reads is served all the while.
    let memory = resident_kib(daemon.pid());
    while daemon.get("/metrics").metric("tinkerbell_api_streams") > 1.0 {
        watched.until("step_output");
    }
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 32 * 1024, "{grown} KiB more");
    drop(deaf);
    ipc.post(&format!("/v1/jobs/{job}/cancel"), &json!({}))
        .with(202);
    let end = watched.rest();
    assert!(
        matches!(end.last().map(|end| end.event.as_str()), Some("end")),
        "{:?}",
        end.last()
    );
}

#[test]
fn a_reader_that_lags_is_told_how_far_and_its_stream_ends() {
    // The ring keeps less than is printed while the other reader takes a hundred pieces.
    let (_node, daemon, ipc) = up("[api]\nstall = \"1h\"\n[activity]\ncapacity = 16\n");
    let job = chatter(&ipc);
    let slow = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
    let lagged = |daemon: &crate::support::Daemon| {
        daemon
            .get("/metrics")
            .metric("tinkerbell_api_streams_lagged_total")
    };
    for _ in 0..100 {
        // One that reads may lag as well, with a ring as small as this.
        let mut quick = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
        quick.until("step_output");
    }
    let rest = slow.rest();
    let end = rest.last().expect("an end");
    assert_eq!(
        (end.event.as_str(), &end.data["reason"]),
        ("end", &"lagged".into()),
        "{end:?}"
    );
    assert!(end.data["missed"].as_u64() > Some(0), "{end:?}");
    assert!(lagged(&daemon) >= 1.0);
    ipc.post(&format!("/v1/jobs/{job}/cancel"), &json!({}))
        .with(202);
    let last = rest
        .iter()
        .filter_map(|message| message.id)
        .next_back()
        .expect("it had begun");
    let again = ipc
        .stream(
            &format!("/v1/jobs/{job}/events?output=false"),
            &format!("Last-Event-ID: {last}\r\n"),
        )
        .rest();
    assert_eq!(
        again.last().expect("an end").data["state"],
        "cancelled",
        "{again:?}"
    );
}

/// The resident memory of a process.
pub(super) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.expect("a process has resident memory")
}
