//! One event of every kind, in every shape that differs.

use pal::{AnsweredBy, Event, EventKind, JobRef, JobState, Part, QuestionKind, StepStatus, Stream};
use serde_json::json;
use uuid::Uuid;

pub(crate) const JOB: Uuid = Uuid::from_u128(0x0190_f3c2_7b1e_7000_8000_0000_cafe_f00d);

/// What is said of the node.
fn node_kinds() -> Vec<EventKind> {
    use EventKind::{
        ConfigRejected, ConfigReloaded, Degraded, Draining, Phase, Ready, Recovered, Stopped,
    };
    vec![
        Phase {
            name: "recovery".into(),
            duration_us: 850,
        },
        Ready {
            duration_us: 12_345,
        },
        ConfigReloaded {
            applied: vec!["log.level".into(), "jobs.max".into()],
            needs_restart: vec!["http.listen".into()],
        },
        ConfigReloaded {
            applied: vec![],
            needs_restart: vec![],
        },
        ConfigRejected {
            error: "config.toml:3:1: unknown key `prot`".into(),
        },
        Degraded {
            what: "log".into(),
            detail: "no space left on device".into(),
        },
        Recovered { what: "log".into() },
        Draining {
            reason: "SIGTERM".into(),
        },
        Stopped,
    ]
}

/// What is said of a job.
fn job_kinds() -> Vec<EventKind> {
    use EventKind::{
        Answered, Artifact, JobFinished, JobRecovered, JobResumed, JobStarted, JobStuck,
        JobSubmitted, JobWaiting, Message, Question, StepFinished, StepOutput, StepRetrying,
        StepStarted,
    };
    let piece = |part, index, last| Artifact {
        name: "report".into(),
        media_type: "text/plain".into(),
        part,
        index,
        last,
        append: index > 0,
    };
    let finished = |status, error: Option<&str>| StepFinished {
        step: "build".into(),
        status,
        duration_us: 3_250_000,
        error: error.map(Into::into),
    };
    vec![
        JobSubmitted {
            name: Some("nightly".into()),
            program: "plan".into(),
        },
        JobSubmitted {
            name: None,
            program: "command".into(),
        },
        JobStarted,
        JobRecovered { entries: 17 },
        StepStarted {
            step: "build".into(),
            title: Some("Build the thing".into()),
            kind: "run".into(),
            attempt: 1,
            attempts: 3,
        },
        StepStarted {
            step: "build".into(),
            title: None,
            kind: "run".into(),
            attempt: 2,
            attempts: 3,
        },
        StepOutput {
            step: "build".into(),
            stream: Stream::Stdout,
            data: "one\ntwo\n".into(),
            lost_bytes: 0,
        },
        StepOutput {
            step: "build".into(),
            stream: Stream::Stderr,
            data: "\u{1b}]0;owned\u{7}warning".into(),
            lost_bytes: 512,
        },
        StepRetrying {
            step: "build".into(),
            attempt: 1,
            error: "exit status 2".into(),
            next_at_ms: 1_700_000_002_000,
        },
        finished(StepStatus::Ok, None),
        finished(StepStatus::Failed, Some("exit status 2")),
        finished(StepStatus::TimedOut, Some("no end after 3s")),
        finished(StepStatus::Cancelled, None),
        finished(StepStatus::Interrupted, None),
        finished(StepStatus::Skipped, None),
        Message {
            step: None,
            text: "Hello,\nworld\n".into(),
        },
        Message {
            step: Some("greet".into()),
            text: "Hello".into(),
        },
        piece(
            Part::Text {
                text: "All is well.".into(),
            },
            0,
            true,
        ),
        piece(
            Part::Data {
                data: json!({ "lines": 3, "ok": true }),
            },
            0,
            false,
        ),
        piece(
            Part::File {
                name: "a.txt".into(),
                size: 12,
                blob: "9f86d081".into(),
            },
            1,
            false,
        ),
        piece(
            Part::Url {
                url: "https://example.org/a".into(),
            },
            2,
            true,
        ),
        piece(Part::Omitted { bytes: 100_000 }, 0, true),
        Question {
            name: "deploy".into(),
            step: Some("ask".into()),
            prompt: "Deploy?".into(),
            kind: QuestionKind::Approval,
            deadline_ms: Some(1_700_000_060_000),
            default: Some(json!(false)),
        },
        Question {
            name: "colour".into(),
            step: None,
            prompt: "Which colour?".into(),
            kind: QuestionKind::Answer,
            deadline_ms: None,
            default: None,
        },
        JobWaiting {
            on: "the answer to deploy".into(),
        },
        Answered {
            name: "deploy".into(),
            by: AnsweredBy::Client,
        },
        Answered {
            name: "deploy".into(),
            by: AnsweredBy::Default,
        },
        Answered {
            name: "deploy".into(),
            by: AnsweredBy::Deadline,
        },
        JobResumed,
        JobFinished {
            state: JobState::Completed,
            error: None,
            duration_us: 187_000_000,
        },
        JobFinished {
            state: JobState::Failed,
            error: Some("step build failed".into()),
            duration_us: 7_500_000_000,
        },
        JobFinished {
            state: JobState::Cancelled,
            error: None,
            duration_us: 45_600_000,
        },
        JobStuck {
            step: Some("build".into()),
            reason: "the journal has another step here".into(),
        },
        JobStuck {
            step: None,
            reason: "unknown program".into(),
        },
    ]
}

/// All of them, numbered and dated; those of the job as the shows of durable entries.
pub(crate) fn events() -> Vec<Event> {
    let node = node_kinds().into_iter().map(|kind| (None, kind));
    let job = (1..)
        .zip(job_kinds())
        .map(|(seq, kind)| (Some(JobRef { id: JOB, seq }), kind));
    (1..)
        .zip(node.chain(job))
        .map(|(seq, (job, kind))| Event {
            seq,
            at_ms: 1_700_000_000_000 + seq * 250,
            lsn: job.map(|job| 100 + job.seq),
            job,
            kind,
        })
        .collect()
}
