//! Recorded entries, and how they are followed.

use std::collections::VecDeque;
use std::fmt;

use wal::Lsn;

use crate::entry::{DecodeError, Entry, JournalHash, Record};
use crate::ids::StepIndex;

/// Where a program left its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The position in the log of the entry that could not be followed, if there was one.
    pub lsn: Option<Lsn>,
    /// The step it happened at.
    pub step: Option<StepIndex>,
    /// What the journal has.
    pub expected: String,
    /// What the program did.
    pub found: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("program does not follow its journal")?;
        if let Some(step) = self.step {
            write!(f, " at step {step}")?;
        }
        if let Some(lsn) = self.lsn {
            write!(f, " (LSN {lsn})")?;
        }
        write!(
            f,
            ": journal has {}; program came with {}",
            self.expected, self.found
        )
    }
}

/// An entry as the log has it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Where it stands.
    pub lsn: Lsn,
    /// Its record's bytes.
    pub bytes: Box<[u8]>,
}

impl Recorded {
    /// Reads the entry.
    ///
    /// # Errors
    ///
    /// If the bytes are no record of a job that this build knows.
    pub fn entry(&self) -> Result<Entry, DecodeError> {
        match Record::decode(&self.bytes)? {
            Record::Job(_, entry) => Ok(entry),
            Record::Node(_) => Err(DecodeError::Malformed {
                schema: self.bytes[0],
                reason: "it is an entry of the node, not of a job".to_owned(),
            }),
        }
    }
}

/// The recorded entries not followed yet. The engine's own notes among them, which the program never saw, are taken
/// out on the way: where they stand between two requests says nothing about the program.
#[derive(Default)]
pub(super) struct Script {
    pub(super) rest: VecDeque<Recorded>,
    /// The first of `rest`, decoded.
    pub(super) front: Option<Entry>,
    pub(super) notes: Vec<Entry>,
    pub(super) damage: Option<Divergence>,
}

impl Script {
    /// Decodes the next entry that is not a note, adding what it passes to `hash`.
    pub(super) fn advance(&mut self, hash: &mut JournalHash) {
        while self.front.is_none()
            && self.damage.is_none()
            && let Some(recorded) = self.rest.front()
        {
            match recorded.entry() {
                Ok(entry) if entry.is_note() => {
                    *hash = hash.then(&recorded.bytes);
                    self.notes.push(entry);
                    self.rest.pop_front();
                }
                Ok(entry) => self.front = Some(entry),
                Err(error) => {
                    self.damage = Some(Divergence {
                        lsn: Some(recorded.lsn),
                        step: None,
                        expected: format!("a record that cannot be read: {error}"),
                        found: "nothing to compare it with".to_owned(),
                    });
                }
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Entry, Recorded)> {
        Some((self.front.take()?, self.rest.pop_front()?))
    }
}

/// The next recorded entry, if the journal is not followed to its end.
pub(super) enum Front<'a> {
    Entry(&'a Entry, &'a Recorded),
    Damaged(Divergence),
    End,
}

/// What a journal asks to happen next, once the job is quiescent.
#[derive(Debug)]
pub(crate) enum ScriptNext {
    /// A delivered entry, which has been applied.
    Delivered(Entry),
    /// The job's recorded end. The program must have returned the same.
    Finished(Entry, Recorded),
    /// Nothing: the journal is followed to its end, or cannot be followed.
    End,
}
