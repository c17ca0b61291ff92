//! Probes and metrics over HTTP, as kubelets, Prometheus and attackers ask for them.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, Node, get, request, skip};

/// A job that waits at a FIFO, and one that there is no place for meanwhile: the boot is not over before both are in.
const HELD_BACK: &str = "\
[limits]
live_jobs = 1
[[job]]
name = \"first\"
program = \"command\"
shell = \"read _ < $TINKERBELL_START_DIR/go\"
[[job]]
name = \"second\"
program = \"command\"
argv = [\"true\"]
";

#[test]
fn not_ready_before_everything_is_up() {
    let node = Node::new(HELD_BACK);
    let mut go = node.place.barrier("go");
    let mut daemon = node.spawn();
    daemon.logged("start-up job cannot be taken in yet");
    let ready = daemon.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "not ready\n"));
    let verbose = daemon.get("/readyz?verbose").body;
    assert!(
        verbose.contains("[-]boot starting\n[+]wal ok\n"),
        "{verbose}"
    );
    assert_eq!(
        daemon.get("/livez").status,
        200,
        "a slow boot is not to be restarted"
    );
    let health = daemon.get("/health");
    assert_eq!(health.status, 503);
    let health: serde_json::Value = serde_json::from_str(&health.body).expect("it is JSON");
    assert_eq!(health["status"], "unavailable");
    let url = format!("http://{}", daemon.address());
    node.run(&["health", "--url", &url]).with(0);
    let asked = node.run(&["health", "--ready", "--url", &url]).with(1);
    assert!(
        asked.stdout.contains("[-]boot starting"),
        "{}",
        asked.stdout
    );

    go.release(1);
    daemon.ready();
    assert_eq!(daemon.get("/readyz").status, 200);
    assert_eq!(daemon.get("/health").status, 200);
    node.run(&["health", "--ready", "--url", &url]).with(0);
}

#[test]
fn not_ready_from_the_first_moment_of_the_shutdown() {
    let node = Node::new(
        "[shutdown]\ngrace = \"30s\"\n[[job]]\nname = \"slow\"\nprogram = \"command\"\n\
         shell = \"cd $TINKERBELL_START_DIR; echo up > up; read _ < go\"\n",
    );
    let up = node.place.fifo("up");
    let mut go = node.place.barrier("go");
    let mut daemon = node.start();
    up.wait_for_count(1);
    assert_eq!(daemon.get("/readyz").status, 200);
    daemon.signal(Signal::TERM);
    daemon.logged("stopping: signal 15");
    let ready = daemon.get("/readyz?verbose");
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("[-]shutdown draining: signal 15"),
        "{}",
        ready.body
    );
    assert_eq!(
        daemon.get("/livez").status,
        200,
        "it is not to be killed for stopping"
    );
    assert!(
        daemon.get("/metrics").status == 200,
        "the last minutes are worth watching, too"
    );
    // The effect was given its time, and used it.
    go.release(1);
    daemon.ended().with(0);
    let journal = node.journal();
    let completed = journal
        .of_kind("completed")
        .next()
        .and_then(|entry| entry.ending());
    assert_eq!(completed, Some("ok"));
}

const PATHS: [&str; 8] = [
    "/",
    "/livez",
    "/readyz",
    "/readyz?verbose",
    "/health",
    "/metrics",
    "/nothing",
    "//livez",
];

#[test]
fn strangers_are_refused_on_every_path() {
    let node = Node::new("# the defaults\n");
    let daemon = node.start();
    let address = daemon.address();
    let own = format!("Host: {address}\r\n");
    for (headers, status) in [
        ("Host: evil.example\r\n".to_owned(), 403),
        (format!("Host: evil.example:{}\r\n", address.port()), 403),
        // Names that only begin or end like ours.
        ("Host: localhost.evil.example\r\n".to_owned(), 403),
        ("Host: 127.0.0.1.evil.example\r\n".to_owned(), 403),
        (format!("Host: evil@127.0.0.1:{}\r\n", address.port()), 403),
        (String::new(), 400),
        (format!("{own}{own}"), 400),
        (format!("{own}Origin: https://evil.example\r\n"), 403),
        (format!("{own}Origin: null\r\n"), 403),
        (format!("{own}Sec-Fetch-Site: cross-site\r\n"), 403),
    ] {
        for path in PATHS {
            for method in ["GET", "HEAD", "POST"] {
                let answer = request(address, method, path, &headers);
                assert_eq!(answer.status, status, "{method} {path} {headers:?}");
                assert!(!answer.body.contains("tinkerbell_"), "{path} {headers:?}");
            }
        }
    }
    for name in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"] {
        let answer = request(address, "GET", "/metrics", &format!("Host: {name}:1\r\n"));
        assert_eq!(answer.status, 200, "{name}");
    }
}

#[test]
fn only_reading_is_answered() {
    let node = Node::new("# the defaults\n");
    let daemon = node.start();
    let address = daemon.address();
    let own = format!("Host: {address}\r\n");
    for path in ["/", "/livez", "/readyz", "/health", "/metrics"] {
        let (whole, head) = (get(address, path), request(address, "HEAD", path, &own));
        assert_eq!((whole.status, head.status), (200, 200), "{path}");
        assert!(!whole.body.is_empty() && head.body.is_empty(), "{path}");
        assert!(head.header("content-length").is_some(), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let refused = request(address, method, path, &own);
            assert_eq!(refused.status, 405, "{method} {path}");
            assert_eq!(
                refused.header("allow"),
                Some("GET, HEAD"),
                "{method} {path}"
            );
        }
        assert_eq!(
            whole.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
    }
    assert_eq!(get(address, "/nothing").status, 404);
}

/// A daemon that has something to count.
fn busy() -> (Node, Daemon) {
    let node = Node::new(
        "[[job]]\nname = \"good\"\nprogram = \"command\"\nargv = [\"true\"]\n\
         [[job]]\nname = \"bad\"\nprogram = \"command\"\nargv = [\"false\"]\n",
    );
    let daemon = node.start();
    daemon.get_until("/metrics", |metrics| {
        metrics.metric("tinkerbell_runtime_live_jobs") == 0.0
    });
    (node, daemon)
}

#[test]
fn metrics_count_what_happened_in_every_part() {
    let (_node, daemon) = busy();
    let metrics = daemon.get("/metrics");
    for (series, value) in [
        ("tinkerbell_runtime_jobs_submitted_total", 2.0),
        (
            "tinkerbell_runtime_jobs_finished_total{state=\"completed\"}",
            1.0,
        ),
        (
            "tinkerbell_runtime_jobs_finished_total{state=\"failed\"}",
            1.0,
        ),
        ("tinkerbell_runtime_stuck_jobs", 0.0),
        ("tinkerbell_daemon_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(metrics.metric(series), value, "{series}");
    }
    for series in [
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "tinkerbell_scheduler_turns_total",
        "tinkerbell_wal_records_total",
        "tinkerbell_wal_syncs_total",
        "tinkerbell_pal_events_total",
        "tinkerbell_daemon_startup_duration_seconds",
        "tinkerbell_daemon_startup_phase_duration_seconds{phase=\"wal\"}",
    ] {
        assert!(metrics.metric(series) > 0.0, "{series}");
    }
    assert!(
        metrics.body.contains("tinkerbell_daemon_build_info{"),
        "{}",
        metrics.body
    );
    let open = request(
        daemon.address(),
        "GET",
        "/metrics",
        "Host: localhost\r\nAccept: application/openmetrics-text; version=1.0.0\r\n",
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[test]
fn prometheus_own_tool_finds_nothing_to_complain_about() {
    let (_node, daemon) = busy();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let reason = format!("no promtool ({error}); Debian has it in `prometheus`");
            return skip(
                "prometheus_own_tool_finds_nothing_to_complain_about",
                &reason,
            );
        }
    };
    let metrics = daemon.get("/metrics").body;
    let mut stdin = promtool.stdin.take().expect("it was piped");
    stdin.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn curl_gets_what_a_person_would_ask_for() {
    let node = Node::new("# the defaults\n");
    let daemon = node.start();
    let curl = |args: &[&str], path: &str| {
        let url = format!("http://{}{path}", daemon.address());
        Command::new("curl").arg("-sS").args(args).arg(url).output()
    };
    let answer = match curl(&["--fail"], "/readyz?verbose") {
        Ok(answer) => answer,
        Err(error) => {
            return skip(
                "curl_gets_what_a_person_would_ask_for",
                &format!("no curl ({error})"),
            );
        }
    };
    assert!(answer.status.success());
    assert!(String::from_utf8_lossy(&answer.stdout).ends_with("ready\n"));
    let head = curl(&["--head"], "/metrics").expect("curl was there a moment ago");
    assert!(String::from_utf8_lossy(&head.stdout).starts_with("HTTP/1.1 200 OK"));
    let refused = curl(&["--fail", "--header", "Host: evil.example"], "/metrics");
    // 22: the server said no.
    assert_eq!(
        refused.expect("curl was there a moment ago").status.code(),
        Some(22)
    );
}
