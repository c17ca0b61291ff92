//! `tinkerbell job run`: one job in the foreground, shown live, its exit code ours.
//!
//! It is a whole daemon, without HTTP, that submits one job and stops when that is over. The job is as durable as any: if
//! this process dies, the next daemon on the same data directory takes it up.

use std::io::{self, BufRead, IsTerminal, Write};

use pal::{Delivery, EventKind, Filter, Pal, QuestionKind, StartAt};
use runtime::{JobId, Jobs, Json};
use serde_json::Value;

use crate::boot::BootError;
use crate::cli::exit;
use crate::config::Job;
use crate::console::{Console, ConsoleForm};
use crate::inspect::LogView;
use crate::running::{Settings, StopReason, init, or_never};
use crate::signal::{Signal, Signals};
use crate::startup::job_spec;

/// Why a job in the foreground could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ForegroundError {
    /// The daemon around it did not boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The job was refused.
    #[error("job was refused: {0}")]
    Refused(#[from] runtime::SubmitError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// The result cannot be read back.
    #[error("job is over, but its result cannot be read: {0}")]
    Result(#[from] crate::inspect::InspectError),
    /// The terminal is no use.
    #[error("cannot show what happens: {0}")]
    Console(#[from] io::Error),
}

/// Runs one job and gives the exit code that says how it went: that of the command, if the job is a command; else 0 or
/// 1; 128 + n if signal n ended it.
///
/// # Errors
///
/// If the job could not be run at all.
pub async fn run_job(
    settings: Settings,
    job: &Job,
    form: ConsoleForm,
    signals: &mut Signals,
) -> Result<u8, ForegroundError> {
    let pal = settings.pal.clone();
    let mut daemon = init(settings).await?;
    let jobs = daemon.jobs().clone();
    let submitted = jobs.submit(job_spec(job)).await?;
    let id = submitted.job;
    let console = Console::start(&pal, Some(id.as_uuid()), form)?;
    let answering = tokio::spawn(answer_questions(pal.clone(), jobs.clone(), id));

    let over = wait_until_over(&pal, &jobs, id);
    let (mut signalled, mut cancelling) = (None, None);
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            () = &mut over => break,
            signal = signals.next() => if let Signal::Terminate { number } = signal {
                if signalled.is_some() {
                    std::process::exit(i32::from(exit::forced_by(number)));
                }
                signalled = Some(number);
                let (jobs, reason) = (jobs.clone(), format!("signal {number}"));
                // Not waited for here: on a full disk it may take for ever, and a second signal must be heard.
                cancelling = Some(Box::pin(async move { jobs.cancel(id, reason).await }));
            },
            // A runtime that has ended says at the shutdown why.
            is_there = daemon.log_state_watched() => if !is_there {
                break;
            },
            asked = or_never(cancelling.as_mut()) => {
                cancelling = None;
                // The job may be over this very moment; then there is nothing to cancel.
                if asked.is_ok() && matches!(form, ConsoleForm::Lines(_)) {
                    let _ = writeln!(io::stderr(), "the job is being cancelled; a second signal ends at once");
                }
            }
        }
    }
    answering.abort();
    let data_dir = daemon.config().node.data_dir.clone();
    // Other jobs may have been taken up with ours: whether they are through does not matter.
    let reason = signalled.map_or(StopReason::JobOver, StopReason::Signal);
    daemon.shutdown(reason, signals).await?;
    console.finish();

    let result = LogView::open(&data_dir)?.result(id)?;
    let code = match (&result, signalled) {
        (_, Some(number)) => exit::forced_by(number),
        (Some((_, result)), None) => result.exit_code(),
        (None, None) => exit::INTERNAL,
    };
    if let ConsoleForm::Lines(_) = form {
        let mut err = io::stderr();
        let place = data_dir.display();
        let _ = writeln!(
            err,
            "job {id} is over; to look at it again: tinkerbell log cat --job {id} --data-dir {place}"
        );
        let _ = writeln!(
            err,
            "to run it against its journal: tinkerbell replay {id} --data-dir {place}"
        );
    }
    Ok(code)
}

/// Waits for the job's last event. Events can be missed; the job's state cannot, so it is asked for after every gap.
async fn wait_until_over(pal: &Pal, jobs: &Jobs, id: JobId) {
    let filter = Filter::job(id.as_uuid()).without_output();
    let mut events = pal.subscribe(filter, StartAt::Oldest);
    loop {
        match events.recv().await {
            Delivery::Event(event) => match event.kind {
                EventKind::JobFinished { .. } | EventKind::JobStuck { .. } => return,
                _ => {}
            },
            Delivery::Lagged { .. } => {
                let state = jobs.get(id).await.ok().flatten().map(|view| view.state);
                if state.is_none_or(runtime::JobState::is_final) {
                    return;
                }
            }
            Delivery::Closed => return,
        }
    }
}

/// Hands lines from standard input to the questions that the job asks, in order.
async fn answer_questions(pal: Pal, jobs: Jobs, id: JobId) {
    let mut events = pal.subscribe(Filter::job(id.as_uuid()).without_output(), StartAt::Oldest);
    let mut lines = stdin_lines();
    loop {
        let (name, prompt, kind) = match events.recv().await {
            Delivery::Event(event) => match &event.kind {
                EventKind::Question {
                    name, prompt, kind, ..
                } => (name.clone(), prompt.clone(), *kind),
                _ => continue,
            },
            Delivery::Lagged { .. } => continue,
            Delivery::Closed => return,
        };
        if io::stdin().is_terminal() {
            let choice = match kind {
                QuestionKind::Approval => " [y/n]",
                QuestionKind::Answer => "",
            };
            eprint!("{}{choice} ", pal::neutralise(&prompt));
        }
        loop {
            // Without input the question waits for its deadline, or for somebody else.
            let Some(line) = lines.recv().await else {
                return;
            };
            let answer = match kind {
                QuestionKind::Answer => Some(Value::String(line)),
                QuestionKind::Approval => yes_or_no(&line).map(Value::Bool),
            };
            let Some(answer) = answer else {
                eprint!("please answer y or n: ");
                continue;
            };
            if let Err(error) = jobs.signal(id, name.clone(), Json::of(&answer)).await {
                eprintln!("{error}");
            }
            break;
        }
    }
}

fn yes_or_no(line: &str) -> Option<bool> {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" | "true" => Some(true),
        "n" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// Lines of standard input, read on a thread of its own that ends with the process: nothing else can end a read.
fn stdin_lines() -> tokio::sync::mpsc::Receiver<String> {
    let (sender, lines) = tokio::sync::mpsc::channel(16);
    let spawned = std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    if let Err(error) = spawned {
        tracing::warn!("cannot read answers from standard input: {error}");
    }
    lines
}
