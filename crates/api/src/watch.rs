//! [`EventStream`]: what happened since, from the log, and what happens now, from the activity log.
//!
//! The two are joined without a gap and without an overlap: the live stream is subscribed to first; then the engine says up
//! to which entry everything has been shown; so far the log is read, and of the live events only newer ones are passed
//! on. A client that comes back names the last event it has, and misses nothing that is in the log.
//!
//! A reader that is too slow for the activity log's ring is told how much it missed, and its stream ends: it gets all of it
//! from the log when it comes back.

use std::collections::VecDeque;

use pal::{Delivery, EventKind, Filter, StartAt};
use runtime::{Follower, JobId, JobView};
use tokio::task::JoinHandle;
use wal::Lsn;

use crate::fault::Fault;
use crate::limits::ClientId;
use crate::live::Live;
use crate::service::{Service, blocking, died};
use crate::wire::{Event, Gap, HistoryPage, StreamEnd};

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The job, as people call it; all jobs and the node if none is named.
    pub job: Option<String>,
    /// Begin after this entry. Without it the stream of a job begins with the job, and that of all with what happens from
    /// now on.
    pub after: Option<u64>,
    /// Without what steps print.
    pub without_output: bool,
    /// End where the history ends, instead of going on live.
    pub history_only: bool,
}

/// What comes from a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Something that happened.
    Event(Box<Event>),
    /// The log no longer has the beginning of what was asked for.
    Gap(Gap),
    /// The last item.
    End(StreamEnd),
}

/// How many events are read from the log at once.
const PAGE: usize = 256;

type Page = (Follower, Result<Vec<runtime::Told>, Fault>);

/// A stream of events. Dropping it, or a future of it, loses nothing but the place.
pub struct EventStream {
    /// The history that has not been read yet.
    reading: Option<JoinHandle<Page>>,
    ready: VecDeque<Item>,
    live: Live,
    /// What is no newer than this comes from the log.
    through: u64,
    after: u64,
    job: Option<JobId>,
    history_only: bool,
    told_gap: bool,
    ended: bool,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream")
            .field("job", &self.job)
            .field("through", &self.through)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// If there is no such job, or `client` has as many streams as it may.
    pub async fn watch(&self, client: ClientId, watch: Watch) -> Result<EventStream, Fault> {
        let place = self.stream_place(client)?;
        let job = match &watch.job {
            Some(word) => Some(self.find(word).await?),
            None => None,
        };
        let filter = Filter {
            job: job.as_ref().map(|job| job.id.as_uuid()),
            without_output: watch.without_output,
        };
        let live = Live::begin(self, place, filter, StartAt::Now);
        let through = self.jobs().shown().await?;
        // Looked at again: it may have been made durable since, and then its first events are in the log only.
        let job = match job {
            Some(job) => Some(self.get(job.id).await?),
            None => None,
        };
        let after = match (watch.after, &job) {
            (Some(after), _) => Lsn(after),
            (None, Some(_)) => Lsn::ZERO,
            (None, None) => through,
        };
        let reading = self.read_history(job.as_ref(), after, through).await?;
        // Who has seen the last event of a job waits for nothing: there is none to end the stream.
        let seen_all = job
            .as_ref()
            .filter(|job| job.last_lsn.is_some_and(|last| last <= after))
            .map(|job| job.state);
        let mut stream = EventStream {
            reading,
            ready: VecDeque::new(),
            live,
            through: through.0,
            after: after.0,
            job: job.map(|job| job.id),
            history_only: watch.history_only,
            told_gap: false,
            ended: false,
        };
        if let Some(state) = seen_all {
            stream.end(StreamEnd::job_over(state));
        }
        Ok(stream)
    }

    /// Some of what has happened so far, after the entry `after`: `limit` events at the most.
    ///
    /// # Errors
    ///
    /// If there is no such job, the log cannot be read, or `client` has as many streams as it may.
    pub async fn history_page(
        &self,
        client: ClientId,
        job: Option<String>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<HistoryPage, Fault> {
        let watch = Watch {
            job,
            after: Some(after.unwrap_or(0)),
            without_output: true,
            history_only: true,
        };
        let mut stream = self.watch(client, watch).await?;
        let mut page = HistoryPage::default();
        while let Some(item) = stream.next().await? {
            match item {
                Item::Event(_) if page.events.len() == limit => {
                    page.next = page.events.last().and_then(|event| event.lsn);
                    break;
                }
                Item::Event(event) => page.events.push(*event),
                Item::Gap(gap) => page.gap = Some(gap),
                Item::End(_) => break,
            }
        }
        Ok(page)
    }

    async fn read_history(
        &self,
        job: Option<&JobView>,
        after: Lsn,
        through: Lsn,
    ) -> Result<Option<JoinHandle<Page>>, Fault> {
        if after >= through {
            return Ok(None);
        }
        let (history, jobs) = (self.history().clone(), self.jobs().clone());
        let place = match job {
            // It is not durable yet: everything of it is still to come.
            Some(job) => match job.first_lsn {
                Some(first) => Some((job.id, first)),
                None => return Ok(None),
            },
            None => None,
        };
        let runtime = tokio::runtime::Handle::current();
        let follower = blocking(move || {
            Ok(match place {
                Some((job, first)) => history.follow(job, first, after, through)?,
                None => history.follow_all(after, through, move |job| {
                    let view = runtime.block_on(jobs.get(job));
                    view.ok().flatten().and_then(|view| view.first_lsn)
                })?,
            })
        })
        .await?;
        Ok(Some(next_page(follower)))
    }
}

fn next_page(mut follower: Follower) -> JoinHandle<Page> {
    tokio::task::spawn_blocking(move || {
        let page = follower.next_page(PAGE).map_err(Fault::from);
        (follower, page)
    })
}

impl EventStream {
    /// After which entry the stream begins.
    #[must_use]
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The next item; `None` after the last one. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If the log cannot be read; nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Item>, Fault> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.ended |= matches!(item, Item::End(_));
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                let taken = self.take_page(read);
                self.ended |= taken.is_err();
                taken?;
            } else if self.history_only {
                self.ended = true;
            } else {
                self.take_live().await;
            }
        }
    }

    fn take_page(&mut self, read: Result<Page, tokio::task::JoinError>) -> Result<(), Fault> {
        let (follower, page) = read.map_err(|error| died(&error))?;
        let page = page?;
        if let Some(oldest) = follower.gap()
            && !self.told_gap
        {
            self.told_gap = true;
            self.ready.push_back(Item::Gap(Gap { oldest: oldest.0 }));
        }
        let is_last = page.is_empty();
        for told in page {
            self.push(told.into());
        }
        if !is_last {
            self.reading = Some(next_page(follower));
        }
        Ok(())
    }

    /// Adds an event, and the end of the stream if nothing comes after it.
    fn push(&mut self, event: Event) {
        let over = match event.kind {
            EventKind::JobFinished { state, .. } if self.job.is_some() => Some(state.into()),
            _ => None,
        };
        self.ready.push_back(Item::Event(Box::new(event)));
        if let Some(state) = over {
            self.end(StreamEnd::job_over(state));
        }
    }

    fn end(&mut self, end: StreamEnd) {
        self.ready.push_back(Item::End(end));
    }

    async fn take_live(&mut self) {
        match self.live.next().await {
            Delivery::Event(event) => {
                // What is older comes from the log, or was seen before; what has no number is only ever live.
                let is_new = event
                    .lsn
                    .is_none_or(|lsn| lsn > self.through.max(self.after));
                if is_new {
                    self.push(Event::from(&*event));
                }
            }
            Delivery::Lagged { missed } => self.end(StreamEnd::lagged(missed)),
            Delivery::Closed => self.end(StreamEnd::stopping()),
        }
    }
}
