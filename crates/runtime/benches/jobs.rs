//! Durable jobs per second, and the time of a lone step, on the disk of this machine.
//!
//! `cargo bench -p runtime`. Each job runs a program of some steps whose effects give their result at once, so what is
//! measured is the runtime and the disk: a job of `n` steps waits for the disk `n + 1` times, one after the other, and is
//! over when its client has been told so. The last lines hold the steps of a lone job against a bare loop of `pwrite` and
//! `fdatasync` into a preallocated file, in the same directory and the same run.
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on has nothing to say"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use metrics::Registry;
use pal::Pal;
use runtime::{
    CancelReason, Completer, Context, EffectCall, EffectId, EffectRequest, EffectRunner, Failure,
    InputError, Instruments, JobSpec, Jobs, Json, Limits, Payloads, Program, ProgramFuture,
    Programs, Recovery, Runtime, RuntimeOptions, Shutdown,
};
use wal::storage::Access;
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

/// Carries everything out at once, and says when it was asked to.
struct Obliging(Sender<Instant>);

impl EffectRunner for Obliging {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        // Nobody listens when nobody wants to know.
        let _ = self.0.send(Instant::now());
        completer.complete(Ok(Json::null()));
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

fn start(dir: &Path, starts: Sender<Instant>) -> Runtime {
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
    Runtime::start(options, log, Recovery::new(), Obliging(starts)).unwrap()
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
                    jobs.when_over(job).await.unwrap();
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

/// The sorted times of bare appends of 200 bytes, each followed by a sync, into a file laid out as a segment is.
fn bare_syncs(dir: &Path, count: usize) -> Vec<Duration> {
    let storage = OsStorage::new();
    let file = storage.open(&dir.join("bare"), Access::Create).unwrap();
    file.allocate(1 << 20).unwrap();
    storage.sync_dir(dir).unwrap();
    file.sync_data().unwrap();
    let mut times: Vec<_> = (0..count)
        .map(|number| {
            let begun = Instant::now();
            file.write_all_at(&[7; 200], 200 * number as u64).unwrap();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

/// The sorted times of the steps of a lone job: from one effect's start to the next one's, which is when the entry that
/// holds the result of the one and the intent of the other is durable.
async fn lone_steps(jobs: &Jobs, starts: &Receiver<Instant>, count: u32) -> Vec<Duration> {
    starts.try_iter().for_each(drop);
    let spec = JobSpec::new("steps", Json::of(&count));
    let job = jobs.submit(spec).await.unwrap().job;
    jobs.when_over(job).await.unwrap();
    let starts: Vec<_> = starts.try_iter().collect();
    assert_eq!(starts.len(), count as usize);
    let mut times: Vec<_> = starts.windows(2).map(|two| two[1] - two[0]).collect();
    times.sort_unstable();
    times
}

/// The sorted times of lone jobs of one step, from the submission until the end is known.
async fn lone_jobs(jobs: &Jobs, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let spec = JobSpec::new("steps", Json::of(&1));
        let job = jobs.submit(spec).await.unwrap().job;
        jobs.when_over(job).await.unwrap();
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
    let (starts, started) = channel();
    let runtime = start(dir.path(), starts);
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
            started.try_iter().for_each(drop);
        }
    }
    const TIMES: usize = 2_000;
    // Before and after, for disks have moods.
    let mut bare = bare_syncs(dir.path(), TIMES / 2);
    let steps = executor.block_on(lone_steps(jobs, &started, TIMES as u32 + 1));
    let whole = executor.block_on(lone_jobs(jobs, TIMES));
    bare.extend(bare_syncs(dir.path(), TIMES / 2));
    bare.sort_unstable();
    println!();
    let at = |times: &[Duration], permille: usize| times[times.len() * permille / 1_000];
    let show = |name: &str, times: &[Duration]| {
        let [p50, p99, p999] = [500, 990, 999].map(|permille| at(times, permille));
        println!("{name:<36} p50 {p50:>9.1?}  p99 {p99:>9.1?}  p999 {p999:>9.1?}");
    };
    show("bare fdatasync", &bare);
    show("durable step of a lone job", &steps);
    show("lone job of one step (two syncs)", &whole);
    let ratio = at(&steps, 500).as_secs_f64() / at(&bare, 500).as_secs_f64();
    println!("a step takes {ratio:.2} times a bare fdatasync");
    runtime.jobs().shutdown(Shutdown {
        finish_within: Duration::ZERO,
        give_up_after: Duration::from_secs(10),
    });
    runtime.join().unwrap();
}
