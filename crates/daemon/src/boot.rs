//! Boot: from a valid config to a daemon that is ready, phase by phase.
//!
//! The order is that of what each phase needs: the log before the jobs that are in it, the jobs before the clients that
//! ask for them, all of it before ready. Every phase is measured; a phase that fails ends the boot with what is wrong,
//! and what was begun is undone by being dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::Registry;
use pal::{EventKind, Pal};
use runtime::{Instruments, Limits, Payloads, Recovery, Runtime, RuntimeOptions};
use tools::ToolBox;
use wal::{BlobStore, Log, OsStorage, Storage, SyncPolicy};

use crate::cli::{self, exit};
#[cfg(feature = "_tls")]
use crate::config::TlsSource;
use crate::config::{Config, Environment, Secret, SecretSource, Sync};
use crate::http::{self, AllowedHosts, Health};
use crate::instruments::DaemonInstruments;
use crate::transports::Site;

/// Why a daemon did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The log cannot be opened.
    #[error("cannot open the log: {0}")]
    Log(#[from] wal::OpenError<runtime::RecoverError>),
    /// The log is sound, but says what cannot be.
    #[error("cannot recover from the log: {0}")]
    Recover(#[from] runtime::RecoverError),
    /// The blobs beside the log cannot be reached.
    #[error("cannot open the blobs: {0}")]
    Blobs(#[from] wal::BlobError),
    /// The address for probes and metrics cannot be had.
    #[error("cannot serve HTTP: {0}")]
    Http(#[from] http::BindError),
    /// The address of a transport cannot be had.
    #[cfg(feature = "ipc")]
    #[error("cannot serve ipc: {0}")]
    Ipc(#[from] api::ipc::BindError),
    /// An address of gRPC cannot be had.
    #[cfg(feature = "grpc")]
    #[error("cannot serve grpc: {error}{}", http::held_by(.holder.as_ref()))]
    Grpc {
        /// Why.
        error: api::grpc::BindError,
        /// Who has it, where that can be known.
        holder: Option<http::Holder>,
    },
    /// The address of a2a cannot be had.
    #[cfg(feature = "a2a")]
    #[error("cannot serve a2a: cannot listen on {address}: {source}{}", http::held_by(.holder.as_ref()))]
    A2a {
        /// The address that was asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
        /// Who has it, where that can be known.
        holder: Option<http::Holder>,
    },
    /// An agent that work can be handed to cannot be spoken to.
    #[cfg(feature = "a2a")]
    #[error("cannot speak to agent `{name}`: {why}")]
    Agent {
        /// What the config calls it.
        name: String,
        /// Why.
        why: String,
    },
    /// The certificates of a transport cannot be used.
    #[cfg(feature = "_tls")]
    #[error("cannot serve {section}: {source}")]
    Tls {
        /// The section of the config that names them.
        section: &'static str,
        /// What is wrong with them.
        source: api::tls::TlsError,
    },
    /// A bearer token cannot be had.
    #[error("cannot read the token of `{section}`: {reason}")]
    Token {
        /// The section of the config that names it.
        section: &'static str,
        /// Why.
        reason: String,
    },
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] runtime::RuntimeError),
    /// The system refused something basic.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl BootError {
    /// The exit code that says what kind of thing went wrong.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        use wal::OpenError;
        match self {
            Self::Log(OpenError::Locked { .. }) => exit::LOCKED,
            Self::Log(
                OpenError::Damaged(_) | OpenError::NewerFormat { .. } | OpenError::Visitor { .. },
            )
            | Self::Recover(_) => exit::CORRUPT_LOG,
            Self::Log(OpenError::Invalid { .. }) | Self::Http(_) | Self::Token { .. } => {
                exit::CONFIG
            }
            #[cfg(feature = "_tls")]
            Self::Tls { .. } => exit::CONFIG,
            #[cfg(feature = "grpc")]
            Self::Grpc { .. } => exit::CONFIG,
            #[cfg(feature = "ipc")]
            Self::Ipc(_) => exit::CONFIG,
            #[cfg(feature = "a2a")]
            Self::A2a { .. } | Self::Agent { .. } => exit::CONFIG,
            Self::Log(_) | Self::Blobs(_) => exit::IO,
            Self::Runtime(_) | Self::System { .. } => exit::INTERNAL,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        use wal::OpenError;
        match self {
            Self::Log(OpenError::Locked { dir, .. }) => Some(format!(
                "one data directory serves one daemon; stop the other, or set `node.data_dir` to another than {}",
                dir.parent().unwrap_or(dir).display()
            )),
            Self::Log(OpenError::Damaged(_)) => Some(
                "nothing was changed; `tinkerbell log verify` says what is whole, and a copy of the data directory \
                 from before the damage is the way back"
                    .to_owned(),
            ),
            Self::Log(OpenError::NewerFormat { .. }) => {
                Some("nothing was changed; start the version that wrote it, or a later one".to_owned())
            }
            Self::Log(OpenError::NoSpace(_)) => Some(
                "make room on the disk of `node.data_dir`, or set a smaller `wal.segment_size`".to_owned(),
            ),
            Self::Log(OpenError::Io(_)) | Self::Blobs(_) => {
                Some("`node.data_dir` must be a directory that this user may write to".to_owned())
            }
            Self::Http(error) => Some(error.help()),
            #[cfg(feature = "grpc")]
            Self::Grpc { error, .. } => Some(match error {
                api::grpc::BindError::Tcp { .. } => {
                    "set `grpc.listen` to another address or port, or to port 0 for a free one"
                        .to_owned()
                }
                api::grpc::BindError::Local(_) => {
                    "set `grpc.listen` to a path in a directory of this user's own".to_owned()
                }
            }),
            #[cfg(feature = "_tls")]
            Self::Tls { section, .. } => Some(format!(
                "`{section}.tls_cert_file`, `{section}.tls_key_file` and `{section}.tls_client_ca_file` must be PEM files \
                 that this user may read"
            )),
            #[cfg(feature = "a2a")]
            Self::Agent { .. } => {
                Some("see its `[[a2a.agent]]` in the config".to_owned())
            }
            #[cfg(feature = "a2a")]
            Self::A2a { .. } => Some(
                "set `a2a.listen` to another address, or to port 0 for a free one, or `a2a.enabled` to false".to_owned(),
            ),
            #[cfg(feature = "ipc")]
            Self::Ipc(_) => Some(
                "set `ipc.listen` to a path in a directory of this user's own, or `ipc.enabled` to false".to_owned(),
            ),
            _ => None,
        }
    }
}

/// Where things are below the data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory of this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The log's segments.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }

    /// Payloads too large for the log.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }
}

/// The phases of a boot, measured one after another.
#[derive(Debug)]
pub struct Phases {
    pal: Pal,
    instruments: DaemonInstruments,
    started: Instant,
    last: Instant,
}

impl Phases {
    /// Begins to measure; the process began at `started`.
    #[must_use]
    pub fn new(pal: Pal, instruments: DaemonInstruments, started: Instant) -> Self {
        Self {
            pal,
            instruments,
            started,
            last: started,
        }
    }

    /// Notes that a phase is over.
    pub fn over(&mut self, name: &'static str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        self.instruments.phase(name, took);
        let duration_us = micros(took);
        tracing::info!(phase = name, duration_us, "boot phase over");
        let name = name.to_owned();
        self.pal.publish(
            EventKind::Phase { name, duration_us },
            None,
            unix_ms(),
            None,
        );
    }

    /// How long the boot has taken.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A log that is open, and what it says.
pub struct OpenedLog {
    /// The log.
    pub log: Log,
    /// What it says.
    pub recovery: Recovery,
    /// Where payloads are.
    pub payloads: Arc<Payloads>,
    /// What was found when it was opened.
    pub found: wal::Recovered,
}

/// Opens the log for writing and reads all of it.
///
/// # Errors
///
/// If it is held by another daemon, damaged, of a later version, or cannot be reached.
pub fn open_log(config: &Config) -> Result<OpenedLog, BootError> {
    let data_dir = DataDir::new(&config.node.data_dir);
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let options = wal::Options {
        segment_bytes: config.wal.segment_size.as_u64(),
        sync: match config.wal.sync {
            Sync::Always => SyncPolicy::Always,
            Sync::Interval => SyncPolicy::Interval(config.wal.sync_interval.into()),
            Sync::Never => SyncPolicy::Never,
        },
        ..wal::Options::new(data_dir.wal())
    };
    let mut recovery = Recovery::new();
    let (log, found) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
        recovery.take_in(lsn, bytes)
    })?;
    let recovery = recovery.finish()?;
    let blobs = Arc::new(BlobStore::open(data_dir.blobs(), storage)?);
    let threshold_bytes = config.wal.blob_threshold.as_usize();
    Ok(OpenedLog {
        log,
        recovery,
        payloads: Arc::new(Payloads::new(blobs, threshold_bytes)),
        found,
    })
}

/// Ends what an earlier life of this daemon left running, before any job goes on.
pub fn end_leftovers(opened: &OpenedLog) {
    if opened.found.created || !opened.recovery.may_have_leftovers() {
        return;
    }
    match tools::leftovers::end_all(&opened.log.log_id().to_string()) {
        Ok(report) => {
            if report.ended > 0 {
                tracing::warn!(
                    ended = report.ended,
                    "ended processes that an earlier life left running"
                );
            }
            if !report.survivors.is_empty() {
                tracing::error!(
                    survivors = ?report.survivors,
                    "processes that an earlier life left running could not be ended"
                );
            }
        }
        Err(error) => {
            tracing::error!("cannot look for processes that an earlier life left running: {error}");
        }
    }
}

/// The programs that jobs may be of.
#[must_use]
pub fn programs(steps_max: usize) -> runtime::Programs {
    let programs = reasonact::programs(steps_max);
    #[cfg(feature = "a2a")]
    let programs = programs.with(api::a2a::push::Push);
    programs
}

/// Starts the threads of the runtime, with the tools that carry effects out, which take up the live jobs.
///
/// # Errors
///
/// If a thread cannot be started, or an agent of the config cannot be spoken to for what the config says of it.
pub fn start_runtime(
    config: &Config,
    environment: &Environment,
    opened: OpenedLog,
    site: &Site,
    pal: &Pal,
    registry: &Registry,
) -> Result<Runtime, BootError> {
    let node_id = opened.log.log_id().to_string();
    let mut tools = tools::Options::new(absolute(&config.node.data_dir), node_id);
    tools.output_limit_bytes = config.limits.output_size.as_usize();
    tools.output_limit_max_bytes = tools.output_limit_max_bytes.max(tools.output_limit_bytes);
    tools.grace = config.process.kill_grace.into();
    tools.grace_max = tools.grace_max.max(tools.grace);
    tools.snapshot_limits.bytes = config.process.snapshot_size.as_u64();
    #[cfg(feature = "a2a")]
    {
        tools.agents = read_agents(config, environment)?;
    }
    #[cfg(not(feature = "a2a"))]
    let _ = environment;
    let tools = ToolBox::new(tools, tokio::runtime::Handle::current(), pal.clone());
    let tools = site.add_to(tools);
    if let Err(error) = tools.sweep_snapshots(|job| opened.recovery.is_live(job)) {
        tracing::warn!("snapshots of jobs that are over could not be removed: {error}");
    }
    let storage = OsStorage::new();
    let options = RuntimeOptions {
        limits: limits(config),
        intake_queue: config.limits.intake_queue,
        retention: config.wal.retention.into(),
        long_poll: Some(config.scheduler.long_poll.into()),
        programs: programs(config.limits.steps_per_plan),
        payloads: opened.payloads,
        pal: pal.clone(),
        instruments: Instruments::new(registry),
        entropy: Box::new(move || {
            let mut bytes = [0; 16];
            storage
                .fill_random(&mut bytes)
                .expect("the kernel gives random numbers");
            u128::from_le_bytes(bytes)
        }),
        version: format!("{} {}", cli::VERSION, cli::COMMIT),
    };
    Ok(Runtime::start(options, opened.log, opened.recovery, tools)?)
}

/// The limits of the runtime, as the config has them.
#[must_use]
pub fn limits(config: &Config) -> Limits {
    Limits {
        live_jobs: config.limits.live_jobs,
        running_effects: config.limits.running_effects,
        spec_bytes: config.limits.spec_size.as_usize(),
        finished_jobs: config.limits.finished_jobs_kept,
        turn_polls: config.scheduler.turn_polls as u64,
    }
}

/// What HTTP is served with.
pub struct HttpServer {
    /// The names by which it may be addressed; a reload changes them.
    pub allowed_hosts: AllowedHosts,
    /// The address it really listens on.
    pub address: std::net::SocketAddr,
    /// Ends it.
    pub stop: tokio::sync::oneshot::Sender<()>,
    /// Its task.
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// Begins to serve probes and metrics, if the config wants them.
///
/// # Errors
///
/// If the address cannot be had, or the token cannot be read.
pub fn serve_http(
    config: &Config,
    environment: &Environment,
    health: &Health,
    registry: &Registry,
) -> Result<Option<HttpServer>, BootError> {
    if !config.http.enabled {
        return Ok(None);
    }
    let token = read_token("http", config.http.token(), environment)?;
    let listener = http::bind(config.http.listen)?;
    let address = listener.local_addr().unwrap_or(config.http.listen);
    let allowed_hosts = AllowedHosts::new(&config.http.allowed_hosts);
    let registry = registry.clone();
    let site = http::Site {
        health: health.clone(),
        metrics: Arc::new(move |accept| {
            let format = accept.map_or(metrics::Format::default(), metrics::Format::negotiate);
            (format.content_type().to_owned(), registry.render(format))
        }),
        allowed_hosts: allowed_hosts.clone(),
        token,
        version: cli::VERSION.to_owned(),
        max_connections: config.http.max_connections,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(http::serve(listener, site, async {
        let _ = stopped.await;
    }));
    Ok(Some(HttpServer {
        allowed_hosts,
        address,
        stop,
        task,
    }))
}

/// The bearer token that a section of the config names, if it does.
///
/// # Errors
///
/// If it is not there.
pub fn read_token(
    section: &'static str,
    source: Option<SecretSource>,
    environment: &Environment,
) -> Result<Option<Secret>, BootError> {
    let read = source.map(|source| source.read(environment)).transpose();
    read.map_err(|reason| BootError::Token { section, reason })
}

/// Reads the certificates of a section of the config, if it names any. `protocols` are what its transport speaks.
///
/// # Errors
///
/// What is wrong with them.
#[cfg(feature = "_tls")]
pub fn read_tls(
    section: &'static str,
    source: Option<TlsSource<'_>>,
    protocols: &[&str],
) -> Result<Option<api::tls::Tls>, BootError> {
    let read = |source: TlsSource<'_>| {
        let files = api::tls::TlsFiles {
            certificate: source.certificate,
            key: source.key,
            client_ca: source.client_ca,
        };
        api::tls::Tls::from_files(files, protocols)
    };
    let read = source.map(read).transpose();
    read.map_err(|source| BootError::Tls { section, source })
}

/// Who has an address, if that is why it cannot be had and the kernel tells.
#[cfg(feature = "_tls")]
pub(crate) fn holder_of(
    address: std::net::SocketAddr,
    error: &std::io::Error,
) -> Option<http::Holder> {
    let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
    is_taken.then(|| http::holder(address)).flatten()
}

/// The agents that work can be handed to, with their tokens.
#[cfg(feature = "a2a")]
fn read_agents(
    config: &Config,
    environment: &Environment,
) -> Result<tools::remote::Agents, BootError> {
    let mut agents = Vec::new();
    for agent in &config.a2a_agents {
        let failed = |why: String| BootError::Agent {
            name: agent.name.clone(),
            why,
        };
        let token = agent.token.as_ref();
        let token = token.map(|source| source.read(environment)).transpose();
        let token = token.map_err(|why| failed(format!("its token: {why}")))?;
        let ca_pem = agent.ca_file.as_ref().map(std::fs::read).transpose();
        let ca_pem = ca_pem.map_err(|error| failed(format!("its `ca_file`: {error}")))?;
        let remote = tools::remote::RemoteAgent {
            url: agent.url.as_str().to_owned(),
            token: token.map(|token| token.expose().to_owned()),
            ca_pem,
        };
        agents.push((agent.name.clone(), remote));
    }
    tools::remote::Agents::new(agents).map_err(|error| BootError::Agent {
        name: error.name().to_owned(),
        why: error.what().to_owned(),
    })
}

/// A path that no longer depends on the working directory.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
