//! The `Jobs` handle: what everybody outside the runtime works with.
//!
//! Requests go into the engine's inbox, answers come back through one-shot channels that any executor can await. How
//! many requests may wait is bounded; beyond that the answer is "busy", at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wal::Lsn;

use crate::dump::Dump;
use crate::engine::{Idleness, Input, Limits, Reply, Shutdown};
use crate::entry::cut_text;
use crate::error::{JobError, SubmitError};
use crate::ids::JobId;
use crate::job::JobView;
use crate::json::Json;
use crate::payload::Payloads;
use crate::program::Programs;
use crate::spec::{JobSpec, JobState};
use crate::sync::mpsc::Sender;

/// A submission that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// Whether this submission made it; false if its idempotency key had made it before.
    pub is_new: bool,
}

/// Which jobs to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those in one of these states; empty means all.
    pub states: Vec<JobState>,
    /// Only those of this name.
    pub name: Option<String>,
    /// Only those that carry all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only those that people may mean by this: the name, or the beginning or the end of the id.
    pub called: Option<String>,
    /// Only those older than this one: for the next page, the last of the page before.
    pub before: Option<JobId>,
    /// How many at the most.
    pub limit: usize,
}

impl Default for JobFilter {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            name: None,
            labels: BTreeMap::new(),
            called: None,
            before: None,
            limit: 100,
        }
    }
}

impl JobFilter {
    /// Whether a job fits. `label` gives the value of one of its labels.
    pub(crate) fn fits<'a>(
        &self,
        id: JobId,
        state: JobState,
        name: Option<&str>,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> bool {
        (self.states.is_empty() || self.states.contains(&state))
            && self.before.is_none_or(|before| id < before)
            && self
                .name
                .as_deref()
                .is_none_or(|wanted| name == Some(wanted))
            && self
                .labels
                .iter()
                .all(|(wanted, value)| label(wanted) == Some(value))
            && self
                .called
                .as_deref()
                .is_none_or(|word| name == Some(word) || id.is_called(word))
    }

    pub(crate) fn matches(&self, view: &JobView) -> bool {
        let label = |label: &str| view.labels.get(label).map(String::as_str);
        self.fits(view.id, view.state, view.name.as_deref(), label)
    }
}

/// Some of the jobs, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// Whether there are older ones that fit the filter.
    pub more: bool,
}

/// The way to the engine's inbox, with a bound on how many requests wait there.
#[derive(Clone)]
struct Intake {
    inbox: Sender<Input>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// One request's place in the inbox, given back when the request is answered.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a request did not get to the engine.
enum Unheard {
    Busy { limit: usize },
    Stopped,
}

impl Intake {
    async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, Unheard> {
        let place = self.place()?;
        let (reply, answer) = oneshot::channel();
        self.inbox
            .send(input(reply))
            .map_err(|_| Unheard::Stopped)?;
        let answer = answer.await.map_err(|_| Unheard::Stopped);
        drop(place);
        answer
    }

    fn place(&self) -> Result<Place, Unheard> {
        // Counting up first and looking after is what makes the bound hold for any number of threads.
        let place = Place(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limit {
            return Err(Unheard::Busy { limit: self.limit });
        }
        Ok(place)
    }
}

/// The handle to a running runtime. Cheap to clone, usable from any thread and any executor.
#[derive(Clone)]
pub struct Jobs {
    intake: Intake,
    /// For requests that wait for what may be long in coming: they keep no others out.
    waits: Intake,
    programs: Programs,
    payloads: Arc<Payloads>,
    spec_bytes: Arc<AtomicUsize>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}

impl Jobs {
    pub(crate) fn new(
        inbox: Sender<Input>,
        intake_queue: usize,
        programs: Programs,
        payloads: Arc<Payloads>,
        spec_bytes: usize,
    ) -> Self {
        let intake = |inbox| Intake {
            inbox,
            waiting: Arc::new(AtomicUsize::new(0)),
            limit: intake_queue,
        };
        Self {
            intake: intake(inbox.clone()),
            waits: intake(inbox),
            programs,
            payloads,
            spec_bytes: Arc::new(AtomicUsize::new(spec_bytes)),
        }
    }

    /// Submits a job. When this returns well, the job is on disk and will be run, whatever happens to the process.
    ///
    /// # Errors
    ///
    /// Why it was not taken in; nothing of it was kept.
    pub async fn submit(&self, spec: JobSpec) -> Result<Submitted, SubmitError> {
        let program =
            self.programs
                .get(&spec.program)
                .ok_or_else(|| SubmitError::UnknownProgram {
                    name: spec.program.clone(),
                    known: self.programs.names().map(str::to_owned).collect(),
                })?;
        let (bytes, limit_bytes) = (spec.bytes(), self.spec_bytes.load(Ordering::Relaxed));
        if bytes > limit_bytes {
            return Err(SubmitError::TooLarge { bytes, limit_bytes });
        }
        program.check(&spec.input)?;
        let (input, unwritten) = self.payloads.store(spec.input.clone());
        let asked = self.intake.ask(|reply| Input::Submit {
            spec: Box::new(spec),
            input,
            unwritten,
            reply,
        });
        asked.await.unwrap_or_else(|unheard| {
            Err(match unheard {
                Unheard::Busy { limit } => SubmitError::Busy { limit },
                Unheard::Stopped => SubmitError::Stopping,
            })
        })
    }

    /// Asks for a job to end. When this returns well, the request is on disk; the job ends when what it runs has
    /// ended. A very long reason is cut.
    ///
    /// # Errors
    ///
    /// If there is no such job, or it is over.
    pub async fn cancel(&self, job: JobId, reason: impl Into<String>) -> Result<(), JobError> {
        let mut reason = reason.into();
        cut_text(&mut reason);
        self.about_job(|reply| Input::Cancel { job, reason, reply })
            .await
    }

    /// Sends something to a job, under the name that its program waits for. When this returns well, it is on disk.
    ///
    /// # Errors
    ///
    /// If there is no such job, it is over or stuck, the question of that name is settled, or what is sent is longer than
    /// a specification may be.
    pub async fn signal(
        &self,
        job: JobId,
        name: impl Into<String>,
        payload: Json,
    ) -> Result<(), JobError> {
        let name = name.into();
        let bytes = name.len() + payload.len();
        let limit_bytes = self.spec_bytes.load(Ordering::Relaxed);
        if bytes > limit_bytes {
            return Err(JobError::TooLarge { bytes, limit_bytes });
        }
        self.about_job(|reply| Input::Signal {
            job,
            name,
            payload,
            reply,
        })
        .await
    }

    async fn about_job(
        &self,
        input: impl FnOnce(Reply<Result<(), JobError>>) -> Input,
    ) -> Result<(), JobError> {
        self.intake
            .ask(input)
            .await
            .unwrap_or_else(|unheard| Err(unheard.into()))
    }

    /// One job; `None` if there is none of that id.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn get(&self, job: JobId) -> Result<Option<JobView>, JobError> {
        Ok(self.intake.ask(|reply| Input::Get { job, reply }).await?)
    }

    /// Waits until a job is over, durably, and says how it ended; `None` if there is none of that id.
    ///
    /// As many may wait like this, or for the node to be [idle](Self::when_idle), as requests may wait for the engine.
    ///
    /// # Errors
    ///
    /// If more than that wait already, or the engine is gone, or goes before the job is over.
    pub async fn when_over(&self, job: JobId) -> Result<Option<JobView>, JobError> {
        Ok(self
            .waits
            .ask(|reply| Input::WhenOver { job, reply })
            .await?)
    }

    /// Some of the jobs.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn list(&self, filter: JobFilter) -> Result<Page, JobError> {
        Ok(self
            .intake
            .ask(|reply| Input::List { filter, reply })
            .await?)
    }

    /// The newest entry that is durable and has been shown on the activity log, or is being shown at this moment.
    ///
    /// Whoever has subscribed to the activity log *before* asking misses nothing and gets nothing twice: what is older
    /// or the same is read from the [`History`](crate::History), what is newer comes live.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn shown(&self) -> Result<Lsn, JobError> {
        Ok(self.intake.ask(|reply| Input::Shown { reply }).await?)
    }

    /// Everything the engine knows.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn dump(&self) -> Result<Box<Dump>, JobError> {
        Ok(self.intake.ask(|reply| Input::Dump { reply }).await?)
    }

    /// Waits until no job is left that could go on, and all is durable.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn when_idle(&self) -> Result<Idleness, JobError> {
        Ok(self.waits.ask(|reply| Input::WhenIdle { reply }).await?)
    }

    /// Changes how much is taken on.
    pub fn set_limits(&self, limits: Limits) {
        self.spec_bytes.store(limits.spec_bytes, Ordering::Relaxed);
        let _ = self.intake.inbox.send(Input::SetLimits(limits));
    }

    /// Changes how long finished jobs are kept in the log.
    pub fn set_retention(&self, retention: Duration) {
        let _ = self.intake.inbox.send(Input::SetRetention(retention));
    }

    /// Begins to stop: nothing is taken in any more, and what runs is brought to an end. Asking again changes nothing.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = self.intake.inbox.send(Input::Shutdown(how));
    }
}

impl From<Unheard> for JobError {
    fn from(unheard: Unheard) -> Self {
        match unheard {
            Unheard::Busy { limit } => Self::Busy { limit },
            Unheard::Stopped => Self::Stopping,
        }
    }
}
