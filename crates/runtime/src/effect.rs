//! Effects: work outside the deterministic world, as the runtime hands it out.
//!
//! The runtime decides *that* an effect runs, which try it is, and what becomes of its result; a runner (crate
//! `tools`) knows *how*. Between them pass an [`EffectCall`] one way and, through its [`Completer`], exactly one
//! result the other way. A completer that is dropped reports the effect as abandoned, so that a handler that panics
//! or forgets never leaves a job waiting.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pal::{EventKind, Pal, StepStatus, Stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wal::{BlobError, BlobId};

use crate::engine::Input;
use crate::entry::cut_text;
use crate::ids::EffectId;
use crate::json::Json;
use crate::payload::{Payload, Payloads, Pin};
use crate::sync::mpsc::Sender;

/// What may be assumed of an effect whose outcome is not known, because the daemon died while it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Leaves no trace outside: it is simply run again. May start before its intent is durable.
    Read,
    /// Touches nothing but its workspace: the tree of before is restored, then it is run again.
    Workspace,
    /// The other side knows our idempotency key: it is sent again with the same key.
    Keyed,
    /// Anything else: its program is told that the outcome is unknown, and decides.
    #[default]
    External,
}

impl EffectClass {
    /// The name as it is written in specs and journals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Workspace => "workspace",
            Self::Keyed => "keyed",
            Self::External => "external",
        }
    }

    /// Whether an interrupted effect of this class is run again without asking anybody.
    #[must_use]
    pub fn reruns(self) -> bool {
        !matches!(self, Self::External)
    }
}

impl fmt::Display for EffectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One try of an effect, as it is handed to a runner.
#[derive(Clone, Debug)]
pub struct EffectCall {
    /// Which job, step and try this is.
    pub id: EffectId,
    /// What is to be done: the name of a handler, such as `process.run`.
    pub kind: Arc<str>,
    /// What an interruption of it means.
    pub class: EffectClass,
    /// What to do it with, as the handler defines it.
    pub input: Json,
    /// The step's name as people see it, for progress events.
    pub label: Arc<str>,
    /// Whether an earlier life of the daemon began this same try and may have left traces of it. Handlers of class
    /// `workspace` restore the tree of before when this is set.
    pub interrupted: bool,
}

impl EffectCall {
    /// The key under which the other side can tell a repetition from a new request: the same for every try of one
    /// step, so that a retry after a lost answer is not a second order.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}-{}", self.id.job, self.id.step)
    }

    /// Reads the input as the handler's own type.
    ///
    /// # Errors
    ///
    /// An [`EffectError`] of code `invalid_input` that says what does not fit.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, EffectError> {
        self.input.read().map_err(|error| {
            EffectError::permanent(
                "invalid_input",
                format!("input of effect `{}` does not fit: {error}", self.kind),
            )
        })
    }
}

/// Why an effect did not give what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct EffectError {
    /// A stable word for programs to decide by, such as `exit_status` or `timed_out`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// Whether trying again might help.
    pub retryable: bool,
    /// How long the other side asked us to wait before that.
    pub retry_after: Option<Duration>,
    /// What the effect gave all the same: the output of a command that failed, for example. Entries keep it beside
    /// the error, as a payload.
    #[serde(skip)]
    pub output: Option<Json>,
}

impl EffectError {
    /// The code of effects whose outcome is unknown.
    pub const INTERRUPTED: &'static str = "interrupted";
    /// The code of effects that took longer than their policy allows.
    pub const TIMED_OUT: &'static str = "timed_out";
    /// The code of effects that took longer than their policy allows, and then did not end when they were asked to.
    /// They may be at work still, so that trying again would have two of them at work; nobody does unless the policy
    /// names this very code.
    pub const NOT_ENDED: &'static str = "not_ended";
    /// The code of effects that ended because nobody wanted them any more.
    pub const CANCELLED: &'static str = "cancelled";

    /// An error that another try would only meet again.
    #[must_use]
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable: false,
            retry_after: None,
            output: None,
        }
    }

    /// An error that another try might not meet.
    #[must_use]
    pub fn transient(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            retryable: true,
            ..Self::permanent(code, message)
        }
    }

    /// How a step that ends with this is shown.
    #[must_use]
    pub fn step_status(&self) -> StepStatus {
        match self.code.as_str() {
            Self::TIMED_OUT => StepStatus::TimedOut,
            Self::CANCELLED => StepStatus::Cancelled,
            _ => StepStatus::Failed,
        }
    }

    /// The error that stands for an unknown outcome.
    pub(crate) fn interrupted() -> Self {
        Self::permanent(
            Self::INTERRUPTED,
            "interrupted: the daemon ended while this was running, and whether it took effect is unknown",
        )
    }

    /// Whether this says that the outcome is unknown: the effect may or may not have run.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.code == Self::INTERRUPTED
    }

    /// Adds what the effect gave all the same.
    #[must_use]
    pub fn with_output(mut self, output: Json) -> Self {
        self.output = Some(output);
        self
    }
}

/// What an effect came to.
pub type EffectResult = Result<Json, EffectError>;

/// Why a running effect is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Nobody wants the result any more: the job was cancelled, or its program gave the effect up.
    Cancelled,
    /// The try took longer than its policy allows.
    TimedOut,
    /// The daemon is stopping. The effect counts as interrupted, and its class decides at the next start.
    Shutdown,
}

/// Carries effects out. Implemented by crate `tools`, and by the world of a simulation.
///
/// Both calls return at once; the work happens elsewhere and ends in the call's [`Completer`].
pub trait EffectRunner {
    /// Starts one try.
    fn start(&mut self, call: EffectCall, completer: Completer);

    /// Asks for one running try to end soon. Its completer is still used, with whatever it came to. Asking for an
    /// effect that is already over does nothing.
    fn cancel(&mut self, id: EffectId, reason: CancelReason);

    /// The outcome of an effect is durable: what was kept in case this try had to be undone and run again may go.
    fn settled(&mut self, id: EffectId) {
        let _ = id;
    }
}

/// The way back for the result of one try. Used once; dropping it unused reports the effect as `abandoned`.
#[derive(Debug)]
pub struct Completer {
    id: EffectId,
    attachments: Vec<Pin>,
    way_back: Option<(Sender<Input>, Arc<Payloads>)>,
}

impl Completer {
    pub(crate) fn new(id: EffectId, inbox: Sender<Input>, payloads: Arc<Payloads>) -> Self {
        Self {
            id,
            attachments: Vec::new(),
            way_back: Some((inbox, payloads)),
        }
    }

    /// Which try it is for.
    #[must_use]
    pub fn id(&self) -> EffectId {
        self.id
    }

    /// Stores bytes beside the result, which names them by the id given back; they are kept as long as the entry
    /// that holds the result. They are on disk when this returns: call it where waiting for the disk is no harm.
    ///
    /// # Errors
    ///
    /// What the blob store says.
    pub fn attach(&mut self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let (_, payloads) = self
            .way_back
            .as_ref()
            .expect("because the way back is taken only by complete and drop");
        let pin = payloads.put(bytes)?;
        let id = pin.blob();
        self.attachments.push(pin);
        Ok(id)
    }

    /// Reports what the effect came to. A result too large for the log is written as a blob here, on the caller's
    /// thread: call it where waiting for the disk is no harm.
    pub fn complete(mut self, result: EffectResult) {
        self.send(result);
    }

    fn send(&mut self, result: EffectResult) {
        let Some((inbox, payloads)) = self.way_back.take() else {
            return;
        };
        let (json, error) = match result {
            Ok(json) => (Some(json), None),
            Err(mut error) => {
                cut_text(&mut error.code);
                cut_text(&mut error.message);
                (error.output.take(), Some(error))
            }
        };
        let (output, unwritten) = match json.map(|json| payloads.store(json)) {
            Some((payload, unwritten)) => (
                Some(payload.with_attachments(std::mem::take(&mut self.attachments))),
                unwritten,
            ),
            None => (None, None),
        };
        let done = EffectDone {
            id: self.id,
            output,
            error,
            unwritten,
        };
        // The engine is gone only when the daemon is stopping; then the effect is found interrupted at the next start.
        let _ = inbox.send(Input::EffectDone(done));
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        self.send(Err(EffectError::transient(
            "abandoned",
            "the effect's handler ended without a result",
        )));
    }
}

/// The end of one try, on its way to the engine.
#[derive(Debug)]
pub struct EffectDone {
    /// Which try.
    pub id: EffectId,
    /// What it gave, also when it failed.
    pub output: Option<Payload>,
    /// Why it failed, if it did; its own `output` is empty, being the field above.
    pub error: Option<EffectError>,
    /// The output's blob, if it could not be written yet.
    pub unwritten: Option<(BlobId, Vec<u8>)>,
}

/// Shows what a running effect does, live. Nothing of it is durable.
#[derive(Clone, Debug)]
pub struct Progress {
    pal: Pal,
    job: uuid::Uuid,
    step: Arc<str>,
}

impl Progress {
    /// Progress of one call, published on `pal`.
    #[must_use]
    pub fn new(pal: Pal, call: &EffectCall) -> Self {
        Self {
            pal,
            job: call.id.job.as_uuid(),
            step: call.label.clone(),
        }
    }

    /// Shows a piece of output; `lost_bytes` were left out after it.
    pub fn output(&self, stream: Stream, data: impl Into<String>, lost_bytes: u64) {
        self.publish(EventKind::StepOutput {
            step: self.step.to_string(),
            stream,
            data: data.into(),
            lost_bytes,
        });
    }

    /// Shows any event of the effect's job.
    pub fn publish(&self, kind: EventKind) {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        self.pal.publish(kind, Some(self.job), now_ms, None);
    }
}
