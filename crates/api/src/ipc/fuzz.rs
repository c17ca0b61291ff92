//! What reads a client's bytes, for fuzzing: from a request's line and body to what would be asked of the service.

use hyper::{Method, Uri};
use runtime::JobSpec;

use super::query::Parameters;
use super::routes::{Operation, job_query, parse, payload, route};
use crate::fault::Fault;
use crate::wire::{CancelMany, CancelRequest, DrainRequest};

/// Reads a request; gives what it asks for as text, or why it is refused. `None` for what is no request.
#[must_use]
pub fn read(method: &str, target: &str, body: &[u8]) -> Option<Result<String, Fault>> {
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let uri: Uri = target.parse().ok()?;
    let routed = route(&method, uri.path()).ok()?;
    let parameters = Parameters::of(uri.query());
    let asked = |what: String| format!("{} {:?} {what}", routed.name, routed.captures);
    let read = match routed.operation {
        Operation::JobSubmit => parse::<JobSpec>(body).map(|spec| {
            // What goes into the log can be read again, and is the same.
            let text = serde_json::to_string(&spec).expect("a specification has string keys only");
            let again: JobSpec = serde_json::from_str(&text).expect("what was written can be read");
            assert_eq!(again.fingerprint(), spec.fingerprint());
            assert!(
                spec.bytes() <= 16 * body.len() + 64,
                "{} of {}",
                spec.bytes(),
                body.len()
            );
            text
        }),
        Operation::JobSignal => payload(body).map(|payload| {
            // Neither panics for anything that was taken.
            format!("{} {}", payload.depth(), payload.value())
        }),
        Operation::JobCancelMany => parse::<CancelMany>(body).map(|request| format!("{request:?}")),
        Operation::JobCancel => parse::<CancelRequest>(body).map(|request| format!("{request:?}")),
        Operation::NodeDrain => parse::<DrainRequest>(body).map(|request| format!("{request:?}")),
        Operation::JobList => job_query(parameters).map(|query| format!("{query:?}")),
        _ => parameters.finish("").map(|()| String::new()),
    };
    Some(read.map(asked))
}
