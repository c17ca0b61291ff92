//! What goes into the engine and what comes out of it, as values.

use std::sync::Arc;
use std::time::Duration;

use pal::Pal;
use scheduler::Time;
use tokio::sync::oneshot;
use wal::{BlobId, Failure as LogFailure, Lsn, Submission, WriterEvent};

use crate::dump::Dump;
use crate::effect::EffectDone;
use crate::error::{JobError, SubmitError};
use crate::ids::JobId;
use crate::instruments::Instruments;
use crate::job::JobView;
use crate::jobs::{JobFilter, Page, Submitted};
use crate::json::Json;
use crate::payload::{Payload, Payloads};
use crate::program::Programs;
use crate::spec::JobSpec;
use crate::sync::mpsc::Sender;

/// The way back for an answer. A client that has gone is no harm.
pub type Reply<T> = oneshot::Sender<T>;

/// What comes to the engine from outside.
#[derive(Debug)]
pub enum Input {
    /// A job is submitted. Its input is stored already.
    Submit {
        /// What is asked for.
        spec: Box<JobSpec>,
        /// Its input, as the log will hold it.
        input: Payload,
        /// The input's blob, if it could not be written yet.
        unwritten: Option<(BlobId, Vec<u8>)>,
        /// Told once the job is durable.
        reply: Reply<Result<Submitted, SubmitError>>,
    },
    /// A job is to end.
    Cancel {
        /// Which.
        job: JobId,
        /// Why, in the words of whoever asks.
        reason: String,
        /// Told once the request is durable.
        reply: Reply<Result<(), JobError>>,
    },
    /// Something is sent to a job.
    Signal {
        /// Which job.
        job: JobId,
        /// What its program waits for by this name.
        name: String,
        /// What is sent.
        payload: Json,
        /// Told once it is durable.
        reply: Reply<Result<(), JobError>>,
    },
    /// An effect is over.
    EffectDone(EffectDone),
    /// The log has something to say.
    Log(WriterEvent),
    /// One job is asked for.
    Get {
        /// Which.
        job: JobId,
        /// The answer; `None` if there is no such job.
        reply: Reply<Option<JobView>>,
    },
    /// Jobs are asked for.
    List {
        /// Which.
        filter: JobFilter,
        /// The answer.
        reply: Reply<Page>,
    },
    /// Somebody wants to know how far the log is durable, and shown to watchers.
    Shown {
        /// The newest such entry; [`Lsn::ZERO`] if there is none.
        reply: Reply<Lsn>,
    },
    /// Everything is asked for.
    Dump {
        /// The answer.
        reply: Reply<Box<Dump>>,
    },
    /// Somebody wants to know when a job is over.
    WhenOver {
        /// Which.
        job: JobId,
        /// Told then; at once if it is over already, and `None` if there is no such job.
        reply: Reply<Option<JobView>>,
    },
    /// Somebody wants to know when nothing is left to do.
    WhenIdle {
        /// Told then.
        reply: Reply<Idleness>,
    },
    /// These blobs are in the store. Those that no entry names are left over from a crash, and go.
    StoredBlobs(Vec<BlobId>),
    /// Some limits change.
    SetLimits(Limits),
    /// How long segments are kept changes.
    SetRetention(Duration),
    /// The process is to end.
    Shutdown(Shutdown),
}

impl Input {
    /// The live job that this can only be served with.
    pub(crate) fn about(&self) -> Option<JobId> {
        match self {
            Self::Cancel { job, .. }
            | Self::Signal { job, .. }
            | Self::Get { job, .. }
            | Self::WhenOver { job, .. } => Some(*job),
            _ => None,
        }
    }
}

/// How much the engine takes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that are not over.
    pub live_jobs: usize,
    /// Effects at work at the same time.
    pub running_effects: usize,
    /// The length of a specification's texts in bytes, and of a signal.
    pub spec_bytes: usize,
    /// Jobs that are over and still known.
    pub finished_jobs: usize,
    /// How often tasks are polled in one turn before the engine looks for new inputs.
    pub turn_polls: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            live_jobs: 100_000,
            running_effects: 256,
            spec_bytes: 1 << 20,
            finished_jobs: 100_000,
            turn_polls: 10_000,
        }
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long running effects may go on to end by themselves.
    pub finish_within: Duration,
    /// When to stop although some have not ended: counted from now, like the other.
    pub give_up_after: Duration,
}

/// What was left when nothing was left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idleness {
    /// Jobs of this life of the process that completed.
    pub completed: u64,
    /// Jobs of this life that failed.
    pub failed: u64,
    /// Jobs of this life that were cancelled.
    pub cancelled: u64,
    /// Jobs that are stuck.
    pub stuck: u64,
}

/// What a turn gives.
#[derive(Debug, Default)]
pub struct Turn {
    /// What is to be written, if anything is.
    pub submission: Option<Submission>,
    /// When to take the next turn although no input came; `None` for not before one does.
    pub deadline: Option<Time>,
    /// Tasks are ready still: take the next turn at once.
    pub busy: bool,
    /// The log is not needed below this position.
    pub release: Option<Release>,
    /// Blobs that no entry names any more: to be [discarded](Payloads::discard) before the next turn.
    pub garbage: Vec<BlobId>,
    /// The engine is through: what it had to write is durable, or never will be.
    pub stopped: Option<Stopped>,
}

/// How the log does, as far as it touches those who want to submit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogState {
    /// Well.
    #[default]
    Ok,
    /// There is no room for another segment. What runs goes on in what is left of this one; nothing new is taken in.
    SpaceLow,
    /// There is no room at all: nothing goes on until there is.
    Stalled {
        /// What the system said.
        reason: String,
    },
    /// It has failed, and nothing is acknowledged any more.
    Failed {
        /// What the system said.
        reason: String,
    },
}

/// Which segments of the log may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Entries below this are not needed.
    pub below: Lsn,
    /// Segments younger than this are kept all the same.
    pub retention: Duration,
}

/// How the engine came to its end.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// As it was asked to.
    Cleanly {
        /// Effects that had not ended when the time was over.
        left_running: usize,
    },
    /// The log failed, and nothing was acknowledged after that.
    LogFailed(LogFailure),
    /// As it was asked to, but the disk was full until the time was over: the log does not end with the marker of a
    /// clean end. Nothing that was acknowledged is lost.
    OutOfSpace(LogFailure),
}

/// How the engine was set up.
pub struct EngineOptions {
    /// What it takes on.
    pub limits: Limits,
    /// How long finished jobs are kept in the log.
    pub retention: Duration,
    /// Programs by name.
    pub programs: Programs,
    /// Where payloads are.
    pub payloads: Arc<Payloads>,
    /// Where events go.
    pub pal: Pal,
    /// What is counted.
    pub instruments: Instruments,
    /// Where effects' results come back.
    pub inbox: Sender<Input>,
    /// Where the next record of the log will stand. The engine is the log's only writer, so it knows the place of
    /// every entry from the start.
    pub next_lsn: Lsn,
    /// The longest batch that the log takes, in bytes as encoded.
    pub batch_bytes: usize,
    /// Randomness for ids.
    pub entropy: Box<dyn FnMut() -> u128>,
    /// The version that the journal names as the writer's.
    pub version: String,
    /// Options of the scheduler.
    pub scheduler: scheduler::Options,
}
