//! What a long past costs: the start of a runtime whose log holds a million entries of a hundred thousand jobs that wait.
//!
//! `cargo bench -p runtime --bench recovery`. Each job has done four steps and waits for a signal. The log is made by the
//! runtime itself, without syncs. The runtime is ready once the log is read; its jobs are taken up while it serves
//! already, and whoever asks for a list of them waits until all are. The start is a process of its own, so that the memory it reports is that of recovered
//! jobs and nothing else: the growth of the resident set over an engine without jobs. The page cache is warm: cold, the
//! log's size over the disk's throughput comes on top.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Registry;
use pal::Pal;
use runtime::{
    CancelReason, Completer, Context, EffectCall, EffectId, EffectRequest, EffectRunner, Failure,
    InputError, Instruments, JobFilter, JobSpec, Json, Limits, Payloads, Program, ProgramFuture,
    Programs, Recovery, Runtime, RuntimeOptions, Shutdown,
};
use wal::{BlobStore, Log, Options, OsStorage, Recovered, Storage, SyncPolicy};

const JOBS: usize = 100_000;
const STEPS: u32 = 4;
const ROUNDS: usize = 5;
/// The argument that makes this program a process that starts and says what that took.
const START_ARGUMENT: &str = "--start-on";

struct StepsThenWait;

impl Program for StepsThenWait {
    fn name(&self) -> &str {
        "steps-then-wait"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, _input: &Json) -> Result<(), InputError> {
        Ok(())
    }

    fn start(&self, context: Context, _input: Json) -> ProgramFuture {
        Box::pin(async move {
            for _ in 0..STEPS {
                let request = EffectRequest::new("noop", Json::null());
                let done = context.effect(request).await;
                done.map_err(|error| Failure::new(error.code, error.message))?;
            }
            Ok(context.signal("go").await)
        })
    }
}

struct Obliging;

impl EffectRunner for Obliging {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        completer.complete(Ok(Json::null()));
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

/// A runtime, when the log was read and when it was ready, and what was found.
struct Started {
    runtime: Runtime,
    begun: Instant,
    read_after: Duration,
    ready_after: Duration,
    found: Recovered,
}

fn start(dir: &Path) -> Started {
    let begun = Instant::now();
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let mut recovery = Recovery::new();
    let options = Options {
        sync: SyncPolicy::Never,
        ..Options::new(dir.join("wal"))
    };
    let (log, found) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
        recovery.take_in(lsn, bytes)
    })
    .unwrap();
    let recovery = recovery.finish().unwrap();
    let read_after = begun.elapsed();
    let blobs = Arc::new(BlobStore::open(dir.join("blobs"), storage).unwrap());
    let mut drawn = 0u128;
    let options = RuntimeOptions {
        limits: Limits {
            running_effects: 10_000,
            live_jobs: 2 * JOBS,
            ..Limits::default()
        },
        intake_queue: 10_000,
        retention: Duration::from_secs(3600),
        long_poll: None,
        programs: Programs::new().with(StepsThenWait),
        payloads: Arc::new(Payloads::new(blobs, 4096)),
        pal: Pal::new(64, 1 << 20),
        instruments: Instruments::new(&Registry::new()),
        entropy: Box::new(move || {
            // Spread over all bits: an id keeps only some of them.
            drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            drawn
        }),
        version: "bench".to_owned(),
    };
    let runtime = Runtime::start(options, log, recovery, Obliging).unwrap();
    Started {
        runtime,
        begun,
        read_after,
        ready_after: begun.elapsed(),
        found,
    }
}

fn stop(runtime: Runtime) {
    runtime.jobs().shutdown(Shutdown {
        finish_within: Duration::ZERO,
        give_up_after: Duration::from_secs(10),
    });
    runtime.join().unwrap();
}

/// Makes a log of so many jobs.
fn make(dir: &Path, jobs: usize) {
    const AT_ONCE: usize = 1_000;
    let runtime = start(dir).runtime;
    let executor = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    for _ in 0..AT_ONCE.min(jobs) {
        let handle = runtime.jobs().clone();
        local.spawn_local(async move {
            for _ in 0..jobs.div_ceil(AT_ONCE) {
                let spec = JobSpec::new("steps-then-wait", Json::null());
                handle.submit(spec).await.unwrap();
            }
        });
    }
    executor.block_on(local);
    stop(runtime);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Starts in a process of its own; gives milliseconds until the log is read, until the runtime is ready and until all
/// jobs are taken up, and the resident bytes then.
fn start_apart(dir: &Path) -> [f64; 4] {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(START_ARGUMENT)
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    numbers.try_into().unwrap()
}

fn median(samples: &[[f64; 4]], which: usize) -> f64 {
    let mut values: Vec<_> = samples.iter().map(|sample| sample[which]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == START_ARGUMENT) {
        let started = start(Path::new(&arguments[at + 1]));
        let listed = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(started.runtime.jobs().list(JobFilter::default()));
        let all_after = started.begun.elapsed();
        listed.unwrap();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{} {} {} {}",
            ms(started.read_after),
            ms(started.ready_after),
            ms(all_after),
            resident_bytes()
        );
        stop(started.runtime);
        return;
    }
    let base = std::env::var_os("BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let (full, empty) = (dir.path().join("full"), dir.path().join("empty"));
    make(&full, JOBS);
    make(&empty, 0);
    let Started { runtime, found, .. } = start(&full);
    stop(runtime);
    let (mut of_full, mut of_empty) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_full.push(start_apart(&full));
        of_empty.push(start_apart(&empty));
    }
    println!(
        "{JOBS} live jobs, {} records, {:.0} bytes of log per job",
        found.records,
        found.bytes as f64 / JOBS as f64
    );
    let show = |what: &str, value: f64, unit: &str| println!("{what:<28}{value:>10.1} {unit}");
    show("start to ready", median(&of_full, 1), "ms");
    show("of this, reading the log", median(&of_full, 0), "ms");
    show("the same without jobs", median(&of_empty, 1), "ms");
    show("start to all jobs taken up", median(&of_full, 2), "ms");
    let bytes = median(&of_full, 3) - median(&of_empty, 3);
    show("memory per live job", bytes / JOBS as f64, "bytes");
}
