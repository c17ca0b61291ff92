//! The engine: all jobs, and everything that happens to them, as one deterministic state machine.
//!
//! It has no thread, no clock and no file. It is given inputs and the time, one turn after another, and gives back what
//! is to be written. A turn is:
//!
//! 1. take the inputs in: submissions, results of effects, times that have come, what the log has made durable;
//! 2. run every ready task until all jobs are quiescent, handing each job its next delivery whenever it is;
//! 3. hand all entries of the turn over as one batch.
//!
//! What must not happen before the batch is durable (acknowledging a submission, starting an effect, showing an
//! event) is kept, as an `After`, under the batch's token, and done when the log says so. So a turn costs one sync
//! however many jobs took part, and the engine never waits for the disk.
//!
//! Invariants:

mod effects;
mod intake;
mod interface;
mod journal;
mod progress;
mod recover;
mod stop;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pal::{EventKind, Pal};
use scheduler::timer::TimerQueue;
use scheduler::{Handle, Scheduler, Time};
use wal::{Batch, BlobId, Failure as LogFailure, Lsn};

use crate::cell::Touched;
use crate::effect::EffectRunner;
use crate::entry::Ending;
use crate::error::{JobError, SubmitError};
use crate::ids::{Attempt, EffectId, JobId, StepIndex};
use crate::index::JobIndex;
use crate::instruments::Instruments;
use crate::job::{Job, JobView};
use crate::jobs::Submitted;
use crate::payload::Payloads;
use crate::program::Programs;
use crate::recovery::Journal;
use crate::spec::JobPriority;
use crate::sync::mpsc::Sender;
use crate::time::Now;

pub use self::interface::{
    EngineOptions, Idleness, Input, Limits, LogState, Release, Reply, Shutdown, Stopped, Turn,
};
pub(crate) use self::progress::{POLLS_PER_REST, deadlock, ending_of, livelock};

/// What happens once a batch is durable.
enum After {
    Start {
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
        lsn: Lsn,
    },
    Born {
        slot: usize,
        generation: u64,
        lsn: Lsn,
    },
    Ended {
        slot: usize,
        generation: u64,
        lsn: Lsn,
        ending: Box<Ending>,
        finished_ms: u64,
    },
    Publish {
        job: Option<JobId>,
        kind: Box<EventKind>,
        at_ms: u64,
        lsn: Option<Lsn>,
    },
    Settled(EffectId),
    EpochSaid(Lsn),
    AckSubmitted(Reply<Result<Submitted, SubmitError>>, Submitted),
    Answer(Reply<Result<(), JobError>>, Result<(), JobError>),
    Stopped,
}

/// What a timer of the engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Sleep {
        slot: usize,
        generation: u64,
        step: StepIndex,
    },
    Timeout {
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
    },
    Overdue {
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
    },
    Retry {
        slot: usize,
        generation: u64,
        step: StepIndex,
    },
    Housekeeping,
    EndEffects,
    GiveUp,
}

/// A batch that is being filled.
#[derive(Default)]
struct OpenBatch {
    batch: Batch,
    blobs: Vec<(BlobId, Vec<u8>)>,
    after: Vec<After>,
}

impl OpenBatch {
    fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.after.is_empty()
    }
}

/// A batch on its way to the disk.
struct InFlight {
    token: u64,
    /// Where its first entry will stand.
    first: Lsn,
    after: Vec<After>,
}

/// All jobs, and everything that happens to them.
pub struct Engine<R> {
    limits: Limits,
    retention: Duration,
    programs: Programs,
    payloads: Arc<Payloads>,
    pal: Pal,
    instruments: Instruments,
    inbox: Sender<Input>,
    entropy: Box<dyn FnMut() -> u128>,
    runner: R,

    scheduler: Scheduler,
    handle: Handle,
    now: Now,
    epoch: u64,
    /// Where the log says the epoch. It is not released before it says so again.
    epoch_said: Lsn,

    /// Live jobs that are not taken up yet: see `recover`.
    asleep: BTreeMap<JobId, Journal>,
    /// Inputs that wait for one of them.
    postponed: Vec<Input>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_id: HashMap<JobId, usize>,
    /// Jobs that are not over, those that sleep included.
    live: usize,
    stuck: usize,
    index: JobIndex,
    /// Where each live job's journal begins: what the log must keep.
    needed: BTreeSet<Lsn>,
    blob_names: HashMap<[u8; 32], Lsn>,

    touched: Rc<Touched>,
    /// Jobs with deliveries pending, each once.
    deliverable: VecDeque<usize>,
    /// Turns in a row that ended with tasks still ready.
    restless_turns: u64,
    alarms: TimerQueue<Alarm>,
    running_effects: usize,
    effect_queue: BTreeMap<(std::cmp::Reverse<JobPriority>, u64), (usize, u64, StepIndex)>,
    effects_queued: u64,

    next_lsn: Lsn,
    batch_bytes: usize,
    /// Batches that are full and not handed over yet; usually none.
    full: VecDeque<OpenBatch>,
    open: OpenBatch,
    spare_batches: Vec<Batch>,
    next_token: u64,
    /// The place after the last entry handed over.
    handed_over: Lsn,
    /// The newest entry that is durable.
    shown: Lsn,
    in_flight: VecDeque<InFlight>,

    draining: Option<Draining>,
    stopped: Option<Stopped>,
    stalled: Option<LogFailure>,
    space_low: bool,
    idle_waiters: Vec<Reply<Idleness>>,
    /// Who waits for the end of a live job.
    end_waiters: HashMap<JobId, Vec<Reply<Option<JobView>>>>,
    tally: Idleness,
    release: Option<Release>,
    /// Blobs that no entry named when this was looked into.
    garbage: BTreeSet<BlobId>,
}

#[derive(Clone, Copy, Debug)]
struct Draining {
    gave_up: bool,
    said_stopped: bool,
}

#[derive(Default)]
struct Slot {
    generation: u64,
    job: Option<Box<Job>>,
}

/// How often the engine looks whether the log can be shortened.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(30);

/// How many entries may follow the last that says the epoch until it is said again: enough that an idle node writes
/// nothing, and few enough that they hold back no segment for long.
const EPOCH_SAID_EVERY_ENTRIES: u64 = 1_000;

/// How many blobs are removed in one turn: some milliseconds' worth.
const GARBAGE_PER_TURN: usize = 256;

/// How many batches may be on their way to the disk. While that many are, later turns fill one batch together: the
/// disk is the bottleneck then, and larger batches are what it needs.
const BATCHES_IN_FLIGHT: usize = 2;

/// The most that the log adds to a record within a batch: its length.
const RECORD_OVERHEAD_BYTES: usize = 16;

impl<R: EffectRunner> Engine<R> {
    // --- turns ---

    /// Takes one turn: see the module's description.
    pub fn turn(&mut self, now: Now, inputs: &mut Vec<Input>) -> Turn {
        self.now = now;
        self.wake_sleepers(inputs);
        for input in inputs.drain(..) {
            self.take_in(input);
        }
        self.scheduler.advance_to(now.monotonic);
        self.fire_alarms();
        let busy = !self.is_winding_down() && self.run();
        self.start_queued();
        self.wind_down();
        self.report_scheduler();
        self.tell_if_idle();
        let garbage = self.take_garbage();
        Turn {
            submission: self.take_submission(),
            deadline: self.next_deadline(),
            busy: busy || !self.garbage.is_empty() || self.has_sleepers_to_wake(),
            release: self.release.take(),
            garbage,
            stopped: self.stopped.clone(),
        }
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Submit {
                spec,
                input,
                unwritten,
                reply,
            } => self.submit(*spec, &input, unwritten, reply),
            Input::Cancel { job, reason, reply } => self.cancel(job, reason, reply),
            Input::Signal {
                job,
                name,
                payload,
                reply,
            } => self.signal(job, name, payload, reply),
            Input::EffectDone(done) => self.effect_done(done),
            Input::Log(event) => self.log_event(event),
            Input::Get { job, reply } => {
                let _ = reply.send(self.view(job));
            }
            Input::List { filter, reply } => {
                let _ = reply.send(self.list(&filter));
            }
            Input::Shown { reply } => {
                let _ = reply.send(self.shown);
            }
            Input::Dump { reply } => {
                let _ = reply.send(Box::new(self.dump()));
            }
            Input::WhenOver { job, reply } => self.when_over(job, reply),
            Input::WhenIdle { reply } => self.idle_waiters.push(reply),
            Input::StoredBlobs(blobs) => self.garbage.extend(blobs),
            Input::SetLimits(limits) => self.limits = limits,
            Input::SetRetention(retention) => self.retention = retention,
            Input::Shutdown(how) => self.begin_shutdown(how),
        }
    }

    fn fire_alarms(&mut self) {
        while let Some((_, alarm)) = self.alarms.pop_due(self.now.monotonic) {
            match alarm {
                // The last entry is written: whatever comes now is for the next life.
                alarm if self.is_winding_down() && alarm != Alarm::GiveUp => {}
                Alarm::Sleep {
                    slot,
                    generation,
                    step,
                } => self.sleep_over(slot, generation, step),
                Alarm::Timeout {
                    slot,
                    generation,
                    step,
                    attempt,
                } => self.attempt_timed_out(slot, generation, step, attempt),
                Alarm::Overdue {
                    slot,
                    generation,
                    step,
                    attempt,
                } => self.attempt_overdue(slot, generation, step, attempt),
                Alarm::Retry {
                    slot,
                    generation,
                    step,
                } => self.retry_due(slot, generation, step),
                Alarm::Housekeeping => self.keep_house(),
                Alarm::EndEffects => self.end_effects(),
                Alarm::GiveUp => self.give_up(),
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        match (self.alarms.next_deadline(), self.scheduler.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn set_alarm(&mut self, after: Duration, alarm: Alarm) -> scheduler::timer::TimerToken {
        let after_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let deadline = Time::from_nanos(self.now.monotonic.as_nanos().saturating_add(after_ns));
        self.alarms.insert(deadline, alarm)
    }

    fn live_jobs(&self) -> impl Iterator<Item = &Job> {
        self.slots.iter().filter_map(|slot| slot.job.as_deref())
    }

    fn job_mut(&mut self, slot: usize, generation: u64) -> Option<&mut Job> {
        let slot = self.slots.get_mut(slot)?;
        if slot.generation == generation {
            slot.job.as_deref_mut()
        } else {
            None
        }
    }
}
