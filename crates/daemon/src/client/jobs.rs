//! `tinkerbell job …`, but for `run`, which needs no daemon, and `submit`, which has a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Write};

use api::ipc::client::ClientError;
use api::wire::{
    Accepted, ArtifactList, CancelMany, CancelRequest, CancelledMany, Event, Gap, JobDetails,
    JobList, LogPiece, Logs, OpenQuestion,
};
use pal::QuestionKind;
use pal::render::{self, Style};
use runtime::{JobId, JobResult, JobState, JobView, StepView};
use serde_json::{Value, json};

use super::feed::{Fed, Feed, read};
use super::follow::{
    Follow, Printer, as_event, follow, how_to_answer, print_end, tagged, write_text,
};
use super::submit::{submission, submit};
use super::table::{Cell, Paint, Table, ago, bytes, instant, one_line, until};
use super::{Failure, Interrupts, Route, Session, ask, encoded};
use crate::boot::unix_ms;
use crate::cli::{
    AnswerArgs, ArtifactsArgs, CancelArgs, GlobalArgs, JobArgs, JobCommand, ListArgs, LogsArgs,
    SignalArgs, SubmitArgs, WatchArgs, exit,
};
use crate::config::Environment;

pub(super) fn run(
    global: &GlobalArgs,
    environment: &Environment,
    command: JobCommand,
) -> Result<u8, Failure> {
    // Before anything is asked: what is wrong with it needs no daemon to be seen.
    let submission = match &command {
        JobCommand::Submit(args) => Some(submission(args)?),
        _ => None,
    };
    let args = match &command {
        JobCommand::Run(_) => return Err(Failure::usage("`job run` asks no daemon")),
        JobCommand::Submit(SubmitArgs { ask, .. })
        | JobCommand::List(ListArgs { ask, .. })
        | JobCommand::Show(JobArgs { ask, .. })
        | JobCommand::Watch(WatchArgs { ask, .. })
        | JobCommand::Cancel(CancelArgs { ask, .. })
        | JobCommand::Signal(SignalArgs { ask, .. })
        | JobCommand::Approve(AnswerArgs { ask, .. })
        | JobCommand::Deny(AnswerArgs { ask, .. })
        | JobCommand::Logs(LogsArgs { ask, .. })
        | JobCommand::Result(JobArgs { ask, .. })
        | JobCommand::Artifacts(ArtifactsArgs { ask, .. }) => ask.clone(),
    };
    ask(global, environment, &args, async move |session| {
        let session = &session;
        match command {
            JobCommand::Run(_) => unreachable!("it was sent away above"),
            JobCommand::Submit(args) => {
                let submission = submission.expect("it was made above, because it is a submission");
                submit(session, &args, submission).await
            }
            JobCommand::List(args) => list(session, &args).await,
            JobCommand::Show(args) => show(session, &args.job).await,
            JobCommand::Watch(args) => watch(session, &args).await,
            JobCommand::Cancel(args) => cancel(session, args).await,
            JobCommand::Signal(args) => {
                let value = args.value.map_or(Value::Null, |text| {
                    serde_json::from_str(&text).unwrap_or(Value::String(text))
                });
                signal(session, &args.job, &args.name, value).await
            }
            JobCommand::Approve(args) => answer(session, &args, true).await,
            JobCommand::Deny(args) => answer(session, &args, false).await,
            JobCommand::Logs(args) => logs(session, &args).await,
            JobCommand::Result(args) => result(session, &args.job).await,
            JobCommand::Artifacts(args) => artifacts(session, &args).await,
        }
    })
}

/// The path of a job, and of what belongs to it.
fn of_job(job: &str, what: &str) -> String {
    format!("/v1/jobs/{}{what}", encoded(job))
}

// ---- list and show

fn state_cell(state: JobState) -> Cell {
    Cell::text(state.name()).painted(match state {
        JobState::Completed => Paint::Good,
        JobState::Failed | JobState::Stuck => Paint::Bad,
        JobState::Waiting => Paint::Attention,
        JobState::Cancelled => Paint::Dim,
        JobState::Queued | JobState::Running => Paint::Plain,
    })
}

/// The step that tells most of where a job stands: one at work before one that waits.
fn current_step(job: &JobView) -> Option<&StepView> {
    let rank = |step: &&StepView| match step.status.as_str() {
        "running" | "ending" => 0,
        "starting" => 1,
        "in_doubt" => 2,
        "backoff" => 3,
        _ => 4,
    };
    job.steps.iter().min_by_key(rank)
}

fn next_retry_ms(job: &JobView) -> Option<u64> {
    let steps = job.steps.iter();
    steps.filter_map(|step| step.next_attempt_ms).min()
}

/// Why a job does not go on at this moment.
fn waits_for(job: &JobView) -> Option<String> {
    let queued = || {
        let all_queued =
            !job.steps.is_empty() && job.steps.iter().all(|step| step.status == "queued");
        all_queued.then(|| "room for its step (`limits.running_effects`)".to_owned())
    };
    job.waits_for.clone().or_else(queued)
}

fn last_error(job: &JobView) -> Option<&str> {
    let of_step = job.steps.iter().find_map(|step| step.last_error.as_deref());
    job.error.as_deref().or(of_step)
}

const LIST: [&str; 9] = [
    "ID",
    "NAME",
    "STATE",
    "STEP",
    "ATTEMPT",
    "NEXT RETRY",
    "WAITS FOR",
    "SUBMITTED",
    "LAST ERROR",
];

fn list_row(job: &JobView, now_ms: u64) -> Vec<Cell> {
    const NAME_CHARS: usize = 32;
    const REASON_CHARS: usize = 48;
    let step = current_step(job);
    let others = job.steps.len().saturating_sub(1);
    vec![
        Cell::new(&render::short_id(job.id.as_uuid()), job.id.to_string()),
        Cell::or_none(job.name.as_deref(), Cell::text).cut(NAME_CHARS),
        state_cell(job.state),
        Cell::or_none(step, |step| match others {
            0 => Cell::text(&step.label),
            _ => Cell::new(&format!("{} +{others}", step.label), step.label.as_str()),
        })
        .cut(NAME_CHARS),
        Cell::or_none(step, |step| {
            let (n, of) = (step.attempt.0, step.attempts);
            Cell::new(&format!("{n}/{of}"), n)
        }),
        Cell::or_none(next_retry_ms(job), |at_ms| {
            instant(&until(now_ms, at_ms), at_ms)
        }),
        Cell::or_none(waits_for(job).as_deref(), Cell::text).cut(REASON_CHARS),
        instant(&ago(now_ms, job.submitted_ms), job.submitted_ms),
        Cell::or_none(last_error(job), Cell::text).cut(REASON_CHARS),
    ]
}

fn as_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("what came as JSON can be JSON again")
}

async fn list(session: &Session, args: &ListArgs) -> Result<u8, Failure> {
    /// The most on a page.
    const PAGE_MAX: usize = 1_000;
    let mut route = Route::new("/v1/jobs");
    if !args.states.is_empty() {
        route = route.with("state", &args.states.join(","));
    }
    if let Some(name) = &args.name {
        route = route.with("name", name);
    }
    let labels: Vec<String> = args
        .labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    route = route.with_all("label", labels.iter().map(String::as_str));
    let mut left = if args.all_pages {
        usize::MAX
    } else {
        args.limit
    };
    let mut table = Table::new(&LIST);
    let mut next: Option<JobId> = None;
    while left > 0 {
        let mut page = route.clone().with("limit", &left.min(PAGE_MAX).to_string());
        if let Some(before) = next {
            page = page.with("before", &before.to_string());
        }
        let page: JobList = session.get(&page.path).await?;
        left = left.saturating_sub(page.jobs.len());
        let now_ms = unix_ms();
        for job in &page.jobs {
            let mut more = as_json(job);
            more["attempts"] = current_step(job).map(|step| step.attempts).into();
            table.push(list_row(job, now_ms), more);
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    if session.json {
        session.print_json(&json!({ "jobs": table.to_json(), "next": next }))?;
        return Ok(exit::OK);
    }
    table.write(&mut io::stdout().lock(), "", session.colour)?;
    if table.is_empty() {
        session.note("no job fits");
    } else if next.is_some() {
        session.note("there are older ones: --limit N or --all-pages shows them");
    }
    Ok(exit::OK)
}

const SHOW: [&str; 12] = [
    "ID",
    "NAME",
    "PROGRAM",
    "STATE",
    "PRIORITY",
    "LABELS",
    "SUBMITTED",
    "FINISHED",
    "NEXT RETRY",
    "WAITS FOR",
    "LAST ERROR",
    "RESULT",
];

const STEPS: [&str; 7] = [
    "STEP",
    "LABEL",
    "KIND",
    "STATUS",
    "ATTEMPT",
    "NEXT RETRY",
    "LAST ERROR",
];

const QUESTIONS: [&str; 5] = ["NAME", "KIND", "PROMPT", "DEADLINE", "DEFAULT"];

fn time_cell(now_ms: u64, at_ms: u64) -> Cell {
    let distance = if at_ms > now_ms {
        until(now_ms, at_ms)
    } else {
        ago(now_ms, at_ms)
    };
    instant(&format!("{} ({distance})", runtime::rfc3339(at_ms)), at_ms)
}

fn json_cell(value: &Value) -> Cell {
    Cell::new(&value.to_string(), value.clone())
}

fn steps_table(job: &JobView, now_ms: u64) -> Table {
    let mut steps = Table::new(&STEPS);
    for step in &job.steps {
        let (n, of) = (step.attempt.0, step.attempts);
        let cells = vec![
            json_cell(&as_json(&step.step)),
            Cell::text(&step.label),
            Cell::text(&step.kind),
            Cell::text(&step.status),
            Cell::new(&format!("{n}/{of}"), n),
            Cell::or_none(step.next_attempt_ms, |at_ms| {
                instant(&until(now_ms, at_ms), at_ms)
            }),
            Cell::or_none(step.last_error.as_deref(), Cell::text),
        ];
        steps.push(cells, as_json(step));
    }
    steps
}

fn questions_table(questions: &[OpenQuestion], now_ms: u64) -> Table {
    let mut table = Table::new(&QUESTIONS);
    for question in questions {
        let kind = as_json(&question.kind);
        let cells = vec![
            Cell::text(&question.name),
            Cell::text(kind.as_str().unwrap_or_default()),
            Cell::text(&question.prompt),
            Cell::or_none(question.deadline_ms, |at_ms| time_cell(now_ms, at_ms)),
            Cell::or_none(question.default.as_ref(), json_cell),
        ];
        table.push(cells, as_json(question));
    }
    table
}

async fn show(session: &Session, word: &str) -> Result<u8, Failure> {
    let details: JobDetails = session.get(&of_job(word, "")).await?;
    let (job, now_ms) = (&details.job, unix_ms());
    let cells = vec![
        Cell::text(&job.id.to_string()),
        Cell::or_none(job.name.as_deref(), Cell::text),
        Cell::text(&job.program),
        state_cell(job.state),
        Cell::text(as_json(&job.priority).as_str().unwrap_or_default()),
        Cell::new(&labels_text(&job.labels), as_json(&job.labels)),
        time_cell(now_ms, job.submitted_ms),
        Cell::or_none(job.finished_ms, |at_ms| time_cell(now_ms, at_ms)),
        Cell::or_none(next_retry_ms(job), |at_ms| time_cell(now_ms, at_ms)),
        Cell::or_none(waits_for(job).as_deref(), Cell::text),
        Cell::or_none(last_error(job), Cell::text),
        Cell::or_none(details.result.as_ref(), |result| {
            Cell::new(&result_text(result), as_json(result))
        }),
    ];
    let steps = steps_table(job, now_ms);
    let questions = questions_table(&details.questions, now_ms);
    let mut more = as_json(&details);
    more["steps"] = steps.to_json().into();
    more["questions"] = questions.to_json().into();
    let table = Table::of_one(&SHOW, cells, more);
    session.print_one(&table)?;
    if session.json {
        return Ok(exit::OK);
    }
    let mut out = io::stdout().lock();
    for (heading, table) in [("steps", &steps), ("questions", &questions)] {
        if !table.is_empty() {
            writeln!(out, "\n{heading}:")?;
            table.write(&mut out, "  ", session.colour)?;
        }
    }
    drop(out);
    for question in &details.questions {
        session.note(&how_to_answer(word, &question.name, question.kind));
    }
    Ok(exit::OK)
}

fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    labels.join(" ")
}

fn result_text(result: &JobResult) -> String {
    match result {
        JobResult::Completed { output } => output.to_string(),
        JobResult::Failed { code, message, .. } => format!("{code}: {message}"),
        JobResult::Cancelled { reason } => reason.clone(),
    }
}

async fn result(session: &Session, word: &str) -> Result<u8, Failure> {
    let result: JobResult = session.get(&of_job(word, "/result")).await?;
    let (state, code, message, output) = match &result {
        JobResult::Completed { output } => (JobState::Completed, None, None, Some(output)),
        JobResult::Failed {
            code,
            message,
            output,
        } => (JobState::Failed, Some(code), Some(message), Some(output)),
        JobResult::Cancelled { reason } => (JobState::Cancelled, None, Some(reason), None),
    };
    let text = |text: Option<&String>| Cell::or_none(text, |text| Cell::text(text));
    let table = Table::of_one(
        &["STATE", "CODE", "MESSAGE", "OUTPUT"],
        vec![
            state_cell(state),
            text(code),
            text(message),
            Cell::or_none(output, json_cell),
        ],
        as_json(&result),
    );
    session.print_one(&table)?;
    Ok(exit::OK)
}

// ---- watch

async fn watch(session: &Session, args: &WatchArgs) -> Result<u8, Failure> {
    let route = match &args.job {
        // Another job may come to be called so while this one is watched.
        Some(word) => {
            let details: JobDetails = session.get(&of_job(word, "")).await?;
            format!("/v1/jobs/{}/events", details.job.id)
        }
        None => "/v1/events".to_owned(),
    };
    let route = Route::new(route).with("output", if args.output { "true" } else { "false" });
    let mut signals = Interrupts::listen()?;
    let feed = Feed::new(session, route, args.follow_how.reconnect.into()).resuming(args.after);
    let mut feed = feed.start();
    let style = Style {
        colour: session.colour,
        without_job: args.job.is_some(),
        raw_output: args.follow_how.raw,
        ..Style::default()
    };
    loop {
        let fed = tokio::select! {
            number = signals.next() => return Ok(exit::forced_by(number)),
            fed = feed.recv() => fed.transpose()?,
        };
        match fed {
            Some(Fed::Message(message)) => match message.event.as_str() {
                "event" => show_event(session, &read(&message)?, &style)?,
                "gap" => show_gap(session, &read(&message)?)?,
                _ => {}
            },
            Some(Fed::Again) => {}
            Some(Fed::End(end)) => {
                if session.json {
                    print_end(session, &end)?;
                }
                return Ok(exit::OK);
            }
            None => {
                return Err(Failure::said(
                    exit::INTERNAL,
                    "the stream ended without an end",
                ));
            }
        }
    }
}

fn show_event(session: &Session, event: &Event, style: &Style) -> Result<(), Failure> {
    if session.json {
        return session.print_json(event);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", render::line(&as_event(event), style))?;
    Ok(out.flush()?)
}

fn show_gap(session: &Session, gap: &Gap) -> Result<(), Failure> {
    if session.json {
        return session.print_json(&tagged("gap", gap));
    }
    let oldest = gap.oldest;
    session.note(&format!(
        "the log has nothing before entry {oldest} any more; what happened earlier is not shown"
    ));
    Ok(())
}

// ---- cancel, signal, answer

async fn cancel(session: &Session, args: CancelArgs) -> Result<u8, Failure> {
    let mut table = Table::new(&["JOB", "ASKED TO END", "ERROR"]);
    let row = |job: &str, asked: bool, error: Option<&str>| {
        vec![
            Cell::text(job),
            Cell::yes(asked),
            Cell::or_none(error, Cell::text),
        ]
    };
    let mut failed = false;
    if args.jobs.is_empty() {
        let request = CancelMany {
            states: args
                .states
                .iter()
                .filter_map(|state| state_of(state))
                .collect(),
            name: args.name,
            labels: args.labels.into_iter().collect(),
            all: args.all,
            dry_run: args.dry_run,
            reason: args.reason.clone(),
        };
        let done: CancelledMany = session.post("/v1/jobs/cancel", &request).await?;
        for job in &done.jobs {
            table.push(row(&job.to_string(), !done.dry_run, None), Value::Null);
        }
        for failure in &done.failed {
            failed = true;
            let job = failure.job.to_string();
            table.push(row(&job, false, Some(&failure.error)), Value::Null);
        }
    }
    for word in &args.jobs {
        let request = CancelRequest {
            reason: args.reason.clone(),
        };
        let path = of_job(word, "/cancel");
        match session.client.post::<Accepted>(&path, &request).await {
            Ok(done) => table.push(row(&done.job.to_string(), true, None), Value::Null),
            Err(ClientError::Refused(problem)) => {
                failed = true;
                table.push(row(word, false, Some(&problem.detail)), Value::Null);
            }
            Err(error) => return Err(session.failed(error)),
        }
    }
    if session.json {
        session.print_json(&json!({ "jobs": table.to_json(), "dry_run": args.dry_run }))?;
    } else {
        table.write(&mut io::stdout().lock(), "", session.colour)?;
        if table.is_empty() {
            session.note("no job fits");
        } else if args.dry_run {
            session.note("nothing was done; without --dry-run these would be asked to end");
        }
    }
    Ok(if failed { exit::FAILED } else { exit::OK })
}

fn state_of(word: &str) -> Option<JobState> {
    serde_json::from_value(Value::from(word)).ok()
}

async fn signal(session: &Session, job: &str, name: &str, value: Value) -> Result<u8, Failure> {
    let path = of_job(job, &format!("/signals/{}", encoded(name)));
    let done: Accepted = session.post(&path, &value).await?;
    let table = Table::of_one(
        &["JOB", "SIGNAL", "VALUE"],
        vec![
            Cell::text(&done.job.to_string()),
            Cell::text(name),
            json_cell(&value),
        ],
        Value::Null,
    );
    session.print_one(&table)?;
    Ok(exit::OK)
}

async fn answer(session: &Session, args: &AnswerArgs, yes: bool) -> Result<u8, Failure> {
    let (word, value) = (args.job.as_str(), Value::Bool(yes));
    if let Some(name) = &args.name {
        return signal(session, word, name, value).await;
    }
    let details: JobDetails = session.get(&of_job(word, "")).await?;
    let id = details.job.id.to_string();
    let (approvals, others): (Vec<&OpenQuestion>, Vec<&OpenQuestion>) = details
        .questions
        .iter()
        .partition(|question| question.kind == QuestionKind::Approval);
    match (approvals.as_slice(), others.first()) {
        ([question], _) => {
            session.note(&format!("asked: {}", question.prompt));
            signal(session, &id, &question.name, value).await
        }
        ([], None) => Err(Failure::said(
            exit::FAILED,
            format!("job {id} asks nothing; it is {}", details.job.state),
        )),
        ([], Some(question)) => {
            let help = how_to_answer(word, &question.name, question.kind);
            let message = format!(
                "job {id} asks for an answer, not for a yes or no: {}",
                question.prompt
            );
            Err(Failure::said(exit::FAILED, message).with_help(help))
        }
        (several, _) => {
            let names: Vec<&str> = several
                .iter()
                .map(|question| question.name.as_str())
                .collect();
            let message = format!("job {id} asks {} things", several.len());
            let help = format!("name one: {}", names.join(", "));
            Err(Failure::said(exit::FAILED, message).with_help(help))
        }
    }
}

// ---- logs and artifacts

async fn logs(session: &Session, args: &LogsArgs) -> Result<u8, Failure> {
    let details: JobDetails = session.get(&of_job(&args.job, "")).await?;
    let (job, began_ms) = (&details.job, unix_ms());
    let mut route = Route::new(format!("/v1/jobs/{}/logs", job.id));
    if let Some(stream) = &args.stream {
        route = route.with("stream", stream);
    }
    if let Some(step) = &args.step {
        route = route.with("step", step);
    }
    let is_stuck = job.state == JobState::Stuck;
    if args.follow && !is_stuck {
        if let Some(why) = not_begun(job) {
            session.note(&format!("job {} has not begun: {why}", job.id));
        }
        for question in &details.questions {
            session.note(&format!("the job asks: {}", question.prompt));
            session.note(&how_to_answer(&args.job, &question.name, question.kind));
        }
        let follow_what = Follow {
            job: job.id,
            logs: route,
            told_from_ms: began_ms,
            patience: args.follow_how.reconnect.into(),
            raw: args.follow_how.raw,
        };
        return follow(session, &follow_what).await;
    }
    let logs: Logs = session.get(&route.path).await?;
    if session.json {
        session.print_json(&logs)?;
    } else {
        print_pieces(&logs.pieces, args.follow_how.raw)?;
        if !args.follow && !job.steps.is_empty() {
            session.note("a step is at work; --follow shows what it prints");
        }
    }
    if args.follow {
        let why = job.error.as_deref().unwrap_or("no reason is known");
        session.note(&format!(
            "job {} is stuck and goes no further: {why}",
            job.id
        ));
        return Ok(exit::FAILED);
    }
    Ok(exit::OK)
}

fn print_pieces(pieces: &[LogPiece], raw: bool) -> Result<(), Failure> {
    let printer = Printer::new(raw);
    for piece in pieces {
        printer.print(piece)?;
    }
    Ok(())
}

/// Why nothing of a job has run yet, if that is so.
fn not_begun(job: &JobView) -> Option<String> {
    let is_new = |step: &StepView| step.status == "queued" && step.attempt.0 <= 1;
    if job.state == JobState::Queued {
        return Some("it is queued".to_owned());
    }
    let waits = !job.steps.is_empty() && job.steps.iter().all(is_new);
    waits.then(|| waits_for(job).map_or_else(String::new, |on| format!("it waits for {on}")))
}

async fn artifacts(session: &Session, args: &ArtifactsArgs) -> Result<u8, Failure> {
    let path = of_job(&args.job, "/artifacts");
    if let Some(name) = &args.name {
        let path = format!("{path}/{}", encoded(name));
        let content = session.client.get_bytes(&path, "*/*").await;
        let content = content.map_err(|error| session.failed(error))?;
        return hand_out(args, &content);
    }
    let list: ArtifactList = session.get(&path).await?;
    let mut table = Table::new(&["NAME", "MEDIA TYPE", "PARTS", "SIZE", "COMPLETE", "URL"]);
    for artifact in &list.artifacts {
        let cells = vec![
            Cell::text(&artifact.name),
            Cell::text(&artifact.media_type),
            Cell::number(artifact.parts),
            Cell::new(&bytes(artifact.size_bytes), artifact.size_bytes),
            Cell::yes(artifact.complete),
            Cell::or_none(artifact.url.as_deref(), Cell::text),
        ];
        table.push(cells, as_json(artifact));
    }
    if session.json {
        session.print_json(&json!({ "artifacts": table.to_json() }))?;
    } else {
        table.write(&mut io::stdout().lock(), "", session.colour)?;
    }
    Ok(exit::OK)
}

fn hand_out(args: &ArtifactsArgs, content: &[u8]) -> Result<u8, Failure> {
    if let Some(file) = &args.output {
        fs::write(file, content).map_err(|error| {
            let file = one_line(&file.display().to_string());
            Failure::said(exit::IO, format!("cannot write {file}: {error}"))
        })?;
        return Ok(exit::OK);
    }
    let mut out = io::stdout().lock();
    if io::stdout().is_terminal() && !args.raw {
        write_text(&mut out, &String::from_utf8_lossy(content), true)?;
    } else {
        out.write_all(content)?;
        out.flush()?;
    }
    Ok(exit::OK)
}
