//! The protocol's operations on push notification configs, over the jobs that carry them out.
//!
//! Of the jobs that carry a config's id the newest counts: a config that was made again under its id has taken the place of
//! the one before. A config stays to be seen after its task is over, until it is deleted or the log lets go of it.

use std::sync::Arc;
use std::time::Duration;

use a2a_types::{A2AError, AuthenticationInfo, TaskPushNotificationConfig};
use runtime::{JobFilter, JobId, JobSpec, JobState, JobView, Json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::post::Receiver;
use super::target::ResolveError;
use super::{LABEL, LABEL_ID, LABEL_TASK, PROGRAM, Place, Pusher, Spec};
use crate::a2a::VERSION;
use crate::a2a::fault::{Refusal, invalid};
use crate::a2a::handler::ID_MAX_BYTES;
use crate::fault::{Fault, FaultCode};
use crate::service::{PAGE_MAX, Service, Stage, blocking};

/// How long a host's name may take to be looked up before its config is taken in. It is looked up again when it is used.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// The configs of all tasks. Clones are the same.
#[derive(Clone)]
pub(in super::super) struct Configs {
    service: Service,
    pusher: Pusher,
    /// How many a task may have.
    limit: usize,
    /// Whose turn it is to change any.
    turn: Arc<Mutex<()>>,
}

/// A config as a client gives it, and found to be one that can be used.
#[derive(Clone, Debug)]
pub(in super::super) struct Given {
    id: String,
    to: Receiver,
}

/// A config as it was found.
struct Found {
    job: JobView,
    /// Nothing where the log has let go of it.
    spec: Option<Spec>,
}

impl Found {
    fn is_there(&self) -> bool {
        self.job.state != JobState::Cancelled && matches!(self.spec, Some(Spec::Config { .. }))
    }

    fn is_given(&self, given: &Given) -> bool {
        let Some(Spec::Config { to, .. }) = &self.spec else {
            return false;
        };
        self.is_there() && *to == given.to
    }

    fn shown(self) -> Option<TaskPushNotificationConfig> {
        match self.spec {
            Some(Spec::Config { task, id, to, .. }) => Some(shown(task, id, to)),
            Some(Spec::Deleted { .. }) | None => None,
        }
    }
}

/// A config as clients see it: what it shows to the receiver as ours is told to nobody.
fn shown(task: JobId, id: String, to: Receiver) -> TaskPushNotificationConfig {
    TaskPushNotificationConfig {
        url: to.url,
        id: Some(id),
        task_id: task.to_string(),
        token: to.token,
        authentication: to.authentication.map(|authentication| AuthenticationInfo {
            scheme: authentication.scheme,
            credentials: None,
        }),
        tenant: None,
    }
}

impl Configs {
    pub(in super::super) fn new(service: Service, pusher: Pusher, limit: usize) -> Self {
        Self {
            service,
            pusher,
            limit,
            turn: Arc::default(),
        }
    }

    /// Whether there can be any.
    pub(in super::super) fn are_supported(&self) -> bool {
        self.limit > 0
    }

    fn check_supported(&self) -> Result<(), Refusal> {
        match self.are_supported() {
            true => Ok(()),
            false => Err(A2AError::push_notification_not_supported().into()),
        }
    }

    /// Looks a config over.
    pub(in super::super) async fn check(
        &self,
        config: TaskPushNotificationConfig,
    ) -> Result<Given, Refusal> {
        self.check_supported()?;
        let to = Receiver::of(&config);
        let targets = self.pusher.targets();
        let url = targets.check(&to.url);
        let url = url.map_err(|why| invalid(format!("url {why}")))?;
        to.headers().map_err(invalid)?;
        if let Some(host) = url.domain() {
            // A name that is not known now may be later; one that leads where it may not is refused at once.
            let looked_up = tokio::time::timeout(LOOKUP_MAX, targets.resolve(host)).await;
            if let Ok(Err(ResolveError::Forbidden(why))) = looked_up {
                return Err(invalid(format!("url: {why}")));
            }
        }
        let id = match config.id.filter(|id| !id.is_empty()) {
            Some(id) if id.len() > ID_MAX_BYTES => {
                return Err(invalid(format!("id is longer than {ID_MAX_BYTES} bytes")));
            }
            Some(id) => id,
            // The same for the same address, so that a request sent twice makes one config.
            None => {
                let hash = Sha256::digest(to.url.as_bytes());
                hash[..8]
                    .iter()
                    .fold("url-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
            }
        };
        Ok(Given { id, to })
    }

    /// Makes a config, or takes the place of the one of its id. It begins with what happens after this, or with the
    /// beginning of the task.
    pub(in super::super) async fn create(
        &self,
        task: JobId,
        given: Given,
        from_beginning: bool,
    ) -> Result<TaskPushNotificationConfig, Refusal> {
        self.check_supported()?;
        let _turn = self.turn.lock().await;
        let all = self.of(task, None).await?;
        let (same, others): (Vec<Found>, Vec<Found>) = all
            .into_iter()
            .partition(|found| found.job.labels.get(LABEL_ID) == Some(&given.id));
        let newest = same.first();
        if newest.is_some_and(|newest| newest.is_given(&given)) {
            return Ok(shown(task, given.id, given.to));
        }
        let is_new = !newest.is_some_and(Found::is_there);
        if is_new && newest_of_each(others).len() >= self.limit {
            return Err(invalid(format!(
                "task {task} has {} push notification configs, as many as it may (`a2a.push_configs`); delete one",
                self.limit
            )));
        }
        let from = match from_beginning {
            true => Place::FIRST,
            false => Place::after(self.service.jobs().shown().await.map_err(Fault::from)?),
        };
        let spec = Spec::Config {
            task,
            id: given.id.clone(),
            to: given.to.clone(),
            from,
        };
        for before in &same {
            self.end(&before.job, "another config took its place")
                .await?;
        }
        self.submit(task, &given.id, newest, &spec).await?;
        Ok(shown(task, given.id, given.to))
    }

    /// Makes a job that follows `newest` of the same id.
    async fn submit(
        &self,
        task: JobId,
        id: &str,
        newest: Option<&Found>,
        spec: &Spec,
    ) -> Result<(), Refusal> {
        if *self.service.stage().borrow() >= Stage::Draining {
            let message = "the daemon is draining and takes in no more push notification configs";
            return Err(Fault::new(FaultCode::Unavailable, message).into());
        }
        let after = newest.map_or_else(|| "first".to_owned(), |newest| newest.job.id.to_string());
        let mut job = JobSpec::new(PROGRAM, Json::of(spec))
            .named(format!("push {task}"))
            .keyed(format!("a2a.push:{task}:{after}:{id}"));
        job.labels.extend([
            (LABEL.to_owned(), VERSION.to_owned()),
            (LABEL_TASK.to_owned(), task.to_string()),
            (LABEL_ID.to_owned(), id.to_owned()),
        ]);
        self.service.jobs().submit(job).await.map_err(Fault::from)?;
        Ok(())
    }

    pub(in super::super) async fn get(
        &self,
        task: JobId,
        id: &str,
    ) -> Result<TaskPushNotificationConfig, Refusal> {
        self.check_supported()?;
        let newest = self.of(task, Some(id)).await?.into_iter().next();
        let there = newest.filter(Found::is_there).and_then(Found::shown);
        there.ok_or_else(|| {
            let mut error = A2AError::task_not_found(&task.to_string());
            error.message = format!("task {task} has no push notification config `{id}`");
            error.into()
        })
    }

    /// All of a task, the newest first.
    pub(in super::super) async fn list(
        &self,
        task: JobId,
    ) -> Result<Vec<TaskPushNotificationConfig>, Refusal> {
        self.check_supported()?;
        let there = newest_of_each(self.of(task, None).await?);
        Ok(there.into_iter().filter_map(Found::shown).collect())
    }

    /// Deletes a config. When this is over, nothing is being sent for it any more.
    pub(in super::super) async fn delete(&self, task: JobId, id: &str) -> Result<(), Refusal> {
        self.check_supported()?;
        let _turn = self.turn.lock().await;
        let all = self.of(task, Some(id)).await?;
        let Some(newest) = all.first().filter(|newest| newest.is_there()) else {
            return Ok(());
        };
        let mut is_cancelled = false;
        for found in &all {
            let ended_so = self.end(&found.job, "deleted by a client of a2a").await?;
            is_cancelled |= ended_so && found.job.id == newest.job.id;
        }
        if is_cancelled {
            return Ok(());
        }
        // The end of a job that is over cannot be changed: another says that the config is no more.
        let spec = Spec::Deleted {
            task,
            id: id.to_owned(),
        };
        self.submit(task, id, Some(newest), &spec).await
    }

    /// Ends a config's job, and waits for that; whether it is over because of it.
    async fn end(&self, job: &JobView, why: &str) -> Result<bool, Refusal> {
        if job.state.is_final() {
            return Ok(job.state == JobState::Cancelled);
        }
        match self
            .service
            .jobs()
            .cancel(job.id, why)
            .await
            .map_err(Fault::from)
        {
            Ok(()) => {}
            Err(fault) if matches!(fault.code, FaultCode::Precondition | FaultCode::NotFound) => {}
            Err(fault) => return Err(fault.into()),
        }
        self.pusher.forget(job.id);
        let over = self
            .service
            .jobs()
            .when_over(job.id)
            .await
            .map_err(Fault::from)?;
        Ok(over.is_none_or(|over| over.state == JobState::Cancelled))
    }

    /// The jobs of a task's configs, the newest first.
    async fn of(&self, task: JobId, id: Option<&str>) -> Result<Vec<Found>, Refusal> {
        let mut labels =
            std::collections::BTreeMap::from([(LABEL_TASK.to_owned(), task.to_string())]);
        if let Some(id) = id {
            labels.insert(LABEL_ID.to_owned(), id.to_owned());
        }
        let mut jobs: Vec<JobView> = Vec::new();
        loop {
            let filter = JobFilter {
                labels: labels.clone(),
                before: jobs.last().map(|job| job.id),
                limit: PAGE_MAX,
                ..JobFilter::default()
            };
            let page = self
                .service
                .jobs()
                .list(filter)
                .await
                .map_err(Fault::from)?;
            let is_last = !page.more || page.jobs.is_empty();
            jobs.extend(page.jobs);
            if is_last {
                break;
            }
        }
        jobs.retain(|job| job.program == PROGRAM);
        let history = self.service.history().clone();
        let found = blocking(move || {
            let mut found = Vec::new();
            for job in jobs {
                let input = match job.first_lsn {
                    Some(first) => history.input(job.id, first)?,
                    None => None,
                };
                let spec = input.and_then(|input| input.read().ok());
                found.push(Found { job, spec });
            }
            Ok(found)
        });
        Ok(found.await?)
    }
}

/// The configs that are there, of jobs that stand in their order.
fn newest_of_each(found: Vec<Found>) -> Vec<Found> {
    let mut seen = std::collections::HashSet::new();
    found
        .into_iter()
        .filter(|found| seen.insert(found.job.labels.get(LABEL_ID).cloned()))
        .filter(Found::is_there)
        .collect()
}
