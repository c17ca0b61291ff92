//! A build with transports.

use std::sync::Arc;

use api::node::{NodeIdentity, Reload};
use api::service::Stage;
use api::{Instruments, Limits, NodeControl, NodeRequest, Service};
use metrics::Registry;
use pal::Pal;
use runtime::{History, Runtime};
use tokio::sync::mpsc;
use tools::ToolBox;
use wal::OsStorage;

use super::Asked;
#[cfg(any(feature = "ipc", feature = "grpc"))]
use crate::boot;
use crate::boot::{BootError, DataDir, OpenedLog, unix_ms};
use crate::cli;
use crate::config::{Config, Environment};
use crate::running::Reloaded;

/// What transports are made from that is known before the log goes to the runtime.
pub struct Site {
    history: History,
    identity: NodeIdentity,
    /// Who sends push notifications.
    #[cfg(feature = "a2a")]
    pusher: api::a2a::push::Pusher,
}

impl Site {
    /// The history in a log that has just been opened, and who the process is.
    #[must_use]
    pub fn of(config: &Config, opened: &OpenedLog) -> Self {
        let dir = DataDir::new(&config.node.data_dir).wal();
        let payloads = Arc::clone(&opened.payloads);
        Self {
            history: History::new(dir, Arc::new(OsStorage::new()), payloads),
            identity: NodeIdentity {
                name: config.node.name.as_str().to_owned(),
                version: cli::VERSION.to_owned(),
                commit: cli::COMMIT.to_owned(),
                features: cli::FEATURES
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                started_ms: unix_ms(),
                log_id: opened.log.log_id().to_string(),
            },
            #[cfg(feature = "a2a")]
            pusher: super::a2a::pusher(config),
        }
    }

    /// Adds the effects that transports carry out.
    #[must_use]
    pub fn add_to(&self, tools: ToolBox) -> ToolBox {
        #[cfg(feature = "a2a")]
        let tools = super::a2a::add_to(tools, &self.pusher);
        tools
    }
}

/// The transports at work.
pub struct Transports {
    service: Service,
    asked: mpsc::Receiver<NodeRequest>,
    #[cfg(feature = "ipc")]
    ipc: Vec<api::ipc::Server>,
    #[cfg(feature = "grpc")]
    grpc: Vec<api::grpc::Server>,
    #[cfg(feature = "a2a")]
    a2a: Option<api::a2a::Server>,
}

/// Begins to serve what the config says.
///
/// # Errors
///
/// If an address cannot be had.
pub async fn serve(
    config: &Config,
    environment: &Environment,
    site: Site,
    runtime: &Runtime,
    pal: &Pal,
    registry: &Registry,
) -> Result<Option<Transports>, BootError> {
    let (node, asked) = NodeControl::new();
    let service = Service::new(api::service::Options {
        jobs: runtime.jobs().clone(),
        pal: pal.clone(),
        history: site.history,
        node,
        identity: site.identity,
        limits: Limits {
            message_bytes: config.api.message_size.as_usize(),
            connections: config.api.connections,
            requests: config.api.requests,
            streams: config.api.streams,
            streams_per_client: config.api.streams_per_client,
            stall: config.api.stall.into(),
        },
        instruments: Instruments::new(registry),
    });
    super::warn_of_absent_features(config);
    #[cfg(feature = "a2a")]
    site.pusher.bind(service.clone());
    #[cfg(not(feature = "_tls"))]
    let _ = environment;
    Ok(Some(Transports {
        #[cfg(feature = "ipc")]
        ipc: ipc(config, &service).await?,
        #[cfg(feature = "grpc")]
        grpc: grpc(config, environment, &service).await?,
        #[cfg(feature = "a2a")]
        a2a: super::a2a::serve(config, environment, &site.pusher, &service)?,
        service,
        asked,
    }))
}

#[cfg(feature = "ipc")]
async fn ipc(config: &Config, service: &Service) -> Result<Vec<api::ipc::Server>, BootError> {
    let mut servers = Vec::new();
    if !config.ipc.enabled {
        return Ok(servers);
    }
    let access = api::ipc::Access {
        uids: config.ipc.allowed_uids.clone(),
    };
    for address in ipc_addresses(config) {
        let bound = api::ipc::bind(&address).await?;
        tracing::info!(%address, "serving ipc");
        servers.push(api::ipc::serve(bound, access.clone(), service.clone()));
    }
    Ok(servers)
}

#[cfg(feature = "grpc")]
async fn grpc(
    config: &Config,
    environment: &Environment,
    service: &Service,
) -> Result<Vec<api::grpc::Server>, BootError> {
    use api::grpc::{Access, Address, BindError, KeepAlive, TokenCheck};

    let config = &config.grpc;
    let mut servers = Vec::new();
    if config.listen.is_empty() {
        return Ok(servers);
    }
    let token = boot::read_token("grpc", config.token(), environment)?;
    let tls = boot::read_tls("grpc", config.tls(), api::grpc::PROTOCOLS)?;
    let access = Access {
        uids: config.allowed_uids.clone(),
        token: token.map(|token| TokenCheck::new(move |given| token.matches(given))),
        tls,
        keep_alive: KeepAlive {
            interval: config.keepalive_interval.into(),
            timeout: config.keepalive_timeout.into(),
        },
    };
    for address in &config.listen {
        let Ok(address) = address.to_string().parse::<Address>() else {
            continue;
        };
        let bound = api::grpc::bind(&address).await;
        let (bound, address) = bound.map_err(|error| {
            let holder = match &error {
                BindError::Tcp { address, source } => boot::holder_of(*address, source),
                BindError::Local(_) => None,
            };
            BootError::Grpc { error, holder }
        })?;
        let with_tls = access.tls.is_some() && matches!(address, Address::Tcp(_));
        tracing::info!(%address, tls = with_tls, "serving grpc");
        servers.push(api::grpc::serve(bound, access.clone(), service.clone()));
    }
    Ok(servers)
}

/// Where ipc is served.
#[cfg(feature = "ipc")]
#[must_use]
pub fn ipc_addresses(config: &Config) -> Vec<api::ipc::Address> {
    if config.ipc.listen.is_empty() {
        let socket = boot::absolute(&config.node.data_dir).join("ipc.sock");
        return vec![api::ipc::Address::Unix(socket)];
    }
    let listen = config.ipc.listen.iter();
    listen
        .filter_map(|address| address.as_str().parse().ok())
        .collect()
}

impl Transports {
    /// What a client asks of the process. Dropping the future loses nothing.
    pub async fn asked(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(NodeRequest::Reload(reply)) => Asked::Reload {
                answer: Box::new(move |reloaded: Reloaded| {
                    let _ = reply.send(Reload {
                        accepted: reloaded.error.is_none(),
                        applied: reloaded.applied,
                        needs_restart: reloaded.needs_restart,
                        error: reloaded.error,
                    });
                }),
            },
            Some(NodeRequest::Drain { by, stop, reply }) => Asked::Drain {
                by,
                stop,
                answer: Box::new(move || {
                    let _ = reply.send(());
                }),
            },
            Some(NodeRequest::Shutdown { by, reply }) => Asked::Shutdown {
                by,
                answer: Box::new(move || {
                    let _ = reply.send(());
                }),
            },
            // The service holds the other end for as long as this is here.
            None => std::future::pending().await,
        }
    }

    /// Takes in no more jobs; everything else goes on.
    pub fn drain(&self) {
        self.service.advance(Stage::Draining);
    }

    /// Takes in nothing more; streams go on, to show how the daemon ends.
    pub fn stop(&self) {
        self.service.advance(Stage::Stopping);
    }

    /// Ends all streams and connections, in bounded time.
    pub async fn end(self) {
        self.service.advance(Stage::Over);
        #[cfg(feature = "ipc")]
        for server in self.ipc {
            server.ended().await;
        }
        #[cfg(feature = "grpc")]
        for server in self.grpc {
            server.ended().await;
        }
        #[cfg(feature = "a2a")]
        if let Some(server) = self.a2a {
            server.ended().await;
        }
    }
}
