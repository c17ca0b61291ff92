//! What can go wrong, by what a caller can do about it.

use crate::ids::JobId;
use crate::spec::JobState;

/// Why a job was not taken in. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is no such program.
    #[error("no program is called `{name}`; there are {}", list(known))]
    UnknownProgram {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The program cannot do what it was asked to.
    #[error(transparent)]
    InvalidInput(#[from] crate::program::InputError),
    /// The specification is longer than the limit.
    #[error("specification has {bytes} bytes, and the limit is {limit_bytes} (`limits.spec_size`)")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The idempotency key belongs to a job with another specification.
    #[error(
        "key `{key}` belongs to job {job}, which was submitted with another specification; \
         use a new key for a new job"
    )]
    Conflict {
        /// The key.
        key: String,
        /// Whose it is.
        job: JobId,
    },
    /// There are as many live jobs as there may be.
    #[error(
        "there are {limit} live jobs, as many as there may be (`limits.live_jobs`); try again later"
    )]
    TooManyJobs {
        /// The limit.
        limit: usize,
    },
    /// More requests wait for the engine than may.
    #[error("{limit} requests are waiting already (`limits.intake_queue`); try again later")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The log's disk has no room for another segment.
    #[error("no space is left for the log: jobs are taken in again when there is")]
    NoSpace,
    /// The daemon is stopping, or has stopped.
    #[error("the daemon is stopping and takes in no more jobs")]
    Stopping,
}

impl SubmitError {
    /// Whether the same request may well be taken in later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::TooManyJobs { .. } | Self::Busy { .. } | Self::NoSpace | Self::Stopping
        )
    }
}

/// Why a request about a job was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// There is no such job, or the log no longer has it.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job is over.
    #[error("job {job} is over: {state}")]
    Over {
        /// The job.
        job: JobId,
        /// How it ended.
        state: JobState,
    },
    /// Somebody else answered first, or the time for it was over.
    #[error("question `{question}` of job {job} is settled already")]
    Settled {
        /// The job.
        job: JobId,
        /// The question.
        question: String,
    },
    /// The job cannot take it now.
    #[error("job {job} is stuck: {reason}")]
    Stuck {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// What is sent is longer than the limit.
    #[error("signal has {bytes} bytes, and the limit is {limit_bytes} (`limits.spec_size`)")]
    TooLarge {
        /// Its length, its name included.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// More requests wait for the engine than may.
    #[error("{limit} requests are waiting already (`limits.intake_queue`); try again later")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The daemon is stopping, or has stopped.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why the runtime ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The log failed. Nothing was acknowledged after that.
    #[error("log failed: {0}")]
    Log(wal::Failure),
    /// The log's disk is full, and what was not acknowledged yet could not be written.
    #[error("log has no space: {0}")]
    NoSpace(wal::Failure),
    /// A thread of the runtime could not be started, or died.
    #[error("thread `{thread}` {what}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// What became of it.
        what: String,
    },
}

/// Why a log could not be recovered from.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A record that this build cannot read.
    #[error("record at LSN {lsn}: {source}")]
    Decode {
        /// Where it stands.
        lsn: wal::Lsn,
        /// What is wrong with it.
        source: crate::entry::DecodeError,
    },
    /// An entry of a job that was never submitted: the log lacks its beginning.
    #[error("record at LSN {lsn}: {what} of job {job}, of which the log has no beginning")]
    Orphan {
        /// Where it stands.
        lsn: wal::Lsn,
        /// The job.
        job: JobId,
        /// What it says.
        what: String,
    },
}

fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
