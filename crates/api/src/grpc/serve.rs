//! Connections: how many, whose, and how they end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::address::Bound;
use super::call::{self, Services};
use super::calls::{Answer, Calls};
use crate::fault::Fault;
use crate::limits::ClientId;
use crate::paced::Paced;
use crate::server::{Duplex, Listener, Server};
use crate::service::{Service, over};
use crate::tls::Tls;
use crate::token::TokenCheck;

pub(super) const TRANSPORT: &str = "grpc";

/// How long a connection that ends waits for answers that are being sent.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The headers of a call, in bytes.
const HEADERS_MAX_BYTES: u32 = 16 * 1024;

/// How many connections over the limit are told so at once. Those beyond are closed without a word.
const REFUSALS_MAX: usize = 16;

/// How long a connection that is refused is kept, to be told so.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// How a connection on which nothing happens is found out to be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How often the other side is asked for a sign of life.
    pub interval: Duration,
    /// How long it may take to give one.
    pub timeout: Duration,
}

/// Who may ask, and how connections are kept.
#[derive(Clone, Debug)]
pub struct Access {
    /// The user ids that may speak to a Unix socket, beside our own and root.
    pub uids: Vec<u32>,
    /// What clients that do not come through a Unix socket must show.
    pub token: Option<TokenCheck>,
    /// TLS, on TCP.
    pub tls: Option<Tls>,
    /// Signs of life.
    pub keep_alive: KeepAlive,
}

/// Begins to serve.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
#[must_use]
pub fn serve(bound: Bound, access: Access, service: Service) -> Server {
    let grpc = Grpc {
        bound,
        access: Arc::new(access),
        services: Services::new(service.clone()),
        service: service.clone(),
    };
    Server::start(grpc, service)
}

/// Who is at the other end of a connection, and whether it may ask.
pub(super) struct Peer {
    pub(super) client: ClientId,
    pub(super) refused: Option<Fault>,
    pub(super) token: Option<TokenCheck>,
}

struct Grpc {
    bound: Bound,
    access: Arc<Access>,
    services: Services,
    service: Service,
}

impl Listener for Grpc {
    const TRANSPORT: &'static str = TRANSPORT;
    const REFUSALS_MAX: usize = REFUSALS_MAX;
    /// Each ends by itself in half of it; what does not is cut off.
    const DRAIN_MAX: Duration = DRAIN_MAX.saturating_mul(2);
    type Connection = (Accepted, Peer);

    async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.bound {
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // It fails if the other side is gone already, which shows soon enough.
                let _ = stream.set_nodelay(true);
                let peer = Peer {
                    client: ClientId::Address(address.ip()),
                    refused: None,
                    token: self.access.token.clone(),
                };
                Ok((Accepted::Tcp(stream), peer))
            }
            Bound::Local(bound) => {
                let local = bound.accept(&self.access.uids, "grpc.allowed_uids").await?;
                let token = match local.client {
                    // Who speaks to a Unix socket is known from the kernel.
                    ClientId::Process(_) => None,
                    _ => self.access.token.clone(),
                };
                let peer = Peer {
                    client: local.client,
                    refused: local.refused,
                    token,
                };
                Ok((Accepted::Local(local.stream), peer))
            }
        }
    }

    fn serve(&self, (stream, peer): (Accepted, Peer)) -> impl Future<Output = ()> + Send + 'static {
        let (access, services) = (Arc::clone(&self.access), self.services.clone());
        let service = self.service.clone();
        async move { connection(stream, peer, &access, services, &service).await }
    }

    fn turn_away(
        &self,
        (stream, mut peer): (Accepted, Peer),
        why: Fault,
    ) -> impl Future<Output = ()> + Send + 'static {
        peer.refused = Some(why);
        let refused = self.serve((stream, peer));
        async move {
            let _ = tokio::time::timeout(REFUSAL_MAX, refused).await;
        }
    }
}

/// A connection before its handshake.
enum Accepted {
    Tcp(tokio::net::TcpStream),
    Local(Box<dyn Duplex>),
}

/// One connection, from its handshake to its end.
async fn connection(
    stream: Accepted,
    peer: Peer,
    access: &Access,
    services: Services,
    service: &Service,
) {
    let mut stage = service.stage();
    let stream: Box<dyn Duplex> = match (stream, &access.tls) {
        (Accepted::Local(stream), _) => stream,
        (Accepted::Tcp(stream), None) => Box::new(stream),
        (Accepted::Tcp(stream), Some(tls)) => {
            match tls.accept(stream, &peer.client, TRANSPORT, service).await {
                Some(stream) => Box::new(stream),
                None => return,
            }
        }
    };
    let stream = Paced::new(stream, service.limits().stall);
    let peer = Arc::new(peer);
    let calls = Arc::new(Calls::default());
    let answering = {
        let calls = Arc::clone(&calls);
        service_fn(move |request: Request<Incoming>| {
            let (services, peer) = (services.clone(), Arc::clone(&peer));
            let open = Calls::begin(&calls);
            async move {
                let response = call::respond(services, peer, request).await;
                Ok::<_, Infallible>(response.map(|body| Answer::new(body, open)))
            }
        })
    };
    let limits = service.limits();
    // A stream of HTTP/2 is a call, and every call takes one of these places too.
    let calls_max = limits.requests.saturating_add(limits.streams_per_client);
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(access.keep_alive.interval)
        .keep_alive_timeout(access.keep_alive.timeout)
        .max_concurrent_streams(u32::try_from(calls_max).unwrap_or(u32::MAX))
        .max_header_list_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = over(&mut stage) => None,
        () = calls.idle() => None,
        () = calls.stuck(2 * service.limits().stall) => {
            return tracing::debug!("a connection is cut off, since an answer on it is not taken");
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Answers that are being sent are finished, and streams have their last message; no call is taken any more.
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
