//! The tinkerbell process: command line, config, signals, boot, shutdown, HTTP probes.
//!
//! This crate wires the others together and knows the insides of none of them. Its story:
//!
//! 1. [`main`] reads the command line and does what it says; without a command it runs the daemon.
//! 2. [`config`] is read and checked whole, or refused whole.
//! 3. [`init`] boots, phase by phase ([`boot`]): the log and what it says, the jobs that are in it, HTTP. It gives a
//!    [`Running`] daemon; there is no other kind.
//! 4. [`Running::until_stopped`] is the loop over signals, reloads and the state of the log ([`running`]).
//! 5. [`Running::shutdown`] takes the daemon and ends it, in bounded time.

pub mod boot;
pub mod cli;
#[cfg(feature = "ipc")]
mod client;
pub mod config;
pub mod console;
pub mod foreground;
pub mod http;
pub mod inspect;
pub mod instruments;
pub mod logging;
pub mod neutral;
pub mod running;
pub mod sd_notify;
pub mod signal;
pub mod startup;
pub mod summary;
pub mod transports;
pub mod watch;

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use pal::Pal;
use pal::render::Style;
use runtime::{RuntimeError, Stopped};

use crate::cli::{
    Cli, Command, ConfigCommand, GlobalArgs, JobCommand, JobRunArgs, LogCommand, exit,
};
use crate::config::{Config, Environment, Job, LoadOptions, Loaded, ShowActivity};
use crate::console::{Console, ConsoleForm};
use crate::foreground::ForegroundError;
use crate::inspect::{InspectError, LogView};
use crate::logging::{LogOptions, wants_colour};
use crate::running::Settings;
pub use crate::running::{Running, StopReason, init};
use crate::signal::Signals;

/// Does what a command line says, and gives the exit code.
#[must_use]
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let started = Instant::now();
    let cli = match Cli::parse_from_args(args) {
        Ok(cli) => cli,
        Err(quit) => {
            // Nobody is left to tell if this cannot be written.
            let _ = quit.print();
            return quit.code();
        }
    };
    let environment = Environment::of_process();
    let (out, err) = (&mut io::stdout(), &mut io::stderr());
    let done = match cli.command {
        None => return run_daemon(&cli.global, environment, started),
        Some(Command::Job(JobCommand::Run(args))) => {
            return run_job(&cli.global, &args, environment, started);
        }
        #[cfg(feature = "ipc")]
        Some(Command::Job(command)) => return client::job(&cli.global, &environment, command),
        #[cfg(feature = "ipc")]
        Some(Command::Node(command)) => return client::node(&cli.global, &environment, command),
        #[cfg(feature = "ipc")]
        Some(Command::Context(command)) => {
            return client::context(&cli.global, &environment, command);
        }
        Some(Command::Config(ConfigCommand::Check { offline })) => {
            cli::check_config(&cli.global.load_options(environment, offline), out, err)
        }
        Some(Command::Config(ConfigCommand::Show { json })) => {
            cli::show_config(&cli.global.load_options(environment, true), json, out, err)
        }
        Some(Command::Log(command)) => {
            return look(&cli.global, environment, |config| log(config, command));
        }
        Some(Command::Replay(args)) => {
            return look(&cli.global, environment, |config| replay(config, &args));
        }
        Some(Command::Health(args)) => return health(&cli.global, environment, &args),
        Some(Command::Completions { shell }) => {
            cli::write_completions(shell, out);
            Ok(exit::OK)
        }
        Some(Command::Man) => cli::write_man_page(out).map(|()| exit::OK),
    };
    done.unwrap_or_else(|error| cannot_write(&error))
}

/// Output that nobody reads any more is no error of ours: `tinkerbell log cat | head` ends well.
fn cannot_write(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return exit::OK;
    }
    complain(&format!("cannot write: {error}"), None);
    exit::IO
}

/// Says what went wrong and what can be done about it, in the form of all our errors.
fn complain(error: &str, help: Option<&str>) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "error: {error}");
    if let Some(help) = help {
        let _ = writeln!(err, "  help: {help}");
    }
}

fn load(options: &LoadOptions) -> Result<Loaded, u8> {
    Config::load(options)
        .inspect(|loaded| {
            for warning in &loaded.warnings {
                let _ = writeln!(io::stderr(), "{warning}");
            }
        })
        .map_err(|errors| {
            let _ = cli::write_errors(&errors, "the config", &mut io::stderr());
            exit::CONFIG
        })
}

/// Gets everything ready that a daemon needs around it, and runs `body` on the I/O runtime.
fn with_surroundings<F: Future<Output = u8>>(
    global: &GlobalArgs,
    environment: Environment,
    started: Instant,
    with_http: bool,
    body: impl FnOnce(Settings, Signals, Style) -> F,
) -> u8 {
    let load_options = global.load_options(environment, false);
    let loaded = match load(&load_options) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let colour =
        |on_terminal| wants_colour(on_terminal, &load_options.environment, global.no_color);
    let log = logging::init(&LogOptions {
        filter: loaded.config.log.filter.clone(),
        format: loaded.config.log.format,
        colour: colour(io::stderr().is_terminal()),
    });
    let log = match log {
        Ok(log) => log,
        Err(error) => {
            complain(&format!("cannot log: {error}"), None);
            return exit::INTERNAL;
        }
    };
    let io_runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(io_runtime) => io_runtime,
        Err(error) => {
            complain(&format!("cannot start the I/O runtime: {error}"), None);
            return exit::INTERNAL;
        }
    };
    let style = Style {
        colour: colour(io::stdout().is_terminal()),
        ..Style::default()
    };
    let activity = &loaded.config.activity;
    let pal = Pal::new(activity.capacity, activity.capacity_size.as_usize());
    let settings = Settings {
        loaded,
        load_options,
        log,
        pal,
        started,
        with_http,
    };
    let code = io_runtime.block_on(async {
        // Before anything that takes time: a signal during the boot is served when the boot is over, not lost.
        match Signals::listen() {
            Ok(signals) => body(settings, signals, style).await,
            Err(error) => {
                complain(&format!("cannot listen for signals: {error}"), None);
                exit::INTERNAL
            }
        }
    });
    // A handler that waits for the disk for ever must not keep the process.
    io_runtime.shutdown_background();
    code
}

fn run_daemon(global: &GlobalArgs, environment: Environment, started: Instant) -> u8 {
    with_surroundings(global, environment, started, true, daemon)
}

async fn daemon(settings: Settings, mut signals: Signals, style: Style) -> u8 {
    let show = match settings.loaded.config.activity.show {
        ShowActivity::Always => true,
        ShowActivity::Never => false,
        ShowActivity::Auto => io::stdout().is_terminal(),
    };
    let pal = settings.pal.clone();
    let console = match show.then(|| Console::start(&pal, None, ConsoleForm::Lines(style))) {
        Some(Ok(console)) => Some(console),
        Some(Err(error)) => {
            tracing::warn!("cannot show the activity: {error}");
            None
        }
        None => None,
    };
    let mut daemon = match init(settings).await {
        Ok(daemon) => daemon,
        Err(error) => {
            complain(&error.to_string(), error.help().as_deref());
            return error.exit_code();
        }
    };
    let reason = daemon.until_stopped(&mut signals).await;
    let summary = summary::Summary::of(&daemon, &reason);
    let ended = daemon.shutdown(reason, &mut signals).await;
    if let Some(console) = console {
        console.finish();
        if ended.is_ok() {
            // The activity is the only reader of standard output here; one that is gone misses the end as well.
            let _ = summary.write(&mut io::stdout());
        }
    }
    exit_code_of(ended)
}

fn exit_code_of(ended: Result<Stopped, RuntimeError>) -> u8 {
    match ended {
        Ok(Stopped::Cleanly { left_running: 0 }) => {
            tracing::info!("stopped cleanly");
            exit::OK
        }
        Ok(Stopped::Cleanly { left_running }) => {
            tracing::warn!(
                left_running,
                "stopped; effects that did not end in time were killed"
            );
            exit::OK
        }
        Ok(Stopped::LogFailed(failure) | Stopped::OutOfSpace(failure)) => {
            complain(&format!("log failed: {failure}"), None);
            exit::IO
        }
        Err(error) => {
            let help = matches!(error, RuntimeError::Log(_) | RuntimeError::NoSpace(_)).then_some(
                "nothing was acknowledged after that; mend the disk and start again, and all that was goes on",
            );
            complain(&error.to_string(), help);
            match error {
                RuntimeError::Log(_) | RuntimeError::NoSpace(_) => exit::IO,
                RuntimeError::Thread { .. } => exit::INTERNAL,
            }
        }
    }
}

fn run_job(
    global: &GlobalArgs,
    args: &JobRunArgs,
    environment: Environment,
    started: Instant,
) -> u8 {
    let job = match Job::load(&args.file, &args.inputs) {
        Ok(job) => job,
        Err(errors) => {
            let _ = cli::write_errors(&errors, "the job", &mut io::stderr());
            return exit::CONFIG;
        }
    };
    // What is shown live is the activity; the log says only what is wrong, unless it is asked for more.
    let mut global = global.clone();
    if global.verbose == 0 && environment.variable("RUST_LOG").is_none() {
        global.quiet = true;
    }
    let (json, raw) = (args.json, args.raw);
    with_surroundings(
        &global,
        environment,
        started,
        false,
        |settings, mut signals, style| async move {
            let form = if json {
                ConsoleForm::Json
            } else {
                ConsoleForm::Lines(Style {
                    raw_output: raw,
                    without_job: true,
                    ..style
                })
            };
            if let Err(errors) = config::check_job(&job, &settings.loaded.config) {
                let _ = cli::write_errors(&errors, "the job", &mut io::stderr());
                return exit::CONFIG;
            }
            match foreground::run_job(settings, &job, form, &mut signals).await {
                Ok(code) => code,
                Err(ForegroundError::Boot(error)) => {
                    complain(&error.to_string(), error.help().as_deref());
                    error.exit_code()
                }
                Err(ForegroundError::Runtime(error)) => exit_code_of(Err(error)),
                Err(error) => {
                    complain(&error.to_string(), None);
                    exit::FAILED
                }
            }
        },
    )
}

/// Runs a command that only reads.
fn look(
    global: &GlobalArgs,
    environment: Environment,
    command: impl FnOnce(&Config) -> Result<u8, InspectError>,
) -> u8 {
    let loaded = match load(&global.load_options(environment, true)) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    match command(&loaded.config) {
        Ok(code) => code,
        Err(InspectError::Write(error)) => cannot_write(&error),
        Err(error) => {
            complain(&error.to_string(), None);
            match error {
                InspectError::Read(wal::ReadError::Io(_)) | InspectError::Blobs(_) => exit::IO,
                InspectError::Read(_) | InspectError::Decode { .. } => exit::CORRUPT_LOG,
                _ => exit::FAILED,
            }
        }
    }
}

fn view(config: &Config, place: &cli::LogPlace) -> Result<LogView, InspectError> {
    LogView::open(place.data_dir.as_deref().unwrap_or(&config.node.data_dir))
}

fn log(config: &Config, command: LogCommand) -> Result<u8, InspectError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match command {
        LogCommand::Cat { from, job, place } => {
            let view = view(config, &place)?;
            let job = job.map(|job| view.resolve(&job)).transpose()?;
            let from = from.map_or(wal::Lsn::FIRST, wal::Lsn);
            view.cat(from, job, &mut out)?;
        }
        LogCommand::Verify { place, json } => {
            let found = view(config, &place)?.verify()?;
            if json {
                writeln!(out, "{found}")?;
            } else {
                writeln!(out, "the log is whole")?;
                for (what, value) in found.as_object().into_iter().flatten() {
                    if !value.is_null() {
                        writeln!(out, "  {what:<16}{value}")?;
                    }
                }
            }
        }
    }
    out.flush()?;
    Ok(exit::OK)
}

fn replay(config: &Config, args: &cli::ReplayArgs) -> Result<u8, InspectError> {
    let view = view(config, &args.place)?;
    let job = view.resolve(&args.job)?;
    let replayed = view.replay(job, config.limits.steps_per_plan)?;
    let ending = match &replayed.ending {
        None => "live",
        Some(runtime::entry::Ending::Completed { .. }) => "completed",
        Some(runtime::entry::Ending::Failed { .. }) => "failed",
        Some(runtime::entry::Ending::Cancelled { .. }) => "cancelled",
    };
    let mut out = io::stdout();
    if args.json {
        let line = serde_json::json!({
            "job": job,
            "program": replayed.program,
            "entries": replayed.entries,
            "hash": replayed.hash.to_string(),
            "ending": ending,
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "job {job} replays: program `{}`, {} entries, {ending}\njournal hash {}",
            replayed.program, replayed.entries, replayed.hash
        )?;
    }
    Ok(exit::OK)
}

fn health(global: &GlobalArgs, environment: Environment, args: &cli::HealthArgs) -> u8 {
    let loaded = match load(&global.load_options(environment, true)) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let url = args.target(loaded.config.http.listen);
    match http::probe(&url, args.timeout.into()) {
        Ok(report) => {
            let _ = writeln!(io::stdout(), "{}", report.body.trim_end());
            if report.is_ok() {
                exit::OK
            } else {
                exit::FAILED
            }
        }
        Err(error) => {
            complain(
                &error.to_string(),
                Some("is the daemon running, and is this its `http.listen`?"),
            );
            exit::FAILED
        }
    }
}
