//! One daemon as the benchmark sees it: a process, watched from outside, from exec to exit.
//!
//! It is ready when it says so, and it says so twice: by a datagram to `NOTIFY_SOCKET`, for which a thread waits without
//! polling, and by the first 200 of `/readyz`, which is asked from the moment at which the address is known.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use daemon::http::probe;
use rustix::process::{Pid, Signal, kill_process};

use crate::PHASES;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// For so long a process must use no CPU at all to count as idle.
const IDLE_FOR: Duration = Duration::from_millis(50);

/// A daemon that is ready. Dropping it kills it, so that none is left behind by a benchmark that fails.
pub(crate) struct Node {
    child: Child,
    /// Kept open for as long as the daemon has something to log.
    log: BufReader<ChildStderr>,
}

/// How a boot went.
pub(crate) struct Boot {
    /// From just before the spawn to the datagram that says `READY=1`.
    pub(crate) notified_after: Duration,
    /// From just before the spawn to the first 200 of `/readyz`.
    pub(crate) probed_after: Duration,
    /// From `main` to ready, by the daemon's own clock.
    pub(crate) startup_seconds: f64,
    /// Its phases, by the same clock.
    pub(crate) phase_seconds: BTreeMap<&'static str, f64>,
}

/// What a process holds, as the kernel counts it (`proc_pid_smaps(5)`).
pub(crate) struct Memory {
    /// `Rss`: all pages that are mapped and present.
    pub(crate) resident_kib: f64,
    /// `Pss`: the same, those shared with other processes divided among them.
    pub(crate) proportional_kib: f64,
}

impl Node {
    /// Starts the daemon on a data directory, and waits until it is ready.
    pub(crate) fn boot(binary: &Path, data_dir: &Path) -> (Self, Boot) {
        let socket_dir = tempfile::tempdir().expect("a directory for the socket");
        let socket_path = socket_dir.path().join("notify");
        let socket = UnixDatagram::bind(&socket_path).expect("a socket to be notified by");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout that is not zero");
        let (notify, notified) = channel();
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(len) = socket.recv(&mut message) {
                if message[..len].starts_with(b"READY=1") {
                    // Nobody listens any more only if the benchmark has failed.
                    let _ = notify.send(Instant::now());
                    return;
                }
            }
        });

        let mut command = Command::new(binary);
        command
            .arg("--set")
            .arg(format!("node.data_dir={}", data_dir.display()))
            .args(["--set", "http.listen=127.0.0.1:0"])
            .env_clear()
            .env("NOTIFY_SOCKET", &socket_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the daemon can be run");
        let log = child.stderr.take().expect("standard error is piped");
        let mut node = Self {
            child,
            log: BufReader::new(log),
        };
        let address = node.address();
        let ask = |path: &str| {
            probe(&format!("http://{address}{path}"), PATIENCE).expect("the daemon answers")
        };
        while !ask("/readyz").is_ok() {
            std::thread::yield_now();
        }
        let probed_after = started.elapsed();
        let notified_at = notified
            .recv_timeout(PATIENCE)
            .expect("a daemon that is ready says so to its service manager");
        let metrics = ask("/metrics").body;
        let phase = |name| {
            let series =
                format!("tinkerbell_daemon_startup_phase_duration_seconds{{phase=\"{name}\"}}");
            (name, sample(&metrics, &series))
        };
        let boot = Boot {
            notified_after: notified_at - started,
            probed_after,
            startup_seconds: sample(&metrics, "tinkerbell_daemon_startup_duration_seconds"),
            phase_seconds: PHASES.map(phase).into(),
        };
        (node, boot)
    }

    /// Reads the log up to the line that says where probes are served.
    fn address(&mut self) -> String {
        let mut seen = String::new();
        loop {
            let begin = seen.len();
            let len = self
                .log
                .read_line(&mut seen)
                .expect("the daemon logs in UTF-8");
            assert!(len > 0, "the daemon ended before it was ready:\n{seen}");
            let line: serde_json::Value =
                serde_json::from_str(&seen[begin..]).expect("the daemon logs in JSON to a pipe");
            if let Some(address) = line["address"].as_str() {
                return address.to_owned();
            }
            assert_ne!(
                line["message"], "ready",
                "the daemon is ready and never said where it serves:\n{seen}"
            );
        }
    }

    /// What the daemon holds once it has come to rest.
    pub(crate) fn memory_when_idle(&self) -> Memory {
        let proc = format!("/proc/{}", self.child.id());
        let begun = Instant::now();
        let mut used = cpu_ns(&proc);
        loop {
            std::thread::sleep(IDLE_FOR);
            let now = cpu_ns(&proc);
            if now == used {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the daemon does not come to rest"
            );
            used = now;
        }
        let rollup = read(&format!("{proc}/smaps_rollup"));
        let kib = |field: &str| {
            rollup
                .lines()
                .find_map(|line| {
                    line.strip_prefix(field)?
                        .trim()
                        .strip_suffix("kB")?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or_else(|| panic!("smaps_rollup has no {field}\n{rollup}"))
        };
        Memory {
            resident_kib: kib("Rss:"),
            proportional_kib: kib("Pss:"),
        }
    }

    /// Asks the daemon to stop. Gives how long it took until it was gone.
    pub(crate) fn stop(mut self) -> Duration {
        let pid = Pid::from_child(&self.child);
        let asked = Instant::now();
        kill_process(pid, Signal::TERM).expect("the daemon is not reaped yet");
        let status = self.child.wait().expect("the daemon is a child of ours");
        let took = asked.elapsed();
        assert!(
            status.success(),
            "the daemon did not stop cleanly: {status}"
        );
        took
    }

    /// Ends the daemon where it stands.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time that all threads of a process have used (`Documentation/scheduler/sched-stats.rst` of Linux).
fn cpu_ns(proc: &str) -> u64 {
    fs::read_dir(format!("{proc}/task"))
        .expect("the daemon runs")
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// The value of a series in Prometheus' text format.
fn sample(metrics: &str, series: &str) -> f64 {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or_else(|| panic!("/metrics has no {series}"))
}
