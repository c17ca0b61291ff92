//! Every refusal a client can get: what kind it is, in words of no protocol, and what the client can do about it.
//!
//! A transport translates the [`FaultCode`] into its protocol's status and leaves the text as it is.

use std::fmt;
use std::time::Duration;

use runtime::{HistoryError, JobError, SubmitError};

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// The request makes no sense, whatever the state of the node.
    Invalid,
    /// There is no such operation.
    Unsupported,
    /// There is no such thing, or no longer.
    NotFound,
    /// Several things are called that.
    Ambiguous,
    /// It contradicts what is there: an idempotency key with another specification.
    Conflict,
    /// What it is about is not in a state for it: a job that is over, a question that is settled.
    Precondition,
    /// It is larger than the limit.
    TooLarge,
    /// A limit on how much is going on is reached. Later it may work.
    Exhausted,
    /// The node takes this in no more: it is draining or stopping, or has no space.
    Unavailable,
    /// Who asks may not.
    Denied,
    /// It took longer than the client or the limit allows. What was asked for may have been done.
    TimedOut,
    /// The node failed at it.
    Internal,
}

impl FaultCode {
    /// The word for it: in problem documents, error details and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not_found",
            Self::Ambiguous => "ambiguous",
            Self::Conflict => "conflict",
            Self::Precondition => "failed_precondition",
            Self::TooLarge => "too_large",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::TimedOut => "timed_out",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value of a request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which value: a JSON pointer (RFC 6901) into the request.
    pub pointer: String,
    /// What is wrong with it, and how to mend it.
    pub message: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub code: FaultCode,
    /// What is wrong, for people.
    pub message: String,
    /// When it is worth trying again, if it is.
    pub retry_after: Option<Duration>,
    /// The values that are wrong, if that is it.
    pub violations: Vec<Violation>,
}

/// When to try again what was refused for too much going on.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Fault {
    /// A refusal that trying again does not change.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        let retry_after = match code {
            FaultCode::Exhausted | FaultCode::Unavailable => Some(RETRY_AFTER),
            _ => None,
        };
        Self {
            code,
            message: message.into(),
            retry_after,
            violations: Vec::new(),
        }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultCode::Invalid, message)
    }

    /// A value of a request that makes no sense.
    pub fn invalid_at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let (pointer, message) = (pointer.into(), message.into());
        let whole = match pointer.as_str() {
            "" => message.clone(),
            pointer => format!("{pointer}: {message}"),
        };
        Self {
            violations: vec![Violation { pointer, message }],
            ..Self::invalid(whole)
        }
    }

    /// There is no job that is called so.
    #[must_use]
    pub fn no_job(word: &str) -> Self {
        Self::new(
            FaultCode::NotFound,
            format!("no job is called `{word}`, by id, beginning or end of an id, or name"),
        )
    }

    /// The node is on its way out.
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(FaultCode::Unavailable, "the daemon is stopping")
    }
}

impl From<SubmitError> for Fault {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::UnknownProgram { .. } => Self::invalid_at("/program", message),
            SubmitError::InvalidInput(error) => {
                Self::invalid_at(format!("/input{}", error.pointer), error.message)
            }
            SubmitError::TooLarge { .. } => Self::new(FaultCode::TooLarge, message),
            SubmitError::Conflict { .. } => Self::new(FaultCode::Conflict, message),
            SubmitError::TooManyJobs { .. } | SubmitError::Busy { .. } => {
                Self::new(FaultCode::Exhausted, message)
            }
            SubmitError::NoSpace | SubmitError::Stopping => {
                Self::new(FaultCode::Unavailable, message)
            }
        }
    }
}

impl From<JobError> for Fault {
    fn from(error: JobError) -> Self {
        let code = match &error {
            JobError::NotFound(_) => FaultCode::NotFound,
            JobError::Over { .. } | JobError::Settled { .. } | JobError::Stuck { .. } => {
                FaultCode::Precondition
            }
            JobError::TooLarge { .. } => FaultCode::TooLarge,
            JobError::Busy { .. } => FaultCode::Exhausted,
            JobError::Stopping => FaultCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<HistoryError> for Fault {
    fn from(error: HistoryError) -> Self {
        tracing::error!("history could not be told: {error}");
        Self::new(FaultCode::Internal, error.to_string())
    }
}
