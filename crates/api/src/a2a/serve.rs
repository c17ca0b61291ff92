//! Connections: how many, who may ask, and how they end.
//!
//! One port speaks HTTP/1.1 and HTTP/2, and by the path of a request all three bindings. The agent's card is for everybody;
//! all else asks for the bearer token, if there is one. Without one only this machine can reach the port, and a browser on it
//! is an attacker's way in: so a request must name the server by a name that it has, and come from no foreign page.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use a2a_grpc::GrpcHandler;
use a2a_pb::proto::a2a_service_server::A2aServiceServer;
use a2a_types::{
    A2AError, JsonRpcId, JsonRpcResponse, TypedDetail, error_code, error_reason, errordetails,
};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::Limited;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service as _;

use super::VERSION;
use super::card::{Agent, Asks};
use super::handler::{ASKING, Asking, Handler, TRANSPORT};
use super::push::{Configs, Pusher};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::paced::Paced;
use crate::server::{Duplex, Listener, Server};
use crate::service::{Service, over};
use crate::tls::Tls;
use crate::token::TokenCheck;

/// How long a client may take to send a request's headers.
const HEADERS_MAX: Duration = Duration::from_secs(60);

/// How often a silent HTTP/2 connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a connection that ends waits for answers that are being sent.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// How many requests one HTTP/2 connection may have at once.
const CONCURRENT_MAX: u32 = 256;

/// The longest answer that is rewritten: a refusal of a route that is put into the protocol's words, or a page without tasks.
const REWRITTEN_MAX_BYTES: usize = 16 << 10;

/// Where a request says the protocol's version.
const VERSION_HEADER: &str = "a2a-version";

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What clients must show. Without it, and without certificates of clients, everybody who can reach the port may ask.
    pub token: Option<TokenCheck>,
    /// TLS, and whose certificates are taken.
    pub tls: Option<Tls>,
    /// Names by which requests may address the server beside those of the loopback, where everybody may ask.
    pub hosts: Vec<String>,
}

/// Push notifications.
#[derive(Clone, Debug)]
pub struct Pushes {
    /// Who sends them.
    pub pusher: Pusher,
    /// How many configs a task may have; with none there are no push notifications.
    pub configs: usize,
}

/// Begins to serve an agent.
///
/// # Errors
///
/// If the listener cannot be used.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
pub fn serve(
    listener: std::net::TcpListener,
    access: Access,
    agent: Agent,
    pushes: Pushes,
    service: Service,
) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let access = Arc::new(access);
    let a2a = A2a {
        listener: TcpListener::from_std(listener)?,
        router: router(Arc::clone(&access), agent, pushes, &service),
        access,
        service: service.clone(),
    };
    Ok(Server::start(a2a, service))
}

struct Site {
    access: Arc<Access>,
    service: Service,
    card: String,
    etag: HeaderValue,
    /// Since when the card is what it is, as far as this process knows.
    since: HeaderValue,
}

fn router(access: Arc<Access>, agent: Agent, pushes: Pushes, service: &Service) -> Router {
    let asks = Asks {
        token: access.token.is_some(),
        certificate: access.tls.as_ref().is_some_and(Tls::asks_clients),
    };
    let pushes = Configs::new(service.clone(), pushes.pusher, pushes.configs);
    let handler = Handler::new(service.clone(), agent, asks, pushes);
    let card = serde_json::to_string(&handler.public_card())
        .expect("a card serialises because it has string keys only");
    let site = Arc::new(Site {
        access,
        service: service.clone(),
        etag: etag(&card),
        since: http_date(SystemTime::now()),
        card,
    });
    let handler = Arc::new(handler);
    let limit = service.limits().message_bytes;
    let grpc = A2aServiceServer::new(GrpcHandler::new(Arc::clone(&handler)))
        .max_decoding_message_size(limit);
    Router::new()
        .route(a2a_server::WELL_KNOWN_AGENT_CARD_PATH, get(card_of))
        .with_state(Arc::clone(&site))
        .merge(a2a_server::jsonrpc::jsonrpc_router(Arc::clone(&handler)))
        .merge(a2a_server::rest::rest_router(handler))
        .route_service("/lf.a2a.v1.A2AService/{method}", grpc)
        .layer(middleware::from_fn_with_state(site, guard))
}

/// A tag that changes with the card (RFC 9110, section 8.8.3). FNV-1a: nobody gains anything by a collision.
fn etag(card: &str) -> HeaderValue {
    let hash = card.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    HeaderValue::from_str(&format!("\"{hash:016x}\"")).expect("hexadecimal digits are visible")
}

/// A time as HTTP has it (RFC 9110, section 5.6.7).
fn http_date(time: SystemTime) -> HeaderValue {
    let date = chrono::DateTime::<chrono::Utc>::from(time);
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&date).expect("a date is visible")
}

/// The card, for everybody, from anywhere.
async fn card_of(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let common = [
        (
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("max-age=60"),
        ),
        (header::ETAG, site.etag.clone()),
        (header::LAST_MODIFIED, site.since.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&site.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let json = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    (common, json, site.card.clone()).into_response()
}

/// What stands before every route: who may ask, how much, and refusals that a client of the binding understands.
async fn guard(State(site): State<Arc<Site>>, mut request: Request, next: Next) -> Response {
    let is_card = request.uri().path() == a2a_server::WELL_KNOWN_AGENT_CARD_PATH;
    let binding = Binding::of(&request);
    if let Some(refusal) = site.refusal(&request, is_card) {
        site.service.instruments().answered(
            TRANSPORT,
            "unknown",
            FaultCode::Denied.as_str(),
            Duration::ZERO,
        );
        return binding.refuse(&refusal);
    }
    if !binding.takes(&request) {
        return refuse_json_rpc(StatusCode::OK, &no_such_type());
    }
    binding.name_version(&mut request);
    let client = match request.extensions().get::<Peer>() {
        Some(Peer(address)) => ClientId::Address(address.ip()),
        None => ClientId::Process(0),
    };
    let limit = site.service.limits().message_bytes;
    // gRPC holds each message of a request against the limit by itself.
    if binding != Binding::Grpc {
        request = request.map(|body| Body::new(Limited::new(body, limit)));
    }
    let asking = Asking {
        client,
        refused: std::cell::Cell::new(None),
        lists_nothing: std::cell::Cell::new(false),
    };
    let answer = async {
        let response = next.run(request).await;
        ASKING.with(|asking| (response, asking.refused.get(), asking.lists_nothing.get()))
    };
    let (response, refused, lists_nothing) = ASKING.scope(asking, answer).await;
    let response = binding.finish(response, refused).await;
    match lists_nothing {
        true => binding.fill_page(response).await,
        false => response,
    }
}

#[derive(Clone, Copy)]
struct Peer(SocketAddr);

/// Why a request is turned away before it is looked at.
struct Turned {
    status: StatusCode,
    grpc: &'static str,
    reason: &'static str,
    message: String,
}

impl Site {
    fn refusal(&self, request: &Request, is_card: bool) -> Option<Turned> {
        let Some(token) = &self.access.token else {
            if self.access.tls.as_ref().is_some_and(Tls::asks_clients) {
                return None;
            }
            return self.foreign(request).map(|message| Turned {
                status: StatusCode::FORBIDDEN,
                grpc: "7",
                reason: "PERMISSION_DENIED",
                message,
            });
        };
        let may = is_card || token.is_shown_in(request.headers());
        (!may).then(|| Turned {
            status: StatusCode::UNAUTHORIZED,
            grpc: "16",
            reason: "UNAUTHENTICATED",
            message: "the bearer token of this agent is asked for (`Authorization: Bearer`)"
                .to_owned(),
        })
    }

    /// Whether a request names a server that this is not, or comes from a page that is none of ours.
    fn foreign(&self, request: &Request) -> Option<String> {
        let in_header = |name| {
            let value = request.headers().get(name)?;
            Some(value.to_str().unwrap_or_default())
        };
        let authority = request
            .uri()
            .authority()
            .map(axum::http::uri::Authority::as_str);
        let host = authority
            .or_else(|| in_header(header::HOST))
            .unwrap_or_default();
        if !self.is_ours(host_of(host)) {
            return Some(format!(
                "this agent is not called `{}`; set `a2a.public_url` if it is",
                host_of(host)
            ));
        }
        let origin = in_header(header::ORIGIN)?;
        let page: Option<Uri> = origin.parse().ok();
        let page = page.as_ref().and_then(Uri::host);
        if page.is_some_and(|page| self.is_ours(page)) {
            return None;
        }
        Some(format!("pages of `{origin}` may not speak to this agent"))
    }

    fn is_ours(&self, host: &str) -> bool {
        let loopback = ["localhost", "127.0.0.1", "[::1]"];
        let mut hosts = loopback
            .into_iter()
            .chain(self.access.hosts.iter().map(String::as_str));
        hosts.any(|ours| ours.eq_ignore_ascii_case(host))
    }
}

/// A host without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    JsonRpc,
    Rest,
    Grpc,
}

impl Binding {
    fn of(request: &Request) -> Self {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = content_type
            .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"));
        match request.uri().path() {
            _ if is_grpc => Self::Grpc,
            "/" => Self::JsonRpc,
            _ => Self::Rest,
        }
    }

    fn refuse(self, turned: &Turned) -> Response {
        if self == Self::Grpc {
            return grpc_refusal(turned.grpc, &turned.message);
        }
        let mut response = problem(turned.status, turned.reason, &turned.message, &[]);
        if turned.status == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// Whether a request's content is of a type that the binding takes. The routes of HTTP+JSON look by themselves.
    fn takes(self, request: &Request) -> bool {
        let given = request.headers().get(header::CONTENT_TYPE);
        let given = given.map(|given| given.to_str().unwrap_or_default());
        self != Self::JsonRpc
            || request.method() != Method::POST
            || given.is_none_or(|given| {
                let essence = given.split(';').next().unwrap_or_default().trim();
                let essence = essence.to_ascii_lowercase();
                essence == "application/json"
                    || essence.starts_with("application/") && essence.ends_with("+json")
            })
    }

    /// Says the version in a header for a client that says it otherwise: by a parameter (specification, 3.6.1), or over
    /// gRPC by the name of the service, which is that of version 1.0 and of no other.
    fn name_version(self, request: &mut Request) {
        if request.headers().contains_key(VERSION_HEADER) {
            return;
        }
        let named = match self {
            Self::Grpc => Some(VERSION),
            Self::JsonRpc | Self::Rest => request.uri().query().and_then(|query| {
                let mut parameters = query.split('&').filter_map(|one| one.split_once('='));
                let named = parameters.find(|(name, _)| name.eq_ignore_ascii_case(VERSION_HEADER));
                named.map(|(_, version)| version)
            }),
        };
        if let Some(version) = named.and_then(|named| HeaderValue::from_str(named).ok()) {
            request.headers_mut().insert(VERSION_HEADER, version);
        }
    }

    /// Gives a page without tasks the fields that are required of it (specification, 5.7), and which the codec leaves out
    /// where they are empty.
    async fn fill_page(self, response: Response) -> Response {
        if self == Self::Grpc || !response.status().is_success() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let page = to_bytes(body, REWRITTEN_MAX_BYTES)
            .await
            .unwrap_or_default();
        let mut answer: Value = serde_json::from_slice(&page).unwrap_or_default();
        let fields = match self {
            Self::JsonRpc => answer.get_mut("result"),
            _ => Some(&mut answer),
        };
        if let Some(fields) = fields.and_then(Value::as_object_mut) {
            fields.entry("tasks").or_insert_with(|| json!([]));
            fields.entry("totalSize").or_insert_with(|| json!(0));
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(answer.to_string()))
    }

    /// Puts what the protocol has no word for into words of the binding: that the node is busy or stopping, and what a
    /// route refused by itself.
    async fn finish(self, mut response: Response, refused: Option<FaultCode>) -> Response {
        let busy = match refused {
            Some(FaultCode::Exhausted) => Some((StatusCode::TOO_MANY_REQUESTS, "8")),
            Some(FaultCode::Unavailable) => Some((StatusCode::SERVICE_UNAVAILABLE, "14")),
            Some(FaultCode::TooLarge) => Some((StatusCode::PAYLOAD_TOO_LARGE, "8")),
            _ => None,
        };
        match (self, busy) {
            (Self::Rest, Some((status, _))) => {
                *response.status_mut() = status;
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            (Self::Grpc, Some((_, status))) => {
                let headers = response.headers_mut();
                if headers.contains_key("grpc-status") {
                    headers.insert("grpc-status", HeaderValue::from_static(status));
                }
            }
            _ => {}
        }
        // An error is a `google.rpc.Status` (specification, 11.6), which is no problem document of RFC 9457.
        let kind = response.headers().get(header::CONTENT_TYPE);
        if self == Self::Rest && kind.is_some_and(|kind| kind == "application/problem+json") {
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        // What a config that was deleted is answered with: the protocol's empty message is an empty object.
        let says_nothing = response.status() == StatusCode::OK
            && !response.headers().contains_key(header::CONTENT_TYPE);
        if self == Self::Rest && says_nothing {
            let kind = HeaderValue::from_static("application/a2a+json");
            return ([(header::CONTENT_TYPE, kind)], "{}").into_response();
        }
        let is_plain = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_none_or(|content_type| content_type.as_bytes().starts_with(b"text/plain"));
        if self == Self::Grpc || !response.status().is_client_error() || !is_plain {
            return response;
        }
        if self == Self::Rest && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            let error = no_such_type();
            let status = StatusCode::from_u16(error.http_status_code());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            let details = error.details.unwrap_or_default();
            return problem(status, "INVALID_ARGUMENT", &error.message, &details);
        }
        let (parts, body) = response.into_parts();
        let text = to_bytes(body, REWRITTEN_MAX_BYTES)
            .await
            .unwrap_or_default();
        let message = match String::from_utf8_lossy(&text) {
            text if text.is_empty() => "there is nothing at this path for this method".to_owned(),
            text => text.into_owned(),
        };
        let reason = match parts.status {
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
            _ => "INVALID_ARGUMENT",
        };
        if self == Self::JsonRpc && parts.status == StatusCode::PAYLOAD_TOO_LARGE {
            return refuse_json_rpc(parts.status, &A2AError::invalid_request(message));
        }
        problem(parts.status, reason, &message, &[])
    }
}

/// The refusal of content that is no JSON.
fn no_such_type() -> A2AError {
    let mut error = A2AError::content_type_not_supported();
    "the content of a request is JSON, and its Content-Type says so".clone_into(&mut error.message);
    let reason = error_reason(error_code::CONTENT_TYPE_NOT_SUPPORTED);
    let detail = TypedDetail::error_info(reason, errordetails::PROTOCOL_DOMAIN, None);
    error.with_details(vec![detail])
}

/// An error of a request whose id is not known.
fn refuse_json_rpc(status: StatusCode, error: &A2AError) -> Response {
    let answer = JsonRpcResponse::error(JsonRpcId::Null, error.to_jsonrpc_error());
    (status, axum::Json(answer)).into_response()
}

/// An error as HTTP+JSON has it: a `google.rpc.Status` in JSON.
fn problem(status: StatusCode, reason: &str, message: &str, details: &[TypedDetail]) -> Response {
    let error = json!({
        "code": status.as_u16(),
        "status": reason,
        "message": message,
        "details": details,
    });
    (status, axum::Json(json!({ "error": error }))).into_response()
}

/// A refusal without a message (trailers only, as gRPC calls it).
fn grpc_refusal(status: &'static str, message: &str) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", HeaderValue::from_static(status));
    // Percent-encoded where it must be; ours are plain.
    if let Ok(message) = HeaderValue::from_str(&message.replace('%', "%25")) {
        headers.insert("grpc-message", message);
    }
    response
}

struct A2a {
    listener: TcpListener,
    access: Arc<Access>,
    router: Router,
    service: Service,
}

impl Listener for A2a {
    const TRANSPORT: &'static str = TRANSPORT;
    /// HTTP/2 has no way to say so before its handshake: the connection ends, and the metric says why.
    const REFUSALS_MAX: usize = 0;
    /// Each ends by itself in half of it; what does not is cut off.
    const DRAIN_MAX: Duration = DRAIN_MAX.saturating_mul(2);
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    fn serve(
        &self,
        (stream, address): (TcpStream, SocketAddr),
    ) -> impl Future<Output = ()> + Send + 'static {
        let (access, router) = (Arc::clone(&self.access), self.router.clone());
        let service = self.service.clone();
        async move { connection(stream, address, &access, router, &service).await }
    }

    fn turn_away(
        &self,
        _: (TcpStream, SocketAddr),
        _: Fault,
    ) -> impl Future<Output = ()> + Send + 'static {
        std::future::ready(())
    }
}

/// One connection, from its handshake to its end.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    access: &Access,
    router: Router,
    service: &Service,
) {
    let mut stage = service.stage();
    // It fails if the other side is gone already, which shows soon enough.
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Duplex> = match &access.tls {
        None => Box::new(stream),
        Some(tls) => {
            let client = ClientId::Address(address.ip());
            match tls.accept(stream, &client, TRANSPORT, service).await {
                Some(stream) => Box::new(stream),
                None => return,
            }
        }
    };
    let stream = Paced::new(stream, service.limits().stall);
    let answering = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(address));
        router.clone().call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(CONCURRENT_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), answering);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = over(&mut stage) => {
            // The answer that is being sent is finished, and a stream has its last event; nothing more is read.
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_MAX, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection is cut off"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_from_its_port() {
        for (authority, host) in [
            ("localhost:3003", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:3003", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
