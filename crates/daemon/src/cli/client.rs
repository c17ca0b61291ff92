//! The verbs that ask a running daemon: what can be typed after `job`, `node` and `context`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, ArgGroup, Args, Subcommand, ValueEnum};

use crate::config::Duration;

/// Which daemon is asked.
#[derive(Clone, Debug, Default, Args)]
pub struct DaemonArgs {
    /// Where the daemon serves ipc, over TINKERBELL_SOCKET: a path, `vsock:PORT` or `vsock:CID:PORT`
    #[arg(long, value_name = "ADDRESS")]
    pub socket: Option<String>,
    /// The daemon that `tinkerbell context add` gave this name, over TINKERBELL_CONTEXT
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Asking about one thing.
#[derive(Clone, Debug, Default, Args)]
pub struct AskArgs {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Which daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// One job.
#[derive(Clone, Debug, Args)]
pub struct JobArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// How to go on when the daemon is gone.
#[derive(Clone, Debug, Args)]
pub struct FollowArgs {
    /// How long to look for a daemon that is gone, such as one that is being restarted
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub reconnect: Duration,
    /// Print on a terminal what jobs print as it is, control characters and all
    #[arg(long)]
    pub raw: bool,
}

/// How urgent a job is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PriorityArg {
    /// When nothing else is to be done, mostly
    Background,
    /// Less than others
    Low,
    /// As others
    Normal,
    /// More than others
    High,
}

/// What to submit.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["file", "argv"]))]
pub struct SubmitArgs {
    /// The job file: TOML, JSON or YAML by its extension; `-` for JSON from standard input
    pub file: Option<PathBuf>,
    /// A command to run as a job, in place of a file
    #[arg(last = true, value_name = "COMMAND")]
    pub argv: Vec<String>,
    /// Set an input of the job; JSON is taken as such, all else as text
    #[arg(long = "input", value_name = "KEY=VALUE", action = ArgAction::Append, conflicts_with = "argv")]
    pub inputs: Vec<String>,
    /// The idempotency key: the same key is the same job, however often it is submitted
    #[arg(long)]
    pub key: Option<String>,
    /// What to call it
    #[arg(long)]
    pub name: Option<String>,
    /// A label to find it by; may be given more than once
    #[arg(long = "label", value_name = "LABEL=VALUE", action = ArgAction::Append, value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// How urgent it is
    #[arg(long)]
    pub priority: Option<PriorityArg>,
    /// Show what it prints until it is over, and exit with its exit code
    #[arg(long, short)]
    pub follow: bool,
    /// How to follow.
    #[command(flatten)]
    pub follow_how: FollowArgs,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Which jobs to list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only those in one of these states
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = states(&ALL))]
    pub states: Vec<String>,
    /// Only those of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only those with this label; may be given more than once
    #[arg(long = "label", value_name = "LABEL=VALUE", action = ArgAction::Append, value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// How many at the most
    #[arg(
        long,
        value_name = "N",
        default_value = "50",
        conflicts_with = "all_pages"
    )]
    pub limit: usize,
    /// All of them
    #[arg(long)]
    pub all_pages: bool,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

const ALIVE: [&str; 4] = ["queued", "running", "waiting", "stuck"];
const ALL: [&str; 7] = [
    "queued",
    "running",
    "waiting",
    "stuck",
    "completed",
    "failed",
    "cancelled",
];

fn states(of: &'static [&'static str]) -> PossibleValuesParser {
    PossibleValuesParser::new(of)
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((label, value)) if !label.is_empty() => Ok((label.to_owned(), value.to_owned())),
        _ => Err("expected `LABEL=VALUE`".to_owned()),
    }
}

/// What to watch.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// The job; without one, all jobs and the node, until a signal ends it
    pub job: Option<String>,
    /// Begin after this entry of the log; without it, with the job, or now
    #[arg(long, value_name = "LSN")]
    pub after: Option<u64>,
    /// Show what steps print as well
    #[arg(long)]
    pub output: bool,
    /// How to go on.
    #[command(flatten)]
    pub follow_how: FollowArgs,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Which jobs are to end.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(["jobs", "states", "name", "labels", "all"]))]
pub struct CancelArgs {
    /// The jobs: ids, beginnings or ends of such, or names
    #[arg(value_name = "JOB", conflicts_with_all = ["states", "name", "labels", "all", "dry_run"])]
    pub jobs: Vec<String>,
    /// All in one of these states
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = states(&ALIVE))]
    pub states: Vec<String>,
    /// All of this name
    #[arg(long)]
    pub name: Option<String>,
    /// All with this label; may be given more than once
    #[arg(long = "label", value_name = "LABEL=VALUE", action = ArgAction::Append, value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// All that are not over
    #[arg(long)]
    pub all: bool,
    /// Only say which they are
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for whoever looks at them later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to send.
#[derive(Clone, Debug, Args)]
pub struct SignalArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// The name that it waits for
    pub name: String,
    /// What to send: JSON is taken as such, all else as text; null if it is left out
    #[arg(allow_hyphen_values = true)]
    pub value: Option<String>,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Which question to answer.
#[derive(Clone, Debug, Args)]
pub struct AnswerArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// The question, if it asks more than one
    pub name: Option<String>,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Whose output, and which.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// Only what was printed there
    #[arg(long, value_parser = PossibleValuesParser::new(["stdout", "stderr"]))]
    pub stream: Option<String>,
    /// Only what this step printed
    #[arg(long)]
    pub step: Option<String>,
    /// Go on until the job is over, and exit with its exit code
    #[arg(long, short)]
    pub follow: bool,
    /// How to follow.
    #[command(flatten)]
    pub follow_how: FollowArgs,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Whose artifacts, and which.
#[derive(Clone, Debug, Args)]
pub struct ArtifactsArgs {
    /// The job: an id, the beginning or end of one, or a name
    pub job: String,
    /// The one to print; without it they are listed
    #[arg(conflicts_with = "json")]
    pub name: Option<String>,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE", requires = "name")]
    pub output: Option<PathBuf>,
    /// Print it on a terminal as it is, control characters and all
    #[arg(long)]
    pub raw: bool,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Asking the node itself.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// Show the node at a glance
    Show(AskArgs),
    /// Print everything the engine knows: the scheduler, the jobs, the log
    Dump(AskArgs),
    /// Have the config read again; exits with 3 if it is refused, 4 if some of it waits for a restart
    Reload(AskArgs),
    /// Take in no more jobs, and stop once nothing is left to do
    Drain {
        /// Do not stop
        #[arg(long)]
        no_stop: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Stop, as a signal would
    Shutdown(AskArgs),
}

/// Names for daemons.
#[derive(Clone, Debug, Subcommand)]
pub enum ContextCommand {
    /// List the names, and the one in use
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which daemon is meant, and why that one
    Show(AskArgs),
    /// Give a daemon a name, or a name another address
    Add {
        /// The name: letters, digits and `-`, `_`, `.`
        name: String,
        /// Where it serves ipc: a path, `vsock:PORT` or `vsock:CID:PORT`
        address: String,
    },
    /// Use the daemon of this name from now on
    Use {
        /// The name
        name: String,
    },
    /// Forget a name
    Remove {
        /// The name
        name: String,
    },
}
