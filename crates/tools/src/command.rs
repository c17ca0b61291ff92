//! The effect `process.run`: a command, from its spec to its result.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pal::Stream;
use runtime::{CancelReason, EffectCall, EffectClass, EffectError, EffectResult, Json, Progress};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::Error;
use crate::leftovers::{Marks, NODE_VARIABLE};
use crate::output::Output;
use crate::process::{self, Fate, Finished, Launch};
use crate::snapshot::Snapshot;
use crate::supervisor::protocol::{Order, SpawnFailure, VERSION};
use crate::toolbox::{Shared, cancelled};
use crate::workspace;

/// The kind of effect that runs a command.
pub const PROCESS_RUN: &str = "process.run";

/// What the environment of a command says of the effect it is; no spec can set these.
const OWN_VARIABLES: [&str; 5] = [
    NODE_VARIABLE,
    "TINKERBELL_JOB_ID",
    "TINKERBELL_STEP",
    "TINKERBELL_ATTEMPT",
    "TINKERBELL_IDEMPOTENCY_KEY",
];

/// Where the daemon was started, for commands that work there.
const START_DIR_VARIABLE: &str = "TINKERBELL_START_DIR";

/// Where programs are looked for if the daemon itself has no `PATH`: as in a microVM whose first process it is.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The input of `process.run`. Either `argv` or `shell`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessInput {
    /// The program and its arguments, taken as they are. A name without a slash is looked for along `PATH`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// A line for `sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Variables to set beside those every command gets; they win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working directory: absolute, or within the job's workspace. The workspace itself if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What the command reads from its standard input; nothing if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How much of each output stream is kept, in bytes; not more than the daemon allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit_bytes: Option<u64>,
    /// From a request to end until SIGKILL, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// How a command ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessOutcome {
    /// By itself, with an exit code.
    Exited,
    /// By a signal that we did not send.
    Signalled,
    /// It took too long and was ended.
    TimedOut,
    /// Nobody wanted its result any more, and it was ended.
    Cancelled,
    /// There is no such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// It could not be started for another reason.
    SpawnFailed,
}

/// The result of `process.run`, also as the output of its errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessResult {
    /// How it ended.
    pub outcome: ProcessOutcome,
    /// What it exited with; 127 and 126, as in shells, if it was not found or cannot be executed.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output as text, without what is over the limit.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
    /// All bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// All bytes it wrote to standard error.
    pub stderr_bytes: u64,
    /// Bytes of standard output that were cut from its middle.
    pub stdout_cut: u64,
    /// Bytes of standard error that were cut from its middle.
    pub stderr_cut: u64,
    /// Whether bytes of either stream that are not UTF-8 were replaced.
    pub is_lossy: bool,
    /// Whether both streams came to their end; if not, somebody outside the job holds one of them.
    pub is_drained: bool,
    /// From its start to its end, in milliseconds; 0 if it did not start.
    pub duration_ms: u64,
    /// Processor time in user mode of the command and all it started, in milliseconds.
    pub cpu_user_ms: u64,
    /// The same, in the kernel.
    pub cpu_system_ms: u64,
    /// The largest resident set of one of its processes, in KiB.
    pub max_rss_kib: u64,
    /// Processes that outlived the command and were ended.
    pub leftovers_ended: u32,
    /// Process ids that even SIGKILL did not end (uninterruptible sleep).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unkillable: Vec<i32>,
}

/// Carries one call out.
pub(crate) async fn run(
    shared: &Shared,
    call: &EffectCall,
    progress: &Progress,
    mut cancel: watch::Receiver<Option<CancelReason>>,
) -> EffectResult {
    let input: ProcessInput = call.input()?;
    let argv = argv(&input)?;
    let place = Place::of(shared, call, &input)?;
    let stdin = input.stdin.clone().map(String::into_bytes);
    let order = order(shared, call, &input, argv, &place)?;
    let limit = output_limit(shared, &input);
    let marks = Marks::new(own_variables(shared, call));
    // Two commands that may each be rolled back never work on one tree at the same time. (Should the daemon die after
    // the first is over and before that is durable, while the second runs, both are rolled back, each to its own
    // snapshot: a plan that wants them in order says so by a dependency.)
    let _turn = match call.class {
        EffectClass::Workspace => {
            let turn = shared.turn(call.id.job);
            tokio::select! {
                turn = turn.lock_owned() => Some(turn),
                reason = cancelled(&mut cancel) => return Err(not_started(reason)),
            }
        }
        _ => None,
    };
    prepare(shared, call, place).await?;
    if let Some(reason) = *cancel.borrow() {
        return Err(not_started(reason));
    }
    let show = |stream| {
        let progress = progress.clone();
        move |text, lost_bytes| progress.output(stream, text, lost_bytes)
    };
    let launch = Launch {
        supervisor: shared.options.supervisor.clone(),
        order,
        stdin,
        marks,
    };
    let shown: [Box<dyn FnMut(String, u64) + Send>; 2] = [
        Box::new(show(Stream::Stdout)),
        Box::new(show(Stream::Stderr)),
    ];
    let [stdout, stderr] = shown.map(|show| Output::new(limit, show));
    let finished = process::run(launch, stdout, stderr, cancel).await?;
    conclude(finished)
}

/// Checks what is to be run.
fn argv(input: &ProcessInput) -> Result<Vec<String>, Error> {
    let invalid = |text: &str| Err(Error::InvalidInput(text.to_owned()));
    let argv = match (&input.shell, input.argv.as_slice()) {
        (Some(line), []) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        (None, [name, ..]) if !name.is_empty() => input.argv.clone(),
        (None, []) => return invalid("a command needs `argv` or `shell`"),
        (None, _) => return invalid("the first of `argv`, the program, is empty"),
        (Some(_), _) => return invalid("a command takes `argv` or `shell`, not both"),
    };
    if argv.iter().any(|argument| argument.contains('\0')) {
        return invalid("an argument holds a NUL byte, which no program can be given");
    }
    for (name, value) in &input.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let text = format!(
                "`{}` is not a variable that can be set",
                name.escape_debug()
            );
            return Err(Error::InvalidInput(text));
        }
        if OWN_VARIABLES.contains(&name.as_str()) {
            let text = format!("variable `{name}` is set by tinkerbell and cannot be given");
            return Err(Error::InvalidInput(text));
        }
    }
    Ok(argv)
}

/// Where a command runs.
struct Place {
    cwd: PathBuf,
    /// Whether it must be found inside the job's workspace.
    is_inside: bool,
}

impl Place {
    fn of(shared: &Shared, call: &EffectCall, input: &ProcessInput) -> Result<Self, Error> {
        let workspace = shared.workspaces.path(call.id.job);
        let cwd = match input.cwd.as_deref() {
            None => {
                return Ok(Self {
                    cwd: workspace,
                    is_inside: true,
                });
            }
            Some(cwd) if cwd.contains('\0') => {
                return Err(Error::InvalidInput("`cwd` holds a NUL byte".to_owned()));
            }
            Some(cwd) => cwd,
        };
        if !Path::new(cwd).is_absolute() {
            let cwd = workspace::join_inside(&workspace, cwd)?;
            return Ok(Self {
                cwd,
                is_inside: true,
            });
        }
        let cwd = PathBuf::from(cwd);
        let is_inside = call.class == EffectClass::Workspace;
        if is_inside && !cwd.starts_with(&workspace) {
            let text = format!(
                "a command of class `workspace` works in its job's workspace, but `cwd` is {}",
                cwd.display()
            );
            return Err(Error::InvalidInput(text));
        }
        Ok(Self { cwd, is_inside })
    }
}

/// Makes the workspace, and takes or restores its snapshot where the class asks for it.
async fn prepare(shared: &Shared, call: &EffectCall, place: Place) -> Result<(), Error> {
    let (class, id, interrupted) = (call.class, call.id, call.interrupted);
    let workspaces = shared.workspaces.clone();
    let limits = shared.options.snapshot_limits;
    let prepare = move || {
        let workspace = workspaces.path(id.job);
        if class == EffectClass::Workspace {
            let path = workspaces.snapshot_path(id);
            match Snapshot::find(&path).filter(|_| interrupted) {
                Some(snapshot) => snapshot.restore(&workspace)?,
                // Interrupted without a snapshot: before the command started, since a snapshot comes first.
                None => {
                    workspaces.open(id.job)?;
                    Snapshot::take(&workspace, &path, limits)?;
                }
            }
        } else {
            workspaces.open(id.job)?;
        }
        if place.is_inside {
            stays_inside(&workspace, &place.cwd)?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(prepare)
        .await
        .map_err(|error| Error::io("prepare", "workspace")(std::io::Error::other(error)))?
}

/// A working directory within the workspace may be a symlink, but not out of it. One that is not there is left to the
/// supervisor to report.
fn stays_inside(workspace: &Path, cwd: &Path) -> Result<(), Error> {
    let (Ok(workspace), Ok(real)) = (workspace.canonicalize(), cwd.canonicalize()) else {
        return Ok(());
    };
    if real.starts_with(&workspace) {
        return Ok(());
    }
    Err(Error::InvalidInput(format!(
        "working directory {} is a link that leads out of the job's workspace, to {}",
        cwd.display(),
        real.display()
    )))
}

fn output_limit(shared: &Shared, input: &ProcessInput) -> usize {
    let options = &shared.options;
    let asked = input
        .output_limit_bytes
        .map_or(options.output_limit_bytes, |asked| {
            usize::try_from(asked).unwrap_or(usize::MAX)
        });
    asked.min(options.output_limit_max_bytes)
}

fn order(
    shared: &Shared,
    call: &EffectCall,
    input: &ProcessInput,
    argv: Vec<String>,
    place: &Place,
) -> Result<Order, Error> {
    let options = &shared.options;
    let grace = input.grace_ms.map_or(options.grace, Duration::from_millis);
    if grace > options.grace_max {
        return Err(Error::InvalidInput(format!(
            "grace of {} ms is longer than the limit of {} ms",
            grace.as_millis(),
            options.grace_max.as_millis()
        )));
    }
    Ok(Order {
        version: VERSION,
        argv,
        env: environment(shared, call, input),
        cwd: place.cwd.clone().into_os_string(),
        grace_ms: millis(grace),
        leftover_grace_ms: millis(options.leftover_grace),
        give_up_ms: millis(options.give_up),
        limits: options.resource_limits,
        has_stdin: input.stdin.is_some(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A clean environment: what of ours is known to be harmless, what the spec adds, what says whose command it is.
fn environment(
    shared: &Shared,
    call: &EffectCall,
    input: &ProcessInput,
) -> Vec<(OsString, OsString)> {
    let mut env = BTreeMap::from([(OsString::from("PATH"), OsString::from(DEFAULT_PATH))]);
    for name in &shared.options.inherited_variables {
        if let Some(value) = std::env::var_os(name) {
            env.insert(name.into(), value);
        }
    }
    let given = input
        .env
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    env.extend(given);
    env.insert(
        START_DIR_VARIABLE.into(),
        shared.options.start_dir.clone().into(),
    );
    let own = own_variables(shared, call);
    env.extend(
        own.into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    env.into_iter().collect()
}

fn own_variables(shared: &Shared, call: &EffectCall) -> Vec<(String, String)> {
    let values = [
        shared.options.node_id.clone(),
        call.id.job.to_string(),
        call.id.step.to_string(),
        call.id.attempt.to_string(),
        call.idempotency_key(),
    ];
    OWN_VARIABLES
        .map(str::to_owned)
        .into_iter()
        .zip(values)
        .collect()
}

fn not_started(reason: CancelReason) -> EffectError {
    let text = format!("{} before the command started", asked_by(reason));
    EffectError {
        retryable: reason == CancelReason::TimedOut,
        ..EffectError::permanent(cancel_code(reason), text)
    }
}

fn cancel_code(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Cancelled | CancelReason::Shutdown => EffectError::CANCELLED,
        CancelReason::TimedOut => EffectError::TIMED_OUT,
    }
}

fn asked_by(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Cancelled => "cancelled",
        CancelReason::TimedOut => "timed out",
        CancelReason::Shutdown => "ended by the daemon's shutdown",
    }
}

/// Puts what became of the command into the words of its result: success is exit code 0, nothing else.
fn conclude(finished: Finished) -> EffectResult {
    let verdict = Verdict::of(&finished);
    let (exit, end) = (verdict.exit, &finished.end);
    let (code, signal, duration_us) = exit;
    let result = ProcessResult {
        outcome: verdict.outcome,
        exit_code: code,
        signal,
        is_lossy: finished.stdout.is_lossy || finished.stderr.is_lossy,
        is_drained: finished.is_drained,
        duration_ms: duration_us / 1000,
        cpu_user_ms: end.cpu_user_us / 1000,
        cpu_system_ms: end.cpu_system_us / 1000,
        max_rss_kib: end.max_rss_kib,
        leftovers_ended: end.leftovers_ended,
        unkillable: end.unkillable.clone(),
        stdout_bytes: finished.stdout.total_bytes,
        stderr_bytes: finished.stderr.total_bytes,
        stdout_cut: finished.stdout.cut_bytes,
        stderr_cut: finished.stderr.cut_bytes,
        stdout: finished.stdout.text,
        stderr: finished.stderr.text,
    };
    let output = Json::of(&result);
    match verdict.error {
        None => Ok(output),
        Some(error) => Err(error.with_output(output)),
    }
}

/// What is made of a command's end.
struct Verdict {
    outcome: ProcessOutcome,
    /// Exit code, signal, microseconds.
    exit: (Option<i32>, Option<i32>, u64),
    error: Option<EffectError>,
}

impl Verdict {
    fn of(finished: &Finished) -> Self {
        let exit = match &finished.fate {
            Fate::NotStarted { kind, message } => return Self::not_started(*kind, message),
            Fate::Exited(exit) => (exit.code, exit.signal, exit.duration_us),
            Fate::Unkillable => (None, None, 0),
        };
        if let Some(reason) = finished.asked_to_end {
            let outcome = match reason {
                CancelReason::TimedOut => ProcessOutcome::TimedOut,
                CancelReason::Cancelled | CancelReason::Shutdown => ProcessOutcome::Cancelled,
            };
            let text = format!("command was {}", asked_by(reason));
            let error = EffectError {
                retryable: reason == CancelReason::TimedOut,
                ..EffectError::permanent(cancel_code(reason), text)
            };
            return Self {
                outcome,
                exit,
                error: Some(error),
            };
        }
        match exit {
            (Some(0), ..) => Self {
                outcome: ProcessOutcome::Exited,
                exit,
                error: None,
            },
            (Some(code), ..) => {
                let text = format!("command exited with {code}");
                let error = Some(EffectError::transient("exit_status", text));
                Self {
                    outcome: ProcessOutcome::Exited,
                    exit,
                    error,
                }
            }
            (None, signal, _) => {
                let text = match signal {
                    Some(signal) => format!("command was ended by {}", signal_name(signal)),
                    None => "command does not end, not even by SIGKILL".to_owned(),
                };
                let error = Some(EffectError::transient("signalled", text));
                Self {
                    outcome: ProcessOutcome::Signalled,
                    exit,
                    error,
                }
            }
        }
    }

    fn not_started(kind: SpawnFailure, message: &str) -> Self {
        let (outcome, code, exit_code, retryable) = match kind {
            SpawnFailure::NotFound => (ProcessOutcome::NotFound, "not_found", Some(127), false),
            SpawnFailure::NotExecutable => (
                ProcessOutcome::NotExecutable,
                "not_executable",
                Some(126),
                false,
            ),
            SpawnFailure::BadCwd => (ProcessOutcome::SpawnFailed, "bad_cwd", None, false),
            SpawnFailure::BadOrder => (ProcessOutcome::SpawnFailed, "spawn_failed", None, false),
            SpawnFailure::Other => (ProcessOutcome::SpawnFailed, "spawn_failed", None, true),
        };
        let error = EffectError {
            retryable,
            ..EffectError::permanent(code, message)
        };
        Self {
            outcome,
            exit: (exit_code, None, 0),
            error: Some(error),
        }
    }
}

/// A signal as people know it, as far as they do (signal(7), the numbers that all of Linux's main targets share).
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    format!("{name} (signal {signal})")
}
