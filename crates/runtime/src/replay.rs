//! Replay: running a program against its journal without executing anything.
//!
//! It is the engine's own recovery without the engine: the same cell, the same scheduler, the same order. What the
//! world answered comes from the journal, so no network, model or tool is needed; what the program asks for must be
//! what the journal says it asked for.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use scheduler::{RunState, Scheduler};

use crate::cell::{Cell, Divergence, Recorded, ScriptNext, Touched};
use crate::context::Context;
use crate::engine::{POLLS_PER_REST, deadlock, ending_of, livelock};
use crate::entry::{Ending, Entry, JournalHash};
use crate::ids::JobId;
use crate::job::Phase;
use crate::payload::Payloads;
use crate::program::Programs;
use crate::run::supervised;

/// What a replay found when program and journal agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The job.
    pub job: JobId,
    /// The program that ran.
    pub program: String,
    /// Entries followed.
    pub entries: usize,
    /// The running hash over all of them but the last entry of a finished job, which states it.
    pub hash: JournalHash,
    /// How the job ended; `None` if the journal ends before the job does.
    pub ending: Option<Ending>,
}

/// Why a journal could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Program and journal part here.
    #[error("{0}")]
    Diverged(Divergence),
    /// The log has no beginning of this job any more.
    #[error("log has no beginning of job {0}: its first segments have been released")]
    Beheaded(JobId),
    /// The program is not in this build.
    #[error("job was run by program `{0}`, which this build does not have")]
    UnknownProgram(String),
    /// The input cannot be read.
    #[error("input of the job cannot be read: {0}")]
    Input(#[from] crate::payload::PayloadError),
}

/// Runs a job's program against its journal.
///
/// # Errors
///
/// The first difference, or why there is nothing to replay.
pub fn replay(
    programs: &Programs,
    payloads: &Arc<Payloads>,
    job: JobId,
    journal: Vec<Recorded>,
) -> Result<Replayed, ReplayError> {
    let entries = journal.len();
    let mut journal = VecDeque::from(journal);
    let first = journal.pop_front().ok_or(ReplayError::Beheaded(job))?;
    let Ok(Entry::Submitted { at_ms, spec }) = first.entry() else {
        return Err(ReplayError::Beheaded(job));
    };
    let program = programs
        .get(&spec.program)
        .ok_or_else(|| ReplayError::UnknownProgram(spec.program.clone()))?;
    let input = payloads.load(&spec.input)?.json().clone();

    let mut scheduler = Scheduler::new(scheduler::Options::default());
    let handle = scheduler.handle();
    let touched = Rc::new(Touched::default());
    let cell = Rc::new(Cell::new(job, 0, Arc::clone(payloads), touched));
    cell.begin_recorded(&first.bytes, at_ms);
    cell.set_script(journal);
    let level = spec.priority.level();
    let context = Context::new(Rc::clone(&cell), handle.clone(), level);
    let task = supervised(Arc::clone(program), context, Rc::clone(&cell), input);
    let root = handle.spawn("job", level, task).id();

    let mut phase = Phase::Live;
    let ending = loop {
        if scheduler.run(POLLS_PER_REST).state == RunState::Ready {
            cell.set_returned(Err(livelock()));
            handle.cancel(root);
            scheduler.run(POLLS_PER_REST);
        }
        if !cell.has_returned() && !cell.awaits_anything() && matches!(phase, Phase::Live) {
            cell.set_returned(Err(deadlock()));
        }
        match cell.follow(&handle) {
            ScriptNext::Delivered(Entry::CancelRequested { reason, .. }) => {
                phase = Phase::Cancelling { reason };
                handle.cancel(root);
            }
            ScriptNext::Delivered(_) => {}
            ScriptNext::Finished(entry, recorded) => {
                break Some(compare_ending(&cell, payloads, &phase, &entry, &recorded)?);
            }
            ScriptNext::End => break None,
        }
    };
    let divergence = cell.divergence();
    let hash = cell.hash();
    cell.close();
    match divergence {
        Some(divergence) => Err(ReplayError::Diverged(divergence)),
        None => Ok(Replayed {
            job,
            program: spec.program,
            entries,
            hash,
            ending,
        }),
    }
}

fn compare_ending(
    cell: &Cell,
    payloads: &Payloads,
    phase: &Phase,
    entry: &Entry,
    recorded: &Recorded,
) -> Result<Ending, ReplayError> {
    let expected = entry.describe();
    let diverged = |found: String| {
        ReplayError::Diverged(Divergence {
            lsn: Some(recorded.lsn),
            step: None,
            expected: expected.clone(),
            found,
        })
    };
    let Entry::Finished {
        at_ms,
        ending,
        journal,
    } = entry
    else {
        return Err(diverged("no end".to_owned()));
    };
    let found = match (phase, cell.returned()) {
        (Phase::Cancelling { .. }, _) => Ok(crate::json::Json::null()),
        (_, Some(result)) => result,
        (_, None) => return Err(diverged("no end: it still waits".to_owned())),
    };
    let (found, _) = ending_of(payloads, phase, found);
    let found = Entry::Finished {
        at_ms: *at_ms,
        ending: found,
        journal: *journal,
    };
    if !found.agrees_with(entry) {
        return Err(diverged(found.describe()));
    }
    if cell.hash() != *journal {
        return Err(diverged(format!(
            "the same end over another journal: its hash is {}, and {journal} was recorded",
            cell.hash()
        )));
    }
    Ok(ending.clone())
}
