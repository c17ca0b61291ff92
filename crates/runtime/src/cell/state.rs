//! A cell's state: entries on their way through it, generated ones and delivered ones.

use std::collections::{BTreeMap, VecDeque};

use scheduler::{Handle, Key, TaskId};
use wal::{BlobId, Lsn};

use super::{Appended, Awaited, Delivered, Divergence, Front, OpenStep, Request, Script};
use crate::effect::EffectError;
use crate::entry::{Ending, Entry, JournalHash, Outcome, Record};
use crate::ids::{JobId, StepIndex};
use crate::json::Json;
use crate::payload::{Payloads, Stored};
use crate::program::ProgramResult;
use crate::random::JobRandom;

pub(super) struct State {
    pub(super) now_ms: u64,
    pub(super) next_step: u32,
    pub(super) random: JobRandom,
    pub(super) versions: BTreeMap<String, u32>,
    pub(super) script: Script,
    pub(super) divergence: Option<Divergence>,
    pub(super) hash: JournalHash,
    pub(super) appended: Vec<Appended>,
    pub(super) requests: Vec<Request>,
    pub(super) open: BTreeMap<StepIndex, Box<OpenStep>>,
    pub(super) mailboxes: BTreeMap<String, VecDeque<(Stored, Json)>>,
    /// Questions asked, by the signal that answers them; true once they are settled.
    pub(super) questions: BTreeMap<String, bool>,
    pub(super) checkpointed: Option<Json>,
    /// The program has folded its history and is to be begun anew.
    pub(super) begins_anew: bool,
    /// The program's own task, and all that it and its children have spawned since it began.
    pub(super) root: Option<TaskId>,
    pub(super) children: Vec<TaskId>,
    pub(super) returned: Option<ProgramResult>,
    pub(super) closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generated {
    /// It is what the journal has.
    Followed,
    /// It is new, and goes into the log.
    Appended,
    /// The program has left its journal, or is being taken down.
    Refused,
}

impl State {
    pub(super) fn new(job: JobId) -> Self {
        Self {
            now_ms: 0,
            next_step: 0,
            random: JobRandom::new(job),
            versions: BTreeMap::new(),
            script: Script::default(),
            divergence: None,
            hash: JournalHash::default(),
            appended: Vec::new(),
            requests: Vec::new(),
            open: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            questions: BTreeMap::new(),
            checkpointed: None,
            begins_anew: false,
            root: None,
            children: Vec::new(),
            returned: None,
            closed: false,
        }
    }

    pub(super) fn front(&mut self) -> Front<'_> {
        self.script.advance(&mut self.hash);
        if let Some(damage) = &self.script.damage {
            return Front::Damaged(damage.clone());
        }
        match (&self.script.front, self.script.rest.front()) {
            (Some(entry), Some(recorded)) => Front::Entry(entry, recorded),
            _ => Front::End,
        }
    }

    pub(super) fn ends_cancelled_here(&mut self) -> bool {
        matches!(
            self.front(),
            Front::Entry(
                Entry::Finished {
                    ending: Ending::Cancelled { .. },
                    ..
                },
                _
            )
        )
    }

    pub(super) fn describe_standstill(&self) -> String {
        match &self.returned {
            Some(Ok(_)) => "its end, completed".to_owned(),
            Some(Err(failure)) => format!("its end, failed with {}: {failure}", failure.code),
            None => "nothing: it waits".to_owned(),
        }
    }

    pub(super) fn is_halted(&self) -> bool {
        self.closed || self.divergence.is_some()
    }

    pub(super) fn append(&mut self, job: JobId, entry: Entry, blob: Option<(BlobId, Vec<u8>)>) {
        let mut names = Vec::new();
        entry.visit_blobs(|blob| names.push(blob));
        let bytes = Record::Job(job, entry).encode();
        self.hash = self.hash.then(&bytes);
        self.appended.push(Appended {
            bytes,
            blob,
            event: None,
            names,
        });
    }

    pub(super) fn generate(
        &mut self,
        job: JobId,
        entry: Entry,
        blob: Option<(BlobId, Vec<u8>)>,
    ) -> Generated {
        if self.is_halted() {
            return Generated::Refused;
        }
        let (bytes, versions) = match self.front() {
            Front::End => {
                self.append(job, entry, blob);
                return Generated::Appended;
            }
            Front::Damaged(divergence) => {
                self.divergence = Some(divergence);
                return Generated::Refused;
            }
            Front::Entry(expected, recorded) => {
                let bytes = Record::Job(job, entry.clone()).encode();
                if *bytes != *recorded.bytes && !expected.agrees_with(&entry) {
                    self.divergence = Some(Divergence {
                        lsn: Some(recorded.lsn),
                        step: entry.step().or_else(|| expected.step()),
                        expected: expected.describe(),
                        found: entry.describe(),
                    });
                    return Generated::Refused;
                }
                // From a checkpoint on the branches are those that a recovery from it finds there.
                let versions = match expected {
                    Entry::Checkpoint(checkpoint) => Some(checkpoint.versions.clone()),
                    _ => None,
                };
                (recorded.bytes.clone(), versions)
            }
        };
        if let Some(versions) = versions {
            self.versions = versions.into_iter().collect();
        }
        self.hash = self.hash.then(&bytes);
        self.script.pop();
        Generated::Followed
    }

    pub(super) fn open(&mut self, handle: &Handle, awaited: Awaited) -> Key {
        let key = handle.new_key();
        let step = StepIndex(self.next_step);
        self.next_step += 1;
        self.open.insert(
            step,
            Box::new(OpenStep {
                awaited,
                key,
                delivered: None,
            }),
        );
        key
    }

    /// Hands a delivered entry to whoever waits for it. Entries about tries, and about effects that were given up,
    /// are nobody's.
    pub(super) fn apply(
        &mut self,
        handle: &Handle,
        payloads: &Payloads,
        entry: &Entry,
        json: Option<Json>,
        lsn: Option<Lsn>,
    ) -> Result<(), Divergence> {
        let load = |stored: &Stored, json: Option<Json>| match json {
            Some(json) => Ok(json),
            None => payloads
                .load(stored)
                .map(|payload| payload.json().clone())
                .map_err(|error| Divergence {
                    lsn,
                    step: entry.step(),
                    expected: entry.describe(),
                    found: format!("a payload that cannot be read: {error}"),
                }),
        };
        match entry {
            Entry::Completed {
                step,
                at_ms,
                outcome,
                ..
            } => {
                self.now_ms = *at_ms;
                let result = match outcome {
                    Outcome::Ok { output, .. } => Ok(load(output, json)?),
                    Outcome::Failed { error, output, .. } => {
                        let mut error = error.clone();
                        error.output = match output {
                            Some(output) => Some(load(output, json)?),
                            None => None,
                        };
                        Err(error)
                    }
                    Outcome::Interrupted => Err(EffectError::interrupted()),
                };
                self.answer(handle, *step, Delivered::Effect(result));
            }
            Entry::TimerFired { step, at_ms } => {
                self.now_ms = *at_ms;
                if !self.answer(handle, *step, Delivered::Time) {
                    return Err(Divergence {
                        lsn,
                        step: Some(*step),
                        expected: entry.describe(),
                        found: "no such wait".to_owned(),
                    });
                }
            }
            Entry::Signalled {
                name,
                at_ms,
                payload,
            } => {
                self.now_ms = *at_ms;
                let json = load(payload, json)?;
                let waiter = self.open.iter().find_map(|(step, open)| {
                    let waits = open.delivered.is_none()
                        && matches!(&open.awaited, Awaited::Signal { name: n } if n == name);
                    waits.then_some(*step)
                });
                #[cfg(planted)]
                if waiter.is_none() && wal::planted::is("signal-dropped") {
                    return Ok(());
                }
                match waiter {
                    Some(step) => {
                        self.answer(handle, step, Delivered::Signal(json));
                    }
                    None => self
                        .mailboxes
                        .entry(name.clone())
                        .or_default()
                        .push_back((payload.clone(), json)),
                }
            }
            Entry::CancelRequested { at_ms, .. } => self.now_ms = *at_ms,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        handle: &Handle,
        step: StepIndex,
        delivered: Delivered,
    ) -> bool {
        let Some(open) = self.open.get_mut(&step) else {
            return false;
        };
        open.delivered = Some(delivered);
        handle.signal(open.key);
        true
    }
}
