//! A job's journal, told as a task.
//!
//! One fold makes both the task as it stands and what a stream shows of its changes: what happens to a job goes in, one thing
//! after the other, and what a client is told of it comes out. It depends on what is in the log alone, so that a stream
//! taken up again after a restart goes on exactly where it was.
//!
//! A task is `SUBMITTED` until something of it shows; `INPUT_REQUIRED` as long as it asks something that nobody has answered,
//! whatever else it does meanwhile; `AUTH_REQUIRED` if the question is called `auth`, or begins with `auth-` or `auth_`;
//! `REJECTED` if it failed with the code `rejected`; and `WORKING` otherwise, also when it is stuck and waits for an operator:
//! a terminal state would be final, and a stuck job may go on.

use a2a_types::{
    Artifact, Message, Part, Role, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState,
    TaskStatus, TaskStatusUpdateEvent,
};
use chrono::DateTime;
use pal::{EventKind, QuestionKind};
use runtime::entry::Entry;
use runtime::{History, HistoryError, JobId, JobResult, JobState, JobView, Json, Stored};
use serde_json::Value;
use wal::Lsn;

use super::{LABEL_CONTEXT, message};
use crate::artifacts::read_blob;
use crate::fault::Fault;

/// The code of a failure by which a task is rejected.
const REJECTED: &str = "rejected";

/// The artifact that holds what a job came to.
const OUTPUT: &str = "output";

/// A question without an answer.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// The signal that answers it.
    pub(super) name: String,
    /// What sort of answer it wants.
    pub(super) kind: QuestionKind,
    prompt: Message,
}

impl Open {
    fn state(&self) -> TaskState {
        let wants_auth =
            self.name == "auth" || self.name.starts_with("auth-") || self.name.starts_with("auth_");
        if wants_auth {
            TaskState::AuthRequired
        } else {
            TaskState::InputRequired
        }
    }
}

/// A task, as far as it has been told.
#[derive(Clone, Debug)]
pub(super) struct Story {
    job: JobId,
    context: String,
    status: TaskStatus,
    history: Vec<Message>,
    artifacts: Vec<Artifact>,
    /// In the order in which they were asked.
    pub(super) open: Vec<Open>,
    /// The last entry that has been told.
    pub(super) through: Lsn,
    /// Whether the job waits for an operator.
    pub(super) is_stuck: bool,
    /// The job's time, for what has none of its own.
    now_ms: u64,
    /// The question that a message was kept for, and the message's id, until its answer has been told.
    answering: Option<(String, String)>,
    /// What the job came to, if it is completed.
    pub(super) output: Option<Value>,
    program: String,
    /// Whether what is handed out is kept, beside being shown.
    keeps_artifacts: bool,
}

/// An event with nothing left out.
pub(super) fn full_event(
    history: &History,
    job: JobId,
    lsn: Lsn,
) -> Result<Option<EventKind>, Fault> {
    match history.entries(job, lsn, lsn)?.into_iter().next() {
        Some((_, Entry::Emitted { event })) => Ok(Some(read(history, lsn, &event)?)),
        _ => Ok(None),
    }
}

fn load(history: &History, stored: &Stored) -> Result<Json, Fault> {
    let payload = history.payloads().load(stored);
    Ok(payload.map_err(HistoryError::from)?.json().clone())
}

fn read(history: &History, lsn: Lsn, stored: &Stored) -> Result<EventKind, Fault> {
    let event = load(history, stored)?.read();
    Ok(event.map_err(|error| HistoryError::Event {
        lsn,
        error: error.to_string(),
    })?)
}

impl Story {
    /// The beginning of a job's story.
    pub(super) fn of(view: &JobView) -> Self {
        Self {
            job: view.id,
            context: view.labels.get(LABEL_CONTEXT).cloned().unwrap_or_default(),
            status: TaskStatus {
                state: TaskState::Submitted,
                message: None,
                timestamp: None,
            },
            history: Vec::new(),
            artifacts: Vec::new(),
            open: Vec::new(),
            through: Lsn::ZERO,
            is_stuck: false,
            now_ms: view.submitted_ms,
            answering: None,
            output: None,
            program: view.program.clone(),
            keeps_artifacts: true,
        }
    }

    /// Keeps nothing of what is handed out from here on, nor what was: for whoever only shows it.
    pub(super) fn without_artifacts(mut self) -> Self {
        self.keeps_artifacts = false;
        self.artifacts = Vec::new();
        self
    }

    /// The whole story of a job so far, up to and including the entry `through`. Blocks.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub(super) fn tell(history: &History, view: &JobView, through: Lsn) -> Result<Self, Fault> {
        let mut story = Self::of(view);
        let entries = match view.first_lsn {
            Some(first) => history.entries(view.id, first, through)?,
            None => Vec::new(),
        };
        for (lsn, entry) in entries {
            story.take_entry(history, lsn, entry)?;
        }
        story.through = story.through.max(through);
        if view.state.is_final() && !story.is_over() {
            // The log has released its beginning, or all of it; that it is over is known all the same.
            story.now_ms = view.finished_ms.unwrap_or(story.now_ms);
            let said = view.error.clone().map(|error| story.says(error));
            story.set(
                match view.state {
                    JobState::Completed => TaskState::Completed,
                    JobState::Cancelled => TaskState::Canceled,
                    _ => TaskState::Failed,
                },
                said,
            );
        }
        if view.state == JobState::Stuck {
            story.stick(view.error.as_deref().unwrap_or_default());
        }
        if story.status.timestamp.is_none() {
            story.set(story.status.state.clone(), None);
        }
        Ok(story)
    }

    fn take_entry(&mut self, history: &History, lsn: Lsn, entry: Entry) -> Result<(), Fault> {
        match entry {
            Entry::Submitted { at_ms, spec } => {
                self.through = lsn;
                self.now_ms = at_ms;
                let input = load(history, &spec.input)?.value();
                if let Some(mut submitted) = message::submitted(&input) {
                    submitted.task_id = Some(self.job.to_string());
                    self.history.push(submitted);
                }
                self.set(TaskState::Submitted, None);
            }
            Entry::Signalled {
                name,
                at_ms,
                payload,
            } => {
                self.through = lsn;
                self.now_ms = at_ms;
                let payload = load(history, &payload)?;
                self.take_signal(lsn, &name, &payload);
            }
            entry => {
                self.show(history, lsn, entry)?;
            }
        }
        Ok(())
    }

    /// Takes in an entry of the job; gives what is shown of it. It depends on the entries alone, so that the second event of
    /// an entry is the second one whenever the log is read. Blocks.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub(super) fn show(
        &mut self,
        history: &History,
        lsn: Lsn,
        entry: Entry,
    ) -> Result<Vec<StreamResponse>, Fault> {
        self.through = lsn;
        match entry {
            Entry::Emitted { event } => {
                let event = read(history, lsn, &event)?;
                self.take(history, lsn, None, event)
            }
            Entry::Finished { at_ms, .. } => {
                self.now_ms = at_ms;
                let result = history.result(self.job, lsn)?;
                Ok(result.map(|result| self.finish(result)).unwrap_or_default())
            }
            Entry::Submitted { at_ms, .. }
            | Entry::Signalled { at_ms, .. }
            | Entry::CancelRequested { at_ms, .. } => {
                self.now_ms = at_ms;
                Ok(Vec::new())
            }
            Entry::Checkpoint(checkpoint) => {
                self.now_ms = checkpoint.now_ms;
                Ok(Vec::new())
            }
            Entry::Completed { at_ms, .. } | Entry::TimerFired { at_ms, .. } => {
                self.now_ms = at_ms;
                Ok(self.work().into_iter().collect())
            }
            _ => Ok(self.work().into_iter().collect()),
        }
    }

    /// What happens next happens at this time, as far as it says nothing else.
    pub(super) fn goes_on_at(&mut self, at_ms: u64) {
        self.now_ms = at_ms;
    }

    /// Keeps none of the messages: for whoever shows only what is new.
    pub(super) fn forget_messages(&mut self) {
        self.history.clear();
    }

    fn take_signal(&mut self, lsn: Lsn, name: &str, payload: &Json) {
        if name == message::SIGNAL {
            if let Ok(message::Kept {
                question,
                mut message,
            }) = payload.read()
            {
                self.answering = Some((question, message.message_id.clone()));
                message.task_id = Some(self.job.to_string());
                message.context_id = Some(self.context.clone());
                self.history.push(message);
            }
            return;
        }
        if !self.open.iter().any(|open| open.name == name) {
            return;
        }
        let was_kept = matches!(&self.answering, Some((question, _)) if question == name);
        if was_kept {
            self.answering = None;
        } else {
            let mut answered = message::answered(self.message_id(lsn), payload.value());
            answered.task_id = Some(self.job.to_string());
            answered.context_id = Some(self.context.clone());
            self.history.push(answered);
        }
        self.close(name);
    }

    /// Takes in an event of the job; gives what a stream shows of it. Blocks, to read the bytes of files.
    ///
    /// # Errors
    ///
    /// If the log or a blob cannot be read.
    pub(super) fn take(
        &mut self,
        history: &History,
        lsn: Lsn,
        at_ms: Option<u64>,
        event: EventKind,
    ) -> Result<Vec<StreamResponse>, Fault> {
        self.through = self.through.max(lsn);
        self.now_ms = at_ms.unwrap_or(self.now_ms);
        Ok(match event {
            EventKind::JobSubmitted { .. }
            | EventKind::JobFinished { .. }
            | EventKind::JobWaiting { .. }
            | EventKind::JobRecovered { .. } => Vec::new(),
            EventKind::Message { text, .. } => {
                let said = self.said(lsn, text);
                self.history.push(said.clone());
                let state = self.open.first().map_or(TaskState::Working, Open::state);
                vec![self.set(state, Some(said))]
            }
            EventKind::Question {
                name, prompt, kind, ..
            } => {
                let said = self.said(lsn, prompt);
                self.history.push(said.clone());
                self.open.push(Open {
                    name,
                    kind,
                    prompt: said,
                });
                self.ask().into_iter().collect()
            }
            EventKind::Answered { name, .. } => self.close(&name).into_iter().collect(),
            EventKind::Artifact {
                name,
                media_type,
                part,
                last,
                append,
                ..
            } => {
                let part = part_of(history, part, media_type)?;
                self.hand_out(name, part, append, last)
            }
            EventKind::JobStuck { reason, .. } => vec![self.stick(&reason)],
            _ => self.work().into_iter().collect(),
        })
    }

    /// The end of the job, at this time; gives what a stream shows of it.
    pub(super) fn finish_at(&mut self, at_ms: u64, result: JobResult) -> Vec<StreamResponse> {
        self.now_ms = at_ms;
        self.finish(result)
    }

    fn finish(&mut self, result: JobResult) -> Vec<StreamResponse> {
        self.open.clear();
        let last_said = self.status.message.take();
        match result {
            JobResult::Completed { output } => {
                let mut shown = match output_part(&self.program, &output) {
                    Some(part) => self.hand_out(OUTPUT.to_owned(), part, false, true),
                    None => Vec::new(),
                };
                self.output = Some(output);
                shown.push(self.set(TaskState::Completed, last_said));
                shown
            }
            JobResult::Failed { code, message, .. } => {
                let state = if code == REJECTED {
                    TaskState::Rejected
                } else {
                    TaskState::Failed
                };
                let said = self.says(message);
                vec![self.set(state, Some(said))]
            }
            JobResult::Cancelled { reason } => {
                let said = self.says(reason);
                vec![self.set(TaskState::Canceled, Some(said))]
            }
        }
    }

    /// Whether nothing more will happen.
    pub(super) fn is_over(&self) -> bool {
        self.status.state.is_terminal()
    }

    /// Whether the job goes no further without the client.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(
            self.status.state,
            TaskState::InputRequired | TaskState::AuthRequired
        )
    }

    /// The job that it is told of.
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    pub(super) fn state(&self) -> &TaskState {
        &self.status.state
    }

    /// When its status last changed, in Unix milliseconds.
    pub(super) fn changed_ms(&self) -> u64 {
        let changed = self.status.timestamp.map(|at| at.timestamp_millis());
        changed.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
    }

    /// Whether a message of this id is part of the task.
    pub(super) fn knows(&self, message_id: &str) -> bool {
        self.history
            .iter()
            .any(|message| message.role != Role::Agent && message.message_id == message_id)
    }

    /// The open question that a message was kept for whose answer was not delivered: the daemon ended in between.
    pub(super) fn undelivered(&self, message_id: &str) -> Option<&Open> {
        let (question, kept) = self.answering.as_ref()?;
        let mut open = self.open.iter();
        open.find(|open| kept == message_id && open.name == *question)
    }

    /// The message it began with.
    pub(super) fn first_message(&self) -> Option<&Message> {
        self.history.first()
    }

    /// The task as it stands. All of its messages, or the last `history_length`.
    pub(super) fn task(&self, history_length: Option<usize>, with_artifacts: bool) -> Task {
        let skipped = history_length.map_or(0, |length| self.history.len().saturating_sub(length));
        let history = self.history[skipped..].to_vec();
        Task {
            id: self.job.to_string(),
            context_id: self.context.clone(),
            status: self.status.clone(),
            artifacts: (with_artifacts && !self.artifacts.is_empty())
                .then(|| self.artifacts.clone()),
            history: (!history.is_empty()).then_some(history),
            metadata: None,
        }
    }

    /// What the job gave, as a message without a task.
    pub(super) fn answer(&self) -> Message {
        let given = self.output.as_ref();
        let output = given.and_then(|output| output_part(&self.program, output));
        let part = match (output, self.status.message.as_ref()) {
            (Some(part), _) => part,
            (None, Some(said)) => Part::text(message::text_of(said)),
            (None, None) => Part::data(given.cloned().unwrap_or_default()),
        };
        let mut answer = Message::new(Role::Agent, vec![part]);
        answer.message_id = format!("{}-answer", self.job);
        answer.context_id = Some(self.context.clone());
        answer
    }

    /// The status again, for the end of a stream that is not the end of the task.
    pub(super) fn repeat(&self, reason: &str) -> StreamResponse {
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: self.job.to_string(),
            context_id: self.context.clone(),
            status: self.status.clone(),
            metadata: Some([("streamEnd".to_owned(), Value::from(reason))].into()),
        })
    }

    fn message_id(&self, lsn: Lsn) -> String {
        format!("{}-{}", self.job, lsn.0)
    }

    /// What the agent says in the entry `lsn`.
    fn said(&self, lsn: Lsn, text: String) -> Message {
        let mut said = Message::new(Role::Agent, vec![Part::text(text)]);
        said.message_id = self.message_id(lsn);
        said.task_id = Some(self.job.to_string());
        said.context_id = Some(self.context.clone());
        said
    }

    /// What is said of the task at its end, by nobody in particular.
    fn says(&self, text: String) -> Message {
        let mut said = self.said(self.through, text);
        said.message_id = format!("{}-end", self.job);
        said
    }

    fn set(&mut self, state: TaskState, message: Option<Message>) -> StreamResponse {
        self.status = TaskStatus {
            state,
            message,
            timestamp: i64::try_from(self.now_ms)
                .ok()
                .and_then(DateTime::from_timestamp_millis),
        };
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: self.job.to_string(),
            context_id: self.context.clone(),
            status: self.status.clone(),
            metadata: None,
        })
    }

    /// Something of the job shows: it is at work, if it was not known to be.
    fn work(&mut self) -> Option<StreamResponse> {
        (self.status.state == TaskState::Submitted).then(|| self.set(TaskState::Working, None))
    }

    fn ask(&mut self) -> Option<StreamResponse> {
        let first = self.open.first()?;
        let (state, prompt) = (first.state(), first.prompt.clone());
        Some(self.set(state, Some(prompt)))
    }

    /// A question has its answer.
    fn close(&mut self, name: &str) -> Option<StreamResponse> {
        let known = self.open.len();
        self.open.retain(|open| open.name != name);
        if self.open.len() == known {
            return None;
        }
        self.ask()
            .or_else(|| Some(self.set(TaskState::Working, None)))
    }

    fn stick(&mut self, reason: &str) -> StreamResponse {
        self.is_stuck = true;
        let said = self.says(format!("stuck, and waits for an operator: {reason}"));
        self.set(TaskState::Working, Some(said))
    }

    fn hand_out(
        &mut self,
        name: String,
        part: Part,
        append: bool,
        last: bool,
    ) -> Vec<StreamResponse> {
        let mut shown: Vec<StreamResponse> = self.work().into_iter().collect();
        let artifact = Artifact {
            artifact_id: name.clone(),
            name: Some(name),
            description: None,
            parts: vec![part],
            metadata: None,
            extensions: None,
        };
        if self.keeps_artifacts {
            self.keep(&artifact, append);
        }
        shown.push(StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: self.job.to_string(),
            context_id: self.context.clone(),
            artifact,
            append: Some(append),
            last_chunk: Some(last),
            metadata: None,
        }));
        shown
    }

    fn keep(&mut self, artifact: &Artifact, append: bool) {
        let known = self
            .artifacts
            .iter_mut()
            .find(|known| known.artifact_id == artifact.artifact_id);
        match known {
            Some(known) if append => known.parts.extend(artifact.parts.iter().cloned()),
            Some(known) => *known = artifact.clone(),
            None => self.artifacts.push(artifact.clone()),
        }
    }
}

fn part_of(history: &History, part: pal::Part, media_type: String) -> Result<Part, Fault> {
    let part = match part {
        pal::Part::Text { text } => Part::text(text),
        pal::Part::Data { data } => Part::data(data),
        pal::Part::Url { url } => {
            let mut part = Part::url(&url);
            part.filename = url
                .rsplit('/')
                .next()
                .map(|name| name.split(['?', '#']).next().unwrap_or_default().to_owned())
                .filter(|name| !name.is_empty());
            part
        }
        pal::Part::File { name, blob, .. } => {
            Part::raw(read_blob(history, &blob)?).with_filename(name)
        }
        // Only in an event that was cut for the live stream; `full_event` is asked before it comes here.
        pal::Part::Omitted { bytes } => Part::text(format!("({bytes} bytes left out)")),
    };
    Ok(part.with_media_type(media_type))
}

/// What a job came to, as far as a client is to have it: the output that a plan states, or what a command printed.
fn output_part(program: &str, result: &Value) -> Option<Part> {
    let output = match program {
        "command" => result.get("stdout")?,
        _ => result.get("output")?,
    };
    match output {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(Part::text(text).with_media_type("text/plain")),
        other => Some(Part::data(other.clone()).with_media_type("application/json")),
    }
}
