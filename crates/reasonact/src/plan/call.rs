//! The step that hands work to another agent, and waits for it.

use std::collections::BTreeMap;

use pal::{EventKind, Part, QuestionKind};
use runtime::{EffectClass, EffectError, EffectRequest, Either, Json, Question};
use serde::Deserialize;
use serde_json::{Value, json};

use super::spec::{CallSpec, StepSpec};
use super::{Run, Status, StepEnd};
use crate::command::run_through;
use crate::template::Scope;

/// The effect that hands a message to another agent.
const SEND_EFFECT: &str = "a2a.send";
/// The effect that waits for another agent's task.
const FOLLOW_EFFECT: &str = "a2a.follow";

/// What both effects give, as far as it is looked at here.
#[derive(Deserialize)]
struct Delegated {
    #[serde(default)]
    task: Option<String>,
    state: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    artifacts: Vec<RemoteArtifact>,
}

#[derive(Deserialize)]
struct RemoteArtifact {
    name: String,
    parts: Vec<RemotePart>,
}

#[derive(Deserialize)]
struct RemotePart {
    media_type: String,
    #[serde(flatten)]
    content: RemoteContent,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RemoteContent {
    Text(String),
    Data(Value),
    Url(String),
    File {
        name: String,
        size: u64,
        blob: String,
    },
}

impl From<RemoteContent> for Part {
    fn from(content: RemoteContent) -> Self {
        match content {
            RemoteContent::Text(text) => Self::Text { text },
            RemoteContent::Data(data) => Self::Data { data },
            RemoteContent::Url(url) => Self::Url { url },
            RemoteContent::File { name, size, blob } => Self::File { name, size, blob },
        }
    }
}

/// Why a call gave nothing.
enum CallError {
    /// What is sent could not be made.
    Template(String),
    /// It is not known whether the message came, and the plan goes on.
    Unknown,
    Effect(EffectError),
}

impl From<EffectError> for CallError {
    fn from(error: EffectError) -> Self {
        Self::Effect(error)
    }
}

impl Run {
    /// Calls another agent. What it asks is asked here, under the step's name; `auth-` goes before that if it wants to be
    /// shown who asks.
    pub(super) async fn call(&self, spec: &StepSpec, call: &CallSpec, scope: &Scope) -> StepEnd {
        let calling = self.delegate(spec, call, scope);
        let done = match spec.timeout {
            None => calling.await,
            Some(timeout) => {
                let sleep = self.context.sleep(timeout.0);
                match self.context.select(calling, sleep).await {
                    Either::Left(done) => done,
                    Either::Right(()) => Err(CallError::Effect(EffectError::permanent(
                        EffectError::TIMED_OUT,
                        format!("agent `{}` took longer than it may", call.agent),
                    ))),
                }
            }
        };
        let failed = |code: &str, message: String, mut output: BTreeMap<String, Value>| {
            output.insert("error".to_owned(), message.into());
            output.insert("code".to_owned(), code.into());
            StepEnd {
                status: Status::Failed,
                output,
            }
        };
        match done {
            Ok((output, state, text)) => {
                let output = super::step::fields(Some(&output));
                if state == "completed" {
                    return StepEnd::ok(output);
                }
                let message = match text.is_empty() {
                    true => format!("agent `{}` ended its task as {state}", call.agent),
                    false => format!("agent `{}` ended its task as {state}: {text}", call.agent),
                };
                failed(&state, message, output)
            }
            Err(CallError::Unknown) => StepEnd {
                status: Status::Interrupted,
                output: BTreeMap::from([("outcome".to_owned(), "unknown".into())]),
            },
            Err(CallError::Template(why)) => StepEnd::failed(why),
            Err(CallError::Effect(error)) => failed(&error.code, error.message, BTreeMap::new()),
        }
    }

    /// Sends the message and goes on until the task is over. Gives what it came to, and its state and text.
    async fn delegate(
        &self,
        spec: &StepSpec,
        call: &CallSpec,
        scope: &Scope,
    ) -> Result<(Json, String, String), CallError> {
        let message = self.message(call, scope).map_err(CallError::Template)?;
        let mut last = self.send(spec, message).await?;
        let mut round = 0_u32;
        loop {
            let seen: Delegated =
                crate::read_input(&last).map_err(|error| CallError::Template(error.message))?;
            let Some(task) = &seen.task else {
                return Ok((last, seen.state, seen.text));
            };
            last = match seen.state.as_str() {
                "working" => {
                    let input = json!({ "agent": call.agent, "task": task });
                    let request = EffectRequest::new(FOLLOW_EFFECT, Json::of(&input))
                        .label(format!("{}.follow", spec.id))
                        .title(spec.title.clone())
                        .policy(spec.retry.policy_or(EffectClass::Read, FOLLOW_ATTEMPTS));
                    self.context.effect(request).await?
                }
                "input_required" | "auth_required" => {
                    let name = match seen.state.as_str() {
                        "auth_required" => format!("auth-{}", spec.id),
                        _ => spec.id.clone(),
                    };
                    let answer = self
                        .context
                        .ask(Question {
                            name,
                            step: spec.id.clone(),
                            prompt: seen.text,
                            kind: QuestionKind::Answer,
                            deadline: None,
                        })
                        .await;
                    let mut message = json!({ "agent": call.agent, "task": task });
                    match answer.value.value() {
                        Value::String(text) => message["text"] = text.into(),
                        data => message["data"] = data,
                    }
                    round += 1;
                    self.send_round(spec, message, round).await?
                }
                _ => {
                    if call.forward {
                        self.forward(seen.artifacts);
                    }
                    return Ok((last, seen.state, seen.text));
                }
            };
        }
    }

    async fn send(&self, spec: &StepSpec, message: Value) -> Result<Json, CallError> {
        self.send_round(spec, message, 0).await
    }

    async fn send_round(
        &self,
        spec: &StepSpec,
        message: Value,
        round: u32,
    ) -> Result<Json, CallError> {
        let label = match round {
            0 => format!("{}.send", spec.id),
            _ => format!("{}.send.{round}", spec.id),
        };
        let request = EffectRequest::new(SEND_EFFECT, Json::of(&message))
            .label(label)
            .title(spec.title.clone())
            .policy(spec.retry.policy_or(EffectClass::Keyed, SEND_ATTEMPTS));
        let sent = run_through(&self.context, request, spec.on_interrupted).await?;
        sent.ok_or(CallError::Unknown)
    }

    fn message(&self, call: &CallSpec, scope: &Scope) -> Result<Value, String> {
        let environment = crate::template::environment();
        let fill = |text: &str| self.fill(&environment, text, scope);
        let mut message = json!({ "agent": call.agent });
        if let Some(text) = &call.text {
            message["text"] = fill(text)?.into();
        }
        if let Some(data) = &call.data {
            message["data"] = self.fill_value(data, scope)?;
        }
        if !call.metadata.is_empty() {
            message["metadata"] = self.fill_value(&Value::Object(call.metadata.clone()), scope)?;
        }
        if let Some(context) = &call.context {
            message["context"] = fill(context)?.into();
        }
        Ok(message)
    }

    /// Gives what the agent gave as artifacts of this job.
    fn forward(&self, artifacts: Vec<RemoteArtifact>) {
        for RemoteArtifact { name, parts } in artifacts {
            let count = parts.len();
            for (index, part) in parts.into_iter().enumerate() {
                self.context.emit(EventKind::Artifact {
                    name: name.clone(),
                    media_type: part.media_type,
                    part: part.content.into(),
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    last: index + 1 == count,
                    append: index > 0,
                });
            }
        }
    }
}

/// How often each is tried, unless the plan says otherwise: sending about half a minute long, following about an hour, since
/// nothing is lost by waiting for an agent that is away.
const SEND_ATTEMPTS: u32 = 6;
const FOLLOW_ATTEMPTS: u32 = 64;
