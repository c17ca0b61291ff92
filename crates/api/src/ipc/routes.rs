//! What there is, and who answers it.

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use pal::Stream;
use runtime::{JobSpec, Json};
use serde::de::DeserializeOwned;

use super::answer::{Answer, EVENTS, JSON, TEXT, answer, json, with, with_body};
use super::body;
use super::query::{Parameters, segment};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::logs::LogQuery;
use crate::service::{PAGE_MAX, Service, page_limit};
use crate::watch::Watch;
use crate::wire::{Accepted, CancelMany, CancelRequest, DrainRequest, JobQuery};

/// The description of everything here, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    OpenApi,
    Node,
    NodeDump,
    NodeReload,
    NodeDrain,
    NodeShutdown,
    Events,
    History,
    JobSubmit,
    JobList,
    JobCancelMany,
    JobShow,
    JobCancel,
    JobSignal,
    JobEvents,
    JobHistory,
    JobLogs,
    JobResult,
    JobArtifacts,
    JobArtifact,
}

use Operation as Op;

/// Every route: method, path, operation. A part in braces stands for one part of a path.
const ROUTES: [(Method, &str, Operation, &str); 20] = [
    (Method::GET, "/openapi.json", Op::OpenApi, "openapi"),
    (Method::GET, "/v1/node", Op::Node, "node.show"),
    (Method::GET, "/v1/node/dump", Op::NodeDump, "node.dump"),
    (
        Method::POST,
        "/v1/node/reload",
        Op::NodeReload,
        "node.reload",
    ),
    (Method::POST, "/v1/node/drain", Op::NodeDrain, "node.drain"),
    (
        Method::POST,
        "/v1/node/shutdown",
        Op::NodeShutdown,
        "node.shutdown",
    ),
    (Method::GET, "/v1/events", Op::Events, "events.watch"),
    (Method::GET, "/v1/history", Op::History, "events.history"),
    (Method::POST, "/v1/jobs", Op::JobSubmit, "job.submit"),
    (Method::GET, "/v1/jobs", Op::JobList, "job.list"),
    (
        Method::POST,
        "/v1/jobs/cancel",
        Op::JobCancelMany,
        "job.cancel_many",
    ),
    (Method::GET, "/v1/jobs/{job}", Op::JobShow, "job.show"),
    (
        Method::POST,
        "/v1/jobs/{job}/cancel",
        Op::JobCancel,
        "job.cancel",
    ),
    (
        Method::POST,
        "/v1/jobs/{job}/signals/{name}",
        Op::JobSignal,
        "job.signal",
    ),
    (
        Method::GET,
        "/v1/jobs/{job}/events",
        Op::JobEvents,
        "job.watch",
    ),
    (
        Method::GET,
        "/v1/jobs/{job}/history",
        Op::JobHistory,
        "job.history",
    ),
    (Method::GET, "/v1/jobs/{job}/logs", Op::JobLogs, "job.logs"),
    (
        Method::GET,
        "/v1/jobs/{job}/result",
        Op::JobResult,
        "job.result",
    ),
    (
        Method::GET,
        "/v1/jobs/{job}/artifacts",
        Op::JobArtifacts,
        "job.artifacts",
    ),
    (
        Method::GET,
        "/v1/jobs/{job}/artifacts/{name}",
        Op::JobArtifact,
        "job.artifact",
    ),
];

/// Every operation: method, path and name.
pub fn operations() -> impl Iterator<Item = (Method, &'static str, &'static str)> {
    ROUTES
        .iter()
        .map(|(method, path, _, name)| (method.clone(), *path, *name))
}

/// A request that has found its operation.
pub(super) struct Routed {
    pub(super) operation: Operation,
    pub(super) name: &'static str,
    pub(super) captures: Vec<String>,
}

/// Why a request has found none.
pub(super) enum NoRoute {
    /// There is nothing there.
    Path,
    /// There is, and this is how it may be asked for.
    Method(Vec<Method>),
    /// The path is no text.
    Malformed(Fault),
}

pub(super) fn route(method: &Method, path: &str) -> Result<Routed, NoRoute> {
    let (mut allowed, mut most_exact) = (Vec::new(), None);
    for (route_method, pattern, operation, name) in &ROUTES {
        let Some(captures) = captures(pattern, path) else {
            continue;
        };
        let is_asked =
            method == route_method || (*method == Method::HEAD && *route_method == Method::GET);
        if is_asked {
            let captures = captures.into_iter().map(segment).collect::<Result<_, _>>();
            return Ok(Routed {
                operation: *operation,
                name,
                captures: captures.map_err(NoRoute::Malformed)?,
            });
        }
        // The most exact pattern of a path comes first, and it is that one which the description means by the path. That
        // a job may be called `cancel` and be shown by that name is no method of `/v1/jobs/cancel`.
        if *most_exact.get_or_insert(*pattern) == *pattern {
            allowed.push(route_method.clone());
        }
    }
    Err(match allowed.is_empty() {
        true => NoRoute::Path,
        false => NoRoute::Method(allowed),
    })
}

/// The parts of a path that stand where its pattern has braces.
fn captures<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut captures = Vec::new();
    let mut given = path.split('/');
    for expected in pattern.split('/') {
        let part = given.next()?;
        if expected.starts_with('{') {
            if part.is_empty() {
                return None;
            }
            captures.push(part);
        } else if expected != part {
            return None;
        }
    }
    given.next().is_none().then_some(captures)
}

/// Why a request is refused.
pub(super) enum Refused {
    /// By what it asks for.
    Fault(Fault),
    /// By the form in which it asks, or wants its answer: a matter of this protocol, with a status of its own.
    Form(StatusCode, Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Answers a request.
pub(super) async fn respond(
    service: &Service,
    client: ClientId,
    routed: &Routed,
    parts: &Parts,
    body: Incoming,
) -> Result<Answer, Refused> {
    let parameters = Parameters::of(parts.uri.query());
    let limit_bytes = service.limits().message_bytes;
    let capture = |at: usize| routed.captures.get(at).map_or("", String::as_str);
    match routed.operation {
        Op::OpenApi => {
            parameters.finish("")?;
            Ok(answer(StatusCode::OK, JSON, OPENAPI))
        }
        Op::Node => {
            parameters.finish("")?;
            Ok(json(StatusCode::OK, &service.node().await?))
        }
        Op::NodeDump => {
            parameters.finish("")?;
            let dump = service.dump().await?;
            Ok(match wants(&parts.headers, &[JSON, TEXT])? {
                TEXT => answer(StatusCode::OK, TEXT, dump.text),
                _ => json(StatusCode::OK, &dump),
            })
        }
        Op::NodeReload => {
            parameters.finish("")?;
            body::read(body, limit_bytes).await?;
            Ok(json(StatusCode::OK, &service.reload().await?))
        }
        Op::NodeDrain => {
            parameters.finish("")?;
            let request: DrainRequest = read_or_default(parts, body, limit_bytes).await?;
            service.drain(client, request.stop).await?;
            Ok(json(StatusCode::ACCEPTED, &serde_json::json!({})))
        }
        Op::NodeShutdown => {
            parameters.finish("")?;
            body::read(body, limit_bytes).await?;
            service.shutdown(client).await?;
            Ok(json(StatusCode::ACCEPTED, &serde_json::json!({})))
        }
        Op::Events => watch(service, client, None, parameters, &parts.headers).await,
        Op::JobEvents => {
            let job = Some(capture(0).to_owned());
            watch(service, client, job, parameters, &parts.headers).await
        }
        Op::History => history(service, client, None, parameters).await,
        Op::JobHistory => history(service, client, Some(capture(0).to_owned()), parameters).await,
        Op::JobSubmit => {
            parameters.finish("")?;
            let spec: JobSpec = read_json(parts, body, limit_bytes).await?;
            let submitted = service.submit(with_key(spec, &parts.headers)?).await?;
            let status = match submitted.is_new {
                true => StatusCode::CREATED,
                false => StatusCode::OK,
            };
            let location = HeaderValue::from_str(&format!("/v1/jobs/{}", submitted.job))
                .expect("an id is hexadecimal digits and hyphens");
            let submitted = json(status, &submitted);
            Ok(with(submitted, header::LOCATION, location))
        }
        Op::JobList => {
            let query = job_query(parameters)?;
            Ok(json(StatusCode::OK, &service.list(query).await?))
        }
        Op::JobCancelMany => {
            parameters.finish("")?;
            let request: CancelMany = read_json(parts, body, limit_bytes).await?;
            Ok(json(StatusCode::OK, &service.cancel_many(request).await?))
        }
        Op::JobShow => {
            parameters.finish("")?;
            Ok(json(StatusCode::OK, &service.details(capture(0)).await?))
        }
        Op::JobCancel => {
            parameters.finish("")?;
            let request: CancelRequest = read_or_default(parts, body, limit_bytes).await?;
            let job = service.cancel(capture(0), request.reason).await?;
            Ok(json(StatusCode::ACCEPTED, &Accepted { job }))
        }
        Op::JobSignal => {
            parameters.finish("")?;
            let bytes = read_typed(parts, body, limit_bytes).await?;
            let payload = payload(&bytes)?;
            let job = service.signal(capture(0), capture(1), payload).await?;
            Ok(json(StatusCode::ACCEPTED, &Accepted { job }))
        }
        Op::JobLogs => logs(service, client, capture(0), parameters, &parts.headers).await,
        Op::JobResult => {
            parameters.finish("")?;
            let job = service.find(capture(0)).await?;
            match service.result_of(&job).await? {
                Some(result) => Ok(json(StatusCode::OK, &result)),
                None => Err(Fault::new(
                    FaultCode::Precondition,
                    format!("job {} is not over: it is {}", job.id, job.state),
                )
                .into()),
            }
        }
        Op::JobArtifacts => {
            parameters.finish("")?;
            Ok(json(StatusCode::OK, &service.artifacts(capture(0)).await?))
        }
        Op::JobArtifact => {
            parameters.finish("")?;
            let artifact = service.artifact(capture(0), capture(1)).await?;
            let media_type = artifact.info.media_type;
            Ok(answer(StatusCode::OK, &media_type, artifact.bytes))
        }
    }
}

pub(super) fn job_query(mut parameters: Parameters) -> Result<JobQuery, Fault> {
    let query = JobQuery {
        states: parameters.words("state", STATES)?,
        name: parameters.one("name")?,
        labels: parameters.labels()?,
        before: parameters.parsed("before", "the id of a job")?,
        limit: parameters.parsed("limit", "a number")?,
    };
    parameters.finish("state, name, label, before, limit")?;
    Ok(query)
}

pub(super) fn payload(bytes: &[u8]) -> Result<Json, Fault> {
    if bytes.is_empty() {
        return Ok(Json::null());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Fault::invalid(format!("the body is not UTF-8: {error}")))?;
    Json::parse_text(text).map_err(|error| Fault::invalid(format!("the body is not JSON: {error}")))
}

const STATES: &str = "queued, running, waiting, stuck, completed, failed or cancelled";

async fn watch(
    service: &Service,
    client: ClientId,
    job: Option<String>,
    mut parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Answer, Refused> {
    wants(headers, &[EVENTS])?;
    let after: Option<u64> = parameters.parsed("after", "the number of an entry")?;
    let output: Option<bool> = parameters.parsed("output", "true or false")?;
    parameters.finish("after, output")?;
    // A client that comes back by itself says so in the header, and is further than when it first asked.
    let after = match headers.get("last-event-id") {
        None => after,
        Some(last) => Some(
            last.to_str()
                .ok()
                .filter(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|last| last.parse().ok())
                .ok_or_else(|| Fault::invalid("`Last-Event-ID` is not the number of an entry"))?,
        ),
    };
    let stream = service
        .watch(
            client,
            Watch {
                without_output: !output.unwrap_or(job.is_some()),
                job,
                after,
                history_only: false,
            },
        )
        .await?;
    let body = body::events(stream, service.limits().stall);
    Ok(with_body(StatusCode::OK, EVENTS, body))
}

async fn history(
    service: &Service,
    client: ClientId,
    job: Option<String>,
    mut parameters: Parameters,
) -> Result<Answer, Refused> {
    let after = parameters.parsed("after", "the number of an entry")?;
    let limit: usize = parameters.parsed("limit", "a number")?.unwrap_or(PAGE_MAX);
    parameters.finish("after, limit")?;
    let limit = page_limit(limit, "/query/limit")?;
    let page = service.history_page(client, job, after, limit).await?;
    Ok(json(StatusCode::OK, &page))
}

async fn logs(
    service: &Service,
    client: ClientId,
    job: &str,
    mut parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Answer, Refused> {
    let query = LogQuery {
        stream: parameters.parsed::<Stream>("stream", "stdout or stderr")?,
        step: parameters.one("step")?,
    };
    parameters.finish("stream, step")?;
    match wants(headers, &[JSON, TEXT, EVENTS])? {
        EVENTS => {
            let stream = service.follow_logs(client, job, query).await?;
            let body = body::events(stream, service.limits().stall);
            Ok(with_body(StatusCode::OK, EVENTS, body))
        }
        TEXT => {
            let logs = service.logs(job, &query).await?;
            let text: String = logs.pieces.into_iter().map(|piece| piece.data).collect();
            Ok(answer(StatusCode::OK, TEXT, text))
        }
        _ => Ok(json(StatusCode::OK, &service.logs(job, &query).await?)),
    }
}

/// Which of the forms `offered` a client wants; the first if it says nothing.
fn wants<'a>(headers: &HeaderMap, offered: &[&'a str]) -> Result<&'a str, Refused> {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return Ok(offered[0]);
    };
    let accept = accept.to_str().unwrap_or_default();
    // In the client's order: none of what there is differs so much that a weight would matter, but for "not at all".
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range
            .split(';')
            .map(|part| part.trim().to_ascii_lowercase());
        let range = parts.next()?;
        let is_unwanted = |part: String| {
            let weight = part
                .strip_prefix("q=")
                .and_then(|weight| weight.parse::<f32>().ok());
            weight == Some(0.0)
        };
        (!parts.any(is_unwanted)).then_some(range)
    });
    for range in ranges {
        let fits = |offered: &str| {
            let offered = offered.split(';').next().unwrap_or_default();
            let kind = offered.split('/').next().unwrap_or_default();
            range == "*/*" || range == offered || range == format!("{kind}/*")
        };
        if let Some(&wanted) = offered.iter().find(|offered| fits(offered)) {
            return Ok(wanted);
        }
    }
    Err(Refused::Form(
        StatusCode::NOT_ACCEPTABLE,
        Fault::new(
            FaultCode::Unsupported,
            format!(
                "`Accept: {accept}` names none of what there is: {}",
                offered.join(", ")
            ),
        ),
    ))
}

/// The longest idempotency key in a header, in bytes.
const KEY_MAX_BYTES: usize = 200;

/// Puts the idempotency key of the header into a specification.
fn with_key(mut spec: JobSpec, headers: &HeaderMap) -> Result<JobSpec, Fault> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(spec);
    };
    let key = key
        .to_str()
        .map_err(|_| Fault::invalid("`Idempotency-Key` is not a text"))?;
    let fits =
        (1..=KEY_MAX_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        return Err(Fault::invalid(format!(
            "`Idempotency-Key` is not 1 to {KEY_MAX_BYTES} visible characters of ASCII"
        )));
    }
    match &spec.key {
        Some(other) if other != key => Err(Fault::invalid_at(
            "/key",
            format!("`{other}` is another key than that of the header, `{key}`"),
        )),
        _ => {
            spec.key = Some(key.to_owned());
            Ok(spec)
        }
    }
}

/// A body that says that it is JSON, or says nothing.
async fn read_typed(parts: &Parts, body: Incoming, limit_bytes: usize) -> Result<Bytes, Refused> {
    if let Some(declared) = parts.headers.get(header::CONTENT_TYPE) {
        let declared = declared.to_str().unwrap_or_default().to_ascii_lowercase();
        let media_type = declared.split(';').next().unwrap_or_default().trim();
        let is_json = media_type == JSON || media_type.ends_with("+json");
        // What `curl --data` says unless it is told otherwise, of whatever it sends.
        let is_curl = media_type == "application/x-www-form-urlencoded";
        if !is_json && !is_curl {
            return Err(Refused::Form(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Fault::new(
                    FaultCode::Unsupported,
                    format!("the body is `{media_type}`; only `{JSON}` is understood"),
                ),
            ));
        }
    }
    Ok(body::read(body, limit_bytes).await?)
}

async fn read_json<T: DeserializeOwned>(
    parts: &Parts,
    body: Incoming,
    limit_bytes: usize,
) -> Result<T, Refused> {
    Ok(parse(&read_typed(parts, body, limit_bytes).await?)?)
}

async fn read_or_default<T: DeserializeOwned + Default>(
    parts: &Parts,
    body: Incoming,
    limit_bytes: usize,
) -> Result<T, Refused> {
    let bytes = read_typed(parts, body, limit_bytes).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    Ok(parse(&bytes)?)
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::invalid(format!("the body cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_by_all_of_its_path() {
        let found = route(&Method::GET, "/v1/jobs/a%20b").ok().unwrap();
        assert_eq!(found.operation, Op::JobShow);
        assert_eq!(found.captures, ["a b"]);
        let found = route(&Method::HEAD, "/v1/jobs").ok().unwrap();
        assert_eq!(found.operation, Op::JobList);
        for path in [
            "/v1/jobs/",
            "/v2/jobs",
            "/v1/jobs/x/y",
            "/v1",
            "//v1/jobs",
            "/",
        ] {
            assert!(
                matches!(route(&Method::GET, path), Err(NoRoute::Path)),
                "{path}"
            );
        }
        let Err(NoRoute::Method(allowed)) = route(&Method::DELETE, "/v1/jobs") else {
            panic!("DELETE has no route there");
        };
        assert_eq!(allowed, [Method::POST, Method::GET]);
        let Err(NoRoute::Method(allowed)) = route(&Method::DELETE, "/v1/jobs/cancel") else {
            panic!("DELETE has no route there");
        };
        assert_eq!(allowed, [Method::POST]);
        let found = route(&Method::GET, "/v1/jobs/cancel").ok().unwrap();
        assert_eq!(
            (found.operation, found.captures),
            (Op::JobShow, vec!["cancel".to_owned()])
        );
    }

    fn wanted(accept: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        wants(&headers, &[JSON, TEXT, EVENTS]).ok()
    }

    #[test]
    fn the_first_form_is_given_that_a_client_accepts() {
        assert_eq!(wanted("*/*"), Some(JSON));
        assert_eq!(wanted("text/*"), Some(TEXT));
        assert_eq!(wanted("image/png, Text/Event-Stream;q=0.5"), Some(EVENTS));
        assert_eq!(wanted("application/json;q=0, text/plain"), Some(TEXT));
        assert_eq!(wanted("image/png"), None);
        let refused = wants(
            &HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("a/b"))]),
            &[JSON],
        );
        assert!(matches!(
            refused,
            Err(Refused::Form(StatusCode::NOT_ACCEPTABLE, _))
        ));
    }

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let described: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(described["openapi"], "3.1.0");
        let paths = described["paths"].as_object().unwrap();
        let mut of_description = Vec::new();
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                if method != "parameters" {
                    let name = operation["operationId"].as_str().unwrap().to_owned();
                    of_description.push((method.to_uppercase(), path.clone(), name));
                }
            }
        }
        let mut of_routes: Vec<_> = operations()
            .map(|(method, path, name)| (method.to_string(), path.to_owned(), name.to_owned()))
            .collect();
        of_description.sort();
        of_routes.sort();
        assert_eq!(of_description, of_routes);
    }
}
