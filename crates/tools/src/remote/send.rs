//! `a2a.send`: a message, sent once.

use std::time::Duration;

use a2a_types::{
    CancelTaskRequest, GetTaskRequest, ListTasksRequest, Message, Part, Role,
    SendMessageConfiguration, SendMessageRequest, SendMessageResponse, Task,
};
use runtime::{Attempt, CancelReason, EffectCall, EffectError, Json};
use tokio::sync::watch;

use super::agents::{Agent, Connection};
use super::{SendInput, words};
use crate::toolbox::{Attachments, Shared, cancelled};

/// How long an answer is waited for that nobody wants any more, so as to cancel what it began.
const REGRET_MAX: Duration = Duration::from_secs(5);

/// How many pages of tasks are looked through for one that an earlier try may have begun.
const PAGES_MAX: usize = 10;

/// Carries one call out.
pub(crate) async fn run(
    shared: &Shared,
    call: &EffectCall,
    mut cancel: watch::Receiver<Option<CancelReason>>,
) -> Result<(Json, Attachments), EffectError> {
    let input: SendInput = call.input()?;
    let agent = shared.options.agents.get(&input.agent)?;
    let message = message(&input, call);
    let sending = async {
        let connection = agent.connection().await?;
        let earlier = match call.interrupted || call.id.attempt > Attempt::FIRST {
            true => find(agent, &connection, &message).await?,
            false => None,
        };
        match earlier {
            Some(task) => Ok(SendMessageResponse::Task(task)),
            None => send(agent, &connection, message.clone()).await,
        }
    };
    let mut sending = std::pin::pin!(sending);
    let answer = tokio::select! {
        answer = sending.as_mut() => answer?,
        reason = cancelled(&mut cancel) => {
            if reason != CancelReason::Shutdown
                && let Ok(Ok(SendMessageResponse::Task(task))) =
                    tokio::time::timeout(REGRET_MAX, sending).await
            {
                cancel_task(agent, &task.id).await;
            }
            return Err(EffectError::permanent(EffectError::CANCELLED, "nobody waits for the agent any more"));
        }
    };
    let (delegated, attachments) = match answer {
        SendMessageResponse::Message(message) => words::answered(&message),
        SendMessageResponse::Task(task) => words::told(&task, shared.options.file_limit_bytes)?,
    };
    Ok((Json::of(&delegated), attachments))
}

/// The message, with the id by which the other side can tell a repetition, in a context by which it can be found.
fn message(input: &SendInput, call: &EffectCall) -> Message {
    let parts = [
        input.text.clone().map(Part::text),
        input.data.clone().map(Part::data),
    ];
    let key = call.idempotency_key();
    let context = match (&input.context, &input.task) {
        (Some(context), _) => Some(context.clone()),
        // The agent knows its task's context.
        (None, Some(_)) => None,
        (None, None) => Some(format!("ctx-{key}")),
    };
    let mut message = Message::new(Role::User, parts.into_iter().flatten().collect());
    message.message_id = key;
    message.context_id = context;
    message.task_id = input.task.clone();
    message.metadata = match input.metadata.is_empty() {
        true => None,
        false => Some(input.metadata.clone().into_iter().collect()),
    };
    message
}

async fn send(
    agent: &Agent,
    connection: &Connection,
    message: Message,
) -> Result<SendMessageResponse, EffectError> {
    let request = SendMessageRequest {
        message,
        configuration: Some(SendMessageConfiguration {
            accepted_output_modes: None,
            task_push_notification_config: None,
            history_length: Some(0),
            return_immediately: Some(true),
        }),
        metadata: None,
        tenant: connection.tenant().map(str::to_owned),
    };
    let answer = connection.send_message(&request).await;
    answer.map_err(|error| agent.failed(&error))
}

/// Looks for the task that an earlier try began with the same message.
///
/// # Errors
///
/// If the agent does not tell: then it is not known whether the message came.
async fn find(
    agent: &Agent,
    connection: &Connection,
    message: &Message,
) -> Result<Option<Task>, EffectError> {
    let unknown = |why: String| {
        let text = format!(
            "it is not known whether agent `{}` got the message: {why}",
            agent.name()
        );
        EffectError::permanent(EffectError::INTERRUPTED, text)
    };
    let has_it = |task: &Task| {
        let history = task.history.as_deref().unwrap_or_default();
        history
            .iter()
            .any(|earlier| earlier.message_id == message.message_id)
    };
    if let Some(id) = &message.task_id {
        let request = GetTaskRequest {
            id: id.clone(),
            history_length: None,
            tenant: connection.tenant().map(str::to_owned),
        };
        let task = connection.get_task(&request).await;
        let task = task.map_err(|error| agent.failed(&error))?;
        return Ok(Some(task).filter(has_it));
    }
    let mut page_token = None;
    for _ in 0..PAGES_MAX {
        let request = ListTasksRequest {
            context_id: message.context_id.clone(),
            status: None,
            page_size: Some(100),
            page_token,
            // All of it: the message may stand anywhere in it.
            history_length: None,
            status_timestamp_after: None,
            include_artifacts: Some(true),
            tenant: connection.tenant().map(str::to_owned),
        };
        let listed = match connection.list_tasks(&request).await {
            Ok(listed) => listed,
            Err(error) if words::is_of_the_way(&error) => return Err(agent.failed(&error)),
            Err(error) => return Err(unknown(error.to_string())),
        };
        if let Some(task) = listed.tasks.into_iter().find(|task| has_it(task)) {
            return Ok(Some(task));
        }
        match listed.next_page_token {
            token if token.is_empty() => return Ok(None),
            token => page_token = Some(token),
        }
    }
    Err(unknown("it has too many tasks to look through".to_owned()))
}

/// Cancels a task that nobody waits for any more, as far as that can be done in a moment.
pub(super) async fn cancel_task(agent: &Agent, id: &str) {
    let cancelling = async {
        let connection = agent.connection().await?;
        let request = CancelTaskRequest {
            id: id.to_owned(),
            metadata: None,
            tenant: connection.tenant().map(str::to_owned),
        };
        let cancelled = connection.cancel_task(&request).await;
        cancelled.map_err(|error| agent.failed(&error))
    };
    match tokio::time::timeout(REGRET_MAX, cancelling).await {
        Ok(Ok(_)) => tracing::debug!(agent = agent.name(), task = id, "cancelled a remote task"),
        Ok(Err(error)) => {
            tracing::warn!(agent = agent.name(), task = id, %error, "cannot cancel a remote task");
        }
        Err(_) => {
            tracing::warn!(
                agent = agent.name(),
                task = id,
                "the agent does not answer, so its task goes on"
            );
        }
    }
}
