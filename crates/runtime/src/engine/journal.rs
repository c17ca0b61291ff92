//! The way of entries into the log, and what happens once they are durable.
//!
//! Invariant: what must wait for an entry is put into the batch that holds the entry, or into a later one. A batch that
//! is full makes way for the next between two entries, so an [`After`] is pushed only once its entry is written.

use std::mem;

use pal::EventKind;
use wal::{BlobId, Lsn, Submission, WriterEvent};

use super::{
    After, Alarm, BATCHES_IN_FLIGHT, EPOCH_SAID_EVERY_ENTRIES, Engine, GARBAGE_PER_TURN,
    HOUSEKEEPING_INTERVAL, InFlight, LogState, OpenBatch, RECORD_OVERHEAD_BYTES, Release, Stopped,
};
use crate::cell::Appended;
use crate::effect::EffectRunner;
use crate::entry::{Ending, NodeEntry, Record};
use crate::ids::JobId;
use crate::index::FinishedJob;

impl<R: EffectRunner> Engine<R> {
    /// Moves a job's new entries into the turn's batch.
    pub(super) fn collect_entries(&mut self, slot: usize) {
        let Some(job) = self.slots[slot].job.as_deref_mut() else {
            return;
        };
        let mut appended = Vec::new();
        job.cell.take_appended(&mut appended);
        job.entries += appended.len() as u64;
        let id = job.id;
        for appended in appended {
            self.write(Some(id), self.now.unix_ms, appended);
        }
    }

    /// Adds one entry to the turn's batch, and says where it will stand.
    pub(super) fn write(&mut self, job: Option<JobId>, at_ms: u64, appended: Appended) -> Lsn {
        let room = self
            .batch_bytes
            .saturating_sub(self.open.batch.encoded_bytes());
        if appended.bytes.len() + RECORD_OVERHEAD_BYTES > room && !self.open.is_empty() {
            let fresh = self.fresh_batch();
            self.full.push_back(mem::replace(&mut self.open, fresh));
        }
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        self.open.batch.push(&appended.bytes);
        self.instruments.entries.inc();
        for blob in appended.names {
            self.blob_names.insert(blob, lsn);
        }
        self.open.blobs.extend(appended.blob);
        if let Some(kind) = appended.event {
            #[cfg(planted)]
            if wal::planted::is("shown-early") {
                let job = job.map(JobId::as_uuid);
                self.pal
                    .publish(EventKind::clone(&kind), job, at_ms, Some(lsn.0));
            }
            self.open.after.push(After::Publish {
                job,
                kind,
                at_ms,
                lsn: Some(lsn),
            });
        }
        lsn
    }

    pub(super) fn fresh_batch(&mut self) -> OpenBatch {
        OpenBatch {
            batch: self.spare_batches.pop().unwrap_or_default(),
            ..OpenBatch::default()
        }
    }

    pub(super) fn write_node(&mut self, entry: NodeEntry) {
        let appended = Appended {
            bytes: Record::Node(entry).encode(),
            blob: None,
            event: None,
            names: Vec::new(),
        };
        self.write(None, self.now.unix_ms, appended);
    }

    pub(super) fn publish_after(&mut self, job: Option<JobId>, kind: EventKind) {
        self.open.after.push(After::Publish {
            job,
            kind: Box::new(kind),
            at_ms: self.now.unix_ms,
            lsn: None,
        });
    }

    /// Where the entry written last will stand.
    pub(super) fn last_lsn(&self) -> Lsn {
        Lsn(self.next_lsn.0 - 1)
    }

    /// The next batch to be written, if there is one and the log has room for it.
    pub(super) fn take_submission(&mut self) -> Option<Submission> {
        if self.in_flight.len() >= BATCHES_IN_FLIGHT || self.stopped.is_some() {
            return None;
        }
        let next = match self.full.pop_front() {
            Some(full) => full,
            None if self.open.is_empty() => return None,
            None => {
                let fresh = self.fresh_batch();
                mem::replace(&mut self.open, fresh)
            }
        };
        #[cfg(planted)]
        let next = if wal::planted::is("blob-after-entry") {
            self.open.blobs.extend(next.blobs);
            OpenBatch {
                blobs: Vec::new(),
                ..next
            }
        } else {
            next
        };
        let token = self.next_token;
        self.next_token += 1;
        let first = self.handed_over;
        self.handed_over = Lsn(first.0 + next.batch.len() as u64);
        self.in_flight.push_back(InFlight {
            token,
            first,
            after: next.after,
        });
        Some(Submission {
            token,
            batch: next.batch,
            blobs: next.blobs,
        })
    }

    pub(super) fn log_event(&mut self, event: WriterEvent) {
        match event {
            WriterEvent::Durable {
                token,
                first,
                batch,
                ..
            } => {
                self.spare_batches.push(batch);
                let flown = self
                    .in_flight
                    .pop_front()
                    .expect("because the log answers only for what was handed to it");
                assert_eq!(token, flown.token, "the log answers in order");
                assert_eq!(first, flown.first, "the engine is the log's only writer");
                let next = self.in_flight.front();
                self.shown = next.map_or(self.handed_over, |next| next.first).prev();
                for after in flown.after {
                    self.after(after);
                }
            }
            WriterEvent::Stalled { reason } => {
                self.stalled = Some(reason.clone());
                self.instruments.log_stalled.set(1);
                self.pal_node(EventKind::Degraded {
                    what: "wal".to_owned(),
                    detail: reason.to_string(),
                });
            }
            #[cfg(planted)]
            WriterEvent::Resumed if wal::planted::is("space-never-again") => {}
            WriterEvent::Resumed => {
                self.stalled = None;
                self.instruments.log_stalled.set(0);
                self.pal_node(EventKind::Recovered {
                    what: "wal".to_owned(),
                });
            }
            WriterEvent::SpaceLow(low) => self.space_low = low,
            #[cfg(planted)]
            WriterEvent::Failed(_) if wal::planted::is("failure-ignored") => {}
            WriterEvent::Failed(failure) => {
                #[cfg(planted)]
                if wal::planted::is("acknowledged-after-failure") {
                    let flown: Vec<_> = self.in_flight.drain(..).flat_map(|b| b.after).collect();
                    flown.into_iter().for_each(|after| self.after(after));
                }
                self.stopped = Some(Stopped::LogFailed(failure));
                // Nothing that waits for the disk will ever be true: the replies are dropped unsent.
                self.in_flight.clear();
                self.full.clear();
                self.open = OpenBatch::default();
            }
            WriterEvent::Released(segments) => {
                let Some(first) = segments.last().map(|segment| segment.last_lsn.next()) else {
                    return;
                };
                self.index.forget_below(first);
                let garbage = &mut self.garbage;
                self.blob_names.retain(|blob, last_named| {
                    let named = *last_named >= first;
                    if !named {
                        garbage.insert(BlobId(*blob));
                    }
                    named
                });
            }
            _ => {}
        }
    }

    pub(super) fn after(&mut self, after: After) {
        match after {
            After::Start {
                slot,
                generation,
                step,
                attempt,
                lsn,
            } => self.start(slot, generation, step, attempt, Some(lsn)),
            After::Born {
                slot,
                generation,
                lsn,
            } => {
                if let Some(job) = self.job_mut(slot, generation) {
                    job.first_lsn = Some(lsn);
                }
            }
            After::Ended {
                slot,
                generation,
                lsn,
                ending,
                finished_ms,
            } => self.bury(slot, generation, lsn, &ending, finished_ms),
            After::Publish {
                job,
                kind,
                at_ms,
                lsn,
            } => {
                let lsn = lsn.map(|lsn| lsn.0);
                self.pal.publish(*kind, job.map(JobId::as_uuid), at_ms, lsn);
            }
            After::Settled(id) => self.runner.settled(id),
            After::EpochSaid(lsn) => self.epoch_said = lsn,
            After::AckSubmitted(reply, submitted) => {
                let _ = reply.send(Ok(submitted));
            }
            After::Answer(reply, answer) => {
                let _ = reply.send(answer);
            }
            After::Stopped => self.stop_cleanly(),
        }
    }

    /// Some of the blobs that no entry names, as of the end of this turn. Of many only some, since they are removed on the
    /// engine's thread: there nobody can name one between this and its removal.
    pub(super) fn take_garbage(&mut self) -> Vec<BlobId> {
        let mut taken = Vec::new();
        while taken.len() < GARBAGE_PER_TURN
            && let Some(blob) = self.garbage.pop_first()
        {
            if !self.blob_names.contains_key(&blob.0) {
                taken.push(blob);
            }
        }
        taken
    }

    /// A job's last entry is durable: it moves from the living to the index.
    pub(super) fn bury(
        &mut self,
        slot: usize,
        generation: u64,
        last_lsn: Lsn,
        ending: &Ending,
        finished_ms: u64,
    ) {
        if self.slots[slot].generation != generation {
            return;
        }
        let Some(job) = self.slots[slot].job.take() else {
            return;
        };
        self.slots[slot].generation += 1;
        self.free.push(slot);
        self.by_id.remove(&job.id);
        self.live -= 1;
        let first_lsn = job
            .first_lsn
            .expect("because a job's first entry is durable before its last");
        self.needed.remove(&first_lsn);
        let finished = FinishedJob::new(
            job.id,
            job.spec,
            job.submitted_ms,
            finished_ms,
            ending,
            (first_lsn, last_lsn),
        );
        let (state, _) = ending.shown();
        match state {
            pal::JobState::Completed => self.tally.completed += 1,
            pal::JobState::Cancelled => self.tally.cancelled += 1,
            pal::JobState::Failed => self.tally.failed += 1,
        }
        self.instruments.finished(finished.state);
        let duration_us = finished_ms
            .saturating_sub(finished.submitted_ms)
            .saturating_mul(1_000);
        self.pal.publish(
            EventKind::JobFinished {
                state,
                error: finished.error.as_deref().map(str::to_owned),
                duration_us,
            },
            Some(job.id.as_uuid()),
            finished_ms,
            Some(last_lsn.0),
        );
        for waiter in self.end_waiters.remove(&finished.id).unwrap_or_default() {
            let _ = waiter.send(Some(finished.view()));
        }
        self.index.insert(finished);
        self.index.forget_beyond(self.limits.finished_jobs);
    }

    /// Says what of the log may go: what lies before every job that is live, and before every job that has not been over
    /// for as long as the retention says. So a finished job stays whole, to be looked at and replayed, and its idempotency
    /// key holds for all that time, also across restarts.
    pub(super) fn keep_house(&mut self) {
        self.set_alarm(HOUSEKEEPING_INTERVAL, Alarm::Housekeeping);
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let over_since_ms = self.now.unix_ms.saturating_sub(retention_ms);
        let live = self.needed.first().copied();
        let kept = self.index.first_of_those_over_after(over_since_ms);
        #[cfg(planted)]
        let live = live.filter(|_| !wal::planted::is("live-job-released"));
        #[cfg(planted)]
        let kept = kept.filter(|_| !wal::planted::is("retention-ignored"));
        self.release = Some(Release {
            below: live.into_iter().chain(kept).fold(self.epoch_said, Lsn::min),
            retention: self.retention,
        });
        if self.next_lsn.0 - self.epoch_said.0 > EPOCH_SAID_EVERY_ENTRIES && self.draining.is_none()
        {
            self.write_node(NodeEntry::Continued { epoch: self.epoch });
            let said = self.last_lsn();
            self.open.after.push(After::EpochSaid(said));
        }
    }

    /// How the log does.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        match (&self.stopped, &self.stalled) {
            (Some(Stopped::LogFailed(failure)), _) => LogState::Failed {
                reason: failure.to_string(),
            },
            (_, Some(failure)) => LogState::Stalled {
                reason: failure.to_string(),
            },
            _ if self.space_low => LogState::SpaceLow,
            _ => LogState::Ok,
        }
    }
}
