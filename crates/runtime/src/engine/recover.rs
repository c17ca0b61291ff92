//! The engine's beginning: following every live job's journal to its end, and deciding on what was interrupted.
//!
//! That takes some microseconds an entry, and a node may have a hundred thousand jobs that do nothing but wait. So the
//! engine begins with all of them *asleep*, known by their journals only, and takes them up in the turns that follow, some
//! in each, between whatever else there is to do: it takes in new jobs at once. What is asked about a job that sleeps
//! wakes it first; what is asked about all of them waits until none does.
//!
//! Invariant: a job is taken up only while all others are at rest, for following it runs the scheduler.

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use pal::{EventKind, StepStatus};
use scheduler::timer::TimerQueue;
use scheduler::{RunState, Scheduler};

use super::{
    After, Alarm, Engine, EngineOptions, HOUSEKEEPING_INTERVAL, Idleness, Input, OpenBatch,
    POLLS_PER_REST, livelock,
};
use crate::cell::{Divergence, Request, ScriptNext, Touched};
use crate::effect::EffectRunner;
use crate::entry::{Entry, NodeEntry, Outcome};
use crate::ids::{JobId, StepIndex};
use crate::job::{EffectStatus, Phase};
use crate::recovery::{Journal, Recovery};
use crate::time::Now;

/// How many polls of a turn's budget an entry stands for that is followed.
const POLLS_PER_ENTRY: u64 = 4;

impl<R: EffectRunner> Engine<R> {
    /// An engine that goes on where the log ends.
    ///
    /// Its jobs go on with the next turns; those whose journal cannot be followed are stuck from then on.
    pub fn new(options: EngineOptions, runner: R, recovery: Recovery, now: Now) -> Self {
        let mut scheduler = Scheduler::new(options.scheduler);
        scheduler.advance_to(now.monotonic);
        let handle = scheduler.handle();
        let mut engine = Self {
            limits: options.limits,
            retention: options.retention,
            programs: options.programs,
            payloads: options.payloads,
            pal: options.pal,
            instruments: options.instruments,
            inbox: options.inbox,
            entropy: options.entropy,
            runner,
            scheduler,
            handle,
            now,
            epoch: recovery.epoch + 1,
            epoch_said: options.next_lsn,
            slots: Vec::new(),
            free: Vec::new(),
            by_id: Default::default(),
            live: recovery.journals.len(),
            stuck: 0,
            index: recovery.index,
            needed: recovery
                .journals
                .values()
                .map(|journal| journal.first_lsn)
                .collect(),
            asleep: recovery.journals.into_iter().collect(),
            postponed: Vec::new(),
            blob_names: recovery.blob_names,
            touched: Rc::new(Touched::default()),
            deliverable: Default::default(),
            restless_turns: 0,
            alarms: TimerQueue::new(),
            running_effects: 0,
            effect_queue: Default::default(),
            effects_queued: 0,
            next_lsn: options.next_lsn,
            batch_bytes: options.batch_bytes,
            full: Default::default(),
            open: OpenBatch::default(),
            handed_over: options.next_lsn,
            shown: options.next_lsn.prev(),
            spare_batches: Vec::new(),
            next_token: 0,
            in_flight: Default::default(),
            draining: None,
            stopped: None,
            stalled: None,
            space_low: false,
            idle_waiters: Vec::new(),
            end_waiters: HashMap::new(),
            tally: Idleness::default(),
            release: None,
            garbage: Default::default(),
        };
        engine.write_node(NodeEntry::Started {
            epoch: engine.epoch,
            at_ms: now.unix_ms,
            version: options.version,
        });
        engine.set_alarm(HOUSEKEEPING_INTERVAL, Alarm::Housekeeping);
        engine.index.forget_beyond(engine.limits.finished_jobs);
        engine
    }

    /// Takes up jobs that sleep: those that the inputs are about, and some more. Inputs that must wait for one are taken
    /// out of `inputs` until then.
    pub(super) fn wake_sleepers(&mut self, inputs: &mut Vec<Input>) {
        if self.asleep.is_empty() {
            return;
        }
        // What was put off is older than what has just come.
        inputs.splice(0..0, mem::take(&mut self.postponed));
        if self.is_winding_down() || self.stopped.is_some() {
            // Nothing goes on in this life; whoever asked is told so by the dropped replies.
            inputs.retain(|input| !self.waits_for_sleepers(input));
            return;
        }
        if self.is_at_rest() {
            let mut woken = Vec::new();
            let mut entries_left = self.limits.turn_polls / POLLS_PER_ENTRY;
            for job in inputs.iter().filter_map(Input::about) {
                if let Some(journal) = self.asleep.remove(&job) {
                    entries_left = entries_left.saturating_sub(journal.entries());
                    woken.push(self.resume(job, journal));
                }
            }
            // At least one in a turn, and the oldest first.
            while (woken.is_empty() || entries_left > 0)
                && let Some((job, journal)) = self.asleep.pop_first()
            {
                entries_left = entries_left.saturating_sub(journal.entries());
                woken.push(self.resume(job, journal));
            }
            // Each job rests, and is looked at as after any other run.
            woken.into_iter().for_each(|slot| self.touched.mark(slot));
        }
        if !self.asleep.is_empty() {
            let (put_off, now) = mem::take(inputs)
                .into_iter()
                .partition(|input| self.waits_for_sleepers(input));
            self.postponed = put_off;
            *inputs = now;
        }
    }

    /// Whether an input cannot be served before jobs are awake that sleep.
    fn waits_for_sleepers(&self, input: &Input) -> bool {
        match input {
            Input::List { .. } | Input::Dump { .. } => !self.asleep.is_empty(),
            input => input
                .about()
                .is_some_and(|job| self.asleep.contains_key(&job)),
        }
    }

    /// Whether the next turn would take up a job that sleeps.
    pub(super) fn has_sleepers_to_wake(&self) -> bool {
        !self.asleep.is_empty() && !self.is_winding_down() && self.stopped.is_none()
    }

    /// Whether no job has anything to do before something comes from outside.
    fn is_at_rest(&self) -> bool {
        self.scheduler.stats().ready == 0 && self.touched.is_empty() && self.deliverable.is_empty()
    }

    /// Takes up one job; says in which slot.
    fn resume(&mut self, id: JobId, journal: Journal) -> usize {
        let entries = journal.entries();
        // It is counted already.
        self.live -= 1;
        let slot = self.add_job(id, journal.spec, journal.submitted_ms);
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return slot;
        };
        job.first_lsn = Some(journal.first_lsn);
        job.entries = entries;
        let cell = Rc::clone(&job.cell);
        let stored_input = job.spec.input.clone();
        let (program_name, begun_with) = (job.spec.program.clone(), job.spec.program_version);
        let cannot = |expected: String, found: String| Divergence {
            lsn: Some(journal.first_lsn),
            step: None,
            expected,
            found,
        };
        match &journal.checkpoint {
            None => cell.begin_recorded(&journal.first, journal.submitted_ms),
            Some((checkpoint, hash)) => {
                if let Err(error) = cell.begin_checkpointed(checkpoint, *hash) {
                    cell.diverge(cannot(
                        "a checkpoint".to_owned(),
                        format!("a payload that cannot be read: {error}"),
                    ));
                }
            }
        }
        cell.set_script(journal.rest);
        match (
            self.programs.get(&program_name).cloned(),
            self.payloads.load(&stored_input),
        ) {
            (None, _) => cell.diverge(cannot(
                format!("program `{program_name}`"),
                "no program of that name in this build".to_owned(),
            )),
            (Some(program), _) if program.version() < begun_with => cell.diverge(cannot(
                format!("version {begun_with} of program `{program_name}`"),
                format!("version {} in this build", program.version()),
            )),
            (Some(_), Err(error)) => cell.diverge(cannot(
                format!("the input of program `{program_name}`"),
                error.to_string(),
            )),
            (Some(program), Ok(input)) if cell.divergence().is_none() => {
                self.begin(slot, program, input.json().clone());
            }
            _ => {}
        }
        let late = self.follow(slot);
        self.go_live(slot, late, entries);
        slot
    }

    /// Runs a job along its journal. Gives what it asked for after the journal's end.
    fn follow(&mut self, slot: usize) -> Vec<Request> {
        let mut late = Vec::new();
        let mut touched = Vec::new();
        loop {
            let outcome = self.scheduler.run(POLLS_PER_REST);
            self.touched.take_into(&mut touched);
            touched.clear();
            let Some(job) = self.slots[slot].job.as_deref_mut() else {
                return late;
            };
            let cell = Rc::clone(&job.cell);
            if outcome.state == RunState::Ready {
                if cell.has_returned() || cell.divergence().is_some() {
                    return late;
                }
                if cell.is_at_end() {
                    cell.set_returned(Err(livelock()));
                } else {
                    cell.diverge(Divergence {
                        lsn: job.first_lsn,
                        step: None,
                        expected: "a program that comes to rest".to_owned(),
                        found: format!("one that was still busy after {POLLS_PER_REST} polls"),
                    });
                }
                if let Some(root) = job.root {
                    self.handle.cancel(root);
                }
                continue;
            }
            for request in cell.take_requests() {
                // Once one has to wait all that follow do: they may be about it.
                let is_new = matches!(
                    request,
                    Request::Effect {
                        intent: Some(_),
                        ..
                    }
                );
                if is_new || !late.is_empty() {
                    late.push(request);
                } else {
                    self.request(slot, self.next_lsn, request);
                }
            }
            let next = cell.follow(&self.handle);
            let Some(job) = self.slots[slot].job.as_deref_mut() else {
                return late;
            };
            for note in cell.take_notes() {
                job.note(&note);
            }
            match next {
                ScriptNext::Delivered(entry) => {
                    job.note(&entry);
                    if let Entry::TimerFired { step, .. } = &entry
                        && let Some(token) = job.timers.remove(step)
                    {
                        self.alarms.cancel(token);
                    }
                    if let Entry::CancelRequested { reason, .. } = entry {
                        job.phase = Phase::Cancelling { reason };
                        if let Some(root) = job.root {
                            self.handle.cancel(root);
                        }
                    }
                }
                ScriptNext::Finished(..) | ScriptNext::End => return late,
            }
        }
    }

    /// The journal is followed to its end: decides on what was under way when it ended.
    fn go_live(&mut self, slot: usize, late: Vec<Request>, entries: u64) {
        let base = self.next_lsn;
        let generation = self.slots[slot].generation;
        let Some(job) = self.slots[slot].job.as_deref() else {
            return;
        };
        let id = job.id;
        let wanted = !job.cell.has_returned() && matches!(job.phase, Phase::Live);
        let open: Vec<(StepIndex, EffectStatus, bool, bool)> = job
            .effects
            .iter()
            .map(|(step, effect)| {
                let unwanted = effect.abandoned || !wanted;
                (*step, effect.status, unwanted, effect.policy.class.reruns())
            })
            .collect();
        let divergence = job.cell.divergence();
        self.publish_after(Some(id), EventKind::JobRecovered { entries });
        if divergence.is_some() {
            self.take_up_diverged(slot);
            return;
        }
        self.collect_entries(slot);
        for request in late {
            self.request(slot, base, request);
        }
        for (step, status, unwanted, reruns) in open {
            #[cfg(planted)]
            let reruns = reruns || wal::planted::is("external-rerun");
            // The last that its program asked for may have been to give it up.
            let effects = self.job_mut(slot, generation).map(|job| &job.effects);
            let effect = effects.and_then(|effects| effects.get(&step));
            let unwanted = unwanted || effect.is_none_or(|effect| effect.abandoned);
            match status {
                // Its program is past it, and what an earlier life left running has been ended.
                _ if unwanted => {
                    let attempt = self.job_mut(slot, generation).and_then(|job| {
                        let effect = job.effects.get(&step)?;
                        Some(job.effect_id(step, effect.attempt))
                    });
                    self.remove_effect(slot, step);
                    self.open.after.extend(attempt.map(After::Settled));
                }
                EffectStatus::Backoff { next_at_ms } => {
                    let now = self.now;
                    let wait_ns = now
                        .monotonic_at(next_at_ms)
                        .as_nanos()
                        .saturating_sub(now.monotonic.as_nanos());
                    let token = self.set_alarm(
                        Duration::from_nanos(wait_ns),
                        Alarm::Retry {
                            slot,
                            generation,
                            step,
                        },
                    );
                    self.set_effect_timer(slot, step, Some(token));
                }
                EffectStatus::InDoubt if reruns => {
                    if let Some(job) = self.job_mut(slot, generation)
                        && let Some(effect) = job.effects.get_mut(&step)
                    {
                        effect.interrupted = true;
                        #[cfg(planted)]
                        wal::planted::is("interruption-untold").then(|| effect.interrupted = false);
                    }
                    self.instruments.effects_interrupted.inc();
                    self.admit(slot, step, None);
                }
                EffectStatus::InDoubt => {
                    self.instruments.effects_interrupted.inc();
                    let event = self.job_mut(slot, generation).and_then(|job| {
                        job.effects
                            .get(&step)
                            .map(|effect| EventKind::StepFinished {
                                step: effect.label.to_string(),
                                status: StepStatus::Interrupted,
                                duration_us: 0,
                                error: Some(crate::effect::EffectError::interrupted().message),
                            })
                    });
                    self.conclude(slot, step, Outcome::Interrupted, None, None, event);
                }
                EffectStatus::Queued => self.admit(slot, step, None),
                EffectStatus::Starting | EffectStatus::Running | EffectStatus::Ending(_) => {}
            }
        }
    }

    /// A journal that cannot be followed: its job is stuck, unless it was to end anyway. Then that is what it does.
    fn take_up_diverged(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        if let Some(reason) = job.cell.cancelled_beyond() {
            job.cell.skip_script();
            job.effects.clear();
            job.phase = Phase::Cancelling { reason };
            if let Some(root) = job.root {
                self.handle.cancel(root);
            }
        }
    }
}
