//! What the engine shows of itself.

use pal::EventKind;

use super::{Engine, Reply};
use crate::dump::Dump;
use crate::effect::EffectRunner;
use crate::ids::JobId;
use crate::job::{Job, JobView};
use crate::jobs::{JobFilter, Page};

impl<R: EffectRunner> Engine<R> {
    pub(super) fn report_scheduler(&mut self) {
        for report in self.scheduler.take_reports().reports {
            match report {
                scheduler::Report::LongPoll { name, duration, .. } => {
                    self.instruments.long_polls.inc();
                    tracing::warn!(
                        task = %name,
                        duration_ms = duration.as_millis() as u64,
                        "task held the scheduler for too long"
                    );
                }
                other => tracing::warn!("scheduler: {other}"),
            }
        }
        self.instruments.live_jobs.set(self.live as i64);
        self.instruments.stuck_jobs.set(self.stuck as i64);
        self.instruments
            .running_effects
            .set(self.running_effects as i64);
        self.instruments
            .queued_effects
            .set(self.effect_queue.len() as i64);
        self.instruments.turns.inc();
        self.instruments.known_finished.set(self.index.len() as i64);
    }

    pub(super) fn pal_node(&self, kind: EventKind) {
        self.pal.publish(kind, None, self.now.unix_ms, None);
    }

    /// The scheduler's running hash over all that it did in this life: equal for equal lives.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.scheduler.trace_hash()
    }

    pub(super) fn dump(&self) -> Dump {
        Dump {
            epoch: self.epoch,
            scheduler: self.scheduler.dump(),
            trace_hash: self.scheduler.trace_hash(),
            jobs: self.live_jobs().map(Job::view).collect(),
            finished_jobs: self.index.len(),
            running_effects: self.running_effects,
            queued_effects: self.effect_queue.len(),
            batches_in_flight: self.in_flight.len(),
            entries_open: self.next_lsn.0 - self.handed_over.0,
            needed_from: self.needed.first().copied(),
            draining: self.draining.is_some(),
            stalled: self.stalled.is_some(),
            space_low: self.space_low,
        }
    }

    pub(super) fn view(&self, id: JobId) -> Option<JobView> {
        match self.by_id.get(&id) {
            Some(&slot) => self.slots[slot].job.as_deref().map(Job::view),
            None => self.index.get(id).map(crate::index::FinishedJob::view),
        }
    }

    /// Answers once a job is over.
    pub(super) fn when_over(&mut self, id: JobId, reply: Reply<Option<JobView>>) {
        if !self.by_id.contains_key(&id) {
            let _ = reply.send(self.view(id));
            return;
        }
        let waiters = self.end_waiters.entry(id).or_default();
        // Whoever went away leaves no more than this behind.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    /// The newest first, live and finished in one order.
    pub(super) fn list(&self, filter: &JobFilter) -> Page {
        let mut views: Vec<JobView> = self
            .live_jobs()
            .map(Job::view)
            .filter(|view| filter.matches(view))
            .collect();
        views.sort_unstable_by_key(|view| std::cmp::Reverse(view.id));
        let mut live = views.into_iter().peekable();
        let mut finished = self
            .index
            .iter()
            .rev()
            .filter(|job| job.matches(filter))
            .map(crate::index::FinishedJob::view)
            .peekable();
        let mut jobs = Vec::new();
        let mut more = false;
        loop {
            let next = match (live.peek(), finished.peek()) {
                (Some(a), Some(b)) if a.id > b.id => live.next(),
                (Some(_), None) => live.next(),
                (_, Some(_)) => finished.next(),
                (None, None) => None,
            };
            let Some(view) = next else { break };
            if jobs.len() == filter.limit {
                more = true;
                break;
            }
            jobs.push(view);
        }
        Page { jobs, more }
    }
}
