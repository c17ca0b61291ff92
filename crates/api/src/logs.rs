//! What the steps of a job printed: of tries that are over from the journal, of those at work as it comes.
//!
//! Output as it is printed is not in the log; what a try printed stands there once the try is over. So a follower gets
//! the tries that are over from the journal, and of the activity log only what was printed since. That a piece is of a
//! try the journal told of already shows by what follows it: the try's end, with the number of its entry.

use std::collections::{HashMap, VecDeque};

use pal::{Delivery, EventKind, Filter, StartAt, Stream};
use runtime::{JobId, JobState, JobView, StepOutput};
use serde_json::Value;
use wal::Lsn;

use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::live::Live;
use crate::service::{Service, blocking};
use crate::wire::{LogPiece, Logs, StreamEnd};

/// Which output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only what was printed there.
    pub stream: Option<Stream>,
    /// Only what this step printed.
    pub step: Option<String>,
}

impl LogQuery {
    fn wants(&self, step: &str, stream: Stream) -> bool {
        self.stream.is_none_or(|wanted| wanted == stream)
            && self.step.as_ref().is_none_or(|wanted| wanted == step)
    }
}

/// What comes from a stream of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// Something that was printed.
    Piece(LogPiece),
    /// The last item.
    End(StreamEnd),
}

/// A stream of output, until the job is over.
pub struct LogStream {
    ready: VecDeque<LogItem>,
    live: Live,
    query: LogQuery,
    job: JobId,
    /// By step, the entry in which the last try ended that the journal has told of.
    told: HashMap<String, u64>,
    /// The newest entry that the live stream has shown.
    seen: u64,
    /// The job is over, and the journal is still to be asked how. The question can be dropped half way, and is asked
    /// again.
    is_finishing: bool,
    ended: bool,
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// What a job's steps have printed, of all tries that are over.
    ///
    /// # Errors
    ///
    /// If there is no such job, or the log cannot be read.
    pub async fn logs(&self, word: &str, query: &LogQuery) -> Result<Logs, Fault> {
        let job = self.find(word).await?;
        let through = self.shown(&job).await?;
        let outputs = self.outputs(&job, through).await?;
        let pieces = outputs.iter().flat_map(|output| pieces(output, query));
        Ok(Logs {
            pieces: pieces.collect(),
        })
    }

    async fn outputs(&self, job: &JobView, through: Lsn) -> Result<Vec<StepOutput>, Fault> {
        let Some(first) = job.first_lsn else {
            return Ok(Vec::new());
        };
        let (history, id) = (self.history().clone(), job.id);
        blocking(move || Ok(history.outputs(id, first, through)?)).await
    }

    /// What a job's steps have printed and are printing, until the job is over. A job that has not begun is waited for.
    ///
    /// # Errors
    ///
    /// If there is no such job, the log cannot be read, or `client` has as many streams as it may.
    pub async fn follow_logs(
        &self,
        client: ClientId,
        word: &str,
        query: LogQuery,
    ) -> Result<LogStream, Fault> {
        let place = self.stream_place(client)?;
        let job = self.find(word).await?;
        let filter = Filter::job(job.id.as_uuid());
        let live = Live::begin(self, place, filter, StartAt::Oldest);
        let through = self.jobs().shown().await?;
        // Asked for again: it may have been made durable, or have ended, meanwhile.
        let job = self.get(job.id).await?;
        let outputs = self.outputs(&job, through).await?;
        let mut told = HashMap::new();
        let mut ready = VecDeque::new();
        for output in &outputs {
            told.insert(output.step.clone(), output.lsn.0);
            ready.extend(pieces(output, &query).map(LogItem::Piece));
        }
        let is_over = job.last_lsn.is_some_and(|last| last <= through);
        let mut stream = LogStream {
            ready,
            live,
            query,
            job: job.id,
            told,
            seen: 0,
            is_finishing: false,
            ended: false,
        };
        if is_over {
            stream.job_over().await?;
        }
        Ok(stream)
    }
}

/// What an effect's output says was printed: that of a command has both streams as texts, with what was cut of each.
fn pieces<'a>(
    output: &StepOutput,
    query: &'a LogQuery,
) -> impl Iterator<Item = LogPiece> + use<'a> {
    let value = output.output.value();
    let (step, attempt) = (output.step.clone(), output.attempt.0);
    [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .filter_map(move |stream| {
            let data = value.get(stream.as_str())?.as_str()?.to_owned();
            let lost_bytes = value
                .get(format!("{stream}_cut"))
                .and_then(Value::as_u64)
                .unwrap_or(0);
            let wanted = query.wants(&step, stream) && (!data.is_empty() || lost_bytes > 0);
            wanted.then(|| LogPiece {
                step: step.clone(),
                attempt: Some(attempt),
                stream,
                data,
                lost_bytes,
            })
        })
}

impl LogStream {
    /// The next item; `None` after the last one. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If the log cannot be read; nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<LogItem>, Fault> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.ended |= matches!(item, LogItem::End(_));
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            if self.is_finishing {
                let asked = self.job_over().await;
                self.is_finishing = false;
                match asked {
                    // It ended as one of the last things of the node, which can no longer be asked about it.
                    Err(fault) if fault.code == FaultCode::Unavailable => {
                        self.end(StreamEnd::stopping());
                    }
                    told => {
                        self.ended |= told.is_err();
                        told?;
                    }
                }
                continue;
            }
            self.take_live().await;
        }
    }

    async fn take_live(&mut self) {
        match self.live.next().await {
            Delivery::Event(event) => {
                self.seen = event.lsn.unwrap_or(0).max(self.seen);
                match &event.kind {
                    EventKind::StepOutput {
                        step,
                        stream,
                        data,
                        lost_bytes,
                    } => {
                        let was_told = self.told.get(step).is_some_and(|&end| end > self.seen);
                        if !was_told && self.query.wants(step, *stream) {
                            self.ready.push_back(LogItem::Piece(LogPiece {
                                step: step.clone(),
                                attempt: None,
                                stream: *stream,
                                data: data.clone(),
                                lost_bytes: *lost_bytes,
                            }));
                        }
                    }
                    EventKind::JobFinished { .. } => self.is_finishing = true,
                    _ => {}
                }
            }
            // What was missed of a try at work is in the journal once the try is over.
            Delivery::Lagged { missed } => self.end(StreamEnd::lagged(missed)),
            Delivery::Closed => self.end(StreamEnd::stopping()),
        }
    }

    fn end(&mut self, end: StreamEnd) {
        self.ready.push_back(LogItem::End(end));
    }

    async fn job_over(&mut self) -> Result<(), Fault> {
        let service = self.live.service();
        let view = service.get(self.job).await?;
        let exit_code = match service.result_of(&view).await? {
            Some(result) => result.exit_code(),
            // The log has let go of it just now.
            None => u8::from(view.state != JobState::Completed),
        };
        self.end(StreamEnd {
            exit_code: Some(exit_code),
            ..StreamEnd::job_over(view.state)
        });
        Ok(())
    }
}
