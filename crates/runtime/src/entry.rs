//! Journal entries: what the log's records mean.
//!
//! A record is one byte of schema version and a [`Record`] in postcard's encoding (its wire format is specified and
//! stable since 1.0). Every entry of a job is either *generated*, because the program asked for something, or
//! *delivered*, because the world answered. Replay runs the program again, hands it the delivered entries in their
//! order, and holds every generated one against the recorded bytes. So the whole of determinism is one comparison.
//!
//! Entries are only ever added to: variants are appended, never reordered or changed, and a change that cannot be made
//! so gets a new schema version beside the old decoder. `tests/golden` holds logs of earlier versions.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::effect::EffectError;
use crate::ids::{Attempt, JobId, StepIndex};
use crate::payload::Stored;
use crate::policy::EffectPolicy;
use crate::spec::{Fingerprint, JobPriority};

/// The schema version that this build writes.
pub const SCHEMA: u8 = 1;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// Something of the whole process.
    Node(NodeEntry),
    /// Something of one job.
    Job(JobId, Entry),
}

/// What happens to the process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeEntry {
    /// The daemon opened the log.
    Started {
        /// How many times this log has been opened for writing, this time included: later entries were written in
        /// this epoch.
        epoch: u64,
        /// Unix milliseconds.
        at_ms: u64,
        /// Version of the binary.
        version: String,
    },
    /// The daemon stopped cleanly: nothing of this epoch follows.
    Stopped {
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The epoch goes on. Said again from time to time, so that the beginning of the log may be released and the epoch
    /// is known all the same.
    Continued {
        /// As in `Started`.
        epoch: u64,
    },
}

/// One entry of a job's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// Delivered: the job exists. Always the first entry.
    Submitted {
        /// Unix milliseconds.
        at_ms: u64,
        /// What was asked for.
        spec: StoredSpec,
    },
    /// Generated: the program asked for an effect. With this on disk the effect may have run.
    Requested {
        /// Which request it is.
        step: StepIndex,
        /// The handler.
        kind: String,
        /// The step's name.
        label: String,
        /// What the step is for, in words.
        title: Option<String>,
        /// How it is to be tried.
        policy: EffectPolicy,
        /// What it is to be done with.
        input: Stored,
    },
    /// Delivered: there was no room to start the effect; it waits, and has left no trace outside.
    Queued {
        /// The effect's step.
        step: StepIndex,
    },
    /// Delivered: a try begins that `Requested` did not stand for: one after `Queued`, after a failed try, or again
    /// after an interruption.
    Starting {
        /// The effect's step.
        step: StepIndex,
        /// Which try.
        attempt: Attempt,
    },
    /// Delivered: a try failed, and another is to follow.
    AttemptFailed {
        /// The effect's step.
        step: StepIndex,
        /// Which try.
        attempt: Attempt,
        /// Unix milliseconds.
        at_ms: u64,
        /// Why.
        error: EffectError,
        /// What it gave all the same.
        output: Option<Stored>,
        /// When the next try is due, in Unix milliseconds.
        next_at_ms: u64,
    },
    /// Delivered: the effect is over.
    Completed {
        /// The effect's step.
        step: StepIndex,
        /// The try that decided it.
        attempt: Attempt,
        /// Unix milliseconds.
        at_ms: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// Generated: the program gave an effect up before it was over.
    Abandoned {
        /// The effect's step.
        step: StepIndex,
    },
    /// Delivered: a time the program waited for has come.
    TimerFired {
        /// The step that waits.
        step: StepIndex,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// Delivered: somebody outside sent something.
    Signalled {
        /// What the program waits for by this name.
        name: String,
        /// Unix milliseconds.
        at_ms: u64,
        /// What was sent.
        payload: Stored,
    },
    /// Generated: the program took a branch of a change of its own.
    Version {
        /// The change.
        change: String,
        /// The branch taken.
        version: u32,
    },
    /// Generated: the program told something to whoever watches. The event is kept as JSON, in the shape that
    /// watchers get.
    Emitted {
        /// A `pal::EventKind`.
        event: Stored,
    },
    /// Generated: the program folded its history into a state; recovery starts from here.
    Checkpoint(Box<Checkpoint>),
    /// Delivered: somebody wants the job to end.
    CancelRequested {
        /// Unix milliseconds.
        at_ms: u64,
        /// Why, in that somebody's words.
        reason: String,
    },
    /// The job is over. Always the last entry.
    Finished {
        /// Unix milliseconds.
        at_ms: u64,
        /// How it ended.
        ending: Ending,
        /// The running hash over all entries before this one.
        journal: JournalHash,
    },
}

/// A job's specification as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredSpec {
    /// The program.
    pub program: String,
    /// The version of the program that the job began with.
    pub program_version: u32,
    /// What it is to do.
    pub input: Stored,
    /// The name for people.
    pub name: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// Words to find it by.
    pub labels: Vec<(String, String)>,
    /// How urgent it is.
    pub priority: JobPriority,
    /// What submissions under the same key are compared by.
    pub fingerprint: Fingerprint,
}

/// What an effect came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It gave what was asked.
    Ok {
        /// The result.
        output: Stored,
        /// Blobs that the result speaks of.
        attachments: Vec<[u8; 32]>,
    },
    /// It failed for good.
    Failed {
        /// Why; its own `output` is empty, being the next field.
        error: EffectError,
        /// What it gave all the same.
        output: Option<Stored>,
        /// Blobs that the output speaks of.
        attachments: Vec<[u8; 32]>,
    },
    /// The daemon died while it ran. Whether it took effect is not known, and nobody pretends to know.
    Interrupted,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    /// With a result.
    Completed {
        /// The result.
        output: Stored,
    },
    /// By the program's own failure.
    Failed {
        /// A stable word for what went wrong.
        code: String,
        /// What went wrong, for people.
        message: String,
        /// What the program gave all the same.
        output: Option<Stored>,
    },
    /// Because somebody wanted it to.
    Cancelled {
        /// Why, in that somebody's words.
        reason: String,
    },
}

impl Ending {
    /// How it is shown: the state that the job is in, and why, if it did not complete.
    #[must_use]
    pub fn shown(&self) -> (pal::JobState, Option<&str>) {
        match self {
            Self::Completed { .. } => (pal::JobState::Completed, None),
            Self::Failed { message, .. } => (pal::JobState::Failed, Some(message)),
            Self::Cancelled { reason } => (pal::JobState::Cancelled, Some(reason)),
        }
    }
}

/// All that recovery needs of the history before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What the program needs to go on.
    pub state: Stored,
    /// The first step index not used yet.
    pub next_step: StepIndex,
    /// How many random numbers were drawn.
    pub random_drawn: u64,
    /// The branches taken so far.
    pub versions: Vec<(String, u32)>,
    /// Signals that came and were not waited for yet.
    pub signals: Vec<(String, Stored)>,
    /// The job's time.
    pub now_ms: u64,
}

impl Entry {
    /// Whether both say the same. Two things may differ between builds and settings although they do: whether a payload
    /// stands in its entry or in a blob, and whether a checkpoint mentions a branch 0, which is what a program takes that
    /// is past a change already, and which a checkpoint from before the change does not know of.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.in_normal_form() == other.in_normal_form()
    }

    fn in_normal_form(&self) -> Self {
        let mut entry = self.clone();
        match &mut entry {
            Self::Requested { input, .. } => input.hash(),
            Self::Emitted { event } => event.hash(),
            Self::Checkpoint(checkpoint) => {
                checkpoint.versions.retain(|(_, branch)| *branch > 0);
                checkpoint.state.hash();
                let signals = checkpoint.signals.iter_mut();
                signals.for_each(|(_, payload)| payload.hash());
            }
            Self::Finished { ending, .. } => match ending {
                Ending::Completed { output } => output.hash(),
                Ending::Failed { output, .. } => output.iter_mut().for_each(Stored::hash),
                Ending::Cancelled { .. } => {}
            },
            _ => {}
        }
        entry
    }

    /// Whether the program made it, rather than the world.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        matches!(
            self,
            Self::Requested { .. }
                | Self::Abandoned { .. }
                | Self::Version { .. }
                | Self::Emitted { .. }
                | Self::Checkpoint(_)
        )
    }

    /// Moves the time of a delivered entry up to `now_ms`, its job's time, if it is earlier.
    pub(crate) fn not_before(&mut self, now_ms: u64) {
        if let Self::Completed { at_ms, .. }
        | Self::TimerFired { at_ms, .. }
        | Self::Signalled { at_ms, .. }
        | Self::CancelRequested { at_ms, .. } = self
        {
            *at_ms = (*at_ms).max(now_ms);
        }
    }

    /// Whether it is a note of the engine's own, which the program never sees.
    #[must_use]
    pub fn is_note(&self) -> bool {
        matches!(
            self,
            Self::Queued { .. } | Self::Starting { .. } | Self::AttemptFailed { .. }
        )
    }

    /// The entry in a few words, for messages about journals that cannot be followed.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Submitted { spec, .. } => format!("submission to program `{}`", spec.program),
            Self::Requested {
                step,
                kind,
                label,
                policy,
                input,
                ..
            } => format!(
                "step {step} `{label}`: effect `{kind}` of class {}, {} attempts, input {}",
                policy.class,
                policy.attempts,
                describe_stored(input)
            ),
            Self::Queued { step } => format!("step {step}: queued"),
            Self::Starting { step, attempt } => format!("step {step}: attempt {attempt} starts"),
            Self::AttemptFailed { step, attempt, .. } => {
                format!("step {step}: attempt {attempt} failed")
            }
            Self::Completed { step, .. } => format!("step {step}: completed"),
            Self::Abandoned { step } => format!("step {step}: given up by the program"),
            Self::TimerFired { step, .. } => format!("step {step}: its time came"),
            Self::Signalled { name, .. } => format!("signal `{name}`"),
            Self::Version { change, version } => {
                format!("branch {version} of change `{change}`")
            }
            Self::Emitted { event } => format!("event {}", describe_stored(event)),
            Self::Checkpoint(checkpoint) => format!(
                "checkpoint before step {}, state {}",
                checkpoint.next_step,
                describe_stored(&checkpoint.state)
            ),
            Self::CancelRequested { .. } => "request to cancel".to_owned(),
            Self::Finished { ending, .. } => match ending {
                Ending::Completed { output } => {
                    format!("the end, completed with {}", describe_stored(output))
                }
                Ending::Failed { code, message, .. } => {
                    format!("the end, failed with {code}: {message}")
                }
                Ending::Cancelled { .. } => "the end, cancelled".to_owned(),
            },
        }
    }

    /// The entry's step, where it has one.
    #[must_use]
    pub fn step(&self) -> Option<StepIndex> {
        match self {
            Self::Requested { step, .. }
            | Self::Queued { step }
            | Self::Starting { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::Completed { step, .. }
            | Self::Abandoned { step }
            | Self::TimerFired { step, .. } => Some(*step),
            _ => None,
        }
    }

    /// Calls `visit` with the hash of every blob that the entry names.
    pub fn visit_blobs(&self, mut visit: impl FnMut([u8; 32])) {
        let mut stored = |stored: &Stored| {
            if let Stored::Blob { id, .. } = stored {
                visit(*id);
            }
        };
        match self {
            Self::Submitted { spec, .. } => stored(&spec.input),
            Self::Requested { input, .. } => stored(input),
            Self::AttemptFailed { output, .. } => output.iter().for_each(stored),
            Self::Completed { outcome, .. } => match outcome {
                Outcome::Ok {
                    output,
                    attachments,
                } => {
                    stored(output);
                    attachments.iter().copied().for_each(visit);
                }
                Outcome::Failed {
                    output,
                    attachments,
                    ..
                } => {
                    output.iter().for_each(stored);
                    attachments.iter().copied().for_each(visit);
                }
                Outcome::Interrupted => {}
            },
            Self::Signalled { payload, .. } => stored(payload),
            Self::Emitted { event } => stored(event),
            Self::Checkpoint(checkpoint) => {
                stored(&checkpoint.state);
                checkpoint
                    .signals
                    .iter()
                    .for_each(|(_, payload)| stored(payload));
            }
            Self::Finished { ending, .. } => match ending {
                Ending::Completed { output } => stored(output),
                Ending::Failed { output, .. } => output.iter().for_each(stored),
                Ending::Cancelled { .. } => {}
            },
            Self::Queued { .. }
            | Self::Starting { .. }
            | Self::Abandoned { .. }
            | Self::TimerFired { .. }
            | Self::Version { .. }
            | Self::CancelRequested { .. } => {}
        }
    }
}

fn describe_stored(stored: &Stored) -> String {
    const SHOWN_CHARS: usize = 60;
    match stored {
        Stored::Inline(text) => {
            let hash: [u8; 32] = Sha256::digest(text).into();
            let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("{shown} (sha256 {})", hex(&hash[..6]))
        }
        Stored::Blob { id, len } => format!("of {len} bytes (sha256 {})", hex(&id[..6])),
    }
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record is empty.
    #[error("record is empty")]
    Empty,
    /// A later version of this software wrote it.
    #[error("record has schema version {found}, and this build reads up to {SCHEMA}")]
    NewerSchema {
        /// What it says it is.
        found: u8,
    },
    /// Its bytes are no record of its version.
    #[error("record is no entry of schema version {schema}: {reason}")]
    Malformed {
        /// What it says it is.
        schema: u8,
        /// What the decoder says.
        reason: String,
    },
}

impl Record {
    /// Appends the record's bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(SCHEMA);
        let encoded = postcard::to_allocvec(self)
            .expect("because a record holds only types that postcard can encode");
        out.extend_from_slice(&encoded);
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_into(&mut out);
        out
    }

    /// Reads a record back.
    ///
    /// # Errors
    ///
    /// If the bytes are no record that this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&schema, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        if schema > SCHEMA {
            return Err(DecodeError::NewerSchema { found: schema });
        }
        match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            Ok((_, rest)) => Err(DecodeError::Malformed {
                schema,
                reason: format!("{} bytes are left over", rest.len()),
            }),
            Err(error) => Err(DecodeError::Malformed {
                schema,
                reason: error.to_string(),
            }),
        }
    }
}

/// The running hash of a journal: SHA-256 over the hash so far and the next record's bytes, beginning with zeros.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalHash([u8; 32]);

impl JournalHash {
    /// The hash after one more record.
    #[must_use]
    pub fn then(self, record: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(record);
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for JournalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for JournalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalHash({})", hex(&self.0[..6]))
    }
}

/// The longest text of an entry that is no payload: an error's message, a reason. It stands in the entry whatever its length,
/// and an entry must fit into a batch.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Cuts a text that is too long for an entry, and says so.
pub(crate) fn cut_text(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let kept = text.floor_char_boundary(TEXT_BYTES_MAX);
        let cut = text.len() - kept;
        text.truncate(kept);
        text.push_str(&format!("… [{cut} bytes cut]"));
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("because writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_only_if_it_is_too_long_and_says_how_much() {
        let mut text = "x".repeat(TEXT_BYTES_MAX);
        cut_text(&mut text);
        assert_eq!(text.len(), TEXT_BYTES_MAX, "what just fits is left alone");
        text.push('y');
        cut_text(&mut text);
        assert!(text.ends_with("x… [1 bytes cut]"));
        // A character is never cut in two.
        let mut text = "ä".repeat(TEXT_BYTES_MAX);
        cut_text(&mut text);
        assert!(text.ends_with(&format!("ä… [{TEXT_BYTES_MAX} bytes cut]")));
    }
}
