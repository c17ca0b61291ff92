//! `tinkerbell job submit`: from a file, from standard input or from a command line to a job that is durable.

use std::io::{self, Read, Write};
use std::path::Path;

use api::ipc::client::ClientError;
use api::wire::Problem;
use runtime::{JobPriority, JobSpec, Json, Submitted};
use serde_json::json;

use super::follow::{Follow, follow, tagged};
use super::{Failure, Route, Session, What};
use crate::boot::unix_ms;
use crate::cli::{PriorityArg, SubmitArgs, exit};
use crate::config::{ConfigErrors, FILE_MAX, Format, Job};
use crate::startup::job_spec;

/// What is to be submitted, and the job it was read from.
pub(super) struct Submission {
    spec: JobSpec,
    job: Option<Job>,
}

/// Makes it from what was typed.
pub(super) fn submission(args: &SubmitArgs) -> Result<Submission, Failure> {
    let wrong = |errors| Failure::config(errors, "the job");
    let (mut spec, job) = match args.file.as_deref() {
        None => {
            let input = Json::of(&json!({ "argv": args.argv }));
            (JobSpec::new("command", input), None)
        }
        Some(file) => {
            let job = if file == Path::new("-") {
                let name = Path::new("standard input");
                Job::parse(name, &standard_input()?, Format::Json, &args.inputs)
            } else {
                Job::load(file, &args.inputs)
            };
            let job = job.map_err(wrong)?;
            (job_spec(&job), Some(job))
        }
    };
    spec.key.clone_from(&args.key);
    spec.name = args.name.clone().or(spec.name);
    spec.labels.extend(args.labels.iter().cloned());
    if let Some(priority) = args.priority {
        spec.priority = match priority {
            PriorityArg::Background => JobPriority::Background,
            PriorityArg::Low => JobPriority::Low,
            PriorityArg::Normal => JobPriority::Normal,
            PriorityArg::High => JobPriority::High,
        };
    }
    Ok(Submission { spec, job })
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let wrong = |what: String| Failure::said(exit::CONFIG, format!("standard input {what}"));
    io::stdin()
        .lock()
        .take(FILE_MAX.as_u64() + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match text.len() as u64 > FILE_MAX.as_u64() {
        true => Err(wrong(format!("has more than {FILE_MAX}"))),
        false => Ok(text),
    }
}

/// Submits it, and follows it if that is asked for.
pub(super) async fn submit(
    session: &Session,
    args: &SubmitArgs,
    submission: Submission,
) -> Result<u8, Failure> {
    let began_ms = unix_ms();
    let answer = session.client.post("/v1/jobs", &submission.spec).await;
    let submitted: Submitted = answer.map_err(|error| match (&error, &submission.job) {
        (ClientError::Refused(problem), Some(job)) => mistakes(problem, job),
        _ => session.failed(error),
    })?;
    let job = submitted.job;
    match (session.json, args.follow) {
        (true, false) => session.print_json(&submitted)?,
        (true, true) => session.print_json(&tagged("submitted", &submitted))?,
        // With `--follow` standard output is the job's.
        (false, true) => {
            let _ = writeln!(io::stderr(), "job {job}");
        }
        (false, false) => writeln!(io::stdout(), "{job}")?,
    }
    if !submitted.is_new {
        session.note("that job was submitted before, under the same key");
    }
    if !args.follow {
        return Ok(exit::OK);
    }
    follow(
        session,
        &Follow {
            job,
            logs: Route::new(format!("/v1/jobs/{job}/logs")),
            told_from_ms: if submitted.is_new { 0 } else { began_ms },
            patience: args.follow_how.reconnect.into(),
            raw: args.follow_how.raw,
        },
    )
    .await
}

/// A refusal, with the places in the job's file that it is about.
fn mistakes(problem: &Problem, job: &Job) -> Failure {
    let errors = problem.errors.iter().filter_map(|error| {
        let pointer = error.pointer.strip_prefix("/input")?;
        Some(job.source.error(pointer, error.detail.clone()))
    });
    match ConfigErrors::check(errors.collect()) {
        Ok(()) => Failure::refused(problem),
        Err(errors) => Failure(What::Config {
            errors,
            what: "the job",
            code: exit::FAILED,
        }),
    }
}
