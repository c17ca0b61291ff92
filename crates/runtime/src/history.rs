//! History: what jobs did, told from the log.
//!
//! The activity log shows what happens and forgets it; the log keeps it. Every event that shows a durable entry carries that
//! entry's number, and here the same events are made from the entries alone. So whoever lost the live stream reads what is
//! missing and goes on live, and misses nothing: see [`Jobs::shown`](crate::Jobs::shown) for how the two are joined.
//!
//! Two things are only as good as the journal has them: the time of what a program asked for is the time of the job then,
//! and the duration of a step is counted from there. What was never in the log (output as it is printed, that a job waits)
//! is not told.
//!
//! Everything here reads files and blocks; none of it is for the engine's thread or an executor's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pal::{EventKind, StepStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wal::{Lsn, ReadError, Reader, Storage};

use crate::cell::Recorded;
use crate::entry::{DecodeError, Ending, Entry, Outcome, Record};
use crate::ids::{Attempt, JobId, StepIndex};
use crate::json::Json;
use crate::payload::{PayloadError, Payloads, Stored};

/// Why history could not be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The log cannot be read.
    #[error("cannot read the log: {0}")]
    Read(#[from] ReadError),
    /// A record that this build cannot read.
    #[error("record at LSN {lsn}: {source}")]
    Decode {
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A payload is missing or damaged.
    #[error("{0}")]
    Payload(#[from] PayloadError),
    /// An event of a later version.
    #[error("event at LSN {lsn} cannot be read: {error}")]
    Event {
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong with it.
        error: String,
    },
}

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The number of the entry that it shows.
    pub lsn: Lsn,
    /// When it happened, in Unix milliseconds, as far as the journal says.
    pub at_ms: u64,
    /// The job it happened to.
    pub job: JobId,
    /// What happened.
    pub kind: EventKind,
}

/// What a finished job came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobResult {
    /// It gave a result.
    Completed {
        /// The result.
        output: Value,
    },
    /// Its program failed.
    Failed {
        /// A stable word for what went wrong.
        code: String,
        /// What went wrong, for people.
        message: String,
        /// What it gave all the same; null if it gave nothing.
        output: Value,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Why, in that somebody's words.
        reason: String,
    },
}

impl JobResult {
    /// Reads what an ending names.
    ///
    /// # Errors
    ///
    /// If a blob is missing or damaged.
    pub fn of(ending: Ending, payloads: &Payloads) -> Result<Self, PayloadError> {
        let load = |stored: &Stored| payloads.load(stored).map(|payload| payload.json().value());
        Ok(match ending {
            Ending::Completed { output } => Self::Completed {
                output: load(&output)?,
            },
            Ending::Failed {
                code,
                message,
                output,
            } => Self::Failed {
                code,
                message,
                output: output.as_ref().map(load).transpose()?.unwrap_or_default(),
            },
            Ending::Cancelled { reason } => Self::Cancelled { reason },
        })
    }

    /// The exit code of a process that stands for the job: that of the job's command, if it is one; else 0 or 1; 128 + n
    /// if signal n ended it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        const FAILED: u8 = 1;
        const SIGNALLED: i64 = 128;
        let output = match self {
            Self::Completed { .. } => return 0,
            Self::Cancelled { .. } => return FAILED,
            Self::Failed { output, .. } => output,
        };
        let number = |name: &str| output.get(name).and_then(Value::as_i64);
        match (number("exit_code"), number("signal")) {
            (Some(code), _) => u8::try_from(code).unwrap_or(FAILED).max(FAILED),
            (None, Some(signal)) => u8::try_from(SIGNALLED + signal).unwrap_or(FAILED),
            (None, None) => FAILED,
        }
    }
}

/// What one try of a step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutput {
    /// The entry that has it.
    pub lsn: Lsn,
    /// The step's name.
    pub step: String,
    /// The handler.
    pub kind: String,
    /// Which try.
    pub attempt: Attempt,
    /// What it gave.
    pub output: Json,
}

/// The log of a node, to be read while the node writes it.
#[derive(Clone)]
pub struct History {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    payloads: Arc<Payloads>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl History {
    /// The log in `dir`, whose payloads are in `payloads`.
    #[must_use]
    pub fn new(dir: PathBuf, storage: Arc<dyn Storage>, payloads: Arc<Payloads>) -> Self {
        Self {
            dir,
            storage,
            payloads,
        }
    }

    /// The events of one job whose journal begins at `first`: those after `after`, up to and including `through`.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn follow(
        &self,
        job: JobId,
        first: Lsn,
        after: Lsn,
        through: Lsn,
    ) -> Result<Follower, HistoryError> {
        self.follower(Some(job), first, (after, through), Box::new(|_| None))
    }

    /// The events of all jobs: those after `after`, up to and including `through`. Of a job that began earlier, the
    /// beginning is looked for where `first_of` says that its journal begins.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn follow_all(
        &self,
        after: Lsn,
        through: Lsn,
        first_of: impl FnMut(JobId) -> Option<Lsn> + Send + 'static,
    ) -> Result<Follower, HistoryError> {
        self.follower(None, after.next(), (after, through), Box::new(first_of))
    }

    fn follower(
        &self,
        job: Option<JobId>,
        from: Lsn,
        (after, through): (Lsn, Lsn),
        first_of: FirstOf,
    ) -> Result<Follower, HistoryError> {
        Ok(Follower {
            reader: Reader::open(&self.dir, Arc::clone(&self.storage), from)?,
            history: self.clone(),
            job,
            after,
            through,
            expected: from,
            gap: None,
            is_over: false,
            first_of,
            jobs: HashMap::new(),
            told: VecDeque::new(),
        })
    }

    /// The journal of a job, which begins at `first`, up to and including `through`.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn entries(
        &self,
        job: JobId,
        first: Lsn,
        through: Lsn,
    ) -> Result<Vec<(Lsn, Entry)>, HistoryError> {
        let mut entries = Vec::new();
        let mut reader = Reader::open(&self.dir, Arc::clone(&self.storage), first)?;
        while let Some((lsn, bytes)) = reader.next_record()? {
            if lsn > through {
                break;
            }
            if let Record::Job(owner, entry) = decode(lsn, bytes)?
                && owner == job
            {
                let is_last = matches!(entry, Entry::Finished { .. });
                entries.push((lsn, entry));
                if is_last {
                    break;
                }
            }
        }
        Ok(entries)
    }

    /// What a job came to, whose last entry stands at `last`; `None` if no last entry of that job stands there.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn result(&self, job: JobId, last: Lsn) -> Result<Option<JobResult>, HistoryError> {
        let entries = self.entries(job, last, last)?;
        let Some((_, Entry::Finished { ending, .. })) = entries.into_iter().next() else {
            return Ok(None);
        };
        Ok(Some(JobResult::of(ending, &self.payloads)?))
    }

    /// What the finished tries of a job's steps gave, in the order in which they ended.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn outputs(
        &self,
        job: JobId,
        first: Lsn,
        through: Lsn,
    ) -> Result<Vec<StepOutput>, HistoryError> {
        let mut steps: BTreeMap<StepIndex, (String, String)> = BTreeMap::new();
        let mut outputs = Vec::new();
        for (lsn, entry) in self.entries(job, first, through)? {
            let (step, attempt, stored) = match entry {
                Entry::Requested {
                    step, kind, label, ..
                } => {
                    steps.insert(step, (label, kind));
                    continue;
                }
                Entry::AttemptFailed {
                    step,
                    attempt,
                    output: Some(output),
                    ..
                } => (step, attempt, output),
                Entry::Completed {
                    step,
                    attempt,
                    outcome:
                        Outcome::Ok { output, .. }
                        | Outcome::Failed {
                            output: Some(output),
                            ..
                        },
                    ..
                } => (step, attempt, output),
                _ => continue,
            };
            if let Some((label, kind)) = steps.get(&step) {
                outputs.push(StepOutput {
                    lsn,
                    step: label.clone(),
                    kind: kind.clone(),
                    attempt,
                    output: self.load(&stored)?,
                });
            }
        }
        Ok(outputs)
    }

    /// What a job's program told whoever watches, in full: an event of the activity log is cut where it is too large.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn emitted(
        &self,
        job: JobId,
        first: Lsn,
        through: Lsn,
    ) -> Result<Vec<EventKind>, HistoryError> {
        let entries = self.entries(job, first, through)?.into_iter();
        entries
            .filter_map(|(lsn, entry)| match entry {
                Entry::Emitted { event } => Some(self.event(lsn, &event)),
                _ => None,
            })
            .collect()
    }

    fn event(&self, lsn: Lsn, stored: &Stored) -> Result<EventKind, HistoryError> {
        self.load(stored)?
            .read()
            .map_err(|error| HistoryError::Event {
                lsn,
                error: error.to_string(),
            })
    }

    /// What a job was asked to do, whose first entry stands at `first`; `None` if no first entry of that job stands there.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn input(&self, job: JobId, first: Lsn) -> Result<Option<Json>, HistoryError> {
        match self.entries(job, first, first)?.into_iter().next() {
            Some((_, Entry::Submitted { spec, .. })) => Ok(Some(self.load(&spec.input)?)),
            _ => Ok(None),
        }
    }

    /// Where payloads are.
    #[must_use]
    pub fn payloads(&self) -> &Arc<Payloads> {
        &self.payloads
    }

    fn load(&self, stored: &Stored) -> Result<Json, HistoryError> {
        Ok(self.payloads.load(stored)?.json().clone())
    }
}

/// The whole journal of a job, as the log in `dir` has it: what a replay follows.
///
/// # Errors
///
/// If the log cannot be read.
pub fn read_journal(
    dir: &Path,
    storage: Arc<dyn Storage>,
    job: JobId,
) -> Result<Vec<Recorded>, ReadError> {
    let mut reader = Reader::open(dir, storage, Lsn::FIRST)?;
    let mut journal = Vec::new();
    while let Some((lsn, bytes)) = reader.next_record()? {
        // A record of a later version is not one of a job that this build could replay.
        let Ok(Record::Job(owner, entry)) = Record::decode(bytes) else {
            continue;
        };
        if owner == job {
            let bytes = bytes.into();
            journal.push(Recorded { lsn, bytes });
            if matches!(entry, Entry::Finished { .. }) {
                break;
            }
        }
    }
    Ok(journal)
}

fn decode(lsn: Lsn, bytes: &[u8]) -> Result<Record, HistoryError> {
    Record::decode(bytes).map_err(|source| HistoryError::Decode { lsn, source })
}

/// Says where the journal of a job begins; `None` if there is no such job.
type FirstOf = Box<dyn FnMut(JobId) -> Option<Lsn> + Send>;

/// Events that are held back for as long as there are more: that a step was queued and has not started stands in its own
/// entry, a few behind the request, since a turn's entries stand together.
const HELD_BACK: usize = 1024;

/// Reads events from the log, oldest first, page by page.
pub struct Follower {
    reader: Reader,
    history: History,
    job: Option<JobId>,
    after: Lsn,
    through: Lsn,
    expected: Lsn,
    gap: Option<Lsn>,
    is_over: bool,
    first_of: FirstOf,
    jobs: HashMap<JobId, Teller>,
    told: VecDeque<Told>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("job", &self.job)
            .field("expected", &self.expected)
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// The next events, no more than `limit`; none at the end of what was asked for.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub fn next_page(&mut self, limit: usize) -> Result<Vec<Told>, HistoryError> {
        while !self.is_over && self.told.len() < limit + HELD_BACK {
            self.read_one()?;
        }
        let held_back = if self.is_over { 0 } else { HELD_BACK };
        let count = self.told.len().saturating_sub(held_back).min(limit);
        Ok(self.told.drain(..count).collect())
    }

    /// The oldest entry that the log still has, if there are events before it that were asked for: they are gone.
    #[must_use]
    pub fn gap(&self) -> Option<Lsn> {
        self.gap
    }

    fn read_one(&mut self) -> Result<(), HistoryError> {
        let Some((lsn, bytes)) = self.reader.next_record()? else {
            self.is_over = true;
            return Ok(());
        };
        if lsn > self.expected {
            self.gap = Some(lsn);
        }
        self.expected = lsn.next();
        if lsn > self.through {
            self.is_over = true;
            return Ok(());
        }
        let Record::Job(job, entry) = decode(lsn, bytes)? else {
            return Ok(());
        };
        if self.job.is_some_and(|wanted| wanted != job) {
            return Ok(());
        }
        if !self.jobs.contains_key(&job) && !matches!(entry, Entry::Submitted { .. }) {
            let teller = self.catch_up(job, lsn)?;
            self.jobs.insert(job, teller);
        }
        let is_last = matches!(entry, Entry::Finished { .. });
        let teller = self.jobs.entry(job).or_default();
        match teller.take_in(&self.history, lsn, entry)? {
            Some(Said::Event(at_ms, kind)) if lsn > self.after => {
                self.told.push_back(Told {
                    lsn,
                    at_ms,
                    job,
                    kind,
                });
            }
            Some(Said::NotStarted(requested)) => {
                self.told.retain(|told| told.lsn != requested);
            }
            _ => {}
        }
        if is_last {
            self.jobs.remove(&job);
            self.is_over |= self.job.is_some();
        }
        Ok(())
    }

    /// What must be known of a job's journal before `lsn`, of which the log may no longer have the beginning.
    fn catch_up(&mut self, job: JobId, lsn: Lsn) -> Result<Teller, HistoryError> {
        let mut teller = Teller::default();
        let Some(first) = (self.first_of)(job).filter(|&first| first < lsn) else {
            return Ok(teller);
        };
        for (lsn, entry) in self.history.entries(job, first, lsn.prev())? {
            teller.take_in(&self.history, lsn, entry)?;
        }
        Ok(teller)
    }
}

/// What an entry says to whoever watches.
enum Said {
    Event(u64, EventKind),
    /// The step whose request stands there was queued at once: what the request said does not hold.
    NotStarted(Lsn),
}

/// What is known of one job on the way through its journal.
#[derive(Default)]
struct Teller {
    submitted_ms: u64,
    now_ms: u64,
    steps: BTreeMap<StepIndex, Step>,
}

struct Step {
    label: String,
    title: Option<String>,
    kind: String,
    attempts: u32,
    requested: Lsn,
    requested_ms: u64,
}

impl Step {
    fn started(&self, attempt: Attempt) -> EventKind {
        EventKind::StepStarted {
            step: self.label.clone(),
            title: self.title.clone(),
            kind: self.kind.clone(),
            attempt: attempt.0,
            attempts: self.attempts,
        }
    }
}

impl Teller {
    fn take_in(
        &mut self,
        history: &History,
        lsn: Lsn,
        entry: Entry,
    ) -> Result<Option<Said>, HistoryError> {
        let kind = match entry {
            Entry::Submitted { at_ms, spec } => {
                (self.submitted_ms, self.now_ms) = (at_ms, at_ms);
                EventKind::JobSubmitted {
                    name: spec.name,
                    program: spec.program,
                }
            }
            Entry::Requested {
                step,
                kind,
                label,
                title,
                policy,
                ..
            } => {
                let requested = Step {
                    label,
                    title,
                    kind,
                    attempts: policy.attempts,
                    requested: lsn,
                    requested_ms: self.now_ms,
                };
                let started = requested.started(Attempt::FIRST);
                self.steps.insert(step, requested);
                started
            }
            Entry::Queued { step } => {
                let step = self.steps.get(&step);
                return Ok(step.map(|step| Said::NotStarted(step.requested)));
            }
            Entry::Starting { step, attempt } => match self.steps.get(&step) {
                Some(step) => step.started(attempt),
                None => return Ok(None),
            },
            Entry::AttemptFailed {
                step,
                attempt,
                at_ms,
                error,
                next_at_ms,
                ..
            } => {
                let Some(step) = self.steps.get(&step) else {
                    return Ok(None);
                };
                let kind = EventKind::StepRetrying {
                    step: step.label.clone(),
                    attempt: attempt.0,
                    error: error.message,
                    next_at_ms,
                };
                return Ok(Some(Said::Event(at_ms, kind)));
            }
            Entry::Completed {
                step,
                at_ms,
                outcome,
                ..
            } => {
                self.now_ms = at_ms;
                let Some(step) = self.steps.remove(&step) else {
                    return Ok(None);
                };
                let (status, error) = how_it_ended(outcome);
                EventKind::StepFinished {
                    step: step.label,
                    status,
                    duration_us: micros_between(step.requested_ms, at_ms),
                    error,
                }
            }
            Entry::Emitted { event } => history.event(lsn, &event)?,
            Entry::TimerFired { at_ms, .. }
            | Entry::Signalled { at_ms, .. }
            | Entry::CancelRequested { at_ms, .. } => {
                self.now_ms = at_ms;
                return Ok(None);
            }
            Entry::Checkpoint(checkpoint) => {
                self.now_ms = checkpoint.now_ms;
                return Ok(None);
            }
            Entry::Finished { at_ms, ending, .. } => {
                self.now_ms = at_ms;
                let (state, error) = ending.shown();
                EventKind::JobFinished {
                    state,
                    error: error.map(str::to_owned),
                    duration_us: micros_between(self.submitted_ms, at_ms),
                }
            }
            Entry::Abandoned { .. } | Entry::Version { .. } => return Ok(None),
        };
        Ok(Some(Said::Event(self.now_ms, kind.bounded())))
    }
}

fn how_it_ended(outcome: Outcome) -> (StepStatus, Option<String>) {
    match outcome {
        Outcome::Ok { .. } => (StepStatus::Ok, None),
        Outcome::Failed { error, .. } => (error.step_status(), Some(error.message)),
        Outcome::Interrupted => (
            StepStatus::Interrupted,
            Some(crate::effect::EffectError::interrupted().message),
        ),
    }
}

fn micros_between(from_ms: u64, to_ms: u64) -> u64 {
    to_ms.saturating_sub(from_ms).saturating_mul(1_000)
}
