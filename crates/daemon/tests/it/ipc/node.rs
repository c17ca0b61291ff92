//! The node itself: shown, dumped, reloaded, drained, stopped; and what is counted of it.

use serde_json::json;

use super::{DEFAULTS, asking, shell, up};
use crate::support::Message;

#[test]
fn the_node_is_shown_and_dumped() {
    let (node, daemon, ipc) = up("[node]\nname = \"tink\"\n");
    let job = ipc.submit_plan(&asking());
    ipc.until_waiting(&job);
    let shown = ipc.get("/v1/node").with(200).json();
    assert_eq!(
        (&shown["name"], &shown["state"]),
        (&"tink".into(), &"serving".into())
    );
    assert_eq!(
        (&shown["live_jobs"], &shown["epoch"], &shown["requests"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert!(
        shown["features"]
            .as_array()
            .is_some_and(|features| features.contains(&"ipc".into())),
        "{shown}"
    );
    let dump = ipc.get("/v1/node/dump").with(200).json();
    assert_eq!(dump["jobs"][0]["id"], job.as_str());
    assert!(
        dump["jobs"][0]["waits_for"]
            .as_str()
            .is_some_and(|what| what.contains("signal")),
        "{dump}"
    );
    let text = ipc
        .request("GET", "/v1/node/dump", "Accept: text/plain\r\n", b"")
        .with(200)
        .body;
    assert!(text.contains(&job) && text.lines().count() > 3, "{text}");

    daemon.killed();
    let _daemon = node.start();
    assert_eq!(ipc.get("/v1/node").json()["epoch"], 2);
}

#[test]
fn a_reload_says_what_it_did_and_a_bad_file_is_an_answer() {
    let (node, daemon, ipc) = up("[watch]\nconfig = false\n");
    node.configure("[watch]\nconfig = false\n[api]\nstreams = 5\n[shutdown]\ngrace = \"7s\"\n");
    let good = ipc.post("/v1/node/reload", &json!({})).with(200).json();
    assert_eq!(
        good,
        json!({"accepted": true, "applied": ["shutdown.grace"], "needs_restart": ["api.streams"], "error": null})
    );
    node.configure("[watch]\nconfig = false\n[shutdown]\ngarce = \"7s\"\n");
    let bad = ipc
        .request("POST", "/v1/node/reload", "", b"")
        .with(200)
        .json();
    assert_eq!(
        (&bad["accepted"], &bad["applied"]),
        (&false.into(), &json!([]))
    );
    let error = bad["error"].as_str().expect("an error");
    assert!(
        error.contains("tinkerbell.toml:4:1") && error.contains("`shutdown.garce`"),
        "{error}"
    );
    assert_eq!(daemon.get("/livez").status, 200);
}

#[test]
fn a_drained_node_refuses_jobs_finishes_what_it_has_and_stops() {
    let (node, daemon, ipc) = up(DEFAULTS);
    let (up, mut barrier) = (node.place.fifo("up"), node.place.barrier("go"));
    let job = ipc.submit_shell("cd $TINKERBELL_START_DIR; echo > up; read _ < go");
    up.wait_for_count(1);
    let mut events = ipc.stream("/v1/events", "");
    assert_eq!(
        ipc.request("POST", "/v1/node/drain", "", b"")
            .with(202)
            .json(),
        json!({})
    );
    let refused = ipc.post("/v1/jobs", &shell("true"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.problem(503, "unavailable").contains("draining"));
    assert_eq!(ipc.get("/v1/node").with(200).json()["state"], "draining");
    assert_eq!(daemon.get("/readyz").status, 503);
    let waiting = ipc.get("/v1/jobs?state=running").json();
    assert_eq!(waiting["jobs"][0]["id"], job.as_str());
    barrier.release(1);
    let finished = events.until("job_finished");
    assert_eq!(
        (&finished.data["job"], &finished.data["state"]),
        (&job.as_str().into(), &"completed".into())
    );
    let rest = events.rest();
    assert!(
        rest.iter().any(|message| message.kind() == "stopped"),
        "{rest:?}"
    );
    daemon.ended().with(0);
}

#[test]
fn a_drain_without_a_stop_goes_on_until_it_is_told_to_end() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    let mut events = ipc.stream("/v1/events", "");
    ipc.post("/v1/node/drain", &json!({"stop": false}))
        .with(202);
    ipc.post("/v1/jobs", &shell("true"))
        .problem(503, "unavailable");
    ipc.post("/v1/node/drain", &json!({"stop": "no"}))
        .problem(400, "invalid");
    assert_eq!(ipc.get("/v1/node").with(200).json()["state"], "draining");
    ipc.request("POST", "/v1/node/shutdown", "", b"").with(202);
    let said = daemon.ended().with(0).stderr;
    assert!(
        said.contains("stopping: pid ") && said.contains("asked for it"),
        "{said}"
    );
    assert!(
        events.until("draining").data["reason"]
            .as_str()
            .is_some_and(|why| why.contains("pid "))
    );
    assert_eq!(
        events.rest().last().map(|end: &Message| end.event.clone()),
        Some("end".to_owned())
    );
}

#[test]
fn requests_streams_and_connections_are_counted() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    let stream = ipc.stream("/v1/events", "");
    ipc.get("/v1/node").with(200);
    ipc.get("/v1/jobs/nobody").with(404);
    ipc.get("/nowhere").with(404);
    ipc.request("DELETE", "/v1/jobs", "", b"").with(405);
    let metrics = daemon.get("/metrics");
    let requests = |method: &str, code: &str| {
        let series = format!(
            "tinkerbell_api_requests_total{{transport=\"ipc\",method=\"{method}\",code=\"{code}\"}}"
        );
        metrics.metric(&series)
    };
    assert_eq!(requests("node.show", "ok"), 1.0);
    assert_eq!(requests("events.watch", "ok"), 1.0);
    assert_eq!(requests("job.show", "not_found"), 1.0);
    assert_eq!(requests("unknown", "not_found"), 1.0);
    assert_eq!(requests("unknown", "unsupported"), 1.0);
    assert_eq!(metrics.metric("tinkerbell_api_streams"), 1.0);
    assert!(metrics.metric("tinkerbell_api_connections{transport=\"ipc\"}") >= 1.0);
    let took =
        "tinkerbell_api_request_duration_seconds_count{transport=\"ipc\",method=\"node.show\"}";
    assert_eq!(metrics.metric(took), 1.0);
    drop(stream);
    daemon.get_until("/metrics", |answer| {
        answer.metric("tinkerbell_api_streams") == 0.0
            && answer.metric("tinkerbell_api_connections{transport=\"ipc\"}") == 0.0
    });
}
