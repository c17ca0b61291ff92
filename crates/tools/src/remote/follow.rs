//! `a2a.follow`: another agent's task, until it is over or wants something.

use std::time::Duration;

use a2a_types::{GetTaskRequest, StreamResponse, SubscribeToTaskRequest, Task};
use futures_util::StreamExt;
use pal::{EventKind, Stream};
use runtime::{CancelReason, EffectCall, EffectError, Json, Progress};
use tokio::sync::watch;

use super::agents::Agent;
use super::send::cancel_task;
use super::{FollowInput, RemoteState, words};
use crate::output::SHOWN_EVENT_BYTES;
use crate::toolbox::{Attachments, Shared, cancelled};

/// How long to wait before an agent that cannot stream is asked again: first, and at the most.
const POLL: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(5);

/// Carries one call out.
pub(crate) async fn run(
    shared: &Shared,
    call: &EffectCall,
    progress: &Progress,
    mut cancel: watch::Receiver<Option<CancelReason>>,
) -> Result<(Json, Attachments), EffectError> {
    let input: FollowInput = call.input()?;
    let agent = shared.options.agents.get(&input.agent)?;
    let task = tokio::select! {
        task = settled(agent, &input.task, call, progress) => task?,
        reason = cancelled(&mut cancel) => {
            if reason != CancelReason::Shutdown {
                cancel_task(agent, &input.task).await;
            }
            return Err(EffectError::permanent(EffectError::CANCELLED, "nobody waits for the agent any more"));
        }
    };
    let (delegated, attachments) = words::told(&task, shared.options.file_limit_bytes)?;
    Ok((Json::of(&delegated), attachments))
}

/// Waits until the task does not go on by itself.
async fn settled(
    agent: &Agent,
    id: &str,
    call: &EffectCall,
    progress: &Progress,
) -> Result<Task, EffectError> {
    let mut wait = POLL;
    loop {
        // Asked first: what is over cannot be subscribed to, and after a stream this is all that there is to know.
        let task = task(agent, id).await?;
        if words::state_of(&task.status.state).is_settled() {
            return Ok(task);
        }
        if watch(agent, id, call, progress).await? {
            wait = POLL;
            continue;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(POLL_MAX);
    }
}

async fn task(agent: &Agent, id: &str) -> Result<Task, EffectError> {
    let connection = agent.connection().await?;
    let request = GetTaskRequest {
        id: id.to_owned(),
        history_length: Some(0),
        tenant: connection.tenant().map(str::to_owned),
    };
    let task = connection.get_task(&request).await;
    task.map_err(|error| agent.failed(&error))
}

/// Shows what happens on the task's stream until that ends. Says whether it told anything new.
async fn watch(
    agent: &Agent,
    id: &str,
    call: &EffectCall,
    progress: &Progress,
) -> Result<bool, EffectError> {
    let connection = agent.connection().await?;
    let request = SubscribeToTaskRequest {
        id: id.to_owned(),
        tenant: connection.tenant().map(str::to_owned),
    };
    let mut stream = match connection.subscribe_to_task(&request).await {
        Ok(stream) => stream,
        // It is over by now, or the agent does not stream.
        Err(error) if words::is_unsupported(&error) => return Ok(false),
        Err(error) => return Err(agent.failed(&error)),
    };
    let mut has_told = false;
    while let Some(event) = stream.next().await {
        let Ok(event) = event else {
            // Broken off; what the task has come to is asked for.
            break;
        };
        let state = match &event {
            // Where it stands already, which is no news.
            StreamResponse::Task(task) => words::state_of(&task.status.state),
            StreamResponse::StatusUpdate(update) => {
                has_told = true;
                if let Some(said) = &update.status.message {
                    progress.publish(EventKind::Message {
                        step: Some(call.label.to_string()),
                        text: shown(&words::text_of(&said.parts)).to_owned(),
                    });
                }
                words::state_of(&update.status.state)
            }
            StreamResponse::ArtifactUpdate(update) => {
                has_told = true;
                let text = words::text_of(&update.artifact.parts);
                let (shown, whole) = (shown(&text), text.len());
                if !shown.is_empty() {
                    let lost = (whole - shown.len()) as u64;
                    progress.output(Stream::Stdout, shown, lost);
                }
                RemoteState::Working
            }
            StreamResponse::Message(_) => RemoteState::Working,
        };
        if state.is_settled() {
            return Ok(true);
        }
    }
    Ok(has_told)
}

/// As much of a text as one event shows.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_EVENT_BYTES)]
}
