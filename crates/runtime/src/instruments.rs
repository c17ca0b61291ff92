//! What the runtime counts.

use metrics::{Counter, Gauge, Histogram, Registry};

use crate::spec::JobState;

/// The runtime's metrics, registered once.
#[derive(Clone, Debug)]
pub struct Instruments {
    pub(crate) submitted: Counter,
    pub(crate) refused: Counter,
    completed: Counter,
    failed: Counter,
    cancelled: Counter,
    pub(crate) live_jobs: Gauge,
    pub(crate) stuck_jobs: Gauge,
    pub(crate) known_finished: Gauge,
    pub(crate) entries: Counter,
    pub(crate) turns: Counter,
    pub(crate) long_polls: Counter,
    pub(crate) effects_started: Counter,
    pub(crate) effect_retries: Counter,
    pub(crate) effects_interrupted: Counter,
    pub(crate) running_effects: Gauge,
    pub(crate) queued_effects: Gauge,
    pub(crate) effect_seconds: Histogram,
    pub(crate) log_stalled: Gauge,
}

impl Instruments {
    /// Registers all of them.
    ///
    /// # Panics
    ///
    /// If they are registered in this registry already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let finished = |state: &str| {
            registry.counter_with(
                "tinkerbell_runtime_jobs_finished_total",
                "Jobs that are over, by how they ended",
                &[("state", state)],
            )
        };
        Self {
            submitted: registry.counter("tinkerbell_runtime_jobs_submitted_total", "Jobs taken in"),
            refused: registry.counter(
                "tinkerbell_runtime_submissions_refused_total",
                "Submissions refused, for whatever reason",
            ),
            completed: finished("completed"),
            failed: finished("failed"),
            cancelled: finished("cancelled"),
            live_jobs: registry.gauge("tinkerbell_runtime_live_jobs", "Jobs that are not over"),
            stuck_jobs: registry.gauge(
                "tinkerbell_runtime_stuck_jobs",
                "Jobs whose journal cannot be followed",
            ),
            known_finished: registry.gauge(
                "tinkerbell_runtime_finished_jobs_known",
                "Jobs that are over and still in the log",
            ),
            entries: registry.counter(
                "tinkerbell_runtime_journal_entries_total",
                "Journal entries handed to the log",
            ),
            turns: registry.counter("tinkerbell_scheduler_turns_total", "Turns of the engine"),
            long_polls: registry.counter(
                "tinkerbell_scheduler_long_polls_total",
                "Times a task held the scheduler for longer than the limit",
            ),
            effects_started: registry.counter(
                "tinkerbell_runtime_effects_started_total",
                "Tries of effects handed to a handler",
            ),
            effect_retries: registry.counter(
                "tinkerbell_runtime_effect_retries_total",
                "Tries of effects that failed and are followed by another",
            ),
            effects_interrupted: registry.counter(
                "tinkerbell_runtime_effects_interrupted_total",
                "Effects that were found interrupted at the start",
            ),
            running_effects: registry
                .gauge("tinkerbell_runtime_running_effects", "Effects at work"),
            queued_effects: registry.gauge(
                "tinkerbell_runtime_queued_effects",
                "Effects that wait for room",
            ),
            effect_seconds: registry.histogram(
                "tinkerbell_runtime_effect_duration_seconds",
                "How long tries of effects took",
                &metrics::DURATION_BUCKETS_SECONDS,
            ),
            log_stalled: registry.gauge(
                "tinkerbell_wal_stalled",
                "Whether the log waits for space: 1 if it does",
            ),
        }
    }

    pub(crate) fn finished(&self, state: JobState) {
        match state {
            JobState::Completed => self.completed.inc(),
            JobState::Cancelled => self.cancelled.inc(),
            _ => self.failed.inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_over_is_counted_by_how_it_ended() {
        let registry = Registry::new();
        let instruments = Instruments::new(&registry);
        for state in [
            JobState::Completed,
            JobState::Failed,
            JobState::Failed,
            JobState::Cancelled,
        ] {
            instruments.finished(state);
        }
        let text = registry.render(metrics::Format::Prometheus);
        for counted in [
            "{state=\"completed\"} 1",
            "{state=\"failed\"} 2",
            "{state=\"cancelled\"} 1",
        ] {
            let line = format!("tinkerbell_runtime_jobs_finished_total{counted}");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
