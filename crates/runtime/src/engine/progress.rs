//! How jobs go on: every job comes to rest, gets its next delivery, runs until it rests again; and ends.
//!
//! A delivery is handed over only while all jobs are at rest, and each job gets one before any gets its next. So what a
//! job does depends on the order of its own journal alone, and a replay, which knows no other jobs and no turns, goes
//! the same way. For the same reason a job is found to be over, stuck or deadlocked only while it rests.

use std::mem;
use std::rc::Rc;

use pal::EventKind;
use scheduler::{RunState, TaskId, TaskState};
use wal::BlobId;

use super::{After, Engine};
use crate::cell::Divergence;
use crate::effect::EffectRunner;
use crate::entry::{Ending, Entry, cut_text};
use crate::error::JobError;
use crate::job::{Delivery, Job, Phase};
use crate::json::Json;
use crate::payload::Payloads;
use crate::program::{Failure, ProgramResult};
use crate::spec::JobState;

/// How often a job may be polled between two deliveries before it counts as running without end. While a job runs no
/// other gets on, so this is a second or so.
pub(crate) const POLLS_PER_REST: u64 = 10_000_000;

/// As many turns in a row may spend their whole budget of polls before a job counts as running without end. With the
/// default budget that is [`POLLS_PER_REST`].
const RESTLESS_TURNS_MAX: u64 = 1_000;

/// What becomes of a delivery.
enum Reception {
    Welcome,
    /// It came too late, or a second time. Whoever sent it is told this.
    TooLate(Result<(), JobError>),
}

impl<R: EffectRunner> Engine<R> {
    /// Runs the scheduler until every job is at rest and has nothing to be delivered, or the turn's budget is spent.
    /// Says whether tasks are ready still.
    pub(super) fn run(&mut self) -> bool {
        let mut slots = Vec::new();
        let mut budget = self.limits.turn_polls;
        loop {
            let outcome = self.scheduler.run(budget);
            budget = budget.saturating_sub(outcome.polls);
            self.touched.take_into(&mut slots);
            for &slot in &slots {
                self.collect(slot);
            }
            if outcome.state == RunState::Ready {
                // Looked at again when they rest.
                slots.drain(..).for_each(|slot| self.touched.mark(slot));
                self.restless_turns += 1;
                if self.restless_turns > RESTLESS_TURNS_MAX {
                    self.end_most_restless();
                }
                return true;
            }
            self.restless_turns = 0;
            for slot in slots.drain(..) {
                self.settle(slot);
            }
            if self.deliverable.is_empty() && self.touched.is_empty() {
                return false;
            }
            for slot in mem::take(&mut self.deliverable) {
                self.deliver_next(slot);
                #[cfg(planted)]
                if wal::planted::is("two-deliveries-at-once") {
                    self.deliver_next(slot);
                }
            }
        }
    }

    /// Fails the job whose tasks were polled most and are ready still: it would keep all others from going on.
    fn end_most_restless(&mut self) {
        self.restless_turns = 0;
        let dump = self.scheduler.dump();
        let mut busiest: Option<(TaskId, u64)> = None;
        for tree in dump.tasks().chunk_by(|_, next| next.depth > 0) {
            let polls = tree.iter().map(|task| task.polls).sum();
            let ready = tree.iter().any(|task| task.state == TaskState::Ready);
            if ready && busiest.is_none_or(|(_, most)| polls > most) {
                busiest = tree.first().map(|root| (root.id, polls));
            }
        }
        let restless = self
            .live_jobs()
            .find(|job| busiest.is_some_and(|(root, _)| job.root == Some(root)));
        if let Some(job) = restless {
            tracing::error!(job = %job.id, "job runs without end; it is failed so that others go on");
            job.cell.set_returned(Err(livelock()));
        }
        if let Some((root, _)) = busiest {
            self.handle.cancel(root);
        }
    }

    pub(super) fn push_delivery(&mut self, slot: usize, delivery: Delivery) {
        if let Some(job) = self.slots[slot].job.as_deref_mut() {
            if job.pending.is_empty() {
                self.deliverable.push_back(slot);
            }
            job.pending.push_back(delivery);
        }
    }

    fn deliver_next(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let Some(delivery) = job.pending.pop_front() else {
            return;
        };
        if !job.pending.is_empty() {
            self.deliverable.push_back(slot);
        }
        let Delivery {
            mut entry,
            payload,
            blob,
            event,
            reply,
        } = delivery;
        if let Reception::TooLate(answer) = reception(job, &entry) {
            self.touched.mark(slot);
            if let Some(reply) = reply {
                self.open.after.push(After::Answer(reply, answer));
            }
            return;
        }
        if let Entry::TimerFired { step, .. } = &entry {
            job.timers.remove(step);
        }
        if let Entry::CancelRequested { reason, .. } = &entry {
            if let Phase::Stuck { .. } = job.phase {
                job.cell.skip_script();
                self.stuck -= 1;
            }
            job.phase = Phase::Cancelling {
                reason: reason.clone(),
            };
            if let Some(root) = job.root {
                self.handle.cancel(root);
            }
        }
        // What was delivered since this came in may have moved the job's time on, beyond the wall clock even.
        entry.not_before(job.cell.now_ms());
        let settled = match &entry {
            Entry::Completed { step, attempt, .. } => Some(job.effect_id(*step, *attempt)),
            _ => None,
        };
        let json = payload.as_ref().map(|payload| payload.json().clone());
        job.cell.deliver(&self.handle, &entry, json, blob, event);
        self.collect_entries(slot);
        // Its blobs are named now.
        drop(payload);
        self.open.after.extend(settled.map(After::Settled));
        self.open
            .after
            .extend(reply.map(|reply| After::Answer(reply, Ok(()))));
    }

    /// Takes over what a job has written and asked for since the engine last looked.
    fn collect(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let cell = Rc::clone(&job.cell);
        let base = self.next_lsn;
        self.collect_entries(slot);
        for request in cell.take_requests() {
            self.request(slot, base, request);
        }
    }

    /// Looks whether a job at rest is stuck, or over.
    pub(super) fn settle(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        if let (Phase::Live, Some(divergence)) = (&job.phase, job.cell.divergence()) {
            self.park(slot, divergence);
            return;
        }
        let live = matches!(job.phase, Phase::Live);
        if live && !job.cell.has_returned() && !job.cell.awaits_anything() && job.pending.is_empty()
        {
            // Its tasks wait for each other, and nothing outside could ever wake one of them.
            job.cell.set_returned(Err(deadlock()));
        }
        let result = match &job.phase {
            Phase::Live => match job.cell.returned() {
                Some(result) => result,
                None => {
                    self.show_waiting(slot);
                    return;
                }
            },
            Phase::Cancelling { .. } => Ok(Json::null()),
            Phase::Ended { .. } | Phase::Stuck { .. } => return,
        };
        if job.holds_effects() || !job.pending.is_empty() {
            return;
        }
        self.end_job(slot, result);
    }

    /// The program cannot follow its journal: the job stands still until an operator decides, and no time or answer
    /// reaches it.
    fn park(&mut self, slot: usize, divergence: Divergence) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        tracing::error!(job = %job.id, "job is stuck: {divergence}");
        let id = job.id;
        let kind = EventKind::JobStuck {
            step: divergence.step.map(|step| step.to_string()),
            reason: divergence.to_string(),
        };
        job.phase = Phase::Stuck { divergence };
        self.stuck += 1;
        self.drop_alarms(slot);
        self.publish_after(Some(id), kind);
    }

    /// Writes a job's last entry.
    fn end_job(&mut self, slot: usize, result: ProgramResult) {
        self.drop_alarms(slot);
        let now_ms = self.now.unix_ms;
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let (ending, blob) = ending_of(&self.payloads, &job.phase, result);
        job.phase = Phase::Ended {
            state: ending.shown().0.into(),
        };
        job.effects.clear();
        let finished_ms = now_ms.max(job.cell.now_ms());
        let entry = Entry::Finished {
            at_ms: finished_ms,
            ending: ending.clone(),
            journal: job.cell.hash(),
        };
        job.cell.append(entry, blob, None);
        job.cell.close();
        self.collect_entries(slot);
        self.open.after.push(After::Ended {
            slot,
            generation: self.slots[slot].generation,
            lsn: self.last_lsn(),
            ending: Box::new(ending),
            finished_ms,
        });
    }

    fn drop_alarms(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let sleeps = mem::take(&mut job.timers).into_values();
        let of_effects = job.effects.values_mut().filter_map(|e| e.timer.take());
        for token in sleeps.chain(of_effects) {
            self.alarms.cancel(token);
        }
    }

    /// Tells watchers when a job begins to wait for time or for somebody, and when it goes on.
    fn show_waiting(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let waits_for = job.waits_for();
        if waits_for.is_some() == job.shown_waiting {
            return;
        }
        job.shown_waiting = waits_for.is_some();
        let id = job.id;
        let kind = match waits_for {
            Some(on) => EventKind::JobWaiting { on },
            None => EventKind::JobResumed,
        };
        self.publish_after(Some(id), kind);
    }
}

/// Whether a job can take a delivery still.
fn reception(job: &Job, entry: &Entry) -> Reception {
    let over = |state| Reception::TooLate(Err(JobError::Over { job: job.id, state }));
    match (&job.phase, entry) {
        // Nobody is told of what comes too late here: it was the engine's own.
        (Phase::Ended { .. }, Entry::TimerFired { .. } | Entry::Completed { .. }) => {
            Reception::TooLate(Ok(()))
        }
        (Phase::Ended { state }, _) => over(*state),
        (Phase::Stuck { .. }, Entry::CancelRequested { .. }) => Reception::Welcome,
        (Phase::Stuck { divergence }, _) => Reception::TooLate(Err(JobError::Stuck {
            job: job.id,
            reason: divergence.to_string(),
        })),
        (_, Entry::TimerFired { step, .. }) if !job.cell.is_open(*step) => {
            Reception::TooLate(Ok(()))
        }
        (Phase::Cancelling { .. }, Entry::CancelRequested { .. }) => Reception::TooLate(Ok(())),
        (Phase::Cancelling { .. }, Entry::Signalled { .. }) => over(JobState::Cancelled),
        (Phase::Live, Entry::Signalled { .. }) => match job.cell.returned() {
            Some(Ok(_)) => over(JobState::Completed),
            Some(Err(_)) => over(JobState::Failed),
            None => Reception::Welcome,
        },
        _ => Reception::Welcome,
    }
}

/// How a job ended, as its last entry says it.
pub(crate) fn ending_of(
    payloads: &Payloads,
    phase: &Phase,
    result: ProgramResult,
) -> (Ending, Option<(BlobId, Vec<u8>)>) {
    if let Phase::Cancelling { reason } = phase {
        let reason = reason.clone();
        return (Ending::Cancelled { reason }, None);
    }
    match result {
        Ok(json) => {
            let (payload, blob) = payloads.plan(json);
            let output = payload.stored();
            (Ending::Completed { output }, blob)
        }
        Err(mut failure) => {
            cut_text(&mut failure.code);
            cut_text(&mut failure.message);
            let (output, blob) = match failure.output.map(|json| payloads.plan(json)) {
                Some((payload, blob)) => (Some(payload.stored()), blob),
                None => (None, None),
            };
            let ending = Ending::Failed {
                code: failure.code,
                message: failure.message,
                output,
            };
            (ending, blob)
        }
    }
}

/// The failure of a job whose tasks wait for each other.
pub(crate) fn deadlock() -> Failure {
    Failure::new(
        "deadlock",
        "the job's tasks wait for each other, and nothing outside could wake one of them",
    )
}

/// The failure of a job that never comes to rest.
pub(crate) fn livelock() -> Failure {
    Failure::new(
        "livelock",
        "the job's tasks wake each other without end, and ask for nothing from outside",
    )
}
