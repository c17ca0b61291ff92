//! Long life: a whole daemon under load for half an hour, and what grows meanwhile.
//!
//! ```text
//! cargo bench -p daemon --bench soak
//! ```
//!
//! The daemon is the real one, begun with [`daemon::init`] and ended with its `shutdown`, in this process; clients work
//! through its handle, and ask its probes over HTTP. Its limits are set so that everything that may grow has reached its
//! bound after some minutes: small segments kept for a minute, ten thousand finished jobs. The load is a mixture: plans of a
//! few steps, commands that really run, outputs large enough to become blobs, jobs that wait and are signalled, jobs that
//! are cancelled, keys submitted twice.
//!
//! Every ten seconds the resident set, open files, threads and bytes below the data directory are taken. The first third
//! is run-in; over the rest a line is fitted to each (least squares), and its slope is told with its standard error. A leak
//! is a slope that is many times its error.
//!
//! `SOAK_MINUTES` (default 30), `SOAK_CLIENTS` (default 32), `SOAK_DIR` for another file system.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use daemon::config::{Config, Environment, LoadOptions, SetFlag};
use daemon::http::probe;
use daemon::logging::{self, LogOptions};
use daemon::running::Settings;
use daemon::signal::Signals;
use daemon::{Running, StopReason};
use pal::Pal;
use runtime::{JobSpec, JobState, Jobs, Json};
use serde_json::{Value, json};

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Longer than an answer of a probe may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    // The commands that the daemon runs are supervised by this very program.
    tools::supervisor::main_if_requested();
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (minutes, clients) = (number("SOAK_MINUTES", 30), number("SOAK_CLIENTS", 32));
    let base = std::env::var_os("SOAK_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(
        &executor,
        soak(dir.path(), Duration::from_secs(60 * minutes), clients),
    );
}

fn settings(data_dir: &Path) -> Settings {
    let load_options = LoadOptions {
        environment: Environment::of_variables([]),
        sets: vec![
            SetFlag::new(&format!("node.data_dir={}", data_dir.display())),
            SetFlag::new("http.listen=127.0.0.1:0"),
            SetFlag::new("wal.segment_size=4MiB"),
            SetFlag::new("wal.retention=60s"),
            SetFlag::new("limits.finished_jobs_kept=10000"),
            SetFlag::new("log.filter=error"),
        ],
        ..LoadOptions::default()
    };
    let loaded = Config::load(&load_options).unwrap();
    let log = logging::init(&LogOptions {
        filter: loaded.config.log.filter.clone(),
        format: loaded.config.log.format,
        colour: false,
    });
    let activity = &loaded.config.activity;
    Settings {
        pal: Pal::new(activity.capacity, activity.capacity_size.as_usize()),
        loaded,
        load_options,
        log: log.unwrap(),
        started: Instant::now(),
        with_http: true,
    }
}

async fn soak(dir: &Path, span: Duration, clients: u64) {
    let data_dir = dir.join("data");
    let mut signals = Signals::listen().unwrap();
    let mut running: Running = daemon::init(settings(&data_dir)).await.unwrap();
    let begun = Instant::now();
    let until = begun + span;
    let done = Rc::new(Cell::new(0u64));
    let at_work: Vec<_> = (0..clients)
        .map(|client| {
            let (jobs, done) = (running.jobs().clone(), Rc::clone(&done));
            tokio::task::spawn_local(async move {
                let mut number = 0;
                while Instant::now() < until {
                    done.set(done.get() + one_after_another(&jobs, client, number).await);
                    number += 1;
                }
            })
        })
        .collect();
    let address = running.http_address().unwrap();
    let samples = tokio::select! {
        samples = watch(&data_dir, address, begun, until, &done) => samples,
        reason = running.until_stopped(&mut signals) => panic!("the daemon stops by itself: {reason:?}"),
    };
    for client in at_work {
        client.await.unwrap();
    }
    let stopped = running.shutdown(StopReason::JobOver, &mut signals).await;
    println!(
        "{} jobs in {:.1} minutes; {:?}",
        done.get(),
        span.as_secs_f64() / 60.0,
        stopped.unwrap()
    );
    let settled = &samples[samples.len() / 3..];
    for (what, unit, value) in [
        (
            "resident set",
            "KiB",
            (|sample| sample.resident_mib * 1024.0) as fn(&Sample) -> f64,
        ),
        ("open files", "files", |sample| sample.files as f64),
        ("threads", "threads", |sample| sample.threads as f64),
        ("data directory", "KiB", |sample| sample.disk_mib * 1024.0),
    ] {
        let points = settled.iter().map(|sample| (sample.minutes, value(sample)));
        let line = Line::fit(&points.collect::<Vec<_>>());
        println!(
            "{what:<15} {:>10.1} {unit}, slope {:>+9.3} ± {:.3} {unit} a minute",
            line.mean, line.slope, line.slope_error
        );
    }
}

/// Takes samples until it is time.
async fn watch(
    data_dir: &Path,
    address: SocketAddr,
    begun: Instant,
    until: Instant,
    done: &Cell<u64>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    println!("minute   MiB resident   files   threads   MiB on disk   jobs");
    while Instant::now() < until {
        tokio::time::sleep(SAMPLE_EVERY).await;
        let url = format!("http://{address}/readyz");
        let health = tokio::task::spawn_blocking(move || probe(&url, PATIENCE)).await;
        let health = health.unwrap().unwrap();
        assert!(health.is_ok(), "the daemon is not ready: {}", health.body);
        let sample = Sample::take(begun.elapsed(), data_dir);
        if samples.len() % 6 == 0 {
            println!(
                "{:>6.1} {:>14.1} {:>7} {:>9} {:>13.1} {:>6}",
                sample.minutes,
                sample.resident_mib,
                sample.files,
                sample.threads,
                sample.disk_mib,
                done.get()
            );
        }
        samples.push(sample);
    }
    samples
}

/// A few jobs of one client, each waited for; says how many that were.
async fn one_after_another(jobs: &Jobs, client: u64, number: u64) -> u64 {
    let greet = json!([
        { "id": "one", "say": "from {{ input.client }}" },
        { "id": "two", "needs": ["one"], "say": "{{ input.text | length }} bytes" },
    ]);
    let text = "x".repeat(100 + (number % 50) as usize * 1_000);
    let input = json!({ "client": client, "text": text });
    let plan = spec(&greet, &input).keyed(format!("{client}/{number}"));
    let first = jobs.submit(plan.clone()).await.unwrap();
    finished(jobs, first.job, JobState::Completed).await;
    let again = jobs.submit(plan).await.unwrap();
    assert_eq!((again.job, again.is_new), (first.job, false));

    let ask = json!([{ "id": "ask", "ask": { "prompt": "go on?", "approval": true } }]);
    let asked = jobs.submit(spec(&ask, &Value::Null)).await.unwrap().job;
    if number.is_multiple_of(2) {
        jobs.cancel(asked, "by the soak").await.unwrap();
        finished(jobs, asked, JobState::Cancelled).await;
    } else {
        jobs.signal(asked, "ask", Json::of(&json!(true)))
            .await
            .unwrap();
        finished(jobs, asked, JobState::Completed).await;
    }

    let run = json!([
        { "id": "run", "class": "read", "run": { "argv": ["seq", "1", "5000"] } },
        { "id": "failing", "needs": ["run"], "retry": { "attempts": 2, "backoff": "1ms" },
          "run": { "argv": ["false"] } },
    ]);
    let ran = jobs.submit(spec(&run, &Value::Null)).await.unwrap().job;
    finished(jobs, ran, JobState::Failed).await;
    3
}

fn spec(steps: &Value, input: &Value) -> JobSpec {
    JobSpec::new("plan", Json::of(&json!({ "input": input, "steps": steps })))
}

async fn finished(jobs: &Jobs, job: runtime::JobId, state: JobState) {
    let view = jobs.when_over(job).await.unwrap().unwrap();
    assert_eq!(view.state, state, "{view:?}");
}

/// What the process and its directory take at one moment.
struct Sample {
    minutes: f64,
    resident_mib: f64,
    files: usize,
    threads: usize,
    disk_mib: f64,
}

impl Sample {
    fn take(elapsed: Duration, data_dir: &Path) -> Self {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident_kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
            .unwrap();
        Self {
            minutes: elapsed.as_secs_f64() / 60.0,
            resident_mib: resident_kib / 1024.0,
            files: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
            disk_mib: bytes_below(data_dir) as f64 / f64::from(1 << 20),
        }
    }
}

fn bytes_below(dir: &Path) -> u64 {
    // What is removed while we look counts for nothing.
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A line through points, by least squares.
struct Line {
    mean: f64,
    slope: f64,
    /// The slope's standard error.
    slope_error: f64,
}

impl Line {
    fn fit(points: &[(f64, f64)]) -> Self {
        let count = points.len() as f64;
        let mean_of = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean_of(|point| point.0), mean_of(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let common: f64 = points
            .iter()
            .map(|(x, y)| (x - mean_x) * (y - mean_y))
            .sum();
        let slope = common / spread;
        let residual = |(x, y): &(f64, f64)| (y - mean_y - slope * (x - mean_x)).powi(2);
        let residuals: f64 = points.iter().map(residual).sum();
        Self {
            mean: mean_y,
            slope,
            slope_error: (residuals / (count - 2.0) / spread).sqrt(),
        }
    }
}
