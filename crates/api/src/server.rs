//! What the servers of all transports do alike: accepting connections, within a limit, until nothing will happen any more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::fault::{Fault, FaultCode};
use crate::service::{Service, over};

/// A connection, of whatever kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// How a transport takes connections, and what it does with one.
pub(crate) trait Listener: Send + 'static {
    /// The transport's name, in metrics.
    const TRANSPORT: &'static str;

    /// How many connections over the limit are told so at once. Those beyond are closed without a word.
    const REFUSALS_MAX: usize;

    /// How long the end of the daemon waits for connections.
    const DRAIN_MAX: Duration;

    /// A connection, and who it is.
    type Connection: Send;

    /// Waits for the next one. Dropping the future loses nothing.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Serves a connection to its end.
    fn serve(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send + 'static;

    /// Tells a connection why there is no place for it, in bounded time.
    fn turn_away(
        &self,
        connection: Self::Connection,
        why: Fault,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    transport: &'static str,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to serve.
    pub(crate) fn start<L: Listener + Sync>(listener: L, service: Service) -> Self {
        Self {
            transport: L::TRANSPORT,
            task: tokio::spawn(accept_all(listener, service)),
        }
    }

    /// Waits until it has ended, which it does once the service's stage is [`Over`](crate::service::Stage::Over).
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!("the {} server died: {error}", self.transport);
        }
    }
}

async fn accept_all<L: Listener + Sync>(listener: L, service: Service) {
    let limit = service.limits().connections;
    let places = Arc::new(Semaphore::new(limit));
    let refusals = Arc::new(Semaphore::new(L::REFUSALS_MAX));
    let place_of = |places: &Arc<Semaphore>| -> Option<OwnedSemaphorePermit> {
        Arc::clone(places).try_acquire_owned().ok()
    };
    let mut connections = JoinSet::new();
    let mut stage = service.stage();
    loop {
        let accepted = tokio::select! {
            () = over(&mut stage) => break,
            accepted = listener.accept() => accepted,
            // Finished connections are taken out as they end, so that the set holds the open ones only.
            Some(_) = connections.join_next() => continue,
        };
        let connection = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors, most likely. It comes back at once, for as long as that lasts.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Some(place) = place_of(&places) {
            let serving = listener.serve(connection);
            let open = service.instruments().connections(L::TRANSPORT);
            connections.spawn(async move {
                open.inc();
                serving.await;
                open.dec();
                drop(place);
            });
            continue;
        }
        service.instruments().refused(L::TRANSPORT, "too_many");
        if let Some(place) = place_of(&refusals) {
            let why = Fault::new(
                FaultCode::Exhausted,
                format!(
                    "there are {limit} connections, as many as there may be (`api.connections`)"
                ),
            );
            let telling = listener.turn_away(connection, why);
            connections.spawn(async move {
                telling.await;
                drop(place);
            });
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(L::DRAIN_MAX, all_ended).await;
    connections.shutdown().await;
}
