//! Everything the engine knows, for people who look into it.

use std::fmt;

use wal::Lsn;

use crate::job::JobView;

/// The state of scheduler, jobs and log at one moment.
#[derive(Debug)]
pub struct Dump {
    /// How many times this log has been opened for writing.
    pub epoch: u64,
    /// All tasks.
    pub scheduler: scheduler::Dump,
    /// The scheduler's running hash over all that it did.
    pub trace_hash: u64,
    /// The live jobs.
    pub jobs: Vec<JobView>,
    /// How many finished jobs are known.
    pub finished_jobs: usize,
    /// Effects at work.
    pub running_effects: usize,
    /// Effects that wait for room.
    pub queued_effects: usize,
    /// Batches on their way to the disk.
    pub batches_in_flight: usize,
    /// Entries not handed to the log yet.
    pub entries_open: u64,
    /// Where the journal of the oldest live job begins.
    pub needed_from: Option<Lsn>,
    /// Whether the daemon is stopping.
    pub draining: bool,
    /// Whether the log waits for space.
    pub stalled: bool,
    /// Whether the next segment cannot be made.
    pub space_low: bool,
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "epoch {}, trace {:016x}, {} live jobs, {} finished, {} effects running, {} queued",
            self.epoch,
            self.trace_hash,
            self.jobs.len(),
            self.finished_jobs,
            self.running_effects,
            self.queued_effects
        )?;
        write!(
            f,
            "log: {} batches in flight, {} entries open",
            self.batches_in_flight, self.entries_open
        )?;
        if let Some(lsn) = self.needed_from {
            write!(f, ", needed from LSN {lsn}")?;
        }
        for (is, word) in [
            (self.draining, "draining"),
            (self.stalled, "stalled for space"),
            (self.space_low, "space low"),
        ] {
            if is {
                write!(f, ", {word}")?;
            }
        }
        writeln!(f)?;
        for job in &self.jobs {
            write!(f, "job {} {} {}", job.id, job.program, job.state)?;
            if let Some(name) = &job.name {
                write!(f, " `{name}`")?;
            }
            if let Some(on) = &job.waits_for {
                write!(f, ", waits for {on}")?;
            }
            if let Some(error) = &job.error {
                write!(f, ", {error}")?;
            }
            writeln!(f)?;
            for step in &job.steps {
                writeln!(
                    f,
                    "  step {} `{}` {} {}, attempt {} of {}",
                    step.step, step.label, step.kind, step.status, step.attempt, step.attempts
                )?;
            }
        }
        write!(f, "{}", self.scheduler)
    }
}
