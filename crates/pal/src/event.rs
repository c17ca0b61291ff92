//! What can be said on the activity stream.
//!
//! One [`Event`] is one thing that happened, to the node or to one job. The type is a *published* one:
//! its JSON goes to clients, to files and to a live page, so fields are added and never renamed or
//! given another meaning (the snapshots in `tests/json.rs` hold it to that).
//!
//! The JSON of an event is one flat object: the envelope (`seq`, `at_ms`, `lsn`, `job`), `type`, and
//! the fields of that type beside them. Absent options are left out. No type may have a field with the
//! name of an envelope field.
//!
//! ```
//! # use pal::{Event, EventKind, JobRef};
//! let event = Event {
//!     seq: 7,
//!     at_ms: 1_700_000_000_000,
//!     lsn: Some(41),
//!     job: Some(JobRef { id: uuid::Uuid::nil(), seq: 1 }),
//!     kind: EventKind::JobStarted,
//! };
//! assert_eq!(
//!     serde_json::to_string(&event).unwrap(),
//!     r#"{"seq":7,"at_ms":1700000000000,"lsn":41,"job":{"id":"00000000-0000-0000-0000-000000000000","seq":1},"type":"job_started"}"#,
//! );
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// One thing that happened, numbered and dated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in this process: dense, the first is 1. A restart begins again at 1.
    pub seq: u64,
    /// When it happened, in milliseconds since the Unix epoch, as the publisher's clock had it.
    /// Clocks step back; `seq` is the order.
    pub at_ms: u64,
    /// The log sequence number of the durable entry that this event shows. `None` for what was never
    /// in the log (output as it is printed, phases of the boot): that is gone after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    /// The job it happened to; `None` for events of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRef>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A job, and which of its events this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRef {
    /// The job.
    pub id: Uuid,
    /// The event's number among this job's events: dense within the life of the process, the first
    /// is 1. A follower of one job finds a gap by it without seeing the events of the others.
    pub seq: u64,
}

/// What happened. The JSON has the variant's name in snake case as `type`, and its fields beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// A phase of the node's start or stop is over.
    Phase {
        /// Which one: `config`, `log`, `recovery`, …
        name: String,
        /// How long it took.
        duration_us: u64,
    },
    /// The node takes work.
    Ready {
        /// From the start of the process to this moment.
        duration_us: u64,
    },
    /// The node takes no more work and is on its way out.
    Draining {
        /// Why: the signal, or who asked.
        reason: String,
    },
    /// The node is done; nothing comes after this.
    Stopped,
    /// A changed configuration is in force.
    ConfigReloaded {
        /// The keys whose new values are in force now.
        applied: Vec<String>,
        /// The keys whose new values wait for a restart.
        needs_restart: Vec<String>,
    },
    /// A changed configuration was refused; the one before it stays in force.
    ConfigRejected {
        /// What is wrong with it, and where.
        error: String,
    },
    /// Part of the node does not work as it should.
    Degraded {
        /// Which part.
        what: String,
        /// What is the matter with it.
        detail: String,
    },
    /// A part that was degraded works again.
    Recovered {
        /// Which part, named as in `degraded`.
        what: String,
    },

    /// A job was accepted; it is durable.
    JobSubmitted {
        /// The name its client gave it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The program that runs it: `command`, `plan`, …
        program: String,
    },
    /// A job's program began to run.
    JobStarted,
    /// A job goes no further until something comes from outside.
    JobWaiting {
        /// What it waits for.
        on: String,
    },
    /// What a job waited for has come.
    JobResumed,
    /// A job of an earlier life of the daemon was taken up again from its journal.
    JobRecovered {
        /// How many journal entries brought it to where it is.
        entries: u64,
    },
    /// An attempt of a step began.
    StepStarted {
        /// The step's name, unique within the job.
        step: String,
        /// The step in words, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// What kind of step: `run`, `sleep`, `ask`, …
        kind: String,
        /// Which attempt this is; the first is 1.
        attempt: u32,
        /// How many attempts its policy allows in all.
        attempts: u32,
    },
    /// A step printed something.
    StepOutput {
        /// The step.
        step: String,
        /// Where it printed it.
        stream: Stream,
        /// What it printed, with bytes that are not UTF-8 replaced. A piece ends anywhere, also within
        /// a line.
        data: String,
        /// Bytes of this stream that belong right after `data` and are not shown, because a limit was
        /// passed. 0 when nothing is missing.
        #[serde(default, skip_serializing_if = "is_zero")]
        lost_bytes: u64,
    },
    /// An attempt of a step failed and will be followed by another.
    StepRetrying {
        /// The step.
        step: String,
        /// The attempt that failed; the first is 1.
        attempt: u32,
        /// How it failed.
        error: String,
        /// When the next attempt begins, in milliseconds since the Unix epoch.
        next_at_ms: u64,
    },
    /// A step is over.
    StepFinished {
        /// The step.
        step: String,
        /// How it ended.
        status: StepStatus,
        /// From the start of its first attempt to its end.
        duration_us: u64,
        /// What went wrong, if something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The job says something to whoever watches.
    Message {
        /// The step that says it, if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// What it says.
        text: String,
    },
    /// The job hands something out, in one piece or in several.
    Artifact {
        /// The artifact's name, unique within the job.
        name: String,
        /// Its media type, as in RFC 6838.
        media_type: String,
        /// The piece.
        part: Part,
        /// Which piece this is; the first is 0.
        index: u32,
        /// No piece comes after this one.
        last: bool,
        /// The piece goes on where the one before it ended; otherwise it begins the artifact anew.
        append: bool,
    },
    /// The job asks something and waits for the answer.
    Question {
        /// The name to answer to, unique within the job.
        name: String,
        /// The step that asks, if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// What it asks.
        prompt: String,
        /// What sort of answer it wants.
        kind: QuestionKind,
        /// When it stops waiting, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// The answer taken when none has come by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<Value>,
    },
    /// A question has its answer.
    Answered {
        /// The question's name.
        name: String,
        /// Where the answer came from.
        by: AnsweredBy,
    },
    /// A job is over.
    JobFinished {
        /// How it ended.
        state: JobState,
        /// What went wrong, if something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// From its submission to its end.
        duration_us: u64,
    },
    /// A job cannot go on and waits for an operator.
    JobStuck {
        /// The step it stands at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// Why it cannot go on.
        reason: String,
    },
}

impl EventKind {
    /// Whether this is a piece of a step's output: much the most frequent kind, and the one a reader
    /// may want to be without ([`Filter::without_output`](crate::Filter::without_output)).
    #[must_use]
    pub fn is_output(&self) -> bool {
        matches!(self, Self::StepOutput { .. })
    }

    /// Whether a job has no events after this one.
    #[must_use]
    pub fn ends_job(&self) -> bool {
        matches!(self, Self::JobFinished { .. })
    }
}

/// Gives an enum of unit variants its name on the wire, in one place for `serde` and `Display`.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// The word for it on the wire and in text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Where a step printed something.
    pub enum Stream {
        /// Its standard output.
        Stdout = "stdout",
        /// Its standard error.
        Stderr = "stderr",
    }
}

words! {
    /// How a step ended.
    pub enum StepStatus {
        /// It did what it was for.
        Ok = "ok",
        /// It failed, in every attempt it had.
        Failed = "failed",
        /// It did not end in its time and was ended.
        TimedOut = "timed_out",
        /// Its job was cancelled.
        Cancelled = "cancelled",
        /// The daemon ended while it ran; whether it did its work is not known.
        Interrupted = "interrupted",
        /// Its condition did not hold, or a step it needs did not end well.
        Skipped = "skipped",
    }
}

words! {
    /// How a job ended.
    pub enum JobState {
        /// Its program came to its end.
        Completed = "completed",
        /// Its program failed.
        Failed = "failed",
        /// A client cancelled it.
        Cancelled = "cancelled",
    }
}

words! {
    /// What sort of answer a question wants.
    pub enum QuestionKind {
        /// Yes or no to something the job is about to do.
        Approval = "approval",
        /// Any value.
        Answer = "answer",
    }
}

words! {
    /// Where an answer came from.
    pub enum AnsweredBy {
        /// A client gave it.
        Client = "client",
        /// The deadline passed and the question's default was taken.
        Default = "default",
        /// The deadline passed and there was no default: the question was given up.
        Deadline = "deadline",
    }
}

/// A piece of an artifact. The JSON has the variant's name in snake case as `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A JSON value.
    Data {
        /// The value.
        data: Value,
    },
    /// A file's bytes, kept as a blob.
    File {
        /// The file's name, without a directory.
        name: String,
        /// Its length in bytes.
        size: u64,
        /// The name of the blob that holds it.
        blob: String,
    },
    /// Something kept elsewhere.
    Url {
        /// Where.
        url: String,
    },
    /// A JSON value too large for the stream ([`DATA_MAX_BYTES`](crate::bound::DATA_MAX_BYTES)): the
    /// journal has it, the stream does not.
    Omitted {
        /// About how large it is.
        bytes: u64,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
