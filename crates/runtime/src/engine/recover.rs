//! The engine's beginning: following every live job's journal to its end, and deciding on what was interrupted.

use std::rc::Rc;
use std::time::Duration;

use pal::{EventKind, StepStatus};
use scheduler::timer::TimerQueue;
use scheduler::{RunState, Scheduler};

use super::{
    After, Alarm, Engine, EngineOptions, HOUSEKEEPING_INTERVAL, Idleness, OpenBatch,
    POLLS_PER_REST, livelock,
};
use crate::cell::{Divergence, Request, ScriptNext, Touched};
use crate::effect::EffectRunner;
use crate::entry::{Entry, NodeEntry, Outcome};
use crate::ids::{JobId, StepIndex};
use crate::job::{EffectStatus, Phase};
use crate::recovery::{Journal, Recovery};
use crate::time::Now;

impl<R: EffectRunner> Engine<R> {
    /// An engine that goes on where the log ends.
    ///
    /// Jobs whose journal cannot be followed are stuck from the start; all others go on with the first turn.
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
            live: 0,
            stuck: 0,
            index: recovery.index,
            needed: Default::default(),
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
            spare_batches: Vec::new(),
            next_token: 0,
            in_flight: Default::default(),
            draining: None,
            stopped: None,
            stalled: None,
            space_low: false,
            idle_waiters: Vec::new(),
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
        for (id, journal) in recovery.journals {
            engine.resume(id, journal);
        }
        // Each job rests, and is looked at as after any other run.
        (0..engine.slots.len()).for_each(|slot| engine.touched.mark(slot));
        engine
    }

    fn resume(&mut self, id: JobId, journal: Journal) {
        let entries = journal.rest.len() as u64 + 1;
        let slot = self.add_job(id, journal.spec, journal.submitted_ms);
        self.needed.insert(journal.first_lsn);
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
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
