//! What clients ask for: submissions, cancellations, signals, and views.

use std::rc::Rc;
use std::sync::Arc;

use pal::EventKind;
use wal::BlobId;

use super::{After, Engine, Reply};
use crate::cell::Cell;
use crate::context::Context;
use crate::effect::EffectRunner;
use crate::entry::{Entry, StoredSpec};
use crate::error::{JobError, SubmitError};
use crate::ids::JobId;
use crate::job::{Delivery, Job, Phase};
use crate::jobs::Submitted;
use crate::json::Json;
use crate::payload::Payload;
use crate::program::Program;
use crate::run::supervised;
use crate::spec::JobSpec;

impl<R: EffectRunner> Engine<R> {
    pub(super) fn submit(
        &mut self,
        spec: JobSpec,
        input: &Payload,
        unwritten: Option<(BlobId, Vec<u8>)>,
        reply: Reply<Result<Submitted, SubmitError>>,
    ) {
        let fingerprint = spec.fingerprint();
        if let Some(key) = &spec.key
            && let Some((job, known)) = self.index.key(key)
            && known == fingerprint
        {
            // The job may still be on its way to the disk: the answer waits for this turn's batch, which lies behind.
            let submitted = Submitted { job, is_new: false };
            self.open.after.push(After::AckSubmitted(reply, submitted));
            return;
        }
        let program = match self.admissible(&spec) {
            Ok(program) => program,
            Err(error) => {
                self.instruments.refused.inc();
                let _ = reply.send(Err(error));
                return;
            }
        };
        let job = JobId::from_parts(self.now.unix_ms, (self.entropy)());
        let stored = StoredSpec {
            program: spec.program,
            program_version: program.version(),
            input: input.stored(),
            name: spec.name,
            key: spec.key,
            labels: spec.labels.into_iter().collect(),
            priority: spec.priority,
            fingerprint,
        };
        self.instruments.submitted.inc();
        let at_ms = self.now.unix_ms;
        let event = EventKind::JobSubmitted {
            name: stored.name.clone(),
            program: stored.program.clone(),
        };
        let entry = Entry::Submitted {
            at_ms,
            spec: stored.clone(),
        };
        let slot = self.add_job(job, stored, at_ms);
        let Some(live) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        live.cell.deliver_first(entry, unwritten, event, at_ms);
        self.collect_entries(slot);
        let lsn = self.last_lsn();
        self.needed.insert(lsn);
        let generation = self.slots[slot].generation;
        self.open.after.push(After::Born {
            slot,
            generation,
            lsn,
        });
        let submitted = Submitted { job, is_new: true };
        #[cfg(planted)]
        if wal::planted::is("acknowledged-early") {
            let _ = reply.send(Ok(submitted));
            self.begin(slot, program, input.json().clone());
            return;
        }
        self.open.after.push(After::AckSubmitted(reply, submitted));
        self.publish_after(Some(job), EventKind::JobStarted);
        self.begin(slot, program, input.json().clone());
    }

    /// The program of a new job, if the job may be taken in.
    fn admissible(&self, spec: &JobSpec) -> Result<Arc<dyn Program>, SubmitError> {
        if let Some(key) = &spec.key
            && let Some((job, _)) = self.index.key(key)
        {
            let key = key.clone();
            return Err(SubmitError::Conflict { key, job });
        }
        if self.draining.is_some() || self.stopped.is_some() {
            return Err(SubmitError::Stopping);
        }
        if self.stalled.is_some() || self.space_low {
            return Err(SubmitError::NoSpace);
        }
        if self.live >= self.limits.live_jobs {
            let limit = self.limits.live_jobs;
            return Err(SubmitError::TooManyJobs { limit });
        }
        self.programs
            .get(&spec.program)
            .cloned()
            .ok_or_else(|| SubmitError::UnknownProgram {
                name: spec.program.clone(),
                known: self.programs.names().map(str::to_owned).collect(),
            })
    }

    /// Makes room for a job and gives it a cell; its program does not run yet.
    pub(super) fn add_job(&mut self, id: JobId, spec: StoredSpec, submitted_ms: u64) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(super::Slot::default());
            self.slots.len() - 1
        });
        if let Some(key) = &spec.key {
            self.index.insert_key(key, id, spec.fingerprint);
        }
        let cell = Rc::new(Cell::new(
            id,
            slot,
            self.payloads.clone(),
            Rc::clone(&self.touched),
        ));
        self.slots[slot].job = Some(Box::new(Job {
            id,
            cell,
            root: None,
            spec,
            submitted_ms,
            first_lsn: None,
            phase: Phase::Live,
            effects: Default::default(),
            timers: Default::default(),
            pending: Default::default(),
            shown_waiting: false,
            entries: 0,
        }));
        self.by_id.insert(id, slot);
        self.live += 1;
        slot
    }

    /// Starts a job's program.
    pub(super) fn begin(&mut self, slot: usize, program: Arc<dyn Program>, input: Json) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let level = job.spec.priority.level();
        let context = Context::new(Rc::clone(&job.cell), self.handle.clone(), level);
        let task = supervised(program, context, Rc::clone(&job.cell), input);
        let name = format!("{} {}", job.spec.program, job.id);
        job.root = Some(self.handle.spawn(name, level, task).id());
    }

    pub(super) fn cancel(&mut self, id: JobId, reason: String, reply: Reply<Result<(), JobError>>) {
        let slot = match self.live_slot(id) {
            Ok(slot) => slot,
            Err(error) => {
                self.refuse(id, reply, error);
                return;
            }
        };
        #[cfg(planted)]
        if wal::planted::is("cancel-lost") {
            let _ = reply.send(Ok(()));
            return;
        }
        let Some(job) = self.slots[slot].job.as_deref() else {
            return;
        };
        if let Phase::Cancelling { .. } = job.phase {
            // Asked for already; the answer waits for whatever is on its way to the disk.
            self.open.after.push(After::Answer(reply, Ok(())));
            return;
        }
        let at_ms = self.now.unix_ms;
        self.push_delivery(
            slot,
            Delivery {
                entry: Entry::CancelRequested { at_ms, reason },
                payload: None,
                blob: None,
                event: None,
                reply: Some(reply),
            },
        );
    }

    pub(super) fn signal(
        &mut self,
        id: JobId,
        name: String,
        payload: Json,
        reply: Reply<Result<(), JobError>>,
    ) {
        let refusal = match self.live_slot(id) {
            Ok(slot) => {
                let job = self.slots[slot]
                    .job
                    .as_deref()
                    .expect("because a live slot holds a job");
                let on_its_way = job.pending.iter().any(
                    |delivery| matches!(&delivery.entry, Entry::Signalled { name: n, .. } if *n == name),
                );
                match (&job.phase, job.cell.is_settled(&name)) {
                    (Phase::Stuck { divergence }, _) => JobError::Stuck {
                        job: id,
                        reason: divergence.to_string(),
                    },
                    (_, Some(settled)) if settled || on_its_way => JobError::Settled {
                        job: id,
                        question: name,
                    },
                    _ => {
                        let at_ms = self.now.unix_ms;
                        let (stored, blob) = self.payloads.plan(payload);
                        let delivery = Delivery {
                            entry: Entry::Signalled {
                                name,
                                at_ms,
                                payload: stored.stored(),
                            },
                            payload: Some(stored),
                            blob,
                            event: None,
                            reply: Some(reply),
                        };
                        self.push_delivery(slot, delivery);
                        return;
                    }
                }
            }
            Err(error) => error,
        };
        self.refuse(id, reply, refusal);
    }

    /// Says no. That a job is over may only be said once it is sure to be: its last entry may be on its way to the disk.
    fn refuse(&mut self, id: JobId, reply: Reply<Result<(), JobError>>, error: JobError) {
        if matches!(error, JobError::Over { .. }) && self.by_id.contains_key(&id) {
            self.open.after.push(After::Answer(reply, Err(error)));
        } else {
            let _ = reply.send(Err(error));
        }
    }

    fn live_slot(&self, id: JobId) -> Result<usize, JobError> {
        let over = |state| JobError::Over { job: id, state };
        match self.by_id.get(&id) {
            Some(&slot) => match self.slots[slot].job.as_deref().map(|job| &job.phase) {
                Some(Phase::Ended { state }) => Err(over(*state)),
                Some(_) => Ok(slot),
                None => Err(JobError::NotFound(id)),
            },
            None => match self.index.get(id) {
                Some(finished) => Err(over(finished.state)),
                None => Err(JobError::NotFound(id)),
            },
        }
    }
}
