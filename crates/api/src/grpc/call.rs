//! What stands before every call, and around it.
//!
//! In this order: is it a call at all, may this client ask, is there a place for it, when must it be over, and is its message
//! within the limit. Only then the generated code looks at it. A call that is cancelled, or whose deadline passes, is
//! dropped with all it was doing; so is a stream. Every call is one span, and is counted once.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tracing::Instrument;

use super::health::HealthOf;
use super::jobs::Jobs;
use super::node::Node;
use super::pb::job_service_server::JobServiceServer;
use super::pb::node_service_server::NodeServiceServer;
use super::serve::{Peer, TRANSPORT};
use super::status::{REASON, of_codec, unauthenticated};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::service::Service;

/// How long a client may take to send a call's message, or between two of reflection's.
const MESSAGE_MAX: Duration = Duration::from_secs(30);

/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Reflection is asked for names.
const REFLECTION_MAX_BYTES: usize = 16 * 1024;

/// Whose method it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Jobs,
    Node,
    Health,
    Reflection,
    ReflectionAlpha,
}

/// Every method there is: its path, whose it is, and what it is called in metrics and logs, which for what other transports
/// have too is their word.
const METHODS: [(&str, Of, &str); 21] = [
    ("/tinkerbell.v1.JobService/Submit", Of::Jobs, "job.submit"),
    ("/tinkerbell.v1.JobService/Get", Of::Jobs, "job.show"),
    ("/tinkerbell.v1.JobService/List", Of::Jobs, "job.list"),
    ("/tinkerbell.v1.JobService/Cancel", Of::Jobs, "job.cancel"),
    (
        "/tinkerbell.v1.JobService/CancelMany",
        Of::Jobs,
        "job.cancel_many",
    ),
    ("/tinkerbell.v1.JobService/Signal", Of::Jobs, "job.signal"),
    ("/tinkerbell.v1.JobService/Watch", Of::Jobs, "job.watch"),
    ("/tinkerbell.v1.JobService/Logs", Of::Jobs, "job.logs"),
    ("/tinkerbell.v1.JobService/Result", Of::Jobs, "job.result"),
    (
        "/tinkerbell.v1.JobService/ListArtifacts",
        Of::Jobs,
        "job.artifacts",
    ),
    (
        "/tinkerbell.v1.JobService/GetArtifact",
        Of::Jobs,
        "job.artifact",
    ),
    ("/tinkerbell.v1.JobService/History", Of::Jobs, "job.history"),
    ("/tinkerbell.v1.NodeService/Get", Of::Node, "node.show"),
    ("/tinkerbell.v1.NodeService/Dump", Of::Node, "node.dump"),
    ("/tinkerbell.v1.NodeService/Reload", Of::Node, "node.reload"),
    ("/tinkerbell.v1.NodeService/Drain", Of::Node, "node.drain"),
    (
        "/tinkerbell.v1.NodeService/Shutdown",
        Of::Node,
        "node.shutdown",
    ),
    ("/grpc.health.v1.Health/Check", Of::Health, "health.check"),
    ("/grpc.health.v1.Health/Watch", Of::Health, "health.watch"),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Of::Reflection,
        "reflection",
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Of::ReflectionAlpha,
        "reflection",
    ),
];

/// The client of a call.
pub(super) fn client<T>(request: &tonic::Request<T>) -> ClientId {
    *request
        .extensions()
        .get()
        .expect("whoever routes a call says whose it is")
}

/// A service of the generated code: from a call to its answer.
type Answering = Arc<dyn Fn(Request<Body>) -> BoxFuture<Response<Body>, Infallible> + Send + Sync>;

fn answering<S>(service: S) -> Answering
where
    S: tonic::codegen::Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    Arc::new(move |request| service.clone().call(request))
}

/// All services, as one connection calls them.
#[derive(Clone)]
pub(super) struct Services {
    service: Service,
    jobs: Answering,
    node: Answering,
    health: Answering,
    reflection: Answering,
    reflection_alpha: Answering,
}

impl Services {
    pub(super) fn new(service: Service) -> Self {
        let limit = service.limits().message_bytes;
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(super::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let readable = "the descriptors are ours, and a test reads them";
        let reflection = described().build_v1().expect(readable);
        let reflection_alpha = described().build_v1alpha().expect(readable);
        let (jobs, node) = (Jobs(service.clone()), Node(service.clone()));
        Self {
            jobs: answering(JobServiceServer::new(jobs).max_decoding_message_size(limit)),
            node: answering(NodeServiceServer::new(node).max_decoding_message_size(limit)),
            health: answering(HealthServer::new(HealthOf(service.clone()))),
            reflection: answering(reflection.max_decoding_message_size(REFLECTION_MAX_BYTES)),
            reflection_alpha: answering(
                reflection_alpha.max_decoding_message_size(REFLECTION_MAX_BYTES),
            ),
            service,
        }
    }

    fn of(&self, of: Of) -> &Answering {
        match of {
            Of::Jobs => &self.jobs,
            Of::Node => &self.node,
            Of::Health => &self.health,
            Of::Reflection => &self.reflection,
            Of::ReflectionAlpha => &self.reflection_alpha,
        }
    }
}

/// Counts a call, also one that ends before it has its answer.
struct Counted<'a> {
    service: &'a Service,
    method: &'static str,
    started: Instant,
    is_answered: bool,
}

impl Counted<'_> {
    fn answered(&mut self, code: &str) -> Duration {
        self.is_answered = true;
        let took = self.started.elapsed();
        let instruments = self.service.instruments();
        instruments.answered(TRANSPORT, self.method, code, took);
        took
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answered("cancelled");
        }
    }
}

/// Answers a call.
pub(super) async fn respond(
    services: Services,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Some(status) = no_call(&request) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return response;
    }
    let path = request.uri().path();
    let found = METHODS.iter().find(|(known, ..)| *known == path);
    let method = found.map_or("unknown", |(_, _, name)| name);
    let span =
        tracing::debug_span!("request", transport = TRANSPORT, method, client = %peer.client);
    let service = services.service.clone();
    let mut counted = Counted {
        service: &service,
        method,
        started: Instant::now(),
        is_answered: false,
    };
    let answered = match found {
        Some(&(_, of, _)) => answer(&services, &peer, of, request).instrument(span).await,
        None => {
            let text = format!("there is no `{path}`; reflection says what there is");
            Err(Fault::new(FaultCode::Unsupported, text).into())
        }
    };
    let response = match answered {
        Ok(response) => with_our_status(response),
        Err(status) => status.into_http(),
    };
    let code = match response.headers().get(REASON) {
        Some(reason) => reason.to_str().unwrap_or("internal"),
        None => "ok",
    };
    let took = counted.answered(code);
    tracing::debug!(method, code, client = %peer.client, ?took, "answered");
    response
}

/// What no client of gRPC sends, but a browser may: that is turned away before anything else, since a page may send forms to
/// this machine's own ports and nothing with this content type.
fn no_call(request: &Request<Incoming>) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    (!is_grpc).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

async fn answer(
    services: &Services,
    peer: &Peer,
    of: Of,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if let Some(refused) = &peer.refused {
        return Err(refused.clone().into());
    }
    if of != Of::Health
        && let Some(token) = &peer.token
        && !token.is_shown_in(request.headers())
    {
        return Err(unauthenticated(
            "this server asks for its token, as `authorization: Bearer TOKEN`",
        ));
    }
    let place = services.service.admit();
    let _place = match place {
        // How the node is, is told to the last moment.
        Err(fault) if of == Of::Health && fault.code == FaultCode::Unavailable => None,
        place => Some(place?),
    };
    let deadline =
        deadline(request.headers())?.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let Some(mut deadline) = deadline else {
        return call(services, peer.client, of, request).await;
    };
    let response = tokio::select! {
        biased;
        response = call(services, peer.client, of, request) => response?,
        () = &mut deadline => return Err(too_late()),
    };
    Ok(response.map(|body| {
        Body::new(Dated {
            body: Some(body),
            deadline,
        })
    }))
}

async fn call(
    services: &Services,
    client: ClientId,
    of: Of,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(client);
    let body = match of {
        // The only methods with more than one message.
        Of::Reflection | Of::ReflectionAlpha => Body::new(Prompt::new(body)),
        Of::Jobs | Of::Node | Of::Health => {
            let limit = services.service.limits().message_bytes;
            Body::new(Full::new(read(body, limit).await?))
        }
    };
    let request = Request::from_parts(parts, body);
    let Ok(response) = services.of(of)(request).await;
    Ok(response)
}

/// Reads the one message of a call, up to a limit of size and time.
async fn read(body: Incoming, limit_bytes: usize) -> Result<Bytes, Fault> {
    let limited = Limited::new(body, limit_bytes.saturating_add(PREFIX_BYTES));
    match tokio::time::timeout(MESSAGE_MAX, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Fault::new(
            FaultCode::TooLarge,
            format!("the message has more than {limit_bytes} bytes (`api.message_size`)"),
        )),
        Ok(Err(error)) => Err(Fault::invalid(format!(
            "the message cannot be read: {error}"
        ))),
        Err(_) => Err(Fault::new(
            FaultCode::TimedOut,
            format!("the message took longer than {} s", MESSAGE_MAX.as_secs()),
        )),
    }
}

/// A refusal that is not of ours gets the details that ours have.
fn with_our_status(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok && !headers.contains_key(REASON) => {
            of_codec(&status).into_http()
        }
        _ => response,
    }
}

/// How long a client waits, as it says itself: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let timeout = parse_timeout(value);
    timeout
        .map(Some)
        .ok_or_else(|| Fault::invalid("`grpc-timeout` is not a time such as `500m` or `5S`"))
}

fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = !digits.is_empty()
        && digits.len() <= DIGITS_MAX
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = is_number.then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn too_late() -> Status {
    Fault::new(FaultCode::TimedOut, "the deadline of the call has passed").into()
}

/// The body of an answer that must be over by a deadline; what it comes from is dropped then.
struct Dated {
    body: Option<Body>,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody for Dated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if this.deadline.as_mut().poll(cx).is_ready() {
            this.body = None;
            let mut trailers = HeaderMap::new();
            // What it cannot add is what cannot stand in a header; this text can.
            let _ = too_late().add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The body of a request of several messages, which ends where its client sends nothing for long.
struct Prompt {
    body: Incoming,
    until: Pin<Box<Sleep>>,
}

impl Prompt {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            until: Box::pin(tokio::time::sleep(MESSAGE_MAX)),
        }
    }
}

impl HttpBody for Prompt {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let until = tokio::time::Instant::now() + MESSAGE_MAX;
                this.until.as_mut().reset(until);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => this.until.as_mut().poll(cx).map(|()| None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        let parsed = |text: &str| parse_timeout(&HeaderValue::from_str(text).unwrap());
        assert_eq!(parsed("5S"), Some(Duration::from_secs(5)));
        assert_eq!(
            parsed("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("7u"), Some(Duration::from_micros(7)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "+5S"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        let not_text = HeaderValue::from_bytes(b"5\xff").unwrap();
        assert_eq!(parse_timeout(&not_text), None);
    }

    /// The table of methods is ours; what there is, the `.proto` files say.
    #[test]
    fn every_method_of_the_files_has_its_row() {
        use prost::Message;
        let described = tonic_descriptors();
        let mut rows: Vec<String> = METHODS
            .iter()
            .filter(|(_, of, _)| matches!(of, Of::Jobs | Of::Node))
            .map(|(path, ..)| (*path).to_owned())
            .collect();
        let mut methods = Vec::new();
        for file in described {
            for service in file.service {
                for method in service.method {
                    methods.push(format!(
                        "/{}.{}/{}",
                        file.package, service.name, method.name
                    ));
                }
            }
        }
        rows.sort();
        methods.sort();
        assert_eq!(rows, methods);

        /// As much of `google.protobuf.FileDescriptorSet` as is needed here.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Set {
            #[prost(message, repeated, tag = "1")]
            file: Vec<File>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct File {
            #[prost(string, tag = "2")]
            package: String,
            #[prost(message, repeated, tag = "6")]
            service: Vec<Described>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Described {
            #[prost(string, tag = "1")]
            name: String,
            #[prost(message, repeated, tag = "2")]
            method: Vec<Named>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Named {
            #[prost(string, tag = "1")]
            name: String,
        }
        fn tonic_descriptors() -> Vec<File> {
            Set::decode(crate::grpc::DESCRIPTORS).unwrap().file
        }
    }
}
