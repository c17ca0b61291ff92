//! Load over the transports: a thousand open streams, and submissions attempted at a fixed rate, with nothing lost.
//!
//! ```text
//! cargo bench -p daemon --features ipc,grpc --bench load
//! ```
//!
//! The daemon is the binary, in a process of its own, a new one for each transport. Streams are open before the first
//! submission, and are read all the while; each watches a job that waits, but one in a hundred watches everything, and
//! comes back after its last event when it was too slow. Submitters keep their connections, and each attempts its share
//! of the rate by the clock: an answer that is late makes the attempt after it late, and the rate that was reached is
//! told. With more submitters than there may be requests at once (`api.requests`, 1024) some are refused, which must be
//! said. Every job is a plan of one step that says something. At the end of the time the daemon is killed, and every
//! job it acknowledged must be in its log.
//!
//! All of it shares one machine: what the clients take is missing to the daemon.
//!
//! `LOAD_SECONDS` (default 10), `LOAD_RATE` (default 10000 a second), `LOAD_STREAMS` (default 1000), `LOAD_EVERYTHING`
//! (one in how many streams watches everything, default 100), `LOAD_CONNECTIONS` (default `128,2000`: a column for
//! each), `LOAD_DIR` for another file system.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

#[cfg(feature = "grpc")]
mod grpc;
mod ipc;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

/// What is submitted: the program, and what it is to do.
const SPEC: (&str, &str) = ("plan", r#"{"steps":[{"id":"say","say":"hello"}]}"#);
const WAITING: (&str, &str) = ("plan", r#"{"steps":[{"id":"ask","ask":{"prompt":"?"}}]}"#);

fn main() {
    let text = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let number = |name: &str, default: &str| -> u64 { parsed(&text(name, default)) };
    let load = Load {
        time: Duration::from_secs(number("LOAD_SECONDS", "10")),
        rate: number("LOAD_RATE", "10000"),
        streams: number("LOAD_STREAMS", "1000"),
        everything: number("LOAD_EVERYTHING", "100"),
        connections: 0,
    };
    let base = std::env::var_os("LOAD_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut headings, mut columns) = (Vec::new(), Vec::new());
    for transport in TRANSPORTS {
        for connections in text("LOAD_CONNECTIONS", "128,2000").split(',') {
            let dir = tempfile::tempdir_in(&base).unwrap();
            let load = Load {
                connections: parsed(connections),
                ..load
            };
            let column = load.run(dir.path(), *transport);
            columns.push(tokio::task::LocalSet::new().block_on(&executor, column));
            headings.push(format!("{}, {connections} connections", transport.name()));
        }
    }
    println!(
        "| {} streams |{}|",
        load.streams,
        row(headings.iter().map(String::as_str))
    );
    println!("|---{}|", "|---".repeat(columns.len()));
    for (at, (what, _)) in columns[0].iter().enumerate() {
        println!(
            "| {what} |{}|",
            row(columns.iter().map(|column| column[at].1.as_str()))
        );
    }
}

fn parsed(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.map(|cell| format!(" {cell} ")).collect();
    cells.join("|")
}

#[derive(Clone, Copy)]
struct Load {
    time: Duration,
    rate: u64,
    streams: u64,
    everything: u64,
    connections: u64,
}

/// How the daemon is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Ipc,
    #[cfg(feature = "grpc")]
    Grpc,
}

const TRANSPORTS: &[Transport] = &[
    Transport::Ipc,
    #[cfg(feature = "grpc")]
    Transport::Grpc,
];

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Ipc => "ipc",
            #[cfg(feature = "grpc")]
            Self::Grpc => "grpc",
        }
    }

    async fn connect(self, dir: &Path) -> Connection {
        match self {
            Self::Ipc => Connection::Ipc(ipc::Connection::open(&socket(dir)).await),
            #[cfg(feature = "grpc")]
            Self::Grpc => Connection::Grpc(grpc::Connection::open(&grpc_socket(dir)).await),
        }
    }

    /// Watches a job, or everything, and counts what comes, for as long as the daemon lives.
    async fn watch(self, dir: PathBuf, job: Option<&'static str>, told: Rc<Told>) {
        match self {
            Self::Ipc => ipc::watch(&socket(&dir), job, &told).await,
            #[cfg(feature = "grpc")]
            Self::Grpc => grpc::watch(&grpc_socket(&dir), job, &told).await,
        }
    }
}

/// A submitter's connection, which is kept.
enum Connection {
    Ipc(ipc::Connection),
    #[cfg(feature = "grpc")]
    Grpc(grpc::Connection),
}

impl Connection {
    /// Submits a job, and gives its id, or why there is none.
    async fn submit(&mut self, spec: (&str, &str), name: Option<&str>) -> Result<String, String> {
        match self {
            Self::Ipc(connection) => connection.submit(spec, name).await,
            #[cfg(feature = "grpc")]
            Self::Grpc(connection) => connection.submit(spec, name).await,
        }
    }
}

/// What all streams were told.
#[derive(Default)]
struct Told {
    open: Cell<u64>,
    events: Cell<u64>,
    /// How often a stream ended because its client was too slow.
    lagged: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// What one submitter saw.
#[derive(Default)]
struct Seen {
    attempted: u64,
    /// The answers that were no acknowledgement.
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
        .env("TINKERBELL_API__CONNECTIONS", "8192")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(feature = "grpc")]
    command.env("TINKERBELL_GRPC__LISTEN", grpc_socket(dir));
    command
}

async fn start(dir: &Path) -> Child {
    let mut daemon = binary(dir).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(socket(dir)).await.is_err() {
        assert!(Instant::now() < until, "the daemon does not come up");
        let ended = daemon.try_wait().unwrap();
        assert!(ended.is_none(), "the daemon ended: {ended:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    daemon
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("data/ipc.sock")
}

#[cfg(feature = "grpc")]
fn grpc_socket(dir: &Path) -> PathBuf {
    dir.join("data/grpc.sock")
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// How long a process was at work on all processors together (proc_pid_stat(5): fields 14 and 15, in ticks of 10 ms).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

impl Load {
    /// One transport: what was measured, and what came out.
    async fn run(self, dir: &Path, transport: Transport) -> Vec<(&'static str, String)> {
        let mut daemon = start(dir).await;
        let idle = resident_mib(daemon.id());
        let mut first = transport.connect(dir).await;
        first.submit(WAITING, Some("waiting")).await.unwrap();
        let told = Rc::new(Told::default());
        let opening = Instant::now();
        for number in 0..self.streams {
            let job = (number % self.everything != 0).then_some("waiting");
            let watching = transport.watch(dir.to_owned(), job, Rc::clone(&told));
            tokio::task::spawn_local(watching);
            // One after the other, as many clients would come, and not in one burst.
            while told.open.get() <= number {
                tokio::task::yield_now().await;
            }
        }
        let opening = opening.elapsed().as_secs_f64() * 1e3;
        let before = resident_mib(daemon.id());

        let (begun, work_before) = (Instant::now(), processor_time(daemon.id()));
        let submitters: Vec<_> = (0..self.connections)
            .map(|number| {
                let dir = dir.to_owned();
                let submitting = async move {
                    let mut connection = transport.connect(&dir).await;
                    self.submit_for_a_while(&mut connection, begun, number)
                        .await
                };
                tokio::task::spawn_local(submitting)
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
        let work = (processor_time(daemon.id()) - work_before).as_secs_f64();
        let after = resident_mib(daemon.id());
        let events = told.events.get();
        daemon.kill().unwrap();
        daemon.wait().unwrap();

        // Once more, so that what is found is what a new life makes of it; killed again, since the log is read when
        // nobody writes it.
        let mut again = start(dir).await;
        again.kill().unwrap();
        again.wait().unwrap();
        let lost = lost(dir, &all.jobs);
        assert_eq!(lost, 0, "what was acknowledged is not lost");

        all.took.sort_unstable();
        let at = |share: f64| match all.took.len() {
            0 => f64::NAN,
            count => all.took[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e3,
        };
        let acknowledged = all.jobs.len();
        let refused: Vec<_> = all
            .refused
            .iter()
            .map(|(why, count)| format!("{count} × {why}"))
            .collect();
        let refused = match refused.is_empty() {
            true => "none".to_owned(),
            false => refused.join(", "),
        };
        vec![
            (
                "a stream is open after, ms",
                format!("{:.2}", opening / self.streams as f64),
            ),
            ("attempted/s", format!("{:.0}", all.attempted as f64 / took)),
            (
                "acknowledged/s",
                format!("{:.0}", acknowledged as f64 / took),
            ),
            (
                "acknowledged in, p50 / p99, ms",
                format!("{:.1} / {:.1}", at(0.5), at(0.99)),
            ),
            ("refused", refused),
            (
                "events to streams/s",
                format!("{:.0}", events as f64 / took),
            ),
            (
                "streams that lagged and came back",
                told.lagged.get().to_string(),
            ),
            (
                "processor time of the daemon, µs a job",
                format!("{:.0}", work * 1e6 / acknowledged as f64),
            ),
            (
                "memory idle / with the streams / after, MiB",
                format!("{idle:.0} / {before:.0} / {after:.0}"),
            ),
            (
                "acknowledged / of these lost by `kill -9`",
                format!("{acknowledged} / {lost}"),
            ),
        ]
    }

    async fn submit_for_a_while(
        self,
        connection: &mut Connection,
        begun: Instant,
        number: u64,
    ) -> Seen {
        let mut seen = Seen::default();
        let every = Duration::from_secs_f64(self.connections as f64 / self.rate as f64);
        let mut due = begun + every.mul_f64(number as f64 / self.connections as f64);
        while due < begun + self.time && begun.elapsed() < self.time {
            tokio::time::sleep_until(due.into()).await;
            due += every;
            let asked = Instant::now();
            seen.attempted += 1;
            match connection.submit(SPEC, None).await {
                Ok(job) => {
                    seen.took.push(asked.elapsed());
                    seen.jobs.push(job);
                }
                Err(why) => *seen.refused.entry(why).or_default() += 1,
            }
        }
        seen
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
