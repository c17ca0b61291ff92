//! Durable jobs: intake, journal, effects, recovery, replay, cancellation and limits.
//!
//! A job is a [`Program`] run over a journal. What the program asks of the world goes into the write-ahead log before
//! it is done, and what the world answers goes in before the program acts on it; so a job can be taken up again at any
//! instant, and replayed at any time. The parts, from the outside in:
//!
//! - [`Jobs`] is the handle for clients; [`Runtime`] starts and joins the threads behind it.
//! - [`engine`] is the state machine of all jobs. It has no clock, thread or file.
//! - [`Context`] is what a program sees; `cell` is where program and engine meet, and where determinism is kept.
//! - [`entry`] is what the log's records mean; [`Recovery`] gathers them at the start; [`replay()`] follows them
//!   without executing anything.
//! - [`history`] tells from the log what jobs did, as the activity log told it while it happened.
//! - [`effect`] is the contract with those who carry effects out.
//!
//! This crate knows nothing of models, tools, transports or config files.

mod ask;
mod cell;
mod context;
mod driver;
mod dump;
pub mod effect;
pub mod engine;
pub mod entry;
mod error;
pub mod history;
mod ids;
mod index;
mod instruments;
mod job;
mod jobs;
mod json;
mod payload;
mod policy;
mod program;
mod random;
mod recovery;
mod replay;
mod run;
mod spec;
mod sync;
mod time;

pub use ask::{Answer, Question};
pub use cell::{Divergence, Recorded};
pub use context::{Context, EffectRequest, Either, Elapsed, JoinError, Latch};
pub use driver::{Runtime, RuntimeOptions};
pub use dump::Dump;
pub use effect::{
    CancelReason, Completer, EffectCall, EffectClass, EffectError, EffectResult, EffectRunner,
    Progress,
};
pub use engine::{Idleness, Limits, LogState, Shutdown, Stopped};
pub use error::{JobError, RecoverError, RuntimeError, SubmitError};
pub use history::{Follower, History, HistoryError, JobResult, StepOutput, Told, read_journal};
pub use ids::{Attempt, EffectId, JobId, StepIndex};
pub use instruments::Instruments;
pub use job::{JobView, StepView};
pub use jobs::{JobFilter, Jobs, Page, Submitted};
pub use json::Json;
pub use payload::{Payload, PayloadError, Payloads, Pin, Stored};
pub use policy::EffectPolicy;
pub use program::{Failure, InputError, Program, ProgramFuture, ProgramResult, Programs};
pub use recovery::Recovery;
pub use replay::{ReplayError, Replayed, replay};
pub use spec::{Fingerprint, JobPriority, JobSpec, JobState};
pub use time::{Now, rfc3339};
