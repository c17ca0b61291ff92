//! Answers: JSON, texts, and problem documents.

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::AnswerBody;
use crate::fault::{Fault, FaultCode};
use crate::wire::{Problem, ProblemValue};

pub(super) type Answer = Response<AnswerBody>;

pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const EVENTS: &str = "text/event-stream";

pub(super) fn answer(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Answer {
    with_body(status, content_type, AnswerBody::Whole(Some(body.into())))
}

pub(super) fn with_body(status: StatusCode, content_type: &str, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    // A media type of an artifact is its job's own word.
    let content_type = HeaderValue::from_str(content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    let answer = with(answer, header::CONTENT_TYPE, content_type);
    let answer = with(
        answer,
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    );
    with(
        answer,
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    )
}

pub(super) fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body =
        serde_json::to_vec(value).expect("an answer serialises because it has string keys only");
    answer(status, JSON, body)
}

/// The status that says what kind of fault it is.
pub(super) fn status_of(code: FaultCode) -> StatusCode {
    match code {
        FaultCode::Invalid => StatusCode::BAD_REQUEST,
        FaultCode::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        FaultCode::NotFound => StatusCode::NOT_FOUND,
        FaultCode::Ambiguous | FaultCode::Conflict | FaultCode::Precondition => {
            StatusCode::CONFLICT
        }
        FaultCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultCode::Exhausted => StatusCode::TOO_MANY_REQUESTS,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultCode::Denied => StatusCode::FORBIDDEN,
        FaultCode::TimedOut => StatusCode::REQUEST_TIMEOUT,
        FaultCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn title_of(code: FaultCode) -> &'static str {
    match code {
        FaultCode::Invalid => "The request makes no sense",
        FaultCode::Unsupported => "It is not possible here",
        FaultCode::NotFound => "There is no such thing",
        FaultCode::Ambiguous => "Several things are called that",
        FaultCode::Conflict => "It contradicts what is there",
        FaultCode::Precondition => "It is not in a state for that",
        FaultCode::TooLarge => "It is too large",
        FaultCode::Exhausted => "There is too much going on",
        FaultCode::Unavailable => "The node takes this in no more",
        FaultCode::Denied => "Who asks may not",
        FaultCode::TimedOut => "It took too long",
        FaultCode::Internal => "The node failed at it",
    }
}

/// A fault as a problem document (RFC 9457).
pub(super) fn problem(fault: &Fault) -> Problem {
    Problem {
        kind: format!("urn:tinkerbell:problem:{}", fault.code),
        title: title_of(fault.code).to_owned(),
        status: status_of(fault.code).as_u16(),
        detail: fault.message.clone(),
        code: fault.code.as_str().to_owned(),
        retry_after_ms: fault
            .retry_after
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        errors: fault
            .violations
            .iter()
            .map(|violation| ProblemValue {
                pointer: violation.pointer.clone(),
                detail: violation.message.clone(),
            })
            .collect(),
    }
}

pub(super) fn refusal(fault: &Fault) -> Answer {
    refusal_as(status_of(fault.code), fault)
}

/// A refusal with a status that says more than the kind of fault does.
pub(super) fn refusal_as(status: StatusCode, fault: &Fault) -> Answer {
    let problem = Problem {
        status: status.as_u16(),
        ..problem(fault)
    };
    let body =
        serde_json::to_vec(&problem).expect("a problem serialises because it has string keys only");
    let mut refusal = answer(status, "application/problem+json", body);
    if let Some(after) = fault.retry_after {
        let seconds = after.as_secs().max(1);
        refusal
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.code == FaultCode::TimedOut {
        // The rest of the request is not waited for.
        refusal
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    refusal
}
