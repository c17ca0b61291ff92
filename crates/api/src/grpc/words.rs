//! From our types to the protocol's and back: the same words on both sides.
//!
//! What comes in is checked here once; what goes out always has a word, since the matches below name every variant.

use pal::EventKind;
use runtime::{JobId, JobPriority, JobResult, JobSpec, JobState, JobView, Json, StepView};
use serde_json::Value;

use super::pb::{self, event, job_result, part};
use crate::fault::Fault;
use crate::wire::{ArtifactInfo, Event, Gap, JobDetails, LogPiece, Node, OpenQuestion, StreamEnd};

pub(super) fn json(pointer: &str, text: &str) -> Result<Json, Fault> {
    if text.is_empty() {
        return Ok(Json::null());
    }
    Json::parse_text(text)
        .map_err(|error| Fault::invalid_at(pointer, format!("is no JSON text: {error}")))
}

pub(super) fn id(pointer: &str, text: &str) -> Result<JobId, Fault> {
    text.parse()
        .map_err(|_| Fault::invalid_at(pointer, "is not the id of a job"))
}

pub(super) fn states(given: &[i32]) -> Result<Vec<JobState>, Fault> {
    let states = given.iter().map(|&number| {
        Ok(match pb::JobState::try_from(number) {
            Ok(pb::JobState::Queued) => JobState::Queued,
            Ok(pb::JobState::Running) => JobState::Running,
            Ok(pb::JobState::Waiting) => JobState::Waiting,
            Ok(pb::JobState::Stuck) => JobState::Stuck,
            Ok(pb::JobState::Completed) => JobState::Completed,
            Ok(pb::JobState::Failed) => JobState::Failed,
            Ok(pb::JobState::Cancelled) => JobState::Cancelled,
            Ok(pb::JobState::Unspecified) | Err(_) => {
                let what = format!("{number} is no state of a job");
                return Err(Fault::invalid_at("/states", what));
            }
        })
    });
    states.collect()
}

pub(super) fn output_stream(given: i32) -> Result<Option<pal::Stream>, Fault> {
    match pb::OutputStream::try_from(given) {
        Ok(pb::OutputStream::Unspecified) => Ok(None),
        Ok(pb::OutputStream::Stdout) => Ok(Some(pal::Stream::Stdout)),
        Ok(pb::OutputStream::Stderr) => Ok(Some(pal::Stream::Stderr)),
        Err(_) => Err(Fault::invalid_at(
            "/stream",
            format!("{given} is no stream of output"),
        )),
    }
}

pub(super) fn spec(spec: pb::JobSpec) -> Result<JobSpec, Fault> {
    let priority = match pb::JobPriority::try_from(spec.priority) {
        Ok(pb::JobPriority::Background) => JobPriority::Background,
        Ok(pb::JobPriority::Low) => JobPriority::Low,
        Ok(pb::JobPriority::Unspecified | pb::JobPriority::Normal) => JobPriority::Normal,
        Ok(pb::JobPriority::High) => JobPriority::High,
        Err(_) => {
            let what = format!("{} is no priority", spec.priority);
            return Err(Fault::invalid_at("/spec/priority", what));
        }
    };
    Ok(JobSpec {
        input: json("/input", &spec.input_json)?,
        program: spec.program,
        name: spec.name,
        key: spec.key,
        labels: spec.labels,
        priority,
    })
}

fn state(state: JobState) -> i32 {
    let state = match state {
        JobState::Queued => pb::JobState::Queued,
        JobState::Running => pb::JobState::Running,
        JobState::Waiting => pb::JobState::Waiting,
        JobState::Stuck => pb::JobState::Stuck,
        JobState::Completed => pb::JobState::Completed,
        JobState::Failed => pb::JobState::Failed,
        JobState::Cancelled => pb::JobState::Cancelled,
    };
    state.into()
}

fn priority(priority: JobPriority) -> i32 {
    let priority = match priority {
        JobPriority::Background => pb::JobPriority::Background,
        JobPriority::Low => pb::JobPriority::Low,
        JobPriority::Normal => pb::JobPriority::Normal,
        JobPriority::High => pb::JobPriority::High,
    };
    priority.into()
}

fn stream(stream: pal::Stream) -> i32 {
    let stream = match stream {
        pal::Stream::Stdout => pb::OutputStream::Stdout,
        pal::Stream::Stderr => pb::OutputStream::Stderr,
    };
    stream.into()
}

fn question_kind(kind: pal::QuestionKind) -> i32 {
    let kind = match kind {
        pal::QuestionKind::Approval => pb::QuestionKind::Approval,
        pal::QuestionKind::Answer => pb::QuestionKind::Answer,
    };
    kind.into()
}

fn text(value: &Value) -> String {
    value.to_string()
}

pub(super) fn job(job: JobView) -> pb::Job {
    pb::Job {
        id: job.id.to_string(),
        name: job.name,
        program: job.program,
        state: state(job.state),
        waits_for: job.waits_for,
        priority: priority(job.priority),
        labels: job.labels,
        submitted_ms: job.submitted_ms,
        finished_ms: job.finished_ms,
        steps: job.steps.into_iter().map(step).collect(),
        error: job.error,
    }
}

fn step(step: StepView) -> pb::Step {
    pb::Step {
        step: step.step.0,
        label: step.label,
        title: step.title,
        kind: step.kind,
        attempt: step.attempt.0,
        attempts: step.attempts,
        status: step.status,
        next_attempt_ms: step.next_attempt_ms,
        last_error: step.last_error,
    }
}

pub(super) fn details(details: JobDetails) -> pb::JobDetails {
    pb::JobDetails {
        job: Some(job(details.job)),
        input_json: details.input.as_ref().map(text),
        result: details.result.map(result),
        questions: details.questions.into_iter().map(open_question).collect(),
    }
}

fn open_question(question: OpenQuestion) -> pb::OpenQuestion {
    pb::OpenQuestion {
        name: question.name,
        prompt: question.prompt,
        kind: question_kind(question.kind),
        deadline_ms: question.deadline_ms,
        default_json: question.default.as_ref().map(text),
    }
}

pub(super) fn result(result: JobResult) -> pb::JobResult {
    let state = match result {
        JobResult::Completed { output } => job_result::State::Completed(job_result::Completed {
            output_json: text(&output),
        }),
        JobResult::Failed {
            code,
            message,
            output,
        } => job_result::State::Failed(job_result::Failed {
            code,
            message,
            output_json: text(&output),
        }),
        JobResult::Cancelled { reason } => {
            job_result::State::Cancelled(job_result::Cancelled { reason })
        }
    };
    pb::JobResult { state: Some(state) }
}

pub(super) fn artifact(info: ArtifactInfo) -> pb::Artifact {
    pb::Artifact {
        name: info.name,
        media_type: info.media_type,
        parts: info.parts as u64,
        size_bytes: info.size_bytes,
        url: info.url,
        complete: info.complete,
    }
}

pub(super) fn log_piece(piece: LogPiece) -> pb::LogPiece {
    pb::LogPiece {
        step: piece.step,
        attempt: piece.attempt,
        stream: stream(piece.stream),
        data: piece.data,
        lost_bytes: piece.lost_bytes,
    }
}

pub(super) fn gap(gap: &Gap) -> pb::Gap {
    pb::Gap { oldest: gap.oldest }
}

pub(super) fn stream_end(end: &StreamEnd) -> pb::StreamEnd {
    let reason = match end.reason.as_str() {
        "job_over" => pb::StreamEndReason::JobOver,
        "stopping" => pb::StreamEndReason::Stopping,
        "lagged" => pb::StreamEndReason::Lagged,
        _ => pb::StreamEndReason::Unspecified,
    };
    pb::StreamEnd {
        reason: reason.into(),
        missed: end.missed,
        state: end.state.map(state),
        exit_code: end.exit_code.map(u32::from),
    }
}

pub(super) fn node(node: Node) -> pb::Node {
    let state = match node.state.as_str() {
        "serving" => pb::NodeState::Serving,
        "draining" => pb::NodeState::Draining,
        "stopping" => pb::NodeState::Stopping,
        _ => pb::NodeState::Unspecified,
    };
    pb::Node {
        name: node.identity.name,
        version: node.identity.version,
        commit: node.identity.commit,
        features: node.identity.features,
        started_ms: node.identity.started_ms,
        log_id: node.identity.log_id,
        epoch: node.epoch,
        live_jobs: node.live_jobs as u64,
        finished_jobs: node.finished_jobs as u64,
        running_effects: node.running_effects as u64,
        queued_effects: node.queued_effects as u64,
        state: state.into(),
        space_low: node.space_low,
        requests: node.requests as u64,
        streams: node.streams as u64,
    }
}

pub(super) fn event(event: Event) -> pb::Event {
    pb::Event {
        lsn: event.lsn,
        at_ms: event.at_ms,
        job: event.job.map(|job| job.to_string()),
        kind: Some(event_kind(event.kind)),
    }
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn event_kind(kind: EventKind) -> event::Kind {
    use event::Kind;
    match kind {
        EventKind::Phase { name, duration_us } => Kind::Phase(pb::Phase { name, duration_us }),
        EventKind::Ready { duration_us } => Kind::Ready(pb::Ready { duration_us }),
        EventKind::Draining { reason } => Kind::Draining(pb::Draining { reason }),
        EventKind::Stopped => Kind::Stopped(pb::Stopped {}),
        EventKind::ConfigReloaded {
            applied,
            needs_restart,
        } => Kind::ConfigReloaded(pb::ConfigReloaded {
            applied,
            needs_restart,
        }),
        EventKind::ConfigRejected { error } => Kind::ConfigRejected(pb::ConfigRejected { error }),
        EventKind::Degraded { what, detail } => Kind::Degraded(pb::Degraded { what, detail }),
        EventKind::Recovered { what } => Kind::Recovered(pb::Recovered { what }),
        EventKind::JobSubmitted { name, program } => {
            Kind::JobSubmitted(pb::JobSubmitted { name, program })
        }
        EventKind::JobStarted => Kind::JobStarted(pb::JobStarted {}),
        EventKind::JobWaiting { on } => Kind::JobWaiting(pb::JobWaiting { on }),
        EventKind::JobResumed => Kind::JobResumed(pb::JobResumed {}),
        EventKind::JobRecovered { entries } => Kind::JobRecovered(pb::JobRecovered { entries }),
        EventKind::StepStarted {
            step,
            title,
            kind,
            attempt,
            attempts,
        } => Kind::StepStarted(pb::StepStarted {
            step,
            title,
            kind,
            attempt,
            attempts,
        }),
        EventKind::StepOutput {
            step,
            stream: printed,
            data,
            lost_bytes,
        } => Kind::StepOutput(pb::StepOutput {
            step,
            stream: stream(printed),
            data,
            lost_bytes,
        }),
        EventKind::StepRetrying {
            step,
            attempt,
            error,
            next_at_ms,
        } => Kind::StepRetrying(pb::StepRetrying {
            step,
            attempt,
            error,
            next_at_ms,
        }),
        EventKind::StepFinished {
            step,
            status,
            duration_us,
            error,
        } => Kind::StepFinished(pb::StepFinished {
            step,
            status: step_status(status),
            duration_us,
            error,
        }),
        EventKind::Message { step, text } => Kind::Message(pb::Message { step, text }),
        EventKind::Artifact {
            name,
            media_type,
            part,
            index,
            last,
            append,
        } => Kind::Artifact(pb::ArtifactPiece {
            name,
            media_type,
            part: Some(artifact_part(part)),
            index,
            last,
            append,
        }),
        EventKind::Question {
            name,
            step,
            prompt,
            kind,
            deadline_ms,
            default,
        } => Kind::Question(pb::Question {
            name,
            step,
            prompt,
            kind: question_kind(kind),
            deadline_ms,
            default_json: default.as_ref().map(text),
        }),
        EventKind::Answered { name, by } => Kind::Answered(pb::Answered {
            name,
            by: answered_by(by),
        }),
        EventKind::JobFinished {
            state,
            error,
            duration_us,
        } => Kind::JobFinished(pb::JobFinished {
            state: final_state(state),
            error,
            duration_us,
        }),
        EventKind::JobStuck { step, reason } => Kind::JobStuck(pb::JobStuck { step, reason }),
    }
}

fn step_status(status: pal::StepStatus) -> i32 {
    let status = match status {
        pal::StepStatus::Ok => pb::StepStatus::Ok,
        pal::StepStatus::Failed => pb::StepStatus::Failed,
        pal::StepStatus::TimedOut => pb::StepStatus::TimedOut,
        pal::StepStatus::Cancelled => pb::StepStatus::Cancelled,
        pal::StepStatus::Interrupted => pb::StepStatus::Interrupted,
        pal::StepStatus::Skipped => pb::StepStatus::Skipped,
    };
    status.into()
}

fn final_state(ended: pal::JobState) -> i32 {
    state(ended.into())
}

fn answered_by(by: pal::AnsweredBy) -> i32 {
    let by = match by {
        pal::AnsweredBy::Client => pb::AnsweredBy::Client,
        pal::AnsweredBy::Default => pb::AnsweredBy::Default,
        pal::AnsweredBy::Deadline => pb::AnsweredBy::Deadline,
    };
    by.into()
}

fn artifact_part(piece: pal::Part) -> pb::Part {
    let kind = match piece {
        pal::Part::Text { text } => part::Type::Text(text),
        pal::Part::Data { data } => part::Type::DataJson(text(&data)),
        pal::Part::File { name, size, blob } => part::Type::File(part::File { name, size, blob }),
        pal::Part::Url { url } => part::Type::Url(url),
        pal::Part::Omitted { bytes } => part::Type::OmittedBytes(bytes),
    };
    pb::Part { r#type: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of states are one list in three places; that of the protocol is held against the one users read.
    #[test]
    fn a_state_is_called_alike_everywhere() {
        for number in 1..=7 {
            let ours = states(&[number]).unwrap()[0];
            let theirs = pb::JobState::try_from(number).unwrap();
            let name = theirs.as_str_name().trim_start_matches("JOB_STATE_");
            assert_eq!(name.to_lowercase(), ours.name());
            assert_eq!(state(ours), number);
        }
        for wrong in [0, 8, -1] {
            let refused = states(&[wrong]).unwrap_err();
            assert_eq!(refused.violations[0].pointer, "/states");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_by_its_field() {
        let refused = spec(pb::JobSpec {
            program: "plan".to_owned(),
            input_json: "{".to_owned(),
            ..pb::JobSpec::default()
        });
        assert_eq!(refused.unwrap_err().violations[0].pointer, "/input");
        assert_eq!(json("/x", "").unwrap(), Json::null());
        // More than a double can hold.
        let exact = "9007199254740993";
        assert_eq!(json("/x", exact).unwrap().as_str(), exact);
    }
}
