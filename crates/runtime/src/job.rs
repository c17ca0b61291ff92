//! A live job as the engine holds it, and the views of jobs that everybody else gets.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use scheduler::timer::TimerToken;
use serde::{Deserialize, Serialize};
use wal::{BlobId, Lsn};

use crate::cell::{Awaited, Cell, Divergence};
use crate::effect::{CancelReason, EffectError};
use crate::engine::Reply;
use crate::entry::{Entry, Outcome, StoredSpec};
use crate::error::JobError;
use crate::ids::{Attempt, EffectId, JobId, StepIndex};
use crate::json::Json;
use crate::payload::Payload;
use crate::policy::EffectPolicy;
use crate::spec::{JobPriority, JobState};

/// A delivered entry that waits for its job to be quiescent.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) entry: Entry,
    /// Its payload, where it has one; held until the entry is written.
    pub(crate) payload: Option<Payload>,
    pub(crate) blob: Option<(BlobId, Vec<u8>)>,
    pub(crate) event: Option<pal::EventKind>,
    /// Told once the entry is durable, or that it came too late.
    pub(crate) reply: Option<Reply<Result<(), JobError>>>,
}

/// Where one effect of a job stands.
#[derive(Debug)]
pub(crate) struct EffectState {
    pub(crate) kind: Arc<str>,
    pub(crate) label: Arc<str>,
    pub(crate) title: Option<String>,
    pub(crate) policy: EffectPolicy,
    pub(crate) input: Json,
    pub(crate) attempt: Attempt,
    pub(crate) status: EffectStatus,
    pub(crate) timer: Option<TimerToken>,
    pub(crate) last_error: Option<String>,
    /// When the running try began, on the engine's clock in nanoseconds.
    pub(crate) started_ns: u64,
    /// The program gave it up; it is only waited for so that no process is left behind.
    pub(crate) abandoned: bool,
    /// This same try was begun by an earlier life of the daemon.
    pub(crate) interrupted: bool,
}

/// The life of one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EffectStatus {
    /// Known from the journal; what becomes of it is decided when the journal is followed to its end.
    InDoubt,
    /// Waiting for room. It has left no trace outside.
    Queued,
    /// Its intent is on its way to the disk.
    Starting,
    /// At work.
    Running,
    /// Asked to end.
    Ending(CancelReason),
    /// A try failed; the next is due at this time, in Unix milliseconds.
    Backoff { next_at_ms: u64 },
}

impl EffectStatus {
    /// Whether it counts against the limit on running effects.
    pub(crate) fn holds_slot(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Ending(_))
    }
}

/// Where a live job as a whole stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its program runs.
    Live,
    /// Its program is over or being ended; what it left running is waited for.
    Cancelling { reason: String },
    /// Its last entry is on its way to the disk.
    Ended {
        /// What it is once that is durable.
        state: JobState,
    },
    /// Its program and its journal disagree.
    Stuck { divergence: Divergence },
}

/// A live job.
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) cell: Rc<Cell>,
    /// Its program's task; `None` until that begins.
    pub(crate) root: Option<scheduler::TaskId>,
    pub(crate) spec: StoredSpec,
    pub(crate) submitted_ms: u64,
    /// Where its first entry stands; `None` until that is durable.
    pub(crate) first_lsn: Option<Lsn>,
    pub(crate) phase: Phase,
    /// In boxes: a map has room for eleven in its smallest node, and most jobs have one or none.
    pub(crate) effects: BTreeMap<StepIndex, Box<EffectState>>,
    pub(crate) timers: BTreeMap<StepIndex, TimerToken>,
    pub(crate) pending: VecDeque<Delivery>,
    /// Whether the last view shown to watchers was of a waiting job.
    pub(crate) shown_waiting: bool,
    pub(crate) entries: u64,
}

impl Job {
    pub(crate) fn effect_id(&self, step: StepIndex, attempt: Attempt) -> EffectId {
        EffectId {
            job: self.id,
            step,
            attempt,
        }
    }

    /// Whether anything of it is at work outside.
    pub(crate) fn holds_effects(&self) -> bool {
        self.effects
            .values()
            .any(|effect| effect.status.holds_slot())
    }

    pub(crate) fn state(&self) -> JobState {
        match &self.phase {
            Phase::Stuck { .. } => JobState::Stuck,
            Phase::Cancelling { .. } | Phase::Ended { .. } => JobState::Running,
            Phase::Live if self.first_lsn.is_none() => JobState::Queued,
            Phase::Live if self.waits_for().is_some() => JobState::Waiting,
            Phase::Live => JobState::Running,
        }
    }

    /// What it waits for, if it only waits: for time, or for somebody.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let waiting = self
            .effects
            .values()
            .all(|effect| matches!(effect.status, EffectStatus::Backoff { .. }));
        if !waiting || self.cell.has_returned() {
            return None;
        }
        let mut reasons = Vec::new();
        for (step, awaited) in self.cell.awaited() {
            match awaited {
                Awaited::Signal { name } => reasons.push(format!("signal `{name}`")),
                Awaited::Timer { deadline_ms } => {
                    reasons.push(format!("time {}", crate::time::rfc3339(deadline_ms)));
                }
                Awaited::Effect { label } => {
                    if let Some(effect) = self.effects.get(&step)
                        && let EffectStatus::Backoff { next_at_ms } = effect.status
                    {
                        reasons.push(format!(
                            "retry of `{label}` at {}",
                            crate::time::rfc3339(next_at_ms)
                        ));
                    }
                }
            }
        }
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    pub(crate) fn view(&self) -> JobView {
        JobView {
            id: self.id,
            name: self.spec.name.clone(),
            program: self.spec.program.clone(),
            state: self.state(),
            waits_for: self.waits_for(),
            priority: self.spec.priority,
            labels: self.spec.labels.iter().cloned().collect(),
            submitted_ms: self.submitted_ms,
            finished_ms: None,
            steps: self
                .effects
                .iter()
                .map(|(step, effect)| StepView {
                    step: *step,
                    label: effect.label.to_string(),
                    title: effect.title.clone(),
                    kind: effect.kind.to_string(),
                    attempt: effect.attempt,
                    attempts: effect.policy.attempts,
                    status: match effect.status {
                        EffectStatus::InDoubt => "in_doubt",
                        EffectStatus::Queued => "queued",
                        EffectStatus::Starting => "starting",
                        EffectStatus::Running => "running",
                        EffectStatus::Ending(_) => "ending",
                        EffectStatus::Backoff { .. } => "backoff",
                    }
                    .to_owned(),
                    next_attempt_ms: match effect.status {
                        EffectStatus::Backoff { next_at_ms } => Some(next_at_ms),
                        _ => None,
                    },
                    last_error: effect.last_error.clone(),
                })
                .collect(),
            error: match &self.phase {
                Phase::Stuck { divergence } => Some(divergence.to_string()),
                _ => None,
            },
            first_lsn: self.first_lsn,
            last_lsn: None,
        }
    }
}

/// The end of one effect, as an entry holds it.
pub(crate) fn failed_outcome(
    error: EffectError,
    output: Option<&crate::payload::Payload>,
) -> Outcome {
    Outcome::Failed {
        error,
        output: output.map(crate::payload::Payload::stored),
        attachments: output.map_or_else(Vec::new, |payload| {
            payload.attachments().iter().map(|id| id.0).collect()
        }),
    }
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What people call it.
    pub name: Option<String>,
    /// The program that runs it.
    pub program: String,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for, if it only waits.
    pub waits_for: Option<String>,
    /// How urgent it is.
    pub priority: JobPriority,
    /// Words to find it by.
    pub labels: BTreeMap<String, String>,
    /// When it was submitted, in Unix milliseconds.
    pub submitted_ms: u64,
    /// When it ended, in Unix milliseconds.
    pub finished_ms: Option<u64>,
    /// Its effects that are not over.
    pub steps: Vec<StepView>,
    /// Why it failed or is stuck.
    pub error: Option<String>,
    /// Where its journal begins in the log.
    #[serde(skip)]
    pub first_lsn: Option<Lsn>,
    /// Where its journal ends in the log, if it is over.
    #[serde(skip)]
    pub last_lsn: Option<Lsn>,
}

/// One effect of a live job as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Which request of the job it is.
    pub step: StepIndex,
    /// The step's name.
    pub label: String,
    /// What it is for, in words.
    pub title: Option<String>,
    /// The handler.
    pub kind: String,
    /// Which try it is at.
    pub attempt: Attempt,
    /// How many tries it has.
    pub attempts: u32,
    /// `queued`, `starting`, `running`, `ending`, `backoff` or `in_doubt`.
    pub status: String,
    /// When the next try is due, in Unix milliseconds.
    pub next_attempt_ms: Option<u64>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}
