//! The engine's thread: the only place where the runtime meets clocks, threads and the log's writer.
//!
//! One loop: wait for an input or for the next deadline, take all inputs that are there, take a turn, hand the turn's
//! batch to the writer. Two channels connect it with the rest of the process: the inbox, into which clients, effects
//! and the log's writer send, and the writer's bounded queue.
//!
//! While nothing is left to do before a batch is durable, the engine writes it itself (`Writer::write`) instead of waking
//! the writer's thread to wait for it: a lone job's step costs a sync and little more. What comes in meanwhile is the
//! next batch, as ever. A slow disk gets the thread, so that the engine goes on answering.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pal::Pal;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};
use scheduler::Time;
use tokio::sync::watch;
use wal::{BlobId, Log, Lsn, StatsHandle, StopError, Submission, Writer};

use crate::effect::EffectRunner;
use crate::engine::{Engine, EngineOptions, Input, Limits, LogState, Stopped, Turn};
use crate::error::RuntimeError;
use crate::instruments::Instruments;
use crate::jobs::Jobs;
use crate::payload::Payloads;
use crate::program::Programs;
use crate::recovery::Recovery;
use crate::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use crate::sync::thread;
use crate::time::Now;

/// How a runtime is set up.
pub struct RuntimeOptions {
    /// What it takes on.
    pub limits: Limits,
    /// How many requests may wait for the engine.
    pub intake_queue: usize,
    /// How long finished jobs are kept in the log.
    pub retention: Duration,
    /// Tasks that hold the scheduler for longer are reported; `None` spares the clock readings.
    pub long_poll: Option<Duration>,
    /// What jobs can be.
    pub programs: Programs,
    /// Where payloads are.
    pub payloads: Arc<Payloads>,
    /// Where events go.
    pub pal: Pal,
    /// What is counted.
    pub instruments: Instruments,
    /// Randomness for ids.
    pub entropy: Box<dyn FnMut() -> u128 + Send>,
    /// The version that the journal names as the writer's.
    pub version: String,
}

/// A running runtime.
#[derive(Debug)]
pub struct Runtime {
    jobs: Jobs,
    log_state: watch::Receiver<LogState>,
    log_stats: StatsHandle,
    thread: thread::JoinHandle<Result<Stopped, RuntimeError>>,
}

/// The most inputs that one turn takes in, so that a flood of them does not keep what is ready from running.
const INPUTS_PER_TURN: usize = 4_096;

/// Batches that may wait in the writer's queue. The engine itself keeps fewer on their way; this is the bound that
/// the channel states.
const WRITER_QUEUE: usize = 8;

/// A write on the engine's thread that takes longer is too slow for it: the engine answers nobody meanwhile, and the
/// switches of thread that are spared, some 40 µs, are no longer worth mentioning.
const SLOW_WRITE: Duration = Duration::from_millis(1);

/// For how long nothing is written on the engine's thread after a slow write.
const SLOW_WRITE_REST: Duration = Duration::from_secs(1);

impl Runtime {
    /// Starts the log's writer and the engine. When this returns it serves, and takes up the live jobs one after the
    /// other.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started, or ends before it is ready.
    pub fn start<R: EffectRunner + Send + 'static>(
        options: RuntimeOptions,
        log: Log,
        recovery: Recovery,
        runner: R,
    ) -> Result<Self, RuntimeError> {
        let (inbox, inputs) = channel();
        let jobs = Jobs::new(
            inbox.clone(),
            options.intake_queue,
            options.programs.clone(),
            Arc::clone(&options.payloads),
            options.limits.spec_bytes,
        );
        let next_lsn = log.next_lsn();
        let batch_bytes = log.payload_limit();
        let events = inbox.clone();
        let blobs = Arc::clone(options.payloads.blobs());
        let writer = Writer::start(log, blobs, WRITER_QUEUE, move |event| {
            // The engine is gone only when it has stopped, and then nobody waits for the log any more.
            let _ = events.send(Input::Log(event));
        });
        let log_stats = writer.stats_handle();
        look_for_leftover_blobs(Arc::clone(&options.payloads), inbox.clone())?;
        let (ready, resumed) = channel();
        let (log_state, log_state_seen) = watch::channel(LogState::Ok);
        let handle = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let place = (next_lsn, batch_bytes);
                let driver = Driver::new(options, (inbox, inputs), writer, place, recovery, runner);
                let _ = ready.send(());
                driver.run(&log_state)
            })
            .map_err(|error| RuntimeError::Thread {
                thread: "engine",
                what: format!("could not be started: {error}"),
            })?;
        resumed.recv().map_err(|_| RuntimeError::Thread {
            thread: "engine",
            what: "ended while it resumed the jobs".to_owned(),
        })?;
        Ok(Self {
            jobs,
            log_state: log_state_seen,
            log_stats,
            thread: handle,
        })
    }

    /// The handle to work with.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// How the log does, whenever that changes. Closed when the engine has ended.
    #[must_use]
    pub fn log_state(&self) -> watch::Receiver<LogState> {
        self.log_state.clone()
    }

    /// What the log has done so far, for metrics.
    #[must_use]
    pub fn log_stats(&self) -> StatsHandle {
        self.log_stats.clone()
    }

    /// Waits until the engine has ended, after [`Jobs::shutdown`] or by a failure of the log.
    ///
    /// # Errors
    ///
    /// If the log failed or the engine's thread panicked.
    pub fn join(self) -> Result<Stopped, RuntimeError> {
        self.thread.join().unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
                .unwrap_or_default();
            Err(RuntimeError::Thread {
                thread: "engine",
                what: format!("panicked: {message}"),
            })
        })
    }
}

struct Driver<R> {
    engine: Engine<R>,
    inputs: Receiver<Input>,
    writer: Writer,
    payloads: Arc<Payloads>,
    clock: Clock,
    /// Until then batches go to the writer's thread in any case.
    write_again_at: Instant,
}

/// Both clocks, read together.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(self) -> Now {
        let elapsed_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        Now {
            monotonic: Time::from_nanos(elapsed_ns),
            unix_ms,
        }
    }
}

/// The watch on tasks that hold the engine. It reads a clock at every poll, so it reads the coarse one, which the kernel
/// keeps beside and a tick may be late (4 ms at 250 Hz), wherever that is fine enough: from four ticks on.
fn long_poll(limit: Duration) -> scheduler::LongPoll {
    let tick = nanos(clock_getres(ClockId::MonotonicCoarse));
    let id = if limit.as_nanos() >= u128::from(tick) * 4 {
        ClockId::MonotonicCoarse
    } else {
        ClockId::Monotonic
    };
    scheduler::LongPoll {
        limit,
        clock: Box::new(move || nanos(clock_gettime(id))),
    }
}

/// A reading of a monotonic clock, which is never negative and in range for 584 years.
fn nanos(time: Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

impl<R: EffectRunner> Driver<R> {
    fn new(
        options: RuntimeOptions,
        (inbox, inputs): (Sender<Input>, Receiver<Input>),
        writer: Writer,
        (next_lsn, batch_bytes): (Lsn, usize),
        recovery: Recovery,
        runner: R,
    ) -> Self {
        let clock = Clock {
            start: Instant::now(),
        };
        let scheduler = scheduler::Options {
            long_poll: options.long_poll.map(long_poll),
            ..scheduler::Options::default()
        };
        let engine = EngineOptions {
            limits: options.limits,
            retention: options.retention,
            programs: options.programs,
            payloads: Arc::clone(&options.payloads),
            pal: options.pal,
            instruments: options.instruments,
            inbox,
            next_lsn,
            batch_bytes,
            entropy: options.entropy,
            version: options.version,
            scheduler,
        };
        Self {
            engine: Engine::new(engine, runner, recovery, clock.now()),
            inputs,
            writer,
            payloads: options.payloads,
            clock,
            write_again_at: clock.start,
        }
    }

    fn run(mut self, log_state: &watch::Sender<LogState>) -> Result<Stopped, RuntimeError> {
        let mut inputs = Vec::new();
        let mut last = Turn {
            busy: true,
            ..Turn::default()
        };
        loop {
            if !last.busy && inputs.is_empty() {
                self.wait(last.deadline, &mut inputs);
            }
            while inputs.len() < INPUTS_PER_TURN
                && let Ok(input) = self.inputs.try_recv()
            {
                inputs.push(input);
            }
            last = self.engine.turn(self.clock.now(), &mut inputs);
            log_state.send_if_modified(|seen| {
                let state = self.engine.log_state();
                let is_new = *seen != state;
                *seen = state;
                is_new
            });
            if let Some(submission) = last.submission.take() {
                // Looked at before the disk is waited for: what is there now need not wait for it as well.
                inputs.extend(self.inputs.try_recv());
                let nothing_else_to_do = !last.busy && inputs.is_empty();
                match self.hand_over(submission, nothing_else_to_do) {
                    Ok(()) => {}
                    Err(wal::SubmitError::TooLarge { submission, limit }) => unreachable!(
                        "the engine keeps batches to the limit of {limit} bytes, and came with {}",
                        submission.batch.encoded_bytes()
                    ),
                    // The writer has ended; why stands in its last event.
                    Err(_) => last.busy = false,
                }
            }
            if let Some(release) = last.release.take() {
                self.writer.release(release.below, release.retention);
            }
            self.discard(std::mem::take(&mut last.garbage));
            if let Some(stopped) = last.stopped.take() {
                return self.stop(stopped);
            }
        }
    }

    /// Brings a turn's batch to the log: by the writer's thread, or on this one if it would only wait for the other and
    /// the disk is quick.
    fn hand_over(
        &mut self,
        submission: Submission,
        nothing_else_to_do: bool,
    ) -> Result<(), wal::SubmitError> {
        let begun = Instant::now();
        if !nothing_else_to_do || begun < self.write_again_at {
            return self.writer.submit(submission);
        }
        self.writer.write(submission)?;
        if begun.elapsed() > SLOW_WRITE {
            self.write_again_at = begun + SLOW_WRITE_REST;
        }
        Ok(())
    }

    fn wait(&self, deadline: Option<Time>, inputs: &mut Vec<Input>) {
        let received = match deadline {
            None => self
                .inputs
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                let now = self.clock.now().monotonic;
                let wait_ns = deadline.as_nanos().saturating_sub(now.as_nanos());
                self.inputs.recv_timeout(Duration::from_nanos(wait_ns))
            }
        };
        match received {
            Ok(input) => inputs.push(input),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                unreachable!("the engine holds a sender of its own inbox")
            }
        }
    }

    /// Removes blobs that no entry names. On this thread, so that no entry comes to name one meanwhile.
    fn discard(&self, garbage: Vec<BlobId>) {
        for id in garbage {
            if let Err(error) = self.payloads.discard(id) {
                tracing::warn!("blob {id} is no longer named and could not be removed: {error}");
            }
        }
    }

    fn stop(self, stopped: Stopped) -> Result<Stopped, RuntimeError> {
        // Requests that came too late are answered by their dropped replies.
        let late: VecDeque<Input> = self.inputs.try_iter().collect();
        drop(late);
        match (self.writer.stop(), stopped) {
            (_, Stopped::LogFailed(failure)) | (Err(StopError::Failed(failure)), _) => {
                Err(RuntimeError::Log(failure))
            }
            (Err(StopError::NoSpace(failure)), _) | (_, Stopped::OutOfSpace(failure)) => {
                Err(RuntimeError::NoSpace(failure))
            }
            (Err(error), _) => Err(RuntimeError::Thread {
                thread: "wal-writer",
                what: error.to_string(),
            }),
            (Ok(_), stopped) => Ok(stopped),
        }
    }
}

/// Looks, beside all else and at leisure, for blobs that a crash left behind: half written, or never named by an entry.
fn look_for_leftover_blobs(
    payloads: Arc<Payloads>,
    inbox: Sender<Input>,
) -> Result<(), RuntimeError> {
    let look = move || {
        let blobs = payloads.blobs();
        match blobs.remove_unfinished().and_then(|_| blobs.list()) {
            // The engine knows which of them are named; it may have stopped meanwhile.
            Ok(stored) => drop(inbox.send(Input::StoredBlobs(stored))),
            Err(error) => tracing::warn!("cannot look for blobs that were left over: {error}"),
        }
    };
    let name = "leftover-blobs";
    let started = thread::Builder::new().name(name.to_owned()).spawn(look);
    started.map(drop).map_err(|error| RuntimeError::Thread {
        thread: name,
        what: format!("could not be started: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler::{Idle, Options, Priority, Report, Scheduler};

    #[test]
    fn a_long_poll_is_reported_by_name_and_duration_on_either_clock() {
        // The first is less than four ticks of any coarse clock, the second more.
        for limit in [Duration::from_millis(1), Duration::from_millis(50)] {
            let mut scheduler = Scheduler::new(Options {
                long_poll: Some(long_poll(limit)),
                ..Options::default()
            });
            let handle = scheduler.handle();
            for (name, holds) in [("quick", false), ("slow", true)] {
                let clock = long_poll(limit).clock;
                let limit_ns = limit.as_nanos() as u64;
                let task = async move {
                    let start = clock();
                    while holds && clock() - start <= limit_ns {
                        std::hint::spin_loop();
                    }
                };
                handle.spawn(name, Priority::Normal, task).detach();
            }
            assert_eq!(scheduler.run_until_idle(), Idle::Finished);
            let reports = scheduler.take_reports().reports;
            let slow = |report: &&Report| matches!(report, Report::LongPoll { name, duration, .. } if name == "slow" && *duration > limit);
            assert_eq!(reports.iter().filter(slow).count(), 1, "{reports:?}");
        }
    }
}
