//! Connections: how many, whose, and how they end.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use super::address::Bound;
use super::call::{self, Services};
use super::calls::{Answer, Calls};
use super::tls::Tls;
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::listen;
use crate::paced::Paced;
use crate::service::{Service, over};

pub(super) const TRANSPORT: &str = "grpc";

/// How long a client may take for the handshake of TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// How long a connection that ends waits for answers that are being sent.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The headers of a call, in bytes.
const HEADERS_MAX_BYTES: u32 = 16 * 1024;

/// How many connections over the limit are told so at once. Those beyond are closed without a word.
const REFUSALS_MAX: usize = 16;

/// How long a connection that is refused is kept, to be told so.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

/// What knows the token that clients must show.
#[derive(Clone)]
pub struct TokenCheck(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl TokenCheck {
    /// `matches` says whether what a client shows is the token, in a time that does not tell how much of it is right.
    pub fn new(matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    pub(super) fn admits(&self, token: &str) -> bool {
        (self.0)(token)
    }
}

impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCheck")
    }
}

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

impl Access {
    fn admits(&self, uid: u32) -> bool {
        uid == 0 || uid == rustix::process::geteuid().as_raw() || self.uids.contains(&uid)
    }
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Waits until it has ended, which it does once the service's stage is [`Over`](crate::service::Stage::Over).
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!("the grpc server died: {error}");
        }
    }
}

/// Begins to serve.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time enabled.
#[must_use]
pub fn serve(bound: Bound, access: Access, service: Service) -> Server {
    Server {
        task: tokio::spawn(accept_all(bound, access, service)),
    }
}

/// Who is at the other end of a connection, and whether it may ask.
pub(super) struct Peer {
    pub(super) client: ClientId,
    pub(super) refused: Option<Fault>,
    pub(super) token: Option<TokenCheck>,
}

/// Where there is room for connections, and for those that are told that there is none.
struct Room {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Room {
    /// A place; the flag says whether it is one for being refused.
    fn place(&self) -> Option<(OwnedSemaphorePermit, bool)> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map(|place| (place, false)).ok().or_else(|| {
            let place = Arc::clone(&self.refusals).try_acquire_owned();
            place.map(|place| (place, true)).ok()
        })
    }
}

async fn accept_all(bound: Bound, access: Access, service: Service) {
    let limit = service.limits().connections;
    let room = Room {
        places: Arc::new(Semaphore::new(limit)),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
    };
    let services = Services::new(service.clone());
    let access = Arc::new(access);
    let mut connections = JoinSet::new();
    let mut stage = service.stage();
    loop {
        let accepted = tokio::select! {
            () = over(&mut stage) => break,
            accepted = accept(&bound, &access) => accepted,
            // Finished connections are taken out as they end, so that the set holds the open ones only.
            Some(_) = connections.join_next() => continue,
        };
        let (stream, mut peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely. It comes back at once, for as long as that lasts.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = room.place();
        if !matches!(place, Some((_, false))) {
            service.instruments().refused(TRANSPORT, "too_many");
        }
        let Some((place, is_refused)) = place else {
            continue;
        };
        if is_refused {
            peer.refused = Some(Fault::new(
                FaultCode::Exhausted,
                format!(
                    "there are {limit} connections, as many as there may be (`api.connections`)"
                ),
            ));
        }
        let (service, services, access) = (service.clone(), services.clone(), Arc::clone(&access));
        connections.spawn(async move {
            let serving = connection(stream, peer, &access, services, &service);
            if is_refused {
                let _ = tokio::time::timeout(REFUSAL_MAX, serving).await;
            } else {
                let open = service.instruments().connections(TRANSPORT);
                open.inc();
                serving.await;
                open.dec();
            }
            drop(place);
        });
    }
    drop(bound);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // Each ends by itself in DRAIN_MAX; what does not is cut off.
    let _ = tokio::time::timeout(2 * DRAIN_MAX, all_ended).await;
    connections.shutdown().await;
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection before its handshake.
enum Accepted {
    Tcp(tokio::net::TcpStream),
    Local(Box<dyn Duplex>),
}

async fn accept(bound: &Bound, access: &Access) -> io::Result<(Accepted, Peer)> {
    match bound {
        Bound::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // It fails if the other side is gone already, which shows soon enough.
            let _ = stream.set_nodelay(true);
            let peer = Peer {
                client: ClientId::Address(address.ip()),
                refused: None,
                token: access.token.clone(),
            };
            Ok((Accepted::Tcp(stream), peer))
        }
        Bound::Local(listen::Bound::Unix(listener, _)) => {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let uid = credentials.uid();
            let refused = (!access.admits(uid)).then(|| {
                let text = format!("user {uid} may not speak to this daemon (`grpc.allowed_uids`)");
                Fault::new(FaultCode::Denied, text)
            });
            let peer = Peer {
                client: ClientId::Process(credentials.pid().unwrap_or_default()),
                refused,
                token: None,
            };
            Ok((Accepted::Local(Box::new(stream)), peer))
        }
        Bound::Local(listen::Bound::Vsock(listener)) => {
            let (stream, address) = listener.accept().await?;
            let peer = Peer {
                client: ClientId::Context(address.cid()),
                refused: None,
                token: access.token.clone(),
            };
            Ok((Accepted::Local(Box::new(stream)), peer))
        }
    }
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
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_MAX, tls.0.accept(stream)) => shaken,
                () = over(&mut stage) => return,
            };
            match shaken {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => {
                    service.instruments().refused(TRANSPORT, "tls");
                    return tracing::debug!(%error, client = %peer.client, "no TLS");
                }
                Err(_) => {
                    service.instruments().refused(TRANSPORT, "tls");
                    return tracing::debug!(client = %peer.client, "TLS takes too long");
                }
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
