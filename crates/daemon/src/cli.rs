//! The command line: what can be typed, and nothing of what it does.
//!
//! The one definition from which parsing, `--help`, completions and the man page are made. Data goes to standard output,
//! messages to standard error; `--json` where a command prints data; exit codes are those of [`exit`].

#[cfg(feature = "ipc")]
mod client;
mod config;
pub mod exit;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

#[cfg(feature = "ipc")]
pub use client::{
    AnswerArgs, ArtifactsArgs, AskArgs, CancelArgs, ContextCommand, DaemonArgs, FollowArgs,
    JobArgs, ListArgs, LogsArgs, NodeCommand, PriorityArg, SignalArgs, SubmitArgs, WatchArgs,
};
pub use config::{check_config, show_config, write_errors};

use crate::config::{Duration, Environment, LoadOptions, SetFlag};

/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this was built from: twelve digits, with `-dirty` if files differed from it, or `unknown`.
pub const COMMIT: &str = env!("TINKERBELL_COMMIT");

/// The optional features that this was built with, parted by spaces.
pub const FEATURES: &str = env!("TINKERBELL_FEATURES");

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("TINKERBELL_COMMIT"),
    "\nfeatures: ",
    env!("TINKERBELL_FEATURES"),
);

const AFTER_HELP: &str = "\
Without a command the daemon runs, until a signal ends it.

Exit codes: 0 ok; 1 what was asked failed; 64 usage; 65 damaged log; 69 no daemon to ask; 70 internal error;
74 disk failed; 75 another daemon holds the log; 78 bad config; 128+n ended by signal n. `job run`, and `--follow`
where there is one, pass on the job's own code. `node reload`: 3 refused, 4 some keys wait for a restart.";

/// Runs durable agent jobs: every step is journaled, nothing that was finished is done twice.
#[derive(Clone, Debug, Parser)]
#[command(name = "tinkerbell", version, long_version = LONG_VERSION, after_help = AFTER_HELP)]
#[command(propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What every command knows.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do; to run the daemon, if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The flags that every command knows.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// The config file: TOML, JSON or YAML by its extension
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "TINKERBELL_CONFIG",
        global = true
    )]
    pub config: Option<PathBuf>,
    /// Set a config key, over file and environment; may be given more than once
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", global = true, action = ArgAction::Append)]
    pub sets: Vec<String>,
    /// Log more: -v for debug, -vv for trace
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Log warnings and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Never use colour; so does a non-empty NO_COLOR
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Look at the config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run jobs
    #[command(subcommand)]
    Job(JobCommand),
    /// Ask a running daemon about itself
    #[cfg(feature = "ipc")]
    #[command(subcommand)]
    Node(NodeCommand),
    /// Give daemons names
    #[cfg(feature = "ipc")]
    #[command(subcommand)]
    Context(ContextCommand),
    /// Read the write-ahead log
    #[command(subcommand)]
    Log(LogCommand),
    /// Run a job again against its journal, without executing anything, and compare
    Replay(ReplayArgs),
    /// Ask a running daemon how it is; the exit code is 0 if it is well
    Health(HealthArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page
    Man,
}

/// Looking at the config.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with the config; exit with 78 if anything is
    Check {
        /// Check only what is written, and not whether the secrets it refers to are there
        #[arg(long)]
        offline: bool,
    },
    /// Print the config in force, and where each value came from
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Running jobs.
#[derive(Clone, Debug, Subcommand)]
pub enum JobCommand {
    /// Run one job in the foreground, show what it does, and exit with its exit code
    Run(JobRunArgs),
    /// Submit a job to a running daemon; its id is printed once it is durable
    #[cfg(feature = "ipc")]
    Submit(SubmitArgs),
    /// List jobs, the newest first
    #[cfg(feature = "ipc")]
    List(ListArgs),
    /// Show a job: what it does, what it waits for, what it came to
    #[cfg(feature = "ipc")]
    Show(JobArgs),
    /// Show what happens, from the log and live, over restarts of the daemon
    #[cfg(feature = "ipc")]
    Watch(WatchArgs),
    /// Ask for jobs to end
    #[cfg(feature = "ipc")]
    Cancel(CancelArgs),
    /// Send a job what it waits for
    #[cfg(feature = "ipc")]
    Signal(SignalArgs),
    /// Say yes to what a job asks
    #[cfg(feature = "ipc")]
    Approve(AnswerArgs),
    /// Say no to what a job asks
    #[cfg(feature = "ipc")]
    Deny(AnswerArgs),
    /// Print what a job's steps printed: its standard output to ours, its standard error to ours
    #[cfg(feature = "ipc")]
    Logs(LogsArgs),
    /// Print what a job came to
    #[cfg(feature = "ipc")]
    Result(JobArgs),
    /// List what a job handed out, or print one of it
    #[cfg(feature = "ipc")]
    Artifacts(ArtifactsArgs),
}

/// How to run one job.
#[derive(Clone, Debug, Args)]
pub struct JobRunArgs {
    /// The job file: TOML, JSON or YAML by its extension
    pub file: PathBuf,
    /// Set an input of the job; JSON is taken as such, all else as text
    #[arg(long = "input", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub inputs: Vec<String>,
    /// Print what happens as JSON lines
    #[arg(long)]
    pub json: bool,
    /// Print the output of tools as it is, control characters and all
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// Reading the log.
#[derive(Clone, Debug, Subcommand)]
pub enum LogCommand {
    /// Print the log as JSON lines
    Cat {
        /// Begin with this log sequence number
        #[arg(long, value_name = "LSN")]
        from: Option<u64>,
        /// Only the entries of this job: an id, the beginning or end of one, or a name
        #[arg(long, value_name = "JOB")]
        job: Option<String>,
        /// Where the log is.
        #[command(flatten)]
        place: LogPlace,
    },
    /// Read the whole log and check every record
    Verify {
        /// Where the log is.
        #[command(flatten)]
        place: LogPlace,
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where the log is.
#[derive(Clone, Debug, Default, Args)]
pub struct LogPlace {
    /// The data directory, in place of `node.data_dir`
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What to replay.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the log is.
    #[command(flatten)]
    pub place: LogPlace,
}

/// Whom to ask, and what.
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// The daemon to ask, in place of the one at `http.listen`
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Ask whether it is ready for work, and not only whether it is alive
    #[arg(long)]
    pub ready: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub timeout: Duration,
    /// Print its health as JSON
    #[arg(long)]
    pub json: bool,
}

impl HealthArgs {
    /// The URL to ask. `listen` is the address that the config gives the daemon.
    #[must_use]
    pub fn target(&self, listen: std::net::SocketAddr) -> String {
        let base = self.url.clone().unwrap_or_else(|| {
            let mut address = listen;
            // One listens on every address, but asks one.
            match address.ip() {
                std::net::IpAddr::V4(ip) if ip.is_unspecified() => {
                    address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
                }
                std::net::IpAddr::V6(ip) if ip.is_unspecified() => {
                    address.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
                }
                _ => {}
            }
            format!("http://{address}")
        });
        let path = match (self.json, self.ready) {
            (true, _) => "/health",
            (false, true) => "/readyz?verbose",
            (false, false) => "/livez?verbose",
        };
        format!("{}{path}", base.trim_end_matches('/'))
    }
}

impl GlobalArgs {
    /// What the config is to be made from. With `offline`, nothing that it refers to is looked for.
    #[must_use]
    pub fn load_options(&self, environment: Environment, offline: bool) -> LoadOptions {
        let level = match (self.quiet, self.verbose) {
            (true, _) => Some(SetFlag::by("-q", "log.filter=warn")),
            (false, 0) => None,
            (false, 1) => Some(SetFlag::by("-v", "log.filter=debug")),
            (false, _) => Some(SetFlag::by("-vv", "log.filter=trace")),
        };
        // What is said in full wins over what a letter stands for.
        let sets = level
            .into_iter()
            .chain(self.sets.iter().map(|set| SetFlag::new(set)))
            .collect();
        LoadOptions {
            path: self.config.clone(),
            environment,
            sets,
            offline,
        }
    }
}

/// Nothing is to be done but to say this and exit: help was asked for, or the command line makes no sense.
#[derive(Debug)]
pub struct Quit(clap::Error);

impl Quit {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        if self.0.use_stderr() {
            exit::USAGE
        } else {
            exit::OK
        }
    }

    /// What is to be said, without colour.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.render().to_string()
    }

    /// Says it: help to standard output, complaints to standard error.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(&self) -> io::Result<()> {
        self.0.print()
    }
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// With what is to be said instead of doing anything.
    pub fn parse_from_args(
        args: impl IntoIterator<Item: Into<OsString> + Clone>,
    ) -> Result<Self, Quit> {
        Self::try_parse_from(args).map_err(Quit)
    }
}

/// Prints the completion script of a shell.
pub fn write_completions(shell: Shell, out: &mut impl Write) {
    clap_complete::generate(shell, &mut Cli::command(), "tinkerbell", out);
}

/// Prints the man page.
///
/// # Errors
/// If it cannot be written.
pub fn write_man_page(out: &mut impl Write) -> io::Result<()> {
    clap_mangen::Man::new(Cli::command()).render(out)
}

#[cfg(test)]
mod tests;
