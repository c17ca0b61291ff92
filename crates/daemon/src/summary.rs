//! What is said at the end of a run whose activity was shown: what became of the start-up jobs, and where to look next.

use std::io::{self, Write};
use std::path::PathBuf;

use runtime::JobResult;
use serde_json::Value;

use crate::boot::absolute;
use crate::inspect::LogView;
use crate::neutral::one_line;
use crate::running::{Running, StopReason};
use crate::startup::{StartOutcome, StartedJob};

/// The end of a run, for people.
#[derive(Debug)]
pub struct Summary {
    data_dir: PathBuf,
    started: Vec<StartedJob>,
    first_lsn: wal::Lsn,
    idle: bool,
}

impl Summary {
    /// What is known before the daemon is gone.
    #[must_use]
    pub fn of(daemon: &Running, reason: &StopReason) -> Self {
        Self {
            data_dir: absolute(&daemon.config().node.data_dir),
            started: daemon.started_jobs().to_vec(),
            first_lsn: daemon.first_lsn(),
            idle: matches!(reason, StopReason::Idle(_)),
        }
    }

    /// Says it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.started.is_empty() || !self.idle {
            return Ok(());
        }
        let view = LogView::open(&self.data_dir).ok();
        writeln!(out)?;
        let mut shown = None;
        for started in &self.started {
            let name = &started.name;
            let job = started.outcome.job();
            // The log tells whether it was this run that finished the job.
            let result = job.and_then(|job| view.as_ref()?.result(job).ok().flatten());
            match &started.outcome {
                StartOutcome::New(_) => writeln!(out, "job {name} is done")?,
                StartOutcome::Known(_)
                    if result
                        .as_ref()
                        .is_some_and(|(lsn, _)| *lsn >= self.first_lsn) =>
                {
                    writeln!(
                        out,
                        "job {name} is done; it went on where an earlier run had left it"
                    )?;
                }
                StartOutcome::Known(_) | StartOutcome::Changed { kept: true, .. } => {
                    writeln!(out, "job {name} was done already; nothing was repeated")?;
                }
                StartOutcome::Changed { earlier, .. } => writeln!(
                    out,
                    "job {name} has changed since it was run as {earlier}, and was not run again: give it a new \
                     name, or say with `on_change` what to do"
                )?,
                StartOutcome::Refused(error) => writeln!(out, "job {name} was refused: {error}")?,
            }
            if job.is_none() {
                continue;
            }
            shown.get_or_insert(name);
            match result.map(|(_, result)| result) {
                Some(JobResult::Completed { output }) => write_output(out, &output)?,
                Some(JobResult::Failed { message, .. }) => {
                    writeln!(out, "  failed      {}", one_line(&message))?;
                }
                Some(JobResult::Cancelled { reason }) => {
                    writeln!(out, "  cancelled   {}", one_line(&reason))?;
                }
                None => writeln!(
                    out,
                    "  not over    `tinkerbell log cat --job {name}` says why"
                )?,
            }
        }
        let place = self.data_dir.display();
        writeln!(out, "  log         {place}/wal")?;
        if let Some(name) = shown {
            // As it was called this time: it need not be on the PATH.
            let us = std::env::args()
                .next()
                .unwrap_or_else(|| "tinkerbell".to_owned());
            writeln!(
                out,
                "  look at it  {us} log cat --job {name} --data-dir {place}"
            )?;
            writeln!(out, "  replay it   {us} replay {name} --data-dir {place}")?;
        }
        out.flush()
    }
}

/// The output that a plan states: each field a line.
fn write_output(out: &mut impl Write, result: &Value) -> io::Result<()> {
    let Some(fields) = result.get("output").and_then(Value::as_object) else {
        return Ok(());
    };
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writeln!(out, "  {name:<10}  {}", one_line(text.trim()))?;
    }
    Ok(())
}
