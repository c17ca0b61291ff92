//! Durable jobs per second, and the time of a lone step, on the disk of this machine.
//!
//! `cargo bench -p runtime`. Each job runs a program of some steps whose effects give their result at once, so what is
//! measured is the runtime and the disk: a job of `n` steps waits for the disk `n + 2` times, one after the other. The
//! last lines hold a lone job against a bare loop of `fdatasync` in the same directory and the same run.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Registry;
use pal::Pal;
use runtime::{
    CancelReason, Completer, Context, EffectCall, EffectId, EffectRequest, EffectRunner, Failure,
    InputError, Instruments, JobSpec, Jobs, Json, Limits, Payloads, Program, ProgramFuture,
    Programs, Recovery, Runtime, RuntimeOptions, Shutdown,
};
use wal::{BlobStore, Log, Options, OsStorage, Storage};

/// For how long each line is measured, about.
const SPAN: Duration = Duration::from_secs(1);

/// Runs as many steps as its input says, one after the other.
struct Steps;

impl Program for Steps {
    fn name(&self) -> &str {
        "steps"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, _input: &Json) -> Result<(), InputError> {
        Ok(())
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        Box::pin(async move {
            let steps: u32 = input.read().unwrap();
            for _ in 0..steps {
                let request = EffectRequest::new("noop", Json::null());
                let done = context.effect(request).await;
                done.map_err(|error| Failure::new(error.code, error.message))?;
            }
            Ok(Json::null())
        })
    }
}

/// Carries everything out at once.
struct Obliging;

impl EffectRunner for Obliging {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        completer.complete(Ok(Json::null()));
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

fn start(dir: &Path) -> Runtime {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let (log, _) = Log::open(
        Options::new(dir.join("wal")),
        Arc::clone(&storage),
        wal::ignore,
    )
    .unwrap();
    let blobs = Arc::new(BlobStore::open(dir.join("blobs"), storage).unwrap());
    let mut drawn = 0u128;
    let options = RuntimeOptions {
        limits: Limits {
            running_effects: 10_000,
            ..Limits::default()
        },
        intake_queue: 10_000,
        retention: Duration::from_secs(3600),
        long_poll: None,
        programs: Programs::new().with(Steps),
        payloads: Arc::new(Payloads::new(blobs, 4096)),
        pal: Pal::new(4096, 4 << 20),
        instruments: Instruments::new(&Registry::new()),
        entropy: Box::new(move || {
            // Spread over all bits: an id keeps only some of them.
            drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            drawn
        }),
        version: "bench".to_owned(),
    };
    Runtime::start(options, log, Recovery::new(), Obliging).unwrap()
}

/// Submits a job and waits for its end, again and again, from so many clients; says how many jobs that were.
async fn drive(jobs: &Jobs, clients: usize, steps: u32, until: Instant) -> u64 {
    let local = tokio::task::LocalSet::new();
    let counts: Vec<_> = (0..clients)
        .map(|_| {
            let jobs = jobs.clone();
            local.spawn_local(async move {
                let mut count = 0;
                while Instant::now() < until {
                    let spec = JobSpec::new("steps", Json::of(&steps));
                    let job = jobs.submit(spec).await.unwrap().job;
                    while !jobs.get(job).await.unwrap().unwrap().state.is_final() {
                        tokio::task::yield_now().await;
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    local
        .run_until(async {
            let mut sum = 0;
            for count in counts {
                sum += count.await.unwrap();
            }
            sum
        })
        .await
}

/// The sorted times of bare appends of 200 bytes, each followed by a sync.
fn bare_syncs(dir: &Path, count: usize) -> Vec<Duration> {
    let mut file = File::create(dir.join("bare")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.sync_all().unwrap();
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[7; 200]).unwrap();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

/// The sorted times of lone jobs, from the submission until the end is seen.
async fn lone_jobs(jobs: &Jobs, count: usize, steps: u32) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let spec = JobSpec::new("steps", Json::of(&steps));
        jobs.submit(spec).await.unwrap();
        jobs.when_idle().await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times
}

fn main() {
    let executor = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // Under `target`, which is on a disk where `/tmp` may not be.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = start(dir.path());
    let jobs = runtime.jobs();
    println!(
        "{:>10} {:>10} {:>12} {:>12}",
        "in flight", "steps", "jobs/s", "steps/s"
    );
    for clients in [1, 64, 1_000] {
        for steps in [1u32, 10, 100] {
            let begun = Instant::now();
            let count = executor.block_on(drive(jobs, clients, steps, begun + SPAN));
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            let steps_rate = rate * f64::from(steps);
            println!("{clients:>10} {steps:>10} {rate:>12.0} {steps_rate:>12.0}");
        }
    }
    const TIMES: usize = 1_000;
    let bare = bare_syncs(dir.path(), TIMES);
    let one = executor.block_on(lone_jobs(jobs, TIMES, 1));
    let eleven = executor.block_on(lone_jobs(jobs, TIMES / 10, 11));
    println!();
    let show = |name: &str, p50: Duration, p99: Duration| {
        println!("{name:<44} p50 {p50:>9.1?}  p99 {p99:>9.1?}");
    };
    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100];
    show("bare fdatasync", at(&bare, 50), at(&bare, 99));
    show(
        "job of one step (three waits for the disk)",
        at(&one, 50),
        at(&one, 99),
    );
    let step = |percent| at(&eleven, percent).saturating_sub(at(&one, percent)) / 10;
    show("each further step (one wait)", step(50), step(99));
    let ratio = step(50).as_secs_f64() / at(&bare, 50).as_secs_f64();
    println!("a step takes {ratio:.2} times a bare fdatasync");
    runtime.jobs().shutdown(Shutdown {
        finish_within: Duration::ZERO,
        give_up_after: Duration::from_secs(10),
    });
    runtime.join().unwrap();
}
