//! A daemon that runs: what it does until somebody wants it to stop, and how it stops.
//!
//! One loop, on the I/O thread, over everything that can happen to the process as a whole: signals, a changed config
//! file, the state of the log, the start-up jobs, the end of all work, the watchdog. None of it touches a job by
//! itself; jobs are the runtime's matter.

use std::time::{Duration, Instant};

use metrics::Registry;
use pal::{EventKind, Pal};
use runtime::{Idleness, JobError, Jobs, LogState, Runtime, RuntimeError, Shutdown, Stopped};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::boot::{self, BootError, HttpServer, Phases, unix_ms};
use crate::cli::exit;
use crate::config::{Changes, Config, LoadOptions, Loaded, diff};
use crate::http::{Check, Health};
use crate::instruments::DaemonInstruments;
use crate::logging::LogHandle;
use crate::sd_notify::Notifier;
use crate::signal::{Signal, Signals};
use crate::startup::StartedJob;
use crate::transports::{Asked, Transports};
use crate::watch::FileWatch;
use crate::{startup, transports};

/// What a daemon is made from.
pub struct Settings {
    /// The config, valid.
    pub loaded: Loaded,
    /// How it was made, for the next time.
    pub load_options: LoadOptions,
    /// The log's filter.
    pub log: LogHandle,
    /// Where activity goes.
    pub pal: Pal,
    /// When the process began.
    pub started: Instant,
    /// Whether to serve HTTP, if the config says so: a job in the foreground does not.
    pub with_http: bool,
}

/// Why a daemon stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A signal asked for it.
    Signal(i32),
    /// Nothing is left to do, and the config, or a client, says to exit then.
    Idle(Idleness),
    /// A client asked for it.
    Asked {
        /// Who.
        by: String,
    },
    /// The one job of a foreground run is over.
    JobOver,
    /// The runtime has ended by itself.
    RuntimeEnded,
}

/// A daemon that runs. There is none that does not: [`init`] makes it, [`shutdown`](Self::shutdown) takes it.
pub struct Running {
    config: Config,
    load_options: LoadOptions,
    log: LogHandle,
    pal: Pal,
    runtime: Runtime,
    http: Option<HttpServer>,
    health: Health,
    checks: Checks,
    instruments: DaemonInstruments,
    notifier: Notifier,
    phases: Option<Phases>,
    startup: Option<JoinHandle<Vec<StartedJob>>>,
    started_jobs: Vec<StartedJob>,
    first_lsn: wal::Lsn,
    log_state: watch::Receiver<LogState>,
    file_watch: Option<FileWatch>,
    transports: Option<Transports>,
    /// Whether to stop as soon as nothing is left to do.
    stop_when_idle: bool,
}

struct Checks {
    boot: Check,
    wal: Check,
    config: Check,
}

/// Boots a daemon: everything up to submitting the start-up jobs, which goes on while it runs. It is ready when they
/// are taken in.
///
/// # Errors
///
/// The first phase that failed, and why.
pub async fn init(settings: Settings) -> Result<Running, BootError> {
    let Settings {
        loaded,
        load_options,
        log,
        pal,
        started,
        with_http,
    } = settings;
    let config = loaded.config;
    let registry = Registry::new();
    let instruments = DaemonInstruments::new(&registry);
    let mut phases = Phases::new(pal.clone(), instruments.clone(), started);
    phases.over("config");

    let health = Health::new();
    let checks = Checks {
        boot: health.check("boot"),
        wal: health.check("wal"),
        config: health.check("config"),
    };
    checks.config.ok();

    let opened = boot::open_log(&config)?;
    phases.over("wal");
    if let Some(torn) = &opened.found.torn {
        tracing::info!(
            file = %torn.file.display(),
            offset = torn.offset,
            bytes = torn.bytes,
            "dropped what a crash had left unfinished at the log's end; it was never acknowledged"
        );
    }
    let site = transports::Site::of(&config, &opened);
    let first_lsn = opened.log.next_lsn();
    let (live, finished) = (opened.recovery.live_jobs(), opened.recovery.finished_jobs());
    boot::end_leftovers(&opened);
    phases.over("leftovers");

    let runtime = {
        let environment = &load_options.environment;
        boot::start_runtime(&config, environment, opened, &site, &pal, &registry)?
    };
    instruments.watch(runtime.log_stats(), &pal);
    checks.wal.ok();
    phases.over("jobs");
    if live + finished > 0 {
        tracing::info!(live, finished, "recovered jobs from the log");
    }

    let http = match with_http {
        true => boot::serve_http(&config, &load_options.environment, &health, &registry)?,
        false => None,
    };
    if let Some(http) = &http {
        tracing::info!(address = %http.address, "serving probes and metrics");
    }
    phases.over("http");

    let transports = match with_http {
        true => {
            let environment = &load_options.environment;
            transports::serve(&config, environment, site, &runtime, &pal, &registry).await?
        }
        false => None,
    };
    if transports.is_some() {
        phases.over("transports");
    }

    let notifier = Notifier::from_environment(&load_options.environment).unwrap_or_else(|error| {
        tracing::warn!("cannot reach the service manager: {error}");
        Notifier::default()
    });
    let file_watch = watch_config(&config, &load_options);
    let jobs = runtime.jobs().clone();
    let startup_jobs = config.jobs.clone();
    let stop_when_idle = config.node.exit_when_idle;
    let startup = tokio::spawn(async move { startup::submit_all(&jobs, &startup_jobs).await });
    Ok(Running {
        log_state: runtime.log_state(),
        config,
        load_options,
        log,
        pal,
        runtime,
        http,
        health,
        checks,
        instruments,
        notifier,
        phases: Some(phases),
        startup: Some(startup),
        started_jobs: Vec::new(),
        first_lsn,
        file_watch,
        transports,
        stop_when_idle,
    })
}

fn watch_config(config: &Config, options: &LoadOptions) -> Option<FileWatch> {
    let path = options.path.as_deref().filter(|_| config.watch.config)?;
    match FileWatch::new(path) {
        Ok(watch) => Some(watch),
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                "cannot watch the config file, so that only SIGHUP reloads it: {error}"
            );
            None
        }
    }
}

/// How a reload went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose new values are in force now.
    pub applied: Vec<String>,
    /// The keys whose new values wait for a restart.
    pub needs_restart: Vec<String>,
    /// What is wrong with the config, if it is; then the one before stays in force.
    pub error: Option<String>,
}

/// What the loop woke up for.
enum Happened {
    Signal(Signal),
    FileChanged(std::io::Result<crate::watch::Change>),
    LogState(bool),
    Started(Result<Vec<StartedJob>, tokio::task::JoinError>),
    Idle(Result<Idleness, JobError>),
    WatchdogDue,
    Asked(Asked),
}

impl Running {
    /// The handle to the jobs.
    #[must_use]
    pub fn jobs(&self) -> &Jobs {
        self.runtime.jobs()
    }

    /// Where probes and metrics are served; `None` if they are not.
    #[must_use]
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.http.as_ref().map(|server| server.address)
    }

    /// What became of the start-up jobs; empty until the daemon is ready.
    #[must_use]
    pub fn started_jobs(&self) -> &[StartedJob] {
        &self.started_jobs
    }

    /// The first position in the log that this life of the daemon writes to: what stands before it was there.
    #[must_use]
    pub fn first_lsn(&self) -> wal::Lsn {
        self.first_lsn
    }

    /// The config in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Does what a daemon does, until there is a reason to stop.
    pub async fn until_stopped(&mut self, signals: &mut Signals) -> StopReason {
        let mut watchdog = self
            .notifier
            .watchdog_interval()
            .map(|interval| tokio::time::interval(interval.max(Duration::from_millis(10))));
        let jobs = self.jobs().clone();
        let mut idle = None;
        loop {
            if self.startup.is_none() && self.stop_when_idle && idle.is_none() {
                let jobs = jobs.clone();
                idle = Some(Box::pin(async move { jobs.when_idle().await }));
            }
            let happened = tokio::select! {
                biased;
                signal = signals.next() => Happened::Signal(signal),
                changed = self.log_state.changed() => Happened::LogState(changed.is_ok()),
                started = or_never(self.startup.as_mut()) => Happened::Started(started),
                change = or_never(self.file_watch.as_mut().map(|watch| Box::pin(watch.changed()))) => {
                    Happened::FileChanged(change)
                }
                asked = or_never(self.transports.as_mut().map(|transports| Box::pin(transports.asked()))) => {
                    Happened::Asked(asked)
                }
                idleness = or_never(idle.as_mut()) => Happened::Idle(idleness),
                _ = or_never(watchdog.as_mut().map(|watchdog| Box::pin(watchdog.tick()))) => {
                    Happened::WatchdogDue
                }
            };
            match happened {
                Happened::Signal(Signal::Terminate { number }) => {
                    return StopReason::Signal(number);
                }
                Happened::Signal(Signal::Reload) => {
                    self.reload("SIGHUP");
                }
                Happened::Signal(Signal::Dump) => self.dump().await,
                Happened::Signal(Signal::Restart) => {
                    tracing::warn!("SIGUSR2: this build cannot restart in place; nothing was done");
                }
                Happened::FileChanged(Ok(crate::watch::Change::Written)) => {
                    self.reload("the config file has changed");
                }
                Happened::FileChanged(Ok(crate::watch::Change::Gone)) => {
                    tracing::warn!("the config file is gone; the config in force stays");
                }
                Happened::FileChanged(Err(error)) => {
                    tracing::error!(
                        "cannot watch the config file any more, only SIGHUP reloads it now: {error}"
                    );
                    self.file_watch = None;
                }
                Happened::LogState(true) => self.log_state_changed(),
                Happened::LogState(false) => return StopReason::RuntimeEnded,
                Happened::Started(started) => {
                    self.startup = None;
                    self.started_jobs = started.unwrap_or_else(|error| {
                        tracing::error!("start-up jobs could not be submitted: {error}");
                        Vec::new()
                    });
                    self.ready();
                }
                Happened::Idle(Ok(idleness)) => return StopReason::Idle(idleness),
                Happened::Idle(Err(JobError::Busy { .. })) => idle = None,
                Happened::Idle(Err(_)) => return StopReason::RuntimeEnded,
                Happened::WatchdogDue => self.feed_watchdog().await,
                Happened::Asked(asked) => {
                    if let Some(reason) = self.serve_node(asked) {
                        return reason;
                    }
                }
            }
        }
    }

    /// Does what a client asks of the process; gives the reason to stop, if it is that.
    fn serve_node(&mut self, asked: Asked) -> Option<StopReason> {
        match asked {
            Asked::Reload { answer } => answer(self.reload("a client asked for it")),
            Asked::Drain { by, stop, answer } => {
                tracing::info!(stop, "draining: {by} asked for it");
                self.health.drain(format!("{by} asked for it"));
                self.stop_when_idle |= stop;
                if let Some(transports) = &self.transports {
                    transports.drain();
                }
                answer();
            }
            Asked::Shutdown { by, answer } => {
                answer();
                return Some(StopReason::Asked { by });
            }
        }
        None
    }

    fn ready(&mut self) {
        let Some(mut phases) = self.phases.take() else {
            return;
        };
        phases.over("startup_jobs");
        let total = phases.total();
        self.checks.boot.ok();
        self.instruments.ready(total);
        let duration_us = boot::micros(total);
        let address = self.http.as_ref().map(|http| http.address.to_string());
        tracing::info!(
            duration_us,
            http = address.as_deref().unwrap_or("off"),
            data_dir = %boot::absolute(&self.config.node.data_dir).display(),
            "ready"
        );
        self.publish(EventKind::Ready { duration_us });
        self.notifier.ready("ready");
    }

    fn publish(&self, kind: EventKind) {
        self.pal.publish(kind, None, unix_ms(), None);
    }

    /// Waits until the state of the log changes, and says how. False if the runtime has ended. Dropping the future loses
    /// nothing.
    pub async fn log_state_watched(&mut self) -> bool {
        let is_there = self.log_state.changed().await.is_ok();
        if is_there {
            self.log_state_changed();
        }
        is_there
    }

    fn log_state_changed(&mut self) {
        let state = self.log_state.borrow_and_update().clone();
        match state {
            LogState::Ok => self.checks.wal.ok(),
            LogState::SpaceLow => {
                tracing::error!(
                    "no space for another log segment: no more jobs are taken in until there is"
                );
                self.checks.wal.failed(
                    "no space for another segment; running jobs go on, new ones are refused",
                );
            }
            LogState::Stalled { reason } => {
                tracing::error!("log waits for space: {reason}");
                self.checks
                    .wal
                    .failed(format!("waiting for space: {reason}"));
            }
            LogState::Failed { reason } => {
                tracing::error!("log has failed: {reason}");
                self.checks.wal.failed(reason);
            }
        }
    }

    /// Proves that the engine still turns, and only then tells the service manager so.
    async fn feed_watchdog(&self) {
        let nobody = runtime::JobId::from_parts(0, 0);
        let answered = tokio::time::timeout(Duration::from_secs(1), self.jobs().get(nobody)).await;
        if matches!(answered, Ok(Ok(_))) {
            self.notifier.watchdog();
        }
    }

    async fn dump(&self) {
        match self.jobs().dump().await {
            Ok(dump) => tracing::info!("state of scheduler, jobs and log:\n{dump}"),
            Err(error) => tracing::error!("state could not be had: {error}"),
        }
    }

    /// Reads the config again. A bad one changes nothing but what is said about it.
    fn reload(&mut self, why: &str) -> Reloaded {
        self.notifier.reloading();
        let reloaded = match Config::load(&self.load_options) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    tracing::warn!("{}", warning.to_string());
                }
                let changes = diff(&self.config, &loaded.config);
                self.apply(&loaded.config, &changes);
                self.checks.config.ok();
                self.instruments.reloaded(true);
                tracing::info!(
                    applied = changes.hot.join(", "),
                    needs_restart = changes.cold.join(", "),
                    "config reloaded ({why})"
                );
                if !changes.cold.is_empty() {
                    tracing::warn!(
                        "changed, but only a restart applies it: {}",
                        changes.cold.join(", ")
                    );
                }
                let named = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
                let reloaded = Reloaded {
                    applied: named(&changes.hot),
                    needs_restart: named(&changes.cold),
                    error: None,
                };
                self.publish(EventKind::ConfigReloaded {
                    applied: reloaded.applied.clone(),
                    needs_restart: reloaded.needs_restart.clone(),
                });
                reloaded
            }
            Err(errors) => {
                let error = errors.one_line();
                tracing::error!("config not reloaded ({why}), the one in force stays: {error}");
                self.checks
                    .config
                    .degraded(format!("the last reload was rejected: {error}"));
                self.instruments.reloaded(false);
                self.publish(EventKind::ConfigRejected {
                    error: error.clone(),
                });
                Reloaded {
                    error: Some(error),
                    ..Reloaded::default()
                }
            }
        };
        self.notifier.ready("ready");
        reloaded
    }

    /// Takes the hot keys of a new config over.
    fn apply(&mut self, new: &Config, changes: &Changes) {
        for key in &changes.hot {
            match *key {
                "log.filter" => {
                    self.config.log.filter = new.log.filter.clone();
                    self.log.set_filter(&self.config.log.filter);
                }
                "wal.retention" => {
                    self.config.wal.retention = new.wal.retention;
                    self.jobs().set_retention(self.config.wal.retention.into());
                }
                "http.allowed_hosts" => {
                    self.config.http.allowed_hosts = new.http.allowed_hosts.clone();
                    if let Some(http) = &self.http {
                        http.allowed_hosts.set(&self.config.http.allowed_hosts);
                    }
                }
                "limits.running_effects" => {
                    self.config.limits.running_effects = new.limits.running_effects;
                    self.jobs().set_limits(boot::limits(&self.config));
                }
                "shutdown.grace" => self.config.shutdown.grace = new.shutdown.grace,
                other => unreachable!("`{other}` is declared hot, and nothing applies it"),
            }
        }
    }

    /// Stops: not ready first, no more work, effects brought to an end, the log flushed, and at last HTTP. A second
    /// signal meanwhile ends the process at once.
    ///
    /// # Errors
    ///
    /// If the log failed on the way.
    pub async fn shutdown(
        self,
        reason: StopReason,
        signals: &mut Signals,
    ) -> Result<Stopped, RuntimeError> {
        let why = match &reason {
            StopReason::Signal(number) => format!("signal {number}"),
            StopReason::Idle(_) => "nothing is left to do".to_owned(),
            StopReason::JobOver => "the job is over".to_owned(),
            StopReason::Asked { by } => format!("{by} asked for it"),
            StopReason::RuntimeEnded => "the runtime has ended".to_owned(),
        };
        self.health.drain(why.clone());
        if let Some(transports) = &self.transports {
            transports.stop();
        }
        self.notifier.stopping(&why);
        tracing::info!("stopping: {why}");
        self.publish(EventKind::Draining { reason: why });
        if let Some(startup) = &self.startup {
            startup.abort();
        }
        let grace: Duration = self.config.shutdown.grace.into();
        let mut how = how_to_stop(grace, self.config.process.kill_grace.into());
        if reason == StopReason::JobOver {
            // What else runs here is only a guest, and goes on with the next daemon.
            how.finish_within = Duration::ZERO;
        }
        self.jobs().shutdown(how);
        let joined = tokio::task::spawn_blocking(move || self.runtime.join());
        let ended = tokio::select! {
            ended = joined => ended,
            number = next_terminate(signals) => {
                tracing::warn!("second signal: ending at once");
                std::process::exit(i32::from(exit::forced_by(number)));
            }
        };
        let ended = ended.unwrap_or_else(|error| {
            Err(RuntimeError::Thread {
                thread: "engine",
                what: format!("could not be joined: {error}"),
            })
        });
        self.pal.publish(EventKind::Stopped, None, unix_ms(), None);
        if let Some(transports) = self.transports {
            transports.end().await;
        }
        if let Some(http) = self.http {
            let _ = http.stop.send(());
            let _ = http.task.await;
        }
        ended
    }
}

/// How the grace is divided: half of it for effects to end by themselves, if that leaves enough to end the others and
/// to write down what became of them.
fn how_to_stop(grace: Duration, kill_grace: Duration) -> Shutdown {
    /// For collecting what was killed, and the last entries.
    const CLEAN_UP: Duration = Duration::from_millis(500);
    Shutdown {
        finish_within: (grace / 2).min(grace.saturating_sub(kill_grace + CLEAN_UP)),
        give_up_after: grace,
    }
}

async fn next_terminate(signals: &mut Signals) -> i32 {
    loop {
        if let Signal::Terminate { number } = signals.next().await {
            return number;
        }
    }
}

/// Waits for a future that may not be there.
pub(crate) async fn or_never<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
