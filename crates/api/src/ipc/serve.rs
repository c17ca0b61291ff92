//! Connections: how many, whose, and how they end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::answer::{Answer, refusal, refusal_as, with};
use super::routes::{self, NoRoute, Refused};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::listen::{Bound, Local};
use crate::paced::Paced;
use crate::server::{Duplex, Listener, Server};
use crate::service::{Service, over};

/// How long a client may take to send a request's headers, and how long a connection may be idle.
const HEADERS_MAX: Duration = Duration::from_secs(60);

/// How long the end of the daemon waits for answers that are being sent.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The buffer for a request's line and headers, in bytes.
const HEADERS_MAX_BYTES: usize = 64 * 1024;

/// How many headers a request may have.
const HEADERS_MAX_COUNT: usize = 64;

const TRANSPORT: &str = "ipc";

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The user ids that may speak to a Unix socket, beside our own and root.
    pub uids: Vec<u32>,
}

/// Begins to serve.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
#[must_use]
pub fn serve(bound: Bound, access: Access, service: Service) -> Server {
    let ipc = Ipc {
        bound,
        access,
        service: service.clone(),
    };
    Server::start(ipc, service)
}

struct Ipc {
    bound: Bound,
    access: Access,
    service: Service,
}

impl Listener for Ipc {
    const TRANSPORT: &'static str = TRANSPORT;
    /// Each takes a second at the most.
    const REFUSALS_MAX: usize = Semaphore::MAX_PERMITS;
    const DRAIN_MAX: Duration = DRAIN_MAX;
    type Connection = Local;

    async fn accept(&self) -> io::Result<Local> {
        self.bound
            .accept(&self.access.uids, "ipc.allowed_uids")
            .await
    }

    fn serve(&self, local: Local) -> impl Future<Output = ()> + Send + 'static {
        connection(local, self.service.clone())
    }

    fn turn_away(&self, local: Local, why: Fault) -> impl Future<Output = ()> + Send + 'static {
        turn_away(local.stream, why)
    }
}

/// A client's connection: who it is, and whether it may ask.
struct Peer {
    client: ClientId,
    refused: Option<Fault>,
}

/// One connection, from its first request to its end.
async fn connection(local: Local, service: Service) {
    let mut stage = service.stage();
    let stream = Paced::new(local.stream, service.limits().stall);
    let peer = Arc::new(Peer {
        client: local.client,
        refused: local.refused,
    });
    let answering = service_fn(move |request: Request<Incoming>| {
        let (service, peer) = (service.clone(), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(respond(&service, &peer, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX_COUNT)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = over(&mut stage) => {
            // The answer that is being sent is finished, and a stream has its last event; nothing more is read.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Tells a client that there is no place for it.
async fn turn_away(mut stream: Box<dyn Duplex>, why: Fault) {
    let body = serde_json::to_string(&super::answer::problem(&why))
        .expect("a problem serialises because it has string keys only");
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

async fn respond(service: &Service, peer: &Peer, request: Request<Incoming>) -> Answer {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let routed = routes::route(&parts.method, parts.uri.path());
    let method = routed.as_ref().map_or("unknown", |routed| routed.name);
    let span =
        tracing::debug_span!("request", transport = TRANSPORT, method, client = %peer.client);
    let answered = async {
        if let Some(refused) = &peer.refused {
            return Err(refused.clone().into());
        }
        let _place = service.admit()?;
        match &routed {
            Ok(routed) => routes::respond(service, peer.client, routed, &parts, body).await,
            Err(NoRoute::Malformed(fault)) => Err(fault.clone().into()),
            Err(NoRoute::Path) => Err(Fault::new(
                FaultCode::NotFound,
                format!(
                    "there is nothing at `{}`; `/openapi.json` says what there is",
                    parts.uri.path()
                ),
            )
            .into()),
            Err(NoRoute::Method(allowed)) => {
                let allowed: Vec<&str> = allowed.iter().map(hyper::Method::as_str).collect();
                Ok(not_allowed(parts.method.as_str(), &allowed.join(", ")))
            }
        }
    }
    .instrument(span)
    .await;
    let (answer, code) = match answered {
        Ok(answer) if answer.status().is_success() => (answer, "ok"),
        Ok(answer) => (answer, FaultCode::Unsupported.as_str()),
        Err(Refused::Fault(fault)) => (refusal(&fault), fault.code.as_str()),
        Err(Refused::Form(status, fault)) => (refusal_as(status, &fault), fault.code.as_str()),
    };
    let took = started.elapsed();
    service
        .instruments()
        .answered(TRANSPORT, method, code, took);
    tracing::debug!(method, code, client = %peer.client, ?took, "answered");
    answer
}

fn not_allowed(method: &str, allowed: &str) -> Answer {
    let fault = Fault::new(
        FaultCode::Unsupported,
        format!("`{method}` is not possible here; {allowed} is"),
    );
    let answer = refusal(&fault);
    let allowed = HeaderValue::from_str(allowed)
        .expect("the names of methods are letters, and what joins them is printable");
    with(answer, header::ALLOW, allowed)
}
