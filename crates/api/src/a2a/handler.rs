//! The protocol's operations, over the service.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use a2a_server::RequestHandler;
use a2a_server::middleware::ServiceParams;
use a2a_server::pagination::resolve_page_size;
use a2a_types::{
    A2AError, AgentCard, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest, GetTaskPushNotificationConfigRequest, GetTaskRequest,
    ListTaskPushNotificationConfigsRequest, ListTaskPushNotificationConfigsResponse,
    ListTasksRequest, ListTasksResponse, Message, Role, SendMessageRequest, SendMessageResponse,
    StreamResponse, SubscribeToTaskRequest, Task, TaskPushNotificationConfig, TaskState,
};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use runtime::{JobFilter, JobId, JobState, JobView, Json, SubmitError};
use tracing::Instrument;

use super::card::{Agent, Asks};
use super::fault::{self, Refusal, invalid, unsupported};
use super::live::{Live, Until};
use super::push::{Configs, Given};
use super::skill::{self, AnswerKind, Metadata, Skill};
use super::story::Story;
use super::{LABEL, LABEL_CONTEXT, LABEL_SKILL, VERSION, message};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::service::{PAGE_MAX, Service, blocking};
use crate::wire::JobQuery;

/// The transport's name in metrics and spans.
pub(super) const TRANSPORT: &str = "a2a";

/// The longest id of a message or a context, in bytes: they become keys and labels.
pub(super) const ID_MAX_BYTES: usize = 512;

/// What is known of a request beside its content.
#[derive(Debug)]
pub(super) struct Asking {
    /// Who asks.
    pub(super) client: ClientId,
    /// What the request was refused for, if the protocol has no word for that.
    pub(super) refused: std::cell::Cell<Option<FaultCode>>,
    /// Whether it is answered with a page without tasks.
    pub(super) lists_nothing: std::cell::Cell<bool>,
}

tokio::task_local! {
    /// The request that is being served: the protocol's routes pass nothing through but headers.
    pub(super) static ASKING: Asking;
}

type Stream = BoxStream<'static, Result<StreamResponse, A2AError>>;

/// The operations. Clones are the same.
#[derive(Clone)]
pub(super) struct Handler(Arc<Inner>);

struct Inner {
    service: Service,
    agent: Agent,
    asks: Asks,
    pushes: Configs,
}

/// A message that was taken in.
struct Taken {
    job: JobView,
    /// The task, after that.
    story: Story,
    answer: AnswerKind,
}

impl Handler {
    pub(super) fn new(service: Service, agent: Agent, asks: Asks, pushes: Configs) -> Self {
        Self(Arc::new(Inner {
            service,
            agent,
            asks,
            pushes,
        }))
    }

    /// The card that everybody sees.
    pub(super) fn public_card(&self) -> AgentCard {
        self.card(false)
    }

    fn card(&self, is_extended: bool) -> AgentCard {
        let pushes = self.0.pushes.are_supported();
        self.0.agent.card(self.0.asks, pushes, is_extended)
    }

    fn service(&self) -> &Service {
        &self.0.service
    }

    /// Serves one request: admitted, counted, and as a span.
    async fn serve<T>(
        &self,
        method: &'static str,
        params: &ServiceParams,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, A2AError> {
        let started = Instant::now();
        let client = client();
        let span = tracing::debug_span!("request", transport = TRANSPORT, method, %client);
        let served = async {
            let _place = self.service().admit()?;
            check_version(params)?;
            work.await
        }
        .instrument(span)
        .await;
        let code = served
            .as_ref()
            .map_or_else(|refusal| refusal.word, |_| "ok");
        let took = started.elapsed();
        self.service()
            .instruments()
            .answered(TRANSPORT, method, code, took);
        tracing::debug!(method, code, %client, ?took, "answered");
        served.map_err(|refusal| {
            let _ = ASKING.try_with(|asking| asking.refused.set(refusal.code));
            refusal.error
        })
    }

    /// The job that is the task of this id.
    async fn job(&self, task_id: &str) -> Result<JobView, Refusal> {
        let unknown = || Refusal::from(A2AError::task_not_found(task_id));
        let id: JobId = task_id.parse().map_err(|_| unknown())?;
        let view = self.service().jobs().get(id).await.map_err(Fault::from)?;
        let view = view.filter(|view| view.labels.contains_key(LABEL));
        view.ok_or_else(unknown)
    }

    async fn story(&self, job: &JobView) -> Result<Story, Refusal> {
        let through = self.service().shown(job).await?;
        let (history, job) = (self.service().history().clone(), job.clone());
        Ok(blocking(move || Story::tell(&history, &job, through)).await?)
    }

    /// Takes a message in: as a new task, or as the answer to what a task asks.
    async fn take(&self, request: SendMessageRequest) -> Result<Taken, Refusal> {
        check_message(&request.message)?;
        let SendMessageRequest {
            message,
            configuration,
            metadata,
            ..
        } = request;
        let push =
            configuration.and_then(|configuration| configuration.task_push_notification_config);
        // Before there is a task: a config that cannot be used leaves nothing behind.
        let push = match push {
            Some(config) => Some(self.0.pushes.check(config).await?),
            None => None,
        };
        let task_id = message.task_id.clone();
        match task_id.filter(|id| !id.is_empty()) {
            Some(task_id) => self.take_answer(&task_id, message, push).await,
            None => self.take_new(message, metadata, push).await,
        }
    }

    async fn take_new(
        &self,
        mut message: Message,
        metadata: Option<std::collections::HashMap<String, serde_json::Value>>,
        push: Option<Given>,
    ) -> Result<Taken, Refusal> {
        let given = message.context_id.take().filter(|id| !id.is_empty());
        let context = given.unwrap_or_else(|| match self.0.agent.is_idempotent {
            // Made from the message's id, so that a message sent twice is in one context.
            true => format!("ctx-{}", message.message_id),
            false => a2a_types::new_context_id(),
        });
        message.context_id = Some(context.clone());
        let earlier = self.earlier_skill(&context).await?;
        let metadata = Metadata {
            message: message.metadata.as_ref(),
            request: metadata.as_ref(),
        };
        let agent = &self.0.agent;
        let chosen = skill::choose(&agent.skills, &message, &metadata, earlier.as_deref());
        let skill = chosen.ok_or_else(|| {
            unsupported("no skill of this agent takes the message; the card says what it can do")
        })?;
        let modes = match skill.input_modes.as_slice() {
            [] => &agent.input_modes,
            _ => &skill.input_modes,
        };
        if let Some(media_type) = skill::unsupported(&message, modes) {
            let mut error = A2AError::content_type_not_supported();
            error.message = format!(
                "skill `{}` takes no `{media_type}`; it takes {}",
                skill.id,
                modes.join(", ")
            );
            return Err(error.into());
        }
        let job = self.submit(skill, &message, context).await?;
        if let Some(push) = push {
            self.0.pushes.create(job.id, push, true).await?;
        }
        let story = self.story(&job).await?;
        Ok(Taken {
            story,
            job,
            answer: skill.answer,
        })
    }

    async fn submit(
        &self,
        skill: &Skill,
        message: &Message,
        context: String,
    ) -> Result<JobView, Refusal> {
        let mut spec = skill.template.job(message);
        if self.0.agent.is_idempotent {
            spec = spec.keyed(format!("a2a:{}", message.message_id));
        }
        spec.labels.extend([
            (LABEL.to_owned(), VERSION.to_owned()),
            (LABEL_CONTEXT.to_owned(), context),
            (LABEL_SKILL.to_owned(), skill.id.clone()),
        ]);
        if *self.service().stage().borrow() >= crate::service::Stage::Draining {
            return Err(Fault::new(
                FaultCode::Unavailable,
                "the daemon is draining and takes in no more tasks",
            )
            .into());
        }
        match self.service().jobs().submit(spec).await {
            Ok(submitted) => self.job(&submitted.job.to_string()).await,
            Err(SubmitError::Conflict { job, .. }) => {
                // The same message may make another job once its skill has been changed; it is the same message.
                let known = self.job(&job.to_string()).await?;
                let story = self.story(&known).await?;
                let is_same = story.first_message().is_some_and(|first| {
                    first.parts == message.parts && first.context_id == message.context_id
                });
                if is_same {
                    return Ok(known);
                }
                Err(A2AError::invalid_request(format!(
                    "message id `{}` is that of another message; use a new one",
                    message.message_id
                ))
                .into())
            }
            Err(error) => Err(Fault::from(error).into()),
        }
    }

    /// The skill that took the last message of a context.
    async fn earlier_skill(&self, context: &str) -> Result<Option<String>, Refusal> {
        let listed = self
            .service()
            .list(JobQuery {
                labels: [
                    (LABEL.to_owned(), VERSION.to_owned()),
                    (LABEL_CONTEXT.to_owned(), context.to_owned()),
                ]
                .into(),
                limit: Some(1),
                ..JobQuery::default()
            })
            .await?;
        let newest = listed.jobs.into_iter().next();
        Ok(newest.and_then(|mut job| job.labels.remove(LABEL_SKILL)))
    }

    async fn take_answer(
        &self,
        task_id: &str,
        mut message: Message,
        push: Option<Given>,
    ) -> Result<Taken, Refusal> {
        let job = self.job(task_id).await?;
        let context = job.labels.get(LABEL_CONTEXT);
        let given = message.context_id.take().filter(|id| !id.is_empty());
        if given.is_some() && given.as_ref() != context {
            return Err(invalid(format!(
                "task {task_id} belongs to another context than the message"
            )));
        }
        let story = self.story(&job).await?;
        let is_known = self.0.agent.is_idempotent && story.knows(&message.message_id);
        if !is_known && story.is_over() {
            return Err(unsupported(format!(
                "task {task_id} is over and takes no more messages; send a new one in its context"
            )));
        }
        if let Some(push) = push {
            self.0.pushes.create(job.id, push, false).await?;
        }
        if !is_known {
            self.answer(&job, &story, &message).await?;
        } else if let Some(open) = story.undelivered(&message.message_id) {
            let answer = message::answer(&message, open.kind).map_err(invalid)?;
            self.signal(&job, &open.name, Json::of(&answer)).await?;
        }
        let job = self.job(task_id).await?;
        Ok(Taken {
            story: self.story(&job).await?,
            job,
            answer: AnswerKind::Task,
        })
    }

    /// Delivers a message as the answer to the oldest open question: whole, for the history, and then what it says.
    async fn answer(&self, job: &JobView, story: &Story, message: &Message) -> Result<(), Refusal> {
        let Some(open) = story.open.first() else {
            return Err(unsupported(format!(
                "task {} asks for nothing at this time, so it takes no message",
                job.id
            )));
        };
        let answer = message::answer(message, open.kind).map_err(invalid)?;
        let kept = message::Kept {
            question: open.name.clone(),
            message: message.clone(),
        };
        self.signal(job, message::SIGNAL, Json::of(&kept)).await?;
        self.signal(job, &open.name, Json::of(&answer)).await
    }

    async fn signal(&self, job: &JobView, name: &str, payload: Json) -> Result<(), Refusal> {
        let signalled = self.service().jobs().signal(job.id, name, payload).await;
        Ok(signalled.map_err(Fault::from)?)
    }

    /// Waits until the job is over or goes no further by itself.
    async fn settle(&self, job: &JobView, story: Story, until: Until) -> Result<Story, Refusal> {
        let mut live = Live::after(self.service(), client(), job.id, story, until).await?;
        while live.next().await?.is_some() {}
        let job = self.job(&job.id.to_string()).await?;
        self.story(&job).await
    }

    async fn send(&self, request: SendMessageRequest) -> Result<SendMessageResponse, Refusal> {
        let configuration = request.configuration.clone();
        let length = length(configuration.as_ref().and_then(|c| c.history_length))?;
        let returns_at_once = configuration
            .and_then(|configuration| configuration.return_immediately)
            .unwrap_or(false);
        let taken = self.take(request).await?;
        let waits = !returns_at_once || taken.answer == AnswerKind::Message;
        let story = match waits {
            true => self.settle(&taken.job, taken.story, Until::Still).await?,
            false => taken.story,
        };
        Ok(
            if taken.answer == AnswerKind::Message && *story.state() == TaskState::Completed {
                SendMessageResponse::Message(story.answer())
            } else {
                SendMessageResponse::Task(story.task(length, true))
            },
        )
    }

    async fn send_streaming(&self, request: SendMessageRequest) -> Result<Stream, Refusal> {
        let length = request.configuration.as_ref();
        let length = self::length(length.and_then(|c| c.history_length))?;
        let mut taken = self.take(request).await?;
        if taken.answer == AnswerKind::Message {
            taken.story = self.settle(&taken.job, taken.story, Until::Still).await?;
            if *taken.story.state() == TaskState::Completed {
                let answer = StreamResponse::Message(taken.story.answer());
                return Ok(Box::pin(stream::iter([Ok(answer)])));
            }
        }
        self.stream(&taken.job, taken.story, length, Until::Asked)
            .await
    }

    /// The task as it stands, and then what happens to it.
    async fn stream(
        &self,
        job: &JobView,
        story: Story,
        length: Option<usize>,
        until: Until,
    ) -> Result<Stream, Refusal> {
        let first = StreamResponse::Task(story.task(length, true));
        let live = Live::after(self.service(), client(), job.id, story, until).await?;
        let live = live.first(first);
        Ok(Box::pin(stream::unfold(Some(live), |live| async {
            let mut live = live?;
            match live.next().await {
                Ok(shown) => shown.map(|shown| (Ok(shown), Some(live))),
                Err(fault) => Some((Err(fault::error(&fault)), None)),
            }
        })))
    }

    async fn get(&self, request: GetTaskRequest) -> Result<Task, Refusal> {
        let length = length(request.history_length)?;
        let job = self.job(&request.id).await?;
        Ok(self.story(&job).await?.task(length, true))
    }

    async fn cancel(&self, request: CancelTaskRequest) -> Result<Task, Refusal> {
        let job = self.job(&request.id).await?;
        let refused = || Refusal::from(A2AError::task_not_cancelable(&request.id));
        let reason = "cancelled by a client of a2a".to_owned();
        let cancelled = self.service().jobs().cancel(job.id, reason).await;
        match cancelled.map_err(Fault::from) {
            Ok(()) => {}
            Err(fault) if fault.code == FaultCode::Precondition => return Err(refused()),
            Err(fault) => return Err(fault.into()),
        }
        let story = self.story(&job).await?;
        let story = self.settle(&job, story, Until::Over).await?;
        Ok(story.task(None, true))
    }

    async fn subscribe(&self, request: SubscribeToTaskRequest) -> Result<Stream, Refusal> {
        let job = self.job(&request.id).await?;
        let story = self.story(&job).await?;
        if story.is_over() {
            return Err(unsupported(format!(
                "task {} is over: there is nothing to subscribe to",
                request.id
            )));
        }
        self.stream(&job, story, None, Until::Over).await
    }

    async fn list(&self, request: ListTasksRequest) -> Result<ListTasksResponse, Refusal> {
        let length = length(request.history_length)?;
        if request
            .page_size
            .is_some_and(|size| !(0..=100).contains(&size))
        {
            return Err(invalid("pageSize is from 1 to 100"));
        }
        let page_size = resolve_page_size(request.page_size);
        let after = match request.page_token.as_deref() {
            None | Some("") => None,
            Some(token) => Some(
                Place::parse(token).ok_or_else(|| invalid("pageToken is none that was given"))?,
            ),
        };
        let status = request
            .status
            .filter(|state| *state != TaskState::Unspecified);
        let since_ms = request
            .status_timestamp_after
            .and_then(|at| u64::try_from(at.timestamp_millis()).ok());

        let mut found: Vec<(Place, JobView, Option<Story>)> = Vec::new();
        for job in self.tasks(request.context_id).await? {
            if status
                .as_ref()
                .is_some_and(|state| !may_be(state, job.state))
            {
                continue;
            }
            // When a task that is over last changed, its job knows; the others, which are few, are looked at.
            let is_told = !job.state.is_final()
                || matches!(status, Some(TaskState::Failed | TaskState::Rejected));
            let story = match is_told {
                true => Some(self.story(&job).await?),
                false => None,
            };
            if let (Some(wanted), Some(story)) = (&status, &story)
                && wanted != story.state()
            {
                continue;
            }
            let changed_ms = match (&story, job.finished_ms) {
                (Some(story), _) => story.changed_ms(),
                (None, finished) => finished.unwrap_or(job.submitted_ms),
            };
            if since_ms.is_none_or(|since| changed_ms >= since) {
                found.push((Place(changed_ms, job.id), job, story));
            }
        }
        found.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        let total_size = i32::try_from(found.len()).unwrap_or(i32::MAX);
        if let Some(after) = after {
            found.retain(|(place, ..)| *place < after);
        }
        let has_more = found.len() > page_size;
        found.truncate(page_size);
        let next_page_token = match found.last() {
            Some((place, ..)) if has_more => place.to_string(),
            _ => String::new(),
        };
        let mut tasks = Vec::new();
        for (_, job, story) in found {
            let story = match story {
                Some(story) => story,
                None => self.story(&job).await?,
            };
            tasks.push(story.task(length, request.include_artifacts.unwrap_or(false)));
        }
        let _ = ASKING.try_with(|asking| asking.lists_nothing.set(tasks.is_empty()));
        Ok(ListTasksResponse {
            tasks,
            next_page_token,
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            total_size,
        })
    }

    /// The jobs that are tasks, the newest first.
    async fn tasks(&self, context: Option<String>) -> Result<Vec<JobView>, Refusal> {
        let mut labels = std::collections::BTreeMap::from([(LABEL.to_owned(), VERSION.to_owned())]);
        if let Some(context) = context.filter(|id| !id.is_empty()) {
            labels.insert(LABEL_CONTEXT.to_owned(), context);
        }
        let mut tasks = Vec::new();
        let mut before = None;
        loop {
            let filter = JobFilter {
                labels: labels.clone(),
                before,
                limit: PAGE_MAX,
                ..JobFilter::default()
            };
            let page = self
                .service()
                .jobs()
                .list(filter)
                .await
                .map_err(Fault::from)?;
            before = page.jobs.last().map(|job| job.id);
            tasks.extend(page.jobs);
            if !page.more || before.is_none() {
                return Ok(tasks);
            }
        }
    }
}

/// Where a task stands in a list: by when it last changed, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64, JobId);

impl Place {
    fn parse(token: &str) -> Option<Self> {
        let (changed_ms, job) = token.split_once('.')?;
        Some(Self(changed_ms.parse().ok()?, job.parse().ok()?))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Whether the task of a job in this state may be in that one.
fn may_be(state: &TaskState, job: JobState) -> bool {
    match state {
        TaskState::Completed => job == JobState::Completed,
        TaskState::Failed | TaskState::Rejected => job == JobState::Failed,
        TaskState::Canceled => job == JobState::Cancelled,
        _ => !job.is_final(),
    }
}

fn client() -> ClientId {
    ASKING
        .try_with(|asking| asking.client)
        .unwrap_or(ClientId::Process(0))
}

/// Holds the version that a client asks for against ours; what names none is of version 0.3 (specification, 3.6.2).
fn check_version(params: &ServiceParams) -> Result<(), Refusal> {
    let asked = params.get("a2a-version").and_then(|values| values.first());
    let asked = asked.map_or("", |asked| asked.trim());
    let asked = if asked.is_empty() { "0.3" } else { asked };
    if major_minor(asked) == major_minor(VERSION) {
        Ok(())
    } else {
        Err(A2AError::version_not_supported(asked).into())
    }
}

/// What counts of a version: the patch does not (specification, 3.6).
fn major_minor(version: &str) -> (&str, &str) {
    let mut parts = version.split('.');
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or("0"),
    )
}

pub(super) fn check_message(message: &Message) -> Result<(), Refusal> {
    if message.message_id.is_empty() {
        return Err(invalid("message.messageId is empty"));
    }
    if message.message_id.len() > ID_MAX_BYTES {
        return Err(invalid(format!(
            "message.messageId is longer than {ID_MAX_BYTES} bytes"
        )));
    }
    let context = message.context_id.as_deref().unwrap_or_default();
    if context.len() > ID_MAX_BYTES {
        return Err(invalid(format!(
            "message.contextId is longer than {ID_MAX_BYTES} bytes"
        )));
    }
    if message.parts.is_empty() {
        return Err(invalid("message.parts is empty"));
    }
    if message.role == Role::Agent {
        return Err(invalid(
            "message.role is that of the agent, and it comes from a client",
        ));
    }
    Ok(())
}

pub(super) fn length(asked: Option<i32>) -> Result<Option<usize>, Refusal> {
    asked
        .map(|length| usize::try_from(length).map_err(|_| invalid("historyLength is negative")))
        .transpose()
}

#[async_trait]
impl RequestHandler for Handler {
    async fn send_message(
        &self,
        params: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, A2AError> {
        self.serve("SendMessage", params, self.send(request)).await
    }

    async fn send_streaming_message(
        &self,
        params: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<Stream, A2AError> {
        self.serve("SendStreamingMessage", params, self.send_streaming(request))
            .await
    }

    async fn get_task(
        &self,
        params: &ServiceParams,
        request: GetTaskRequest,
    ) -> Result<Task, A2AError> {
        self.serve("GetTask", params, self.get(request)).await
    }

    async fn list_tasks(
        &self,
        params: &ServiceParams,
        request: ListTasksRequest,
    ) -> Result<ListTasksResponse, A2AError> {
        self.serve("ListTasks", params, self.list(request)).await
    }

    async fn cancel_task(
        &self,
        params: &ServiceParams,
        request: CancelTaskRequest,
    ) -> Result<Task, A2AError> {
        self.serve("CancelTask", params, self.cancel(request)).await
    }

    async fn subscribe_to_task(
        &self,
        params: &ServiceParams,
        request: SubscribeToTaskRequest,
    ) -> Result<Stream, A2AError> {
        self.serve("SubscribeToTask", params, self.subscribe(request))
            .await
    }

    async fn create_push_config(
        &self,
        params: &ServiceParams,
        config: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.serve("CreateTaskPushNotificationConfig", params, async {
            let job = self.job(&config.task_id).await?;
            let given = self.0.pushes.check(config).await?;
            self.0.pushes.create(job.id, given, false).await
        })
        .await
    }

    async fn get_push_config(
        &self,
        params: &ServiceParams,
        request: GetTaskPushNotificationConfigRequest,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        self.serve("GetTaskPushNotificationConfig", params, async {
            let job = self.job(&request.task_id).await?;
            self.0.pushes.get(job.id, &request.id).await
        })
        .await
    }

    async fn list_push_configs(
        &self,
        params: &ServiceParams,
        request: ListTaskPushNotificationConfigsRequest,
    ) -> Result<ListTaskPushNotificationConfigsResponse, A2AError> {
        self.serve("ListTaskPushNotificationConfigs", params, async {
            let job = self.job(&request.task_id).await?;
            // A task has few: there is one page.
            Ok(ListTaskPushNotificationConfigsResponse {
                configs: self.0.pushes.list(job.id).await?,
                next_page_token: None,
            })
        })
        .await
    }

    async fn delete_push_config(
        &self,
        params: &ServiceParams,
        request: DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2AError> {
        self.serve("DeleteTaskPushNotificationConfig", params, async {
            let job = self.job(&request.task_id).await?;
            self.0.pushes.delete(job.id, &request.id).await
        })
        .await
    }

    async fn get_extended_agent_card(
        &self,
        params: &ServiceParams,
        _: GetExtendedAgentCardRequest,
    ) -> Result<AgentCard, A2AError> {
        self.serve("GetExtendedAgentCard", params, async {
            if self.0.asks.anything() {
                return Ok(self.card(true));
            }
            Err(unsupported(
                "there is no extended card, since clients of this agent are not known",
            ))
        })
        .await
    }
}
