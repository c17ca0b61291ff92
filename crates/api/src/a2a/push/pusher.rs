//! [`Pusher`]: sends the next event of a task, and wakes those that wait for one.
//!
//! What is read of a task's journal is kept between two events, for speed only: it is told again, the same, after a restart.
//!
//! Nobody is left waiting: who finds nothing is put on the list *before* it asks how far the journal goes, and what comes
//! after that finds it there. The list is not durable, so at the start all are woken once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use a2a_types::{StreamResponse, TaskState};
use pal::{Delivery, EventKind, Filter, StartAt};
use runtime::entry::Entry;
use runtime::{
    EffectCall, EffectError, EffectResult, History, JobError, JobFilter, JobId, JobState, JobView,
    Json,
};
use tokio::sync::watch;
use wal::Lsn;

use super::post::Post;
use super::target::Targets;
use super::{Asked, LABEL, Place, Told, WAKE};
use crate::a2a::VERSION;
use crate::a2a::story::Story;
use crate::fault::{Fault, FaultCode};
use crate::service::{PAGE_MAX, Service, blocking};

/// How many entries of the log are read at once.
const CHUNK: u64 = 512;

/// For how many configs what has been read is kept. Any of the others is read again.
const READINGS_MAX: usize = 1024;

/// How long to wait before an engine that is too busy is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Sends notifications. Clones are the same.
#[derive(Clone)]
pub struct Pusher(Arc<Inner>);

struct Inner {
    post: Arc<Post>,
    /// Where tasks are looked at: it comes later than the first effects.
    service: watch::Sender<Option<Service>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What has been read for a config.
    readings: HashMap<JobId, Reading>,
    /// The configs that wait for something to happen to a task.
    waiting: HashMap<JobId, Vec<JobId>>,
    /// Whether somebody listens on their behalf.
    is_listening: bool,
}

/// A task's journal, as far as it has been read.
struct Reading {
    story: Story,
    first: Lsn,
    /// All entries up to this one have been read.
    read: Lsn,
    /// Those of them that have not been told.
    entries: VecDeque<(Lsn, Entry)>,
    /// What has been told and not been taken.
    ready: VecDeque<(Place, StreamResponse)>,
}

/// What comes next of a task.
enum Next {
    Event {
        place: Place,
        shown: Box<StreamResponse>,
        is_last: bool,
    },
    /// Nothing so far.
    Nothing { next: Place },
    /// Nothing any more.
    Over,
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher").finish_non_exhaustive()
    }
}

impl Pusher {
    /// One that sends to these targets, once it is [bound](Self::bind).
    #[must_use]
    pub fn new(targets: Targets) -> Self {
        Self(Arc::new(Inner {
            post: Arc::new(Post::new(targets)),
            service: watch::Sender::new(None),
            state: Mutex::default(),
        }))
    }

    pub(crate) fn targets(&self) -> &Targets {
        self.0.post.targets()
    }

    /// Says where tasks are looked at, and wakes all configs: what happened meanwhile nobody has told them.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(&self, service: Service) {
        self.0.service.send_replace(Some(service.clone()));
        tokio::spawn(async move {
            if let Err(fault) = wake_all(&service).await {
                tracing::error!(
                    "push notifications wait for the next event of their task: {fault}"
                );
            }
        });
    }

    async fn service(&self) -> Service {
        let mut bound = self.0.service.subscribe();
        loop {
            if let Some(service) = bound.borrow_and_update().clone() {
                return service;
            }
            if bound.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the effect [`DELIVER`](super::DELIVER). Dropping the future ends it; what it was at is sent again.
    ///
    /// # Errors
    ///
    /// Why the next event was not taken, with what the program needs to go on after it; or why it cannot be told.
    pub async fn deliver(&self, call: EffectCall) -> EffectResult {
        let asked: Asked = call.input()?;
        let service = self.service().await;
        let found = self.next(&service, call.id.job, &asked).await;
        let found = found.map_err(|fault| match fault.code {
            FaultCode::NotFound => EffectError::permanent("not_found", fault.message),
            _ => EffectError::transient(fault.code.as_str(), fault.message),
        })?;
        let (place, shown, is_last) = match found {
            Next::Event {
                place,
                shown,
                is_last,
            } => (place, shown, is_last),
            Next::Nothing { next } => {
                return Ok(Json::of(&Told {
                    next,
                    was_event: false,
                    is_over: false,
                }));
            }
            Next::Over => {
                return Ok(Json::of(&Told {
                    next: asked.next,
                    was_event: false,
                    is_over: true,
                }));
            }
        };
        let told = Json::of(&Told {
            next: place.next(),
            was_event: true,
            is_over: is_last,
        });
        let body = a2a_pb::protojson_conv::to_value(&*shown).map_err(|error| {
            EffectError::permanent("encoding", format!("event cannot be written: {error}"))
                .with_output(told.clone())
        })?;
        let id = format!("{}-{}-{}", asked.task, place.lsn, place.index);
        let sent = self.0.post.send(&asked.to, &id, body.to_string()).await;
        if is_last && sent.is_ok() {
            self.forget(call.id.job);
        }
        let result = match &sent {
            Ok(()) => "taken",
            Err(unsent) if unsent.is_temporary => "put_off",
            Err(_) => "refused",
        };
        service.instruments().pushed(result);
        sent.map(|()| told.clone()).map_err(|unsent| {
            let mut error = match unsent.is_temporary {
                true => EffectError::transient(unsent.code, unsent.message),
                false => EffectError::permanent(unsent.code, unsent.message),
            };
            error.retry_after = unsent.retry_after;
            error.with_output(told)
        })
    }

    /// The next event of a task for a config.
    async fn next(&self, service: &Service, config: JobId, asked: &Asked) -> Result<Next, Fault> {
        let known = self.state().readings.remove(&config);
        let mut reading = match known {
            Some(reading) => reading,
            None => {
                let view = service.get(asked.task).await?;
                if view.last_lsn.is_some_and(|last| last.0 < asked.next.lsn) {
                    return Ok(Next::Over);
                }
                Reading::of(&view)
            }
        };
        for is_waiting in [false, true] {
            if is_waiting {
                self.await_task(service, asked.task, config);
            }
            let through = service.jobs().shown().await?;
            reading = reading.on(service.history(), asked.next, through).await?;
            let Some((place, shown)) = reading.ready.front() else {
                continue;
            };
            let next = Next::Event {
                place: *place,
                shown: Box::new(shown.clone()),
                is_last: reading.story.is_over() && reading.ready.len() == 1,
            };
            self.stop_waiting(asked.task, config);
            self.keep(config, reading);
            return Ok(next);
        }
        let view = service.get(asked.task).await?;
        // The log may have released a part of a task that was over before the config was made.
        let is_read = view.last_lsn.is_some_and(|last| last <= reading.read);
        if reading.story.is_over() || is_read {
            self.stop_waiting(asked.task, config);
            return Ok(Next::Over);
        }
        let next = Place::after(reading.read).max(asked.next);
        self.keep(config, reading);
        Ok(Next::Nothing { next })
    }

    /// Keeps nothing for a config that is no more.
    pub(super) fn forget(&self, config: JobId) {
        self.state().readings.remove(&config);
    }

    fn keep(&self, config: JobId, reading: Reading) {
        let mut state = self.state();
        if state.readings.len() >= READINGS_MAX {
            let any = state.readings.keys().next().copied();
            any.and_then(|any| state.readings.remove(&any));
        }
        state.readings.insert(config, reading);
    }

    fn stop_waiting(&self, task: JobId, config: JobId) {
        let mut state = self.state();
        if let Some(configs) = state.waiting.get_mut(&task) {
            configs.retain(|waiting| *waiting != config);
            if configs.is_empty() {
                state.waiting.remove(&task);
            }
        }
    }

    /// Has a config woken when something happens to a task from now on.
    fn await_task(&self, service: &Service, task: JobId, config: JobId) {
        let mut state = self.state();
        let configs = state.waiting.entry(task).or_default();
        if !configs.contains(&config) {
            configs.push(config);
        }
        if !state.is_listening {
            state.is_listening = true;
            let filter = Filter::all().without_output();
            let events = service.pal().subscribe(filter, StartAt::Now);
            tokio::spawn(self.clone().listen(service.clone(), events));
        }
    }

    /// Listens for as long as anybody waits.
    async fn listen(self, service: Service, mut events: pal::Subscription) {
        loop {
            let delivery = events.recv().await;
            let (woken, goes_on) = self.state().take(delivery);
            for config in woken {
                tokio::spawn(wake(service.clone(), config));
            }
            if !goes_on {
                return;
            }
        }
    }
}

impl State {
    /// Takes an event in; gives those that it wakes, and whether somebody waits still.
    fn take(&mut self, delivery: Delivery) -> (Vec<JobId>, bool) {
        let mut woken = Vec::new();
        match delivery {
            Delivery::Event(event) => {
                if let (Some(job), Some(lsn)) = (&event.job, event.lsn) {
                    self.wake(
                        job.id.into(),
                        Lsn(lsn),
                        event.at_ms,
                        &event.kind,
                        &mut woken,
                    );
                }
            }
            Delivery::Lagged { .. } => {
                woken.extend(self.waiting.drain().flat_map(|(_, configs)| configs));
            }
            Delivery::Closed => self.waiting.clear(),
        }
        self.is_listening = !self.waiting.is_empty();
        (woken, self.is_listening)
    }

    /// Takes those off the list that something which has happened to a task may concern.
    fn wake(
        &mut self,
        task: JobId,
        lsn: Lsn,
        at_ms: u64,
        kind: &EventKind,
        woken: &mut Vec<JobId>,
    ) {
        let Self {
            readings, waiting, ..
        } = self;
        let Some(configs) = waiting.get_mut(&task) else {
            return;
        };
        let is_shown = matches!(
            kind,
            EventKind::Message { .. }
                | EventKind::Question { .. }
                | EventKind::Answered { .. }
                | EventKind::Artifact { .. }
                | EventKind::JobFinished { .. }
        );
        configs.retain(|config| {
            let is_concerned = match readings.get_mut(config) {
                Some(reading) if *reading.story.state() != TaskState::Submitted => {
                    if is_shown {
                        reading.skip_to(lsn, at_ms);
                    }
                    is_shown
                }
                // The first thing that shows of a task makes it `WORKING`, whatever it is.
                _ => true,
            };
            if is_concerned {
                woken.push(*config);
            }
            !is_concerned
        });
        if configs.is_empty() {
            waiting.remove(&task);
        }
    }
}

impl Reading {
    fn of(task: &JobView) -> Self {
        Self {
            story: Story::of(task).without_artifacts(),
            first: task.first_lsn.unwrap_or(Lsn::FIRST),
            read: Lsn::ZERO,
            entries: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Nothing between what was read and the entry `lsn` shows: so the log need not be read for it, which may have grown by
    /// much that others did.
    fn skip_to(&mut self, lsn: Lsn, at_ms: u64) {
        let before = Lsn(lsn.0.saturating_sub(1));
        if self.entries.is_empty() && before > self.read {
            self.read = before;
            self.story.goes_on_at(at_ms);
        }
    }

    /// Reads on until there is something at `next` or after it, or all up to `through` is read.
    async fn on(mut self, history: &History, next: Place, through: Lsn) -> Result<Self, Fault> {
        while self.ready.front().is_some_and(|(place, _)| *place < next) {
            self.ready.pop_front();
        }
        if !self.ready.is_empty() {
            return Ok(self);
        }
        let history = history.clone();
        blocking(move || {
            self.read_on(&history, next, through)?;
            Ok(self)
        })
        .await
    }

    fn read_on(&mut self, history: &History, next: Place, through: Lsn) -> Result<(), Fault> {
        while self.ready.is_empty() && !self.story.is_over() {
            if let Some((lsn, entry)) = self.entries.pop_front() {
                let shown = self.story.show(history, lsn, entry)?;
                self.story.forget_messages();
                let places = (0..).map(|index| Place { lsn: lsn.0, index });
                let shown = places.zip(shown).filter(|(place, _)| *place >= next);
                self.ready.extend(shown);
                continue;
            }
            if self.read >= through {
                break;
            }
            let from = self.first.max(Lsn(self.read.0 + 1));
            let to = through.min(Lsn(from.0.saturating_add(CHUNK)));
            self.entries = history.entries(self.story.job(), from, to)?.into();
            self.read = to;
        }
        Ok(())
    }
}

/// Tells all configs that there may be something to send.
async fn wake_all(service: &Service) -> Result<(), Fault> {
    let mut before = None;
    loop {
        let filter = JobFilter {
            states: vec![JobState::Queued, JobState::Running, JobState::Waiting],
            labels: [(LABEL.to_owned(), VERSION.to_owned())].into(),
            before,
            limit: PAGE_MAX,
            ..JobFilter::default()
        };
        let page = match service.jobs().list(filter).await {
            Ok(page) => page,
            Err(JobError::Busy { .. }) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        before = page.jobs.last().map(|job| job.id);
        for job in page.jobs {
            wake(service.clone(), job.id).await;
        }
        if !page.more || before.is_none() {
            return Ok(());
        }
    }
}

async fn wake(service: Service, config: JobId) {
    while let Err(JobError::Busy { .. }) = service.jobs().signal(config, WAKE, Json::null()).await {
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}
