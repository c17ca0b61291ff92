//! Probes and metrics over HTTP: read-only, small, and closed to whoever has no business here.
//!
//! `GET` and `HEAD` on a handful of paths, no state changed by any of them. The server knows nothing of what it serves:
//! it is handed a [`Health`] and a function that renders metrics.
//!
//! Invariants: every request passes the checks of `guard` before it is routed; the number of connections, the size and the time of
//! a request, and the life of a connection are limited; a shutdown never waits longer than [`DRAIN_MAX`] for a client.

mod bind;
mod guard;
mod health;
mod probe;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use bind::{BindError, Holder, bind};
#[cfg(feature = "_tls")]
pub(crate) use bind::{held_by, holder};
pub use guard::AllowedHosts;
pub use health::{Check, Health, State};
pub use probe::{ProbeError, ProbeReport, probe};

use crate::config::Secret;

/// How long a client may take to send a request's headers, or to begin the next request.
pub const HEADERS_MAX: Duration = Duration::from_secs(5);

/// How long a connection may live. A client that does not read its answer holds a place no longer than this; one that
/// keeps connections open, as Prometheus does, connects again.
pub const CONNECTION_MAX: Duration = Duration::from_secs(60);

/// How long a shutdown waits for answers that are being sent.
pub const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The buffer for a request's line and headers, in bytes. More is answered 431.
const HEADERS_MAX_BYTES: usize = 16 * 1024;

/// How many headers a request may have.
const HEADERS_MAX_COUNT: usize = 64;

/// How many connections over the limit are told so at once. Those beyond are closed without a word.
const REFUSALS_MAX: usize = 16;

/// What renders the metrics: from the request's `Accept` to a content type and a text.
pub type RenderMetrics = dyn Fn(Option<&str>) -> (String, String) + Send + Sync;

/// What is served, and to whom.
#[derive(Clone)]
pub struct Site {
    /// The health that the probes show.
    pub health: Health,
    /// What renders the metrics.
    pub metrics: Arc<RenderMetrics>,
    /// The names by which the server may be addressed.
    pub allowed_hosts: AllowedHosts,
    /// The token that all but the probes ask for, if one is set.
    pub token: Option<Secret>,
    /// The daemon's version, as `/health` shows it.
    pub version: String,
    /// How many connections may be open.
    pub max_connections: usize,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Serves until `shutdown` is over, and then for at most [`DRAIN_MAX`] longer.
///
/// # Errors
/// If the listener cannot be used at all. What goes wrong with a connection ends that connection only.
///
/// # Panics
/// Outside a tokio runtime with I/O and time enabled.
pub async fn serve(
    listener: StdTcpListener,
    site: Site,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(site.max_connections));
    let refusal_places = Arc::new(Semaphore::new(REFUSALS_MAX));
    let site = Arc::new(site);
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            // Finished connections are taken out as they end, so that the set holds the open ones only.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let connection = connection(stream, Arc::clone(&site), draining.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                } else if let Ok(place) = Arc::clone(&refusal_places).try_acquire_owned() {
                    connections.spawn(async move {
                        refuse(stream).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely. It comes back at once, for as long as that lasts.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    // It fails only if no connection listens any more, which is what is wanted.
    let _ = drain.send(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_MAX, all_ended).await;
    connections.shutdown().await;
    Ok(())
}

/// One connection, from its first request to its end.
async fn connection(stream: TcpStream, site: Arc<Site>, mut draining: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, _body) = request.into_parts();
        let response = site.respond(&parts);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX_COUNT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = draining.wait_for(|draining| *draining) => None,
        () = tokio::time::sleep(CONNECTION_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // The answer that is being sent is finished; nothing after it is read.
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(HEADERS_MAX, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Tells a client that there is no place for it.
async fn refuse(mut stream: TcpStream) {
    const BODY: &str = "too many connections; `http.max_connections` says how many there may be\n";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // A socket that is closed with unread input resets the connection, and the answer would be lost with it.
        let mut request = [0; 1024];
        while stream.read(&mut request).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

type Answer = Response<Full<Bytes>>;

impl Site {
    fn respond(&self, request: &Parts) -> Answer {
        let answer = match guard::admit(request, &self.allowed_hosts) {
            Ok(()) => self.route(request),
            Err(refusal) => text(refusal.status, format!("{}\n", refusal.reason)),
        };
        secured(answer)
    }

    fn route(&self, request: &Parts) -> Answer {
        if request.method != Method::GET && request.method != Method::HEAD {
            let answer = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered\n",
            );
            return with(answer, header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let path = request.uri.path();
        let is_probe = matches!(path, "/livez" | "/readyz" | "/health");
        if !is_probe && !self.is_authorized(&request.headers) {
            let answer = text(
                StatusCode::UNAUTHORIZED,
                "this path asks for a bearer token\n",
            );
            return with(
                answer,
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer"),
            );
        }
        match path {
            "/livez" => probe_answer(
                self.health.is_alive(),
                request,
                &self.health,
                "alive",
                "dead",
            ),
            "/readyz" => probe_answer(
                self.health.is_ready(),
                request,
                &self.health,
                "ready",
                "not ready",
            ),
            "/health" => {
                let body = format!("{:#}\n", self.health.to_json(&self.version));
                answer(
                    probe_status(self.health.is_ready()),
                    "application/json",
                    body,
                )
            }
            "/metrics" => {
                let accept = request
                    .headers
                    .get(header::ACCEPT)
                    .and_then(|value| value.to_str().ok());
                let (content_type, body) = (self.metrics)(accept);
                let answer = answer(StatusCode::OK, &content_type, body);
                with(answer, header::VARY, HeaderValue::from_static("Accept"))
            }
            "/" => text(StatusCode::OK, self.index()),
            _ => text(
                StatusCode::NOT_FOUND,
                "there is nothing here; `/` lists what there is\n",
            ),
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let presented = presented.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        presented.is_some_and(|presented| token.matches(presented))
    }

    fn index(&self) -> String {
        format!(
            "tinkerbell {}\n\n/livez            is the process worth keeping?\n/readyz?verbose   may work be \
             sent here, and if not, why?\n/health           the same as JSON\n/metrics          for Prometheus\n",
            self.version
        )
    }
}

fn probe_answer(holds: bool, request: &Parts, health: &Health, yes: &str, no: &str) -> Answer {
    let asks_for_more = |query: &str| {
        query
            .split('&')
            .any(|parameter| parameter == "verbose" || parameter.starts_with("verbose="))
    };
    let body = if request.uri.query().is_some_and(asks_for_more) {
        health.verbose()
    } else {
        format!("{}\n", if holds { yes } else { no })
    };
    text(probe_status(holds), body)
}

fn probe_status(holds: bool) -> StatusCode {
    if holds {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body.into())
}

fn answer(status: StatusCode, content_type: &str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_str(content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("text/plain; charset=utf-8"));
    with(answer, header::CONTENT_TYPE, content_type)
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

/// What every answer says to a browser: run nothing that is not ours, be shown in no frame, tell nobody, keep nothing.
const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

fn secured(mut answer: Answer) -> Answer {
    for (name, value) in SECURITY_HEADERS {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests;
