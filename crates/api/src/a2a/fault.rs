//! Refusals, in the protocol's words.

use a2a_types::{A2AError, TypedDetail, error_code, error_reason, errordetails};

use crate::fault::{Fault, FaultCode};

/// A refusal on its way to a client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: A2AError,
    /// What it is called in metrics.
    pub(super) word: &'static str,
    /// What it was before it was put into the protocol's words, which have none for a node that is busy or stopping.
    pub(super) code: Option<FaultCode>,
}

impl From<A2AError> for Refusal {
    fn from(error: A2AError) -> Self {
        Self {
            word: error_reason(error.code),
            error,
            code: None,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self {
            word: fault.code.as_str(),
            code: Some(fault.code),
            error: error(&fault),
        }
    }
}

/// The protocol's error for a fault.
pub(super) fn error(fault: &Fault) -> A2AError {
    let code = match fault.code {
        FaultCode::NotFound => error_code::TASK_NOT_FOUND,
        FaultCode::Invalid | FaultCode::Ambiguous | FaultCode::TooLarge => {
            error_code::INVALID_PARAMS
        }
        FaultCode::Conflict => error_code::INVALID_REQUEST,
        FaultCode::Unsupported | FaultCode::Precondition => error_code::UNSUPPORTED_OPERATION,
        FaultCode::Exhausted
        | FaultCode::Unavailable
        | FaultCode::Denied
        | FaultCode::TimedOut
        | FaultCode::Internal => error_code::INTERNAL_ERROR,
    };
    let mut metadata =
        std::collections::HashMap::from([("code".to_owned(), fault.code.as_str().to_owned())]);
    if let Some(after) = fault.retry_after {
        metadata.insert("retryAfterMs".to_owned(), after.as_millis().to_string());
    }
    let detail = TypedDetail::error_info(
        error_reason(code),
        errordetails::PROTOCOL_DOMAIN,
        Some(metadata),
    );
    A2AError::new(code, &fault.message).with_details(vec![detail])
}

/// A request whose parameters make no sense.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    A2AError::invalid_params(message).into()
}

/// Something that is not done in the state that the task is in, or at all.
pub(super) fn unsupported(message: impl Into<String>) -> Refusal {
    A2AError::unsupported_operation(message).into()
}
