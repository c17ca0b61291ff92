//! Ours as a peer: the runtime over its log, in a process of its own, which speaks the protocol of [`child`].
//!
//! [`child`]: crate::child

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use metrics::Registry;
use pal::Pal;
use runtime::{
    CancelReason, Completer, Context, EffectCall, EffectId, EffectRequest, EffectRunner, Failure,
    InputError, Instruments, JobSpec, Jobs, Json, Limits, Payloads, Program, ProgramFuture,
    Programs, Recovery, Runtime, RuntimeOptions, Shutdown,
};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::LocalSet;
use wal::{BlobStore, Log, Options, OsStorage, Storage};

/// Requests that may wait for the engine: more than there are clients.
const INTAKE: usize = 10_000;

/// Takes as many steps as its input says, one after the other; may wait for a signal that never comes after that.
struct Steps {
    /// Where it counts the jobs that have come to wait, if it waits.
    waits: Option<watch::Sender<u64>>,
}

impl Program for Steps {
    fn name(&self) -> &str {
        if self.waits.is_some() {
            "waiting"
        } else {
            "steps"
        }
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, _input: &Json) -> Result<(), InputError> {
        Ok(())
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        let waits = self.waits.clone();
        Box::pin(async move {
            let steps: u32 = input
                .read()
                .map_err(|error| Failure::new("input", error.to_string()))?;
            for _ in 0..steps {
                let request = EffectRequest::new("noop", Json::null());
                let done = context.effect(request).await;
                done.map_err(|error| Failure::new(error.code, error.message))?;
            }
            if let Some(waiting) = waits {
                waiting.send_modify(|waiting| *waiting += 1);
                context.signal("go").await;
            }
            Ok(Json::null())
        })
    }
}

/// Carries everything out at once, and says when it was asked to, if somebody wants to know.
struct Obliging {
    wanted: Arc<AtomicBool>,
    starts: Sender<Instant>,
}

impl EffectRunner for Obliging {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        if self.wanted.load(Ordering::Relaxed) {
            // Nobody listens any more once the process stops.
            let _ = self.starts.send(Instant::now());
        }
        completer.complete(Ok(Json::null()));
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

/// What was in the log.
struct Found {
    records: u64,
    live: usize,
}

fn start(dir: &Path, effects: Obliging, waiting: watch::Sender<u64>) -> Result<(Runtime, Found)> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let mut recovery = Recovery::new();
    let mut records = 0;
    let options = Options::new(dir.join("wal"));
    let (log, _) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
        records += 1;
        recovery.take_in(lsn, bytes)
    })?;
    let recovery = recovery.finish()?;
    let live = recovery.live_jobs();
    let blobs = Arc::new(BlobStore::open(dir.join("blobs"), storage)?);
    let mut drawn = u128::from(std::process::id()) << 64
        ^ std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_nanos();
    let options = RuntimeOptions {
        limits: Limits {
            running_effects: INTAKE,
            live_jobs: 2_000_000,
            ..Limits::default()
        },
        intake_queue: INTAKE,
        retention: Duration::from_secs(3600),
        long_poll: None,
        programs: Programs::new().with(Steps { waits: None }).with(Steps {
            waits: Some(waiting),
        }),
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
    let runtime = Runtime::start(options, log, recovery, effects)?;
    Ok((runtime, Found { records, live }))
}

/// Submits a job of one program and waits for its end.
async fn one(jobs: &Jobs, steps: u32) -> Result<()> {
    let spec = JobSpec::new("steps", Json::of(&steps));
    let job = jobs.submit(spec).await?.job;
    let view = jobs.when_over(job).await?.context("the job is known")?;
    if view.state != runtime::JobState::Completed {
        bail!("a job of no-op steps is {}", view.state);
    }
    Ok(())
}

async fn run(jobs: &Jobs, steps: u32, clients: usize, span: Duration) -> Result<serde_json::Value> {
    let begun = Instant::now();
    let until = begun + span;
    let local = LocalSet::new();
    let counts: Vec<_> = (0..clients)
        .map(|_| {
            let jobs = jobs.clone();
            local.spawn_local(async move {
                let mut count = 0;
                while Instant::now() < until {
                    one(&jobs, steps).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    let sum = local.run_until(async {
        let mut sum = 0u64;
        for count in counts {
            sum += count.await??;
        }
        anyhow::Ok(sum)
    });
    let sum = sum.await?;
    Ok(json!({ "jobs": sum, "seconds": begun.elapsed().as_secs_f64() }))
}

async fn lone(jobs: &Jobs, steps: u32, times: usize) -> Result<serde_json::Value> {
    let mut micros = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        one(jobs, steps).await?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(json!({ "micros": micros }))
}

/// From the start of each effect to the start of the next: what lies between is one durable step.
async fn steps(
    jobs: &Jobs,
    wanted: &AtomicBool,
    starts: &Receiver<Instant>,
    count: u32,
) -> Result<serde_json::Value> {
    wanted.store(true, Ordering::Relaxed);
    one(jobs, count + 1).await?;
    wanted.store(false, Ordering::Relaxed);
    let starts: Vec<_> = starts.try_iter().collect();
    let micros: Vec<_> = starts
        .windows(2)
        .map(|two| (two[1] - two[0]).as_secs_f64() * 1e6)
        .collect();
    Ok(json!({ "micros": micros }))
}

/// Waits until so many jobs have come to wait in this life of the process, and all that they did is durable.
async fn all_wait(jobs: &Jobs, waiting: &watch::Receiver<u64>, number: u64) -> Result<()> {
    waiting
        .clone()
        .wait_for(|waiting| *waiting >= number)
        .await?;
    // What is in the log is in order: when a job that came later is over, durably, so is all before it.
    one(jobs, 1).await
}

async fn live(
    jobs: &Jobs,
    waiting: &watch::Receiver<u64>,
    steps: u32,
    number: u64,
    span: Duration,
) -> Result<serde_json::Value> {
    const CLIENTS: u64 = 1_000;
    let before = *waiting.borrow();
    let until = Instant::now() + span;
    let local = LocalSet::new();
    let counts: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let jobs = jobs.clone();
            let share = number / CLIENTS + u64::from(client < number % CLIENTS);
            local.spawn_local(async move {
                let mut made = 0;
                while made < share && Instant::now() < until {
                    let spec = JobSpec::new("waiting", Json::of(&steps));
                    jobs.submit(spec).await?;
                    made += 1;
                }
                anyhow::Ok(made)
            })
        })
        .collect();
    let sum = local.run_until(async {
        let mut sum = 0u64;
        for count in counts {
            sum += count.await??;
        }
        anyhow::Ok(sum)
    });
    let sum = sum.await?;
    all_wait(jobs, waiting, before + sum).await?;
    Ok(json!({ "live": sum }))
}

fn say(answer: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

/// Runs until stdin ends.
pub(crate) fn main(dir: &Path) -> Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread().build()?;
    let (starts, started) = channel();
    let wanted = Arc::new(AtomicBool::new(false));
    let effects = Obliging {
        wanted: Arc::clone(&wanted),
        starts,
    };
    let (sender, waiting) = watch::channel(0);
    let (runtime, found) = start(dir, effects, sender)?;
    let jobs = runtime.jobs();
    say(&json!({ "ready": true, "records": found.records, "live": found.live }))?;
    executor.block_on(one(jobs, 1))?;
    say(&json!({ "first": true }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["run", count, clients, seconds] => executor.block_on(run(
                jobs,
                count.parse()?,
                clients.parse()?,
                Duration::from_secs_f64(seconds.parse()?),
            ))?,
            ["lone", count, times] => {
                executor.block_on(lone(jobs, count.parse()?, times.parse()?))?
            }
            ["steps", count] => {
                executor.block_on(steps(jobs, &wanted, &started, count.parse()?))?
            }
            ["live", count, number, seconds] => executor.block_on(live(
                jobs,
                &waiting,
                count.parse()?,
                number.parse()?,
                Duration::from_secs_f64(seconds.parse()?),
            ))?,
            ["idle"] => {
                executor.block_on(all_wait(jobs, &waiting, found.live as u64))?;
                json!({ "idle": true })
            }
            _ => bail!("what is {line:?}?"),
        };
        say(&answer)?;
    }
    jobs.shutdown(Shutdown {
        finish_within: Duration::ZERO,
        give_up_after: Duration::from_secs(10),
    });
    runtime.join()?;
    Ok(())
}
