//! Load over the socket: a thousand open streams, and submissions attempted at a fixed rate, with nothing lost.
//!
//! ```text
//! cargo bench -p daemon --features ipc --bench load
//! ```
//!
//! The daemon is the binary, in a process of its own. Streams are open before the first submission, and are read all the
//! while; each watches a job that waits, but one in a hundred watches everything. Submitters keep their connections, and each
//! attempts its share of the rate by the clock: an answer that is late makes the attempt after it late, and the rate that
//! was reached is told. Every job is a plan of one step that says something. At the end of the time the daemon is killed,
//! and every job it acknowledged must be in its log.
//!
//! `LOAD_SECONDS` (default 10), `LOAD_RATE` (default 10000 a second), `LOAD_STREAMS` (default 1000), `LOAD_CONNECTIONS`
//! (default 128), `LOAD_DIR` for another file system.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const SPEC: &str = r#"{"program":"plan","input":{"steps":[{"id":"say","say":"hello"}]}}"#;
const WAITING: &str =
    r#"{"program":"plan","name":"waiting","input":{"steps":[{"id":"ask","ask":{"prompt":"?"}}]}}"#;

fn main() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let load = Load {
        time: Duration::from_secs(number("LOAD_SECONDS", 10)),
        rate: number("LOAD_RATE", 10_000),
        streams: number("LOAD_STREAMS", 1_000),
        connections: number("LOAD_CONNECTIONS", 128),
    };
    let base = std::env::var_os("LOAD_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&executor, load.run(dir.path()));
}

#[derive(Clone, Copy)]
struct Load {
    time: Duration,
    rate: u64,
    streams: u64,
    connections: u64,
}

/// What one submitter saw.
#[derive(Default)]
struct Seen {
    attempted: u64,
    /// The answers that were no acknowledgement, by status and code.
    refused: BTreeMap<String, u64>,
    jobs: Vec<String>,
    took: Vec<Duration>,
}

fn binary(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinkerbell"));
    command
        .current_dir(dir)
        .env("TINKERBELL_NODE__DATA_DIR", dir.join("data"))
        .env("TINKERBELL_HTTP__LISTEN", "127.0.0.1:0")
        .env("TINKERBELL_API__STREAMS_PER_CLIENT", "4096")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

async fn start(dir: &Path) -> Child {
    let daemon = binary(dir).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(socket(dir)).await.is_err() {
        assert!(Instant::now() < until, "the daemon does not come up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("data/ipc.sock")
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

impl Load {
    async fn run(self, dir: &Path) {
        let mut daemon = start(dir).await;
        let idle = resident_mib(daemon.id());
        let mut first = Connection::open(dir).await;
        assert_eq!(first.submit(WAITING).await.0, 201);
        let events = Rc::new(std::cell::Cell::new(0_u64));
        for number in 0..self.streams {
            let path = if number % 100 == 0 {
                "/v1/events"
            } else {
                "/v1/jobs/waiting/events"
            };
            let stream = open_stream(dir, path).await;
            tokio::task::spawn_local(count_events(stream, Rc::clone(&events)));
        }
        let before = resident_mib(daemon.id());

        let begun = Instant::now();
        let submitters: Vec<_> = (0..self.connections)
            .map(|number| {
                let dir = dir.to_owned();
                tokio::task::spawn_local(async move {
                    self.submit_for_a_while(&dir, begun, number).await
                })
            })
            .collect();
        let mut all = Seen::default();
        for submitter in submitters {
            let seen = submitter.await.unwrap();
            all.attempted += seen.attempted;
            all.jobs.extend(seen.jobs);
            all.took.extend(seen.took);
            for (why, count) in seen.refused {
                *all.refused.entry(why).or_default() += count;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let after = resident_mib(daemon.id());
        daemon.kill().unwrap();
        daemon.wait().unwrap();

        // Once more, so that what is found is what a new life makes of it; killed again, since the log is read when
        // nobody writes it.
        let mut again = start(dir).await;
        again.kill().unwrap();
        again.wait().unwrap();
        let lost = lost(dir, &all.jobs);

        all.took.sort_unstable();
        let at = |share: f64| match all.took.len() {
            0 => f64::NAN,
            count => all.took[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e3,
        };
        println!("| | |\n|---|---|");
        println!("| open streams | {} |", self.streams);
        println!(
            "| attempted/s, of {} wanted | {:.0} |",
            self.rate,
            all.attempted as f64 / took
        );
        println!("| acknowledged/s | {:.0} |", all.jobs.len() as f64 / took);
        println!(
            "| acknowledged in, p50 / p99 | {:.1} ms / {:.1} ms |",
            at(0.5),
            at(0.99)
        );
        let refused: Vec<_> = all
            .refused
            .iter()
            .map(|(why, count)| format!("{count} × {why}"))
            .collect();
        println!(
            "| refused | {} |",
            if refused.is_empty() {
                "none".to_owned()
            } else {
                refused.join(", ")
            }
        );
        println!("| events that streams were sent | {} |", events.get());
        println!(
            "| memory idle / with the streams / after the load | {idle:.0} / {before:.0} / {after:.0} MiB |"
        );
        println!(
            "| acknowledged / of these lost by kill -9 | {} / {lost} |",
            all.jobs.len()
        );
        assert_eq!(lost, 0, "what was acknowledged is not lost");
    }

    async fn submit_for_a_while(self, dir: &Path, begun: Instant, number: u64) -> Seen {
        let mut connection = Connection::open(dir).await;
        let mut seen = Seen::default();
        let every = Duration::from_secs_f64(self.connections as f64 / self.rate as f64);
        let mut due = begun + every.mul_f64(number as f64 / self.connections as f64);
        while due < begun + self.time && begun.elapsed() < self.time {
            tokio::time::sleep_until(due.into()).await;
            due += every;
            let asked = Instant::now();
            let (status, body) = connection.submit(SPEC).await;
            seen.attempted += 1;
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            if status == 201 {
                seen.took.push(asked.elapsed());
                seen.jobs.push(body["job"].as_str().unwrap().to_owned());
            } else {
                let why = format!("{status} {}", body["code"].as_str().unwrap_or_default());
                *seen.refused.entry(why).or_default() += 1;
            }
        }
        seen
    }
}

/// A connection that is kept.
struct Connection(BufReader<UnixStream>);

impl Connection {
    async fn open(dir: &Path) -> Self {
        Self(BufReader::new(
            UnixStream::connect(socket(dir)).await.unwrap(),
        ))
    }

    async fn submit(&mut self, spec: &str) -> (u16, Vec<u8>) {
        let request = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{spec}",
            spec.len()
        );
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).await.unwrap() > 0,
                "the daemon closed a connection"
            );
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (status, body)
    }
}

async fn open_stream(dir: &Path, path: &str) -> BufReader<UnixStream> {
    let mut stream = BufReader::new(UnixStream::connect(socket(dir)).await.unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream
        .get_mut()
        .write_all(request.as_bytes())
        .await
        .unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    stream
}

async fn count_events(mut stream: BufReader<UnixStream>, events: Rc<std::cell::Cell<u64>>) {
    let mut line = Vec::new();
    while stream
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|read| read > 0)
    {
        events.set(events.get() + u64::from(line.starts_with(b"event: event")));
        line.clear();
    }
}

/// How many of these jobs the log does not have.
fn lost(dir: &Path, jobs: &[String]) -> usize {
    let cat = binary(dir)
        .args(["log", "cat"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(cat.status.success());
    let submitted: HashSet<String> = String::from_utf8(cat.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_submission = entry["type"] == "submitted";
            is_submission.then(|| entry["job"].as_str().map(str::to_owned))?
        })
        .collect();
    jobs.iter().filter(|job| !submitted.contains(*job)).count()
}
