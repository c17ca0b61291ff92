//! [`Service`]: everything clients can ask for, in words of no protocol.
//!
//! It is thin on purpose: jobs are the runtime's matter. What it adds is what all transports need alike: finding a job by
//! what people call it, pages, limits, and the refusal of everybody once the node is on its way out.

use std::fmt;
use std::sync::Arc;

use pal::Pal;
use runtime::{
    History, JobFilter, JobId, JobResult, JobSpec, JobState, JobView, Jobs, Json, Submitted,
};
use tokio::sync::watch;
use wal::Lsn;

use crate::fault::{Fault, FaultCode};
use crate::instruments::Instruments;
use crate::limits::{ClientId, Limits, Places, RequestPlace, StreamPlace};
use crate::node::{NodeControl, NodeIdentity, NodeRequest, Reload};
use crate::wire::{
    CancelFailure, CancelMany, CancelledMany, JobDetails, JobList, JobQuery, Node, NodeDump,
    OpenQuestion,
};

/// What a service is made from.
pub struct Options {
    /// The jobs.
    pub jobs: Jobs,
    /// What happens.
    pub pal: Pal,
    /// What happened.
    pub history: History,
    /// The process.
    pub node: NodeControl,
    /// Who it is.
    pub identity: NodeIdentity,
    /// How much may be asked at once.
    pub limits: Limits,
    /// What is counted.
    pub instruments: Instruments,
}

/// How far the node is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It takes work.
    Serving,
    /// No more jobs are taken in; everything else goes on.
    Draining,
    /// It is stopping: no request is served any more, streams show how it ends.
    Stopping,
    /// Nothing will happen any more: streams end.
    Over,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping | Self::Over => "stopping",
        }
    }
}

/// What transports serve. Clones are the same service.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    options: Options,
    places: Places,
    stage: watch::Sender<Stage>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("identity", &self.0.options.identity)
            .field("stage", &*self.0.stage.borrow())
            .finish_non_exhaustive()
    }
}

/// The most jobs on a page.
pub const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;

/// How deep JSON of a client may be nested. What can be read at all is twice as deep (128, serde_json's limit), which leaves
/// room for what programs put it into: a plan that wraps an answer in a larger value, which could be read no more.
const DEPTH_MAX: usize = 64;

/// How many of the jobs are named that a word may mean.
const AMBIGUOUS_SHOWN: usize = 5;

impl Service {
    /// A service that takes work.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            places: Places::new(options.limits.clone()),
            options,
            stage: watch::Sender::new(Stage::Serving),
        }))
    }

    pub(crate) fn jobs(&self) -> &Jobs {
        &self.0.options.jobs
    }

    pub(crate) fn pal(&self) -> &Pal {
        &self.0.options.pal
    }

    pub(crate) fn history(&self) -> &History {
        &self.0.options.history
    }

    /// How much may be asked at once.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.0.places.limits()
    }

    /// What is counted.
    #[must_use]
    pub fn instruments(&self) -> &Instruments {
        &self.0.options.instruments
    }

    /// Goes a stage further on the way out; never back.
    pub fn advance(&self, stage: Stage) {
        self.0.stage.send_if_modified(|now| {
            let further = stage > *now;
            *now = stage.max(*now);
            further
        });
    }

    /// How far the node is on its way out, and whenever that changes.
    #[must_use]
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.0.stage.subscribe()
    }

    /// A place for one request.
    ///
    /// # Errors
    ///
    /// If there are too many already, or the node is stopping.
    pub fn admit(&self) -> Result<RequestPlace, Fault> {
        if *self.0.stage.borrow() >= Stage::Stopping {
            return Err(Fault::stopping());
        }
        self.0.places.request()
    }

    pub(crate) fn stream_place(&self, client: ClientId) -> Result<StreamPlace, Fault> {
        self.0.places.stream(client)
    }

    /// Takes a job in.
    ///
    /// # Errors
    ///
    /// Why it was not; nothing of it was kept.
    pub async fn submit(&self, spec: JobSpec) -> Result<Submitted, Fault> {
        if *self.0.stage.borrow() >= Stage::Draining {
            return Err(Fault::new(
                FaultCode::Unavailable,
                "the daemon is draining and takes in no more jobs",
            ));
        }
        check_depth("/input", &spec.input)?;
        Ok(self.jobs().submit(spec).await?)
    }

    /// The job of this id.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn get(&self, id: JobId) -> Result<JobView, Fault> {
        let view = self.jobs().get(id).await?;
        view.ok_or_else(|| Fault::no_job(&id.to_string()))
    }

    /// The job that people call so: by its id, the beginning or end of one, or its name. Of several of one name it is the
    /// newest.
    ///
    /// # Errors
    ///
    /// If none fits, or several ids do.
    pub async fn find(&self, word: &str) -> Result<JobView, Fault> {
        if let Ok(id) = word.parse() {
            return self.get(id).await;
        }
        let filter = JobFilter {
            called: Some(word.to_owned()),
            limit: PAGE_MAX,
            ..JobFilter::default()
        };
        let found = self.jobs().list(filter).await?.jobs;
        let (named, by_id): (Vec<JobView>, Vec<JobView>) = found
            .into_iter()
            .partition(|job| job.name.as_deref() == Some(word));
        match (by_id.as_slice(), named.into_iter().next()) {
            (_, Some(job)) => Ok(job),
            ([job], None) => Ok(job.clone()),
            ([], None) => Err(Fault::no_job(word)),
            (several, None) => {
                let mut names: Vec<String> = several
                    .iter()
                    .take(AMBIGUOUS_SHOWN)
                    .map(|job| job.id.to_string())
                    .collect();
                if several.len() > AMBIGUOUS_SHOWN {
                    names.push("…".to_owned());
                }
                Err(Fault::new(
                    FaultCode::Ambiguous,
                    format!("`{word}` fits {} jobs: {}", several.len(), names.join(", ")),
                ))
            }
        }
    }

    /// A job with what it was asked to do, what it asks, and what it came to.
    ///
    /// # Errors
    ///
    /// If there is no such job, or the log cannot be read.
    pub async fn details(&self, word: &str) -> Result<JobDetails, Fault> {
        let job = self.find(word).await?;
        let Some(first) = job.first_lsn else {
            return Ok(JobDetails {
                job,
                input: None,
                result: None,
                questions: Vec::new(),
            });
        };
        let asked_through = match job.state {
            JobState::Waiting => Some(self.shown(&job).await?),
            _ => None,
        };
        let (history, id, last) = (self.history().clone(), job.id, job.last_lsn);
        let (input, result, questions) = blocking(move || {
            let questions = match asked_through {
                Some(through) => open_questions(&history, id, first, through)?,
                None => Vec::new(),
            };
            let result = match last {
                Some(last) => history.result(id, last)?,
                None => None,
            };
            Ok::<_, Fault>((history.input(id, first)?, result, questions))
        })
        .await?;
        let input = input.map(|input| input.value());
        #[cfg(feature = "a2a")]
        let input = match job.program == crate::a2a::push::PROGRAM {
            true => input.map(crate::a2a::push::without_secrets),
            false => input,
        };
        Ok(JobDetails {
            job,
            input,
            result,
            questions,
        })
    }

    /// The last entry to look at for a job: its own last one, or the newest there is.
    pub(crate) async fn shown(&self, job: &JobView) -> Result<Lsn, Fault> {
        match job.last_lsn {
            Some(last) => Ok(last),
            None => Ok(self.jobs().shown().await?),
        }
    }

    /// What a job came to; `None` while it is not over.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub async fn result_of(&self, job: &JobView) -> Result<Option<JobResult>, Fault> {
        let (history, id) = (self.history().clone(), job.id);
        match job.last_lsn {
            Some(last) => blocking(move || Ok(history.result(id, last)?)).await,
            None => Ok(None),
        }
    }

    /// Some of the jobs, the newest first.
    ///
    /// # Errors
    ///
    /// If the query makes no sense, or the engine is too busy.
    pub async fn list(&self, query: JobQuery) -> Result<JobList, Fault> {
        let limit = page_limit(query.limit.unwrap_or(PAGE_DEFAULT), "/limit")?;
        let page = self
            .jobs()
            .list(JobFilter {
                states: query.states,
                name: query.name,
                labels: query.labels,
                called: None,
                before: query.before,
                limit,
            })
            .await?;
        Ok(JobList {
            next: page.jobs.last().filter(|_| page.more).map(|job| job.id),
            jobs: page.jobs,
        })
    }

    /// Asks for a job to end.
    ///
    /// # Errors
    ///
    /// If there is no such job, or it is over.
    pub async fn cancel(&self, word: &str, reason: Option<String>) -> Result<JobId, Fault> {
        let job = self.find(word).await?.id;
        self.jobs()
            .cancel(
                job,
                reason.unwrap_or_else(|| "cancelled by a client".to_owned()),
            )
            .await?;
        Ok(job)
    }

    /// Asks for many jobs to end, or says which they would be.
    ///
    /// # Errors
    ///
    /// If the filter names nothing and does not say that all are meant, or the engine is too busy.
    pub async fn cancel_many(&self, request: CancelMany) -> Result<CancelledMany, Fault> {
        let names_nothing =
            request.states.is_empty() && request.name.is_none() && request.labels.is_empty();
        if names_nothing && !request.all {
            return Err(Fault::invalid_at(
                "/all",
                "nothing says which jobs are meant; name `states`, `name` or `labels`, or say `all`",
            ));
        }
        if let Some(state) = request.states.iter().find(|state| state.is_final()) {
            return Err(Fault::invalid_at(
                "/states",
                format!("jobs that are {state} are over and cannot be cancelled"),
            ));
        }
        let states = if request.states.is_empty() {
            vec![
                JobState::Queued,
                JobState::Running,
                JobState::Waiting,
                JobState::Stuck,
            ]
        } else {
            request.states
        };
        let mut done = CancelledMany {
            jobs: Vec::new(),
            failed: Vec::new(),
            dry_run: request.dry_run,
        };
        let reason = request
            .reason
            .unwrap_or_else(|| "cancelled by a client".to_owned());
        let mut before = None;
        loop {
            let page = self
                .jobs()
                .list(JobFilter {
                    states: states.clone(),
                    name: request.name.clone(),
                    labels: request.labels.clone(),
                    called: None,
                    before,
                    limit: PAGE_MAX,
                })
                .await?;
            for job in &page.jobs {
                if request.dry_run {
                    done.jobs.push(job.id);
                    continue;
                }
                match self.jobs().cancel(job.id, reason.clone()).await {
                    Ok(()) => done.jobs.push(job.id),
                    Err(error) => done.failed.push(CancelFailure {
                        job: job.id,
                        error: error.to_string(),
                    }),
                }
            }
            before = page.jobs.last().map(|job| job.id);
            if !page.more || before.is_none() {
                return Ok(done);
            }
        }
    }

    /// Sends something to a job, under the name that it waits for.
    ///
    /// # Errors
    ///
    /// If there is no such job, it is over or stuck, or the question of that name is settled.
    pub async fn signal(&self, word: &str, name: &str, payload: Json) -> Result<JobId, Fault> {
        if name.is_empty() {
            return Err(Fault::invalid_at("/name", "a signal has a name"));
        }
        check_depth("", &payload)?;
        let job = self.find(word).await?.id;
        self.jobs().signal(job, name, payload).await?;
        Ok(job)
    }

    /// The node at a glance.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn node(&self) -> Result<Node, Fault> {
        Ok(self.node_of(&*self.jobs().dump().await?))
    }

    fn node_of(&self, dump: &runtime::Dump) -> Node {
        let stage = *self.0.stage.borrow();
        Node {
            identity: self.0.options.identity.clone(),
            epoch: dump.epoch,
            live_jobs: dump.jobs.len(),
            finished_jobs: dump.finished_jobs,
            running_effects: dump.running_effects,
            queued_effects: dump.queued_effects,
            state: if dump.draining {
                Stage::Stopping
            } else {
                stage
            }
            .name()
            .to_owned(),
            space_low: dump.stalled || dump.space_low,
            requests: self.0.places.requests(),
            streams: self.0.places.streams(),
        }
    }

    /// Everything the engine knows.
    ///
    /// # Errors
    ///
    /// If the engine is too busy, or gone.
    pub async fn dump(&self) -> Result<NodeDump, Fault> {
        let dump = self.jobs().dump().await?;
        Ok(NodeDump {
            node: self.node_of(&dump),
            trace_hash: format!("{:016x}", dump.trace_hash),
            batches_in_flight: dump.batches_in_flight,
            entries_open: dump.entries_open,
            needed_from: dump.needed_from.map(|lsn| lsn.0),
            text: dump.to_string(),
            jobs: dump.jobs,
        })
    }

    /// Has the config read again.
    ///
    /// # Errors
    ///
    /// If the process is on its way out. A config that is wrong is an answer.
    pub async fn reload(&self) -> Result<Reload, Fault> {
        self.0.options.node.ask(NodeRequest::Reload).await
    }

    /// Takes in no more jobs; with `stop` the process ends once nothing is left to do.
    ///
    /// # Errors
    ///
    /// If the process is on its way out.
    pub async fn drain(&self, client: ClientId, stop: bool) -> Result<(), Fault> {
        let by = client.to_string();
        self.0
            .options
            .node
            .ask(|reply| NodeRequest::Drain { by, stop, reply })
            .await
    }

    /// Has the process stop, as a signal would.
    ///
    /// # Errors
    ///
    /// If it is on its way out already.
    pub async fn shutdown(&self, client: ClientId) -> Result<(), Fault> {
        let by = client.to_string();
        self.0
            .options
            .node
            .ask(|reply| NodeRequest::Shutdown { by, reply })
            .await
    }
}

fn check_depth(pointer: &str, json: &Json) -> Result<(), Fault> {
    match json.depth() {
        0..=DEPTH_MAX => Ok(()),
        depth => Err(Fault::invalid_at(
            pointer,
            format!("is nested {depth} deep, and the limit is {DEPTH_MAX}"),
        )),
    }
}

/// The questions in a journal that have no answer yet.
fn open_questions(
    history: &History,
    job: JobId,
    first: Lsn,
    through: Lsn,
) -> Result<Vec<OpenQuestion>, Fault> {
    let mut open: Vec<OpenQuestion> = Vec::new();
    for event in history.emitted(job, first, through)? {
        match event {
            pal::EventKind::Question {
                name,
                prompt,
                kind,
                deadline_ms,
                default,
                ..
            } => open.push(OpenQuestion {
                name,
                prompt,
                kind,
                deadline_ms,
                default,
            }),
            pal::EventKind::Answered { name, .. } => {
                open.retain(|question| question.name != name);
            }
            _ => {}
        }
    }
    Ok(open)
}

/// Waits until nothing will happen any more.
pub(crate) async fn over(stage: &mut watch::Receiver<Stage>) {
    // Without a service there is nothing to wait for either.
    let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
}

/// How many things of a page a client asks for; `pointer` says where it does.
pub(crate) fn page_limit(limit: usize, pointer: &str) -> Result<usize, Fault> {
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    let what = format!("{limit} is not between 1 and {PAGE_MAX}");
    Err(Fault::invalid_at(pointer, what))
}

/// Does what blocks where that holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(died(&error)))
}

/// The fault where work for a client panicked.
pub(crate) fn died(error: &tokio::task::JoinError) -> Fault {
    tracing::error!("work for a client died: {error}");
    Fault::new(
        FaultCode::Internal,
        "the node failed at it; its log says why",
    )
}
