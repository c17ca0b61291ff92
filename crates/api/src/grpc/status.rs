//! Refusals as the protocol has them: a code, a text, and details for programs.
//!
//! A status travels in headers, of which clients take 8 KiB unless told otherwise. A text may quote what a client sent,
//! whatever its length; so all texts are cut here.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::fault::{Fault, FaultCode, Violation};

/// The domain of our reasons, in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tinkerbell";

/// The header that has the reason too, for clients without the types of `google.rpc`.
pub(super) const REASON: &str = "tinkerbell-reason";

/// The reason where a token or certificate is missing; no [`FaultCode`], since no service gives it.
const UNAUTHENTICATED: &str = "unauthenticated";

const MESSAGE_MAX_BYTES: usize = 768;
const FIELD_MAX_BYTES: usize = 128;
const DESCRIPTION_MAX_BYTES: usize = 256;
const VIOLATIONS_MAX: usize = 4;

fn code(code: FaultCode) -> Code {
    match code {
        FaultCode::Invalid | FaultCode::Ambiguous => Code::InvalidArgument,
        FaultCode::Unsupported => Code::Unimplemented,
        FaultCode::NotFound => Code::NotFound,
        FaultCode::Conflict => Code::AlreadyExists,
        FaultCode::Precondition => Code::FailedPrecondition,
        // What gRPC's own libraries say of a message beyond their limit.
        FaultCode::TooLarge | FaultCode::Exhausted => Code::ResourceExhausted,
        FaultCode::Unavailable => Code::Unavailable,
        FaultCode::Denied => Code::PermissionDenied,
        FaultCode::TimedOut => Code::DeadlineExceeded,
        FaultCode::Internal => Code::Internal,
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut details = ErrorDetails::new();
        if !fault.violations.is_empty() {
            let violations = fault.violations.iter().take(VIOLATIONS_MAX).map(violation);
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if fault.retry_after.is_some() {
            details.set_retry_info(fault.retry_after);
        }
        with_reason(
            code(fault.code),
            fault.code.as_str(),
            &fault.message,
            details,
        )
    }
}

/// Somebody who did not say who it is, where that is asked for.
pub(super) fn unauthenticated(message: &str) -> Status {
    with_reason(
        Code::Unauthenticated,
        UNAUTHENTICATED,
        message,
        ErrorDetails::new(),
    )
}

fn with_reason(code: Code, reason: &'static str, text: &str, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    let mut metadata = MetadataMap::new();
    metadata.insert(REASON, MetadataValue::from_static(reason));
    let text = cut(text, MESSAGE_MAX_BYTES);
    Status::with_error_details_and_metadata(code, text, details, metadata)
}

/// A status that is not of ours: the generated code's and the codec's, about what they could not read.
pub(super) fn of_codec(status: &Status) -> Status {
    let code = match status.code() {
        Code::Unimplemented => FaultCode::Unsupported,
        Code::OutOfRange | Code::ResourceExhausted => FaultCode::TooLarge,
        // Only messages of clients are decoded here.
        _ => FaultCode::Invalid,
    };
    Fault::new(code, status.message()).into()
}

/// The values that a JSON pointer names, as a path of fields. Of what is inside of a JSON text the text's field is named, and
/// the rest of the pointer begins the description.
fn violation(violation: &Violation) -> FieldViolation {
    let pointer = violation.pointer.trim_start_matches('/');
    let (first, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
    let field = match first {
        "program" => "spec.program",
        "input" => "spec.input_json",
        other => other,
    };
    let (field, description) = match (field, rest) {
        ("spec.input_json", "") | (_, "") => (field.to_owned(), violation.message.clone()),
        ("spec.input_json", rest) => (field.to_owned(), format!("/{rest}: {}", violation.message)),
        (_, rest) => {
            let path = format!("{field}.{}", rest.replace('/', "."));
            (path, violation.message.clone())
        }
    };
    FieldViolation::new(
        cut(&field, FIELD_MAX_BYTES),
        cut(&description, DESCRIPTION_MAX_BYTES),
    )
}

fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_its_details() {
        let status = Status::from(Fault::invalid_at("/input/steps/0/run", "is no text"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("invalid", DOMAIN)
        );
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "spec.input_json");
        assert_eq!(violations[0].description, "/steps/0/run: is no text");
        assert!(details.retry_info().is_none());
        assert_eq!(status.metadata().get(REASON).unwrap(), "invalid");

        let status = Status::from(Fault::stopping());
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }

    #[test]
    fn whatever_a_client_sent_its_refusal_fits_into_headers() {
        let long = "ж".repeat(1 << 20);
        let mut fault = Fault::invalid_at(format!("/input/{long}"), long.clone());
        fault.violations = vec![fault.violations[0].clone(); 100];
        let headers = Status::from(fault).into_http::<()>().into_parts().0.headers;
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(bytes < 8 * 1024, "{bytes}");
    }
}
