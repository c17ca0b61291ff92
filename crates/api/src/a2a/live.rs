//! A task's story, going on as it happens.
//!
//! The story so far comes from the log; what comes after its last entry comes from [`Service::watch`], which joins log and
//! live events without a gap. A reader that was too slow for the live events goes on from the log by itself.

use std::collections::VecDeque;

use a2a_types::{StreamResponse, TaskState};
use pal::{EventKind, Part};
use runtime::JobId;
use wal::Lsn;

use super::story::{self, Story};
use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::service::{Service, blocking};
use crate::watch::{EventStream, Item, Watch};
use crate::wire::Event;

/// When a stream ends, beside at the end of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Not before.
    Over,
    /// When the task asks for input: what a client sent has been worked through.
    Asked,
    /// When the task goes no further without somebody: for those who wait for an answer.
    Still,
}

/// What happens to a task.
pub(super) struct Live {
    service: Service,
    client: ClientId,
    job: JobId,
    pub(super) story: Story,
    events: EventStream,
    ready: VecDeque<StreamResponse>,
    until: Until,
    is_over: bool,
}

impl Live {
    /// Begins after what `story` tells.
    pub(super) async fn after(
        service: &Service,
        client: ClientId,
        job: JobId,
        story: Story,
        until: Until,
    ) -> Result<Self, Fault> {
        let events = watch(service, client, job, story.through).await?;
        Ok(Self {
            service: service.clone(),
            client,
            job,
            is_over: has_ended(&story, until),
            story: story.without_artifacts(),
            events,
            ready: VecDeque::new(),
            until,
        })
    }

    /// Shows something before all else.
    pub(super) fn first(mut self, shown: StreamResponse) -> Self {
        self.ready.push_front(shown);
        self
    }

    /// What comes next; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<StreamResponse>, Fault> {
        loop {
            if let Some(shown) = self.ready.pop_front() {
                return Ok(Some(shown));
            }
            if self.is_over {
                return Ok(None);
            }
            match self.events.next().await? {
                Some(Item::Event(event)) => {
                    let shown = self.take(*event).await?;
                    self.ready.extend(shown);
                    self.is_over = has_ended(&self.story, self.until);
                }
                Some(Item::Gap(_)) => {}
                Some(Item::End(end)) if end.reason == "lagged" => {
                    let after = self.story.through;
                    self.events = watch(&self.service, self.client, self.job, after).await?;
                }
                Some(Item::End(end)) => {
                    if !self.story.is_over() {
                        self.ready.push_back(self.story.repeat(&end.reason));
                    }
                    self.is_over = true;
                }
                None => self.is_over = true,
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<Vec<StreamResponse>, Fault> {
        // What has no number is only ever live, and nothing that a task is made of; but for the end of a standstill.
        let lsn = match (event.lsn, &event.kind) {
            (Some(lsn), _) => Lsn(lsn),
            (None, EventKind::JobStarted | EventKind::JobStuck { .. }) => self.story.through,
            (None, _) => return Ok(Vec::new()),
        };
        let (at_ms, kind) = (event.at_ms, event.kind);
        if matches!(kind, EventKind::JobFinished { .. }) {
            return self.finish(lsn, at_ms).await;
        }
        let reads = matches!(kind, EventKind::Artifact { .. });
        let history = self.service.history();
        if !reads {
            return self.story.take(history, lsn, Some(at_ms), kind);
        }
        let (history, job, mut story) = (history.clone(), self.job, self.story.clone());
        let (story, shown) = blocking(move || {
            let was_cut = matches!(
                kind,
                EventKind::Artifact {
                    part: Part::Omitted { .. },
                    ..
                }
            );
            let full = match was_cut {
                true => story::full_event(&history, job, lsn)?,
                false => None,
            };
            let shown = story.take(&history, lsn, Some(at_ms), full.unwrap_or(kind))?;
            Ok((story, shown))
        })
        .await?;
        self.story = story;
        Ok(shown)
    }

    async fn finish(&mut self, lsn: Lsn, at_ms: u64) -> Result<Vec<StreamResponse>, Fault> {
        let (history, job) = (self.service.history().clone(), self.job);
        let result = blocking(move || Ok(history.result(job, lsn)?)).await?;
        let result = result.ok_or_else(|| {
            Fault::new(
                FaultCode::Internal,
                format!("the end of job {job} is not in the log where it should be"),
            )
        })?;
        self.story.through = lsn;
        Ok(self.story.finish_at(at_ms, result))
    }
}

async fn watch(
    service: &Service,
    client: ClientId,
    job: JobId,
    after: Lsn,
) -> Result<EventStream, Fault> {
    let watch = Watch {
        job: Some(job.to_string()),
        after: Some(after.0),
        without_output: true,
        history_only: false,
    };
    service.watch(client, watch).await
}

fn has_ended(story: &Story, until: Until) -> bool {
    story.is_over()
        || match until {
            Until::Over => false,
            Until::Asked => *story.state() == TaskState::InputRequired,
            Until::Still => story.is_interrupted() || story.is_stuck,
        }
}
