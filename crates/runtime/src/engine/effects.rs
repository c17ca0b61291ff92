//! The life of effects: asked for, started, tried again, ended.

use std::sync::Arc;

use pal::{EventKind, StepStatus};
use wal::Lsn;

use super::{After, Alarm, Engine, Job};
use crate::cell::Request;
use crate::effect::{
    CancelReason, Completer, EffectCall, EffectClass, EffectDone, EffectError, EffectRunner,
};
use crate::entry::{Entry, Outcome};
use crate::ids::{Attempt, StepIndex};
use crate::job::{Delivery, EffectState, EffectStatus, Phase, failed_outcome};
use crate::time::rfc3339;

/// How long a handler may take to end what it was asked to end, beyond which its effect is written off. Handlers of
/// processes need their own grace between SIGTERM and SIGKILL, and some time to collect what is left.
const OVERDUE_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

impl<R: EffectRunner> Engine<R> {
    /// Takes one request of a program over. `base` is where the entries begin that came with it.
    pub(super) fn request(&mut self, slot: usize, base: Lsn, request: Request) {
        let generation = self.slots[slot].generation;
        match request {
            Request::Effect {
                step,
                intent,
                kind,
                label,
                title,
                policy,
                input,
            } => {
                let effect = EffectState {
                    kind: kind.into(),
                    label: label.into(),
                    title,
                    policy,
                    input,
                    attempt: Attempt::FIRST,
                    status: EffectStatus::InDoubt,
                    timer: None,
                    last_error: None,
                    started_ns: 0,
                    abandoned: false,
                    interrupted: false,
                };
                let Some(job) = self.job_mut(slot, generation) else {
                    return;
                };
                job.effects.insert(step, Box::new(effect));
                // An intent that the journal has already is decided on when the journal is followed to its end.
                if let Some(intent) = intent {
                    self.admit(slot, step, Some(Lsn(base.0 + intent as u64)));
                }
            }
            Request::Abandon { step } => self.abandon(slot, step),
            Request::Timer { step, deadline_ms } => {
                let deadline = self.now.monotonic_at(deadline_ms);
                let token = self.alarms.insert(
                    deadline,
                    Alarm::Sleep {
                        slot,
                        generation,
                        step,
                    },
                );
                if let Some(job) = self.job_mut(slot, generation) {
                    job.timers.insert(step, token);
                }
            }
            Request::ForgetTimer { step } => {
                if let Some(job) = self.job_mut(slot, generation)
                    && let Some(token) = job.timers.remove(&step)
                {
                    self.alarms.cancel(token);
                }
            }
        }
    }

    /// Gives an effect a place among the running ones, or in the queue. `intent` is the entry that
    /// stands for the try; without one, an entry is written.
    pub(super) fn admit(&mut self, slot: usize, step: StepIndex, intent: Option<Lsn>) {
        let room = self.running_effects < self.limits.running_effects && self.draining.is_none();
        #[cfg(planted)]
        let room = room || wal::planted::is("limit-passed") && self.draining.is_none();
        let generation = self.slots[slot].generation;
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let Some(effect) = job.effects.get_mut(&step) else {
            return;
        };
        if !room {
            let newly = effect.status != EffectStatus::Queued;
            effect.status = EffectStatus::Queued;
            let priority = job.spec.priority;
            if newly && intent.is_some() {
                job.cell.append(Entry::Queued { step }, None, None);
            }
            let key = (std::cmp::Reverse(priority), self.effects_queued);
            self.effects_queued += 1;
            self.effect_queue.insert(key, (slot, generation, step));
            return;
        }
        effect.status = EffectStatus::Starting;
        let attempt = effect.attempt;
        let at_once = effect.policy.class == EffectClass::Read;
        #[cfg(planted)]
        let at_once = at_once || wal::planted::is("started-early");
        self.running_effects += 1;
        match intent {
            // Nothing outside can tell that a read began before its intent was durable.
            Some(_) if at_once => self.start(slot, generation, step, attempt, None),
            Some(lsn) => self.open.after.push(After::Start {
                slot,
                generation,
                step,
                attempt,
                lsn,
            }),
            None => {
                job.cell
                    .append(Entry::Starting { step, attempt }, None, None);
                self.collect_entries(slot);
                self.open.after.push(After::Start {
                    slot,
                    generation,
                    step,
                    attempt,
                    lsn: self.last_lsn(),
                });
            }
        }
    }

    /// Starts queued effects while there is room, the most urgent first.
    pub(super) fn start_queued(&mut self) {
        while self.draining.is_none()
            && self.running_effects < self.limits.running_effects
            && let Some((_, (slot, generation, step))) = self.effect_queue.pop_first()
        {
            let queued = self.job_mut(slot, generation).is_some_and(|job| {
                job.effects
                    .get(&step)
                    .is_some_and(|effect| effect.status == EffectStatus::Queued)
            });
            if queued {
                self.admit(slot, step, None);
            }
        }
    }

    /// Hands a try to the runner: its intent is durable, or it leaves no trace.
    pub(super) fn start(
        &mut self,
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
        lsn: Option<Lsn>,
    ) {
        let draining = self.draining.is_some();
        let now = self.now;
        let Some(job) = self.job_mut(slot, generation) else {
            return;
        };
        let id = job.effect_id(step, attempt);
        let Some(effect) = job.effects.get_mut(&step) else {
            return;
        };
        if effect.status != EffectStatus::Starting || effect.attempt != attempt {
            return;
        }
        if draining {
            if effect.interrupted {
                // This time it has not begun; what an earlier life did of it is as unknown as before.
                effect.status = EffectStatus::InDoubt;
            } else {
                // It has not begun, and the journal is to say so: the next start need not wonder.
                effect.status = EffectStatus::Queued;
                job.cell.append(Entry::Queued { step }, None, None);
            }
            self.running_effects -= 1;
            return;
        }
        effect.status = EffectStatus::Running;
        effect.started_ns = now.monotonic.as_nanos();
        let call = EffectCall {
            id,
            kind: Arc::clone(&effect.kind),
            class: effect.policy.class,
            input: effect.input.clone(),
            label: Arc::clone(&effect.label),
            interrupted: effect.interrupted,
        };
        let timeout = effect.policy.timeout;
        let kind = EventKind::StepStarted {
            step: effect.label.to_string(),
            title: effect.title.clone(),
            kind: effect.kind.to_string(),
            attempt: attempt.0,
            attempts: effect.policy.attempts,
        };
        match lsn {
            Some(lsn) => {
                let job = Some(id.job.as_uuid());
                self.pal.publish(kind, job, now.unix_ms, Some(lsn.0));
            }
            // It began before its intent is durable; watchers are told when that is so, as of everything else.
            None => self.publish_after(Some(id.job), kind),
        }
        self.instruments.effects_started.inc();
        let completer = Completer::new(id, self.inbox.clone(), Arc::clone(&self.payloads));
        self.runner.start(call, completer);
        if let Some(timeout) = timeout {
            let token = self.set_alarm(
                timeout,
                Alarm::Timeout {
                    slot,
                    generation,
                    step,
                    attempt,
                },
            );
            self.set_effect_timer(slot, step, Some(token));
        }
    }

    pub(super) fn set_effect_timer(
        &mut self,
        slot: usize,
        step: StepIndex,
        token: Option<scheduler::timer::TimerToken>,
    ) {
        let old = self.slots[slot]
            .job
            .as_deref_mut()
            .and_then(|job| job.effects.get_mut(&step))
            .and_then(|effect| std::mem::replace(&mut effect.timer, token));
        if let Some(old) = old {
            self.alarms.cancel(old);
        }
    }

    /// A try is over.
    pub(super) fn effect_done(&mut self, done: EffectDone) {
        let EffectDone {
            id,
            output,
            mut error,
            unwritten,
        } = done;
        let Some(&slot) = self.by_id.get(&id.job) else {
            return;
        };
        let now = self.now;
        let generation = self.slots[slot].generation;
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let Some(effect) = job.effects.get_mut(&id.step) else {
            return;
        };
        let is_stale = effect.attempt != id.attempt || !effect.status.holds_slot();
        #[cfg(planted)]
        let is_stale = is_stale && !wal::planted::is("duplicate-accepted");
        if is_stale {
            return;
        }
        self.running_effects -= 1;
        if let EffectStatus::Ending(reason) = effect.status
            && let Some(error) = &mut error
        {
            match reason {
                CancelReason::Shutdown if error.code == EffectError::CANCELLED => {
                    // We ended it ourselves, half way: whether it took effect is for its class to say, at the next
                    // start. The journal keeps the intent without a result.
                    effect.status = EffectStatus::InDoubt;
                    self.set_effect_timer(slot, id.step, None);
                    return;
                }
                CancelReason::TimedOut if error.code != EffectError::NOT_ENDED => {
                    EffectError::TIMED_OUT.clone_into(&mut error.code);
                    error.retryable = true;
                }
                _ => {}
            }
        }
        let took_ns = now.monotonic.as_nanos().saturating_sub(effect.started_ns);
        self.instruments
            .effect_seconds
            .observe(std::time::Duration::from_nanos(took_ns));
        let retry = match &error {
            Some(error) if !effect.abandoned && matches!(job.phase, Phase::Live) => {
                effect.policy.retry_after(id, error)
            }
            _ => None,
        };
        if let (Some(wait), Some(error)) = (retry, &error) {
            self.instruments.effect_retries.inc();
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let next_at_ms = now.unix_ms.saturating_add(wait_ms);
            effect.status = EffectStatus::Backoff { next_at_ms };
            effect.last_error = Some(error.message.clone());
            let event = EventKind::StepRetrying {
                step: effect.label.to_string(),
                attempt: id.attempt.0,
                error: error.message.clone(),
                next_at_ms,
            };
            let entry = Entry::AttemptFailed {
                step: id.step,
                attempt: id.attempt,
                at_ms: now.unix_ms,
                error: error.clone(),
                output: output.as_ref().map(crate::payload::Payload::stored),
                next_at_ms,
            };
            job.cell.append(entry, unwritten, Some(event));
            tracing::debug!(effect = %id, "tried in vain, next try at {}", rfc3339(next_at_ms));
            let token = self.set_alarm(
                wait,
                Alarm::Retry {
                    slot,
                    generation,
                    step: id.step,
                },
            );
            self.set_effect_timer(slot, id.step, Some(token));
            return;
        }
        let status = error
            .as_ref()
            .map_or(StepStatus::Ok, EffectError::step_status);
        let event = EventKind::StepFinished {
            step: effect.label.to_string(),
            status,
            duration_us: took_ns / 1_000,
            error: error.as_ref().map(|error| error.message.clone()),
        };
        let outcome = match (error, &output) {
            (None, Some(payload)) => Outcome::Ok {
                output: payload.stored(),
                attachments: payload.attachments().iter().map(|id| id.0).collect(),
            },
            (None, None) => Outcome::Ok {
                output: crate::payload::Stored::Inline("null".to_owned()),
                attachments: Vec::new(),
            },
            (Some(error), payload) => failed_outcome(error, payload.as_ref()),
        };
        self.conclude(slot, id.step, outcome, output, unwritten, Some(event));
    }

    /// Hands the final outcome of an effect to its program.
    pub(super) fn conclude(
        &mut self,
        slot: usize,
        step: StepIndex,
        outcome: Outcome,
        payload: Option<crate::payload::Payload>,
        blob: Option<(wal::BlobId, Vec<u8>)>,
        event: Option<EventKind>,
    ) {
        self.set_effect_timer(slot, step, None);
        let unix_ms = self.now.unix_ms;
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let Some(effect) = job.effects.remove(&step) else {
            return;
        };
        let entry = Entry::Completed {
            step,
            attempt: effect.attempt,
            at_ms: unix_ms,
            outcome,
        };
        self.push_delivery(
            slot,
            Delivery {
                entry,
                payload,
                blob,
                event,
                reply: None,
            },
        );
    }

    /// The program does not want the effect any more.
    fn abandon(&mut self, slot: usize, step: StepIndex) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let Some(effect) = job.effects.get_mut(&step) else {
            return;
        };
        effect.abandoned = true;
        let id = crate::ids::EffectId {
            job: job.id,
            step,
            attempt: effect.attempt,
        };
        match effect.status {
            EffectStatus::InDoubt => {}
            EffectStatus::Queued | EffectStatus::Backoff { .. } => {
                self.set_effect_timer(slot, step, None);
                self.remove_effect(slot, step);
            }
            EffectStatus::Starting => {
                // Its intent may be on its way to the disk; it is never started.
                self.running_effects -= 1;
                self.remove_effect(slot, step);
            }
            EffectStatus::Running => self.end(slot, id, CancelReason::Cancelled),
            EffectStatus::Ending(_) => {}
        }
    }

    pub(super) fn remove_effect(&mut self, slot: usize, step: StepIndex) {
        if let Some(job) = self.slots[slot].job.as_deref_mut() {
            job.effects.remove(&step);
        }
    }

    /// Asks the runner to end a running try, and bounds how long that may take.
    fn end(&mut self, slot: usize, id: crate::ids::EffectId, reason: CancelReason) {
        let generation = self.slots[slot].generation;
        if let Some(effect) = self.slots[slot]
            .job
            .as_deref_mut()
            .and_then(|job| job.effects.get_mut(&id.step))
        {
            effect.status = EffectStatus::Ending(reason);
        }
        self.runner.cancel(id, reason);
        let token = self.set_alarm(
            OVERDUE_AFTER,
            Alarm::Overdue {
                slot,
                generation,
                step: id.step,
                attempt: id.attempt,
            },
        );
        self.set_effect_timer(slot, id.step, Some(token));
    }

    /// Asks every running effect of a fitting class to end.
    pub(super) fn cancel_effects(
        &mut self,
        fits: impl Fn(EffectClass) -> bool,
        reason: CancelReason,
    ) {
        let running: Vec<_> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| entry.job.as_deref().map(|job| (slot, job)))
            .flat_map(|(slot, job)| {
                job.effects
                    .iter()
                    .filter(|(_, effect)| {
                        effect.status == EffectStatus::Running && fits(effect.policy.class)
                    })
                    .map(move |(step, effect)| (slot, job.effect_id(*step, effect.attempt)))
            })
            .collect();
        for (slot, id) in running {
            self.end(slot, id, reason);
        }
    }

    pub(super) fn attempt_timed_out(
        &mut self,
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
    ) {
        let running = self.job_mut(slot, generation).and_then(|job| {
            let id = job.effect_id(step, attempt);
            let effect = job.effects.get_mut(&step)?;
            effect.timer = None;
            (effect.status == EffectStatus::Running && effect.attempt == attempt).then_some(id)
        });
        if let Some(id) = running {
            self.end(slot, id, CancelReason::TimedOut);
        }
    }

    /// A handler did not end what it was asked to end: its effect is written off, and what it still does is nobody's
    /// result.
    pub(super) fn attempt_overdue(
        &mut self,
        slot: usize,
        generation: u64,
        step: StepIndex,
        attempt: Attempt,
    ) {
        let Some(job) = self.job_mut(slot, generation) else {
            return;
        };
        let id = job.effect_id(step, attempt);
        let Some(effect) = job.effects.get_mut(&step) else {
            return;
        };
        effect.timer = None;
        let EffectStatus::Ending(reason) = effect.status else {
            return;
        };
        let code = match reason {
            CancelReason::TimedOut => EffectError::NOT_ENDED,
            CancelReason::Cancelled | CancelReason::Shutdown => EffectError::CANCELLED,
        };
        tracing::error!(effect = %id, "effect was asked to end and did not; it is written off");
        self.effect_done(EffectDone {
            id,
            output: None,
            error: Some(EffectError::permanent(
                code,
                format!(
                    "asked to end, the effect did not within {} s; it may still be at work",
                    OVERDUE_AFTER.as_secs()
                ),
            )),
            unwritten: None,
        });
    }

    pub(super) fn retry_due(&mut self, slot: usize, generation: u64, step: StepIndex) {
        let Some(job) = self.job_mut(slot, generation) else {
            return;
        };
        let Some(effect) = job.effects.get_mut(&step) else {
            return;
        };
        effect.timer = None;
        if !matches!(effect.status, EffectStatus::Backoff { .. }) {
            return;
        }
        effect.attempt = effect.attempt.next();
        effect.interrupted = false;
        #[cfg(planted)]
        if wal::planted::is("retry-unwritten") {
            self.admit(slot, step, Some(self.last_lsn()));
            return;
        }
        self.admit(slot, step, None);
    }

    pub(super) fn sleep_over(&mut self, slot: usize, generation: u64, step: StepIndex) {
        let unix_ms = self.now.unix_ms;
        let Some(job) = self.job_mut(slot, generation) else {
            return;
        };
        // The wall clock may have been set back meanwhile; a program that slept a second sees a second gone.
        let deadline_ms = job.cell.deadline_of(step).unwrap_or(0);
        let at_ms = unix_ms.max(deadline_ms);
        #[cfg(planted)]
        let at_ms = if wal::planted::is("time-goes-back") {
            unix_ms
        } else {
            at_ms
        };
        self.push_delivery(
            slot,
            Delivery {
                entry: Entry::TimerFired { step, at_ms },
                payload: None,
                blob: None,
                event: None,
                reply: None,
            },
        );
    }
}

impl Job {
    /// Takes up what the journal says of an effect's tries.
    pub(super) fn note(&mut self, entry: &Entry) {
        let Some(step) = entry.step() else {
            return;
        };
        #[cfg(planted)]
        if wal::planted::is("result-forgotten") && matches!(entry, Entry::Completed { .. }) {
            return;
        }
        if let Entry::Completed { .. } = entry {
            self.effects.remove(&step);
            return;
        }
        let Some(effect) = self.effects.get_mut(&step) else {
            return;
        };
        match entry {
            Entry::Queued { .. } => effect.status = EffectStatus::Queued,
            Entry::Starting { attempt, .. } => {
                effect.attempt = *attempt;
                effect.status = EffectStatus::InDoubt;
            }
            Entry::AttemptFailed {
                attempt,
                error,
                next_at_ms,
                ..
            } => {
                effect.attempt = *attempt;
                effect.status = EffectStatus::Backoff {
                    next_at_ms: *next_at_ms,
                };
                effect.last_error = Some(error.message.clone());
            }
            _ => {}
        }
    }
}
