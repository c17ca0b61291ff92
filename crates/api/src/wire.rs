//! The JSON that goes over the wire, shared by servers and clients.
//!
//! What is published here is kept: fields are added, and never renamed or given another meaning.

use std::collections::BTreeMap;

use pal::EventKind;
use runtime::{JobId, JobState, JobView};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::node::NodeIdentity;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The number of the durable entry that this shows; absent for what is never in the log, such as output as it is
    /// printed. A stream goes on after it: by `Last-Event-ID`, or `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    /// When it happened, in Unix milliseconds.
    pub at_ms: u64,
    /// The job it happened to; absent for what happened to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What happened: `type`, and the fields of that type.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl From<&pal::Event> for Event {
    fn from(event: &pal::Event) -> Self {
        Self {
            lsn: event.lsn,
            at_ms: event.at_ms,
            job: event.job.map(|job| job.id.into()),
            kind: event.kind.clone(),
        }
    }
}

impl From<runtime::Told> for Event {
    fn from(told: runtime::Told) -> Self {
        Self {
            lsn: Some(told.lsn.0),
            at_ms: told.at_ms,
            job: Some(told.job),
            kind: told.kind,
        }
    }
}

/// Some of the jobs, the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to give as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<JobId>,
}

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Only those in one of these states; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<JobState>,
    /// Only those of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those that carry all of these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only those older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JobId>,
    /// How many at the most; 1 to 1000, and 100 if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Why a job is to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for whoever looks at the job later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which jobs are to end, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelMany {
    /// Only those in one of these states; none means all that are not over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<JobState>,
    /// Only those of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those that carry all of these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Must be true for a filter that names nothing: all jobs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Only say which they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a request to end many jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelledMany {
    /// Those that were asked to end, or, in a dry run, would be.
    pub jobs: Vec<JobId>,
    /// Those that could not be asked, and why: they were over by then, most likely.
    pub failed: Vec<CancelFailure>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// A job that could not be asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelFailure {
    /// Which.
    pub job: JobId,
    /// Why not.
    pub error: String,
}

/// A request that was taken in; what it leads to shows in the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The job it is about.
    pub job: JobId,
}

/// A piece of what a step printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// The step.
    pub step: String,
    /// Which try, if that is known: it is of tries that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Where it was printed.
    pub stream: pal::Stream,
    /// What was printed, with bytes that are not UTF-8 replaced.
    pub data: String,
    /// Bytes of this stream that were printed and not kept, because a limit was passed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What the steps of a job printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Piece by piece, in the order in which tries ended.
    pub pieces: Vec<LogPiece>,
}

/// An artifact of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactInfo {
    /// Its name, unique within the job.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Of how many parts it consists.
    pub parts: usize,
    /// Its length in bytes, where it is kept here.
    pub size_bytes: u64,
    /// Where it is, if it is kept elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether all of it is there.
    pub complete: bool,
}

/// The artifacts of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactList {
    /// In the order in which they were begun.
    pub artifacts: Vec<ArtifactInfo>,
}

/// The node at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Who it is.
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// How many times that log has been opened for writing.
    pub epoch: u64,
    /// Jobs that are not over.
    pub live_jobs: usize,
    /// Jobs that are over and still known.
    pub finished_jobs: usize,
    /// Effects at work.
    pub running_effects: usize,
    /// Effects that wait for room.
    pub queued_effects: usize,
    /// `serving`, `draining` (nothing is taken in any more) or `stopping`.
    pub state: String,
    /// Whether the log waits for space, or soon will.
    pub space_low: bool,
    /// Requests being served, this one included.
    pub requests: usize,
    /// Open streams.
    pub streams: usize,
}

/// Everything the engine knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDump {
    /// The node at a glance.
    pub node: Node,
    /// The scheduler's running hash over all that it did in this life, in hexadecimal.
    pub trace_hash: String,
    /// Batches on their way to the disk.
    pub batches_in_flight: usize,
    /// Entries not handed to the log yet.
    pub entries_open: u64,
    /// Where the journal of the oldest live job begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_from: Option<u64>,
    /// The live jobs.
    pub jobs: Vec<JobView>,
    /// All of it as text for people, the scheduler's tasks included.
    pub text: String,
}

/// How to drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whether to stop as soon as nothing is left to do. A job that waits for a signal is something left to do.
    #[serde(default = "yes")]
    pub stop: bool,
}

fn yes() -> bool {
    true
}

impl Default for DrainRequest {
    fn default() -> Self {
        Self { stop: true }
    }
}

/// The end of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// `job_over`, `stopping` or `lagged`.
    pub reason: String,
    /// With `lagged`: how many events the client was too slow for. From the log it gets them all: it need only come back
    /// with the id of the last event it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// With `job_over`: how the job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// With `job_over`, in a stream of logs: what the job's command exited with, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

impl StreamEnd {
    pub(crate) fn lagged(missed: u64) -> Self {
        Self {
            reason: "lagged".to_owned(),
            missed: Some(missed),
            ..Self::default()
        }
    }

    pub(crate) fn stopping() -> Self {
        Self {
            reason: "stopping".to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn job_over(state: JobState) -> Self {
        Self {
            reason: "job_over".to_owned(),
            state: Some(state),
            ..Self::default()
        }
    }
}

/// Some of what has happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// What to give as `after` for the next page; absent where there is nothing more yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// What the log no longer has of what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// What happened before a stream begins that the log no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The oldest entry that it still has.
    pub oldest: u64,
}

/// An error, as RFC 9457 has it, with what we add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI for the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and how to mend it.
    pub detail: String,
    /// The kind as one word, for programs.
    pub code: String,
    /// When it is worth trying again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The values that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemValue>,
}

/// A value that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemValue {
    /// Which: a JSON pointer into the request.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A job's specification and result, beside its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobDetails {
    /// The job as lists show it.
    #[serde(flatten)]
    pub job: JobView,
    /// What it was asked to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What it came to, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<runtime::JobResult>,
    /// What it asks and nobody has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<OpenQuestion>,
}

/// A question that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenQuestion {
    /// The name to answer to, as a signal.
    pub name: String,
    /// What is asked.
    pub prompt: String,
    /// What sort of answer is wanted.
    pub kind: pal::QuestionKind,
    /// When it stops waiting, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The answer taken then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}
