//! The log's writer, as a part of the node that works when it is told to.
//!
//! It does what `wal::Writer` does on its thread, in the same order, one round at a time; so a crash may come between any
//! two of them, and between a round and the engine's hearing of it.

use runtime::engine::Release;
use wal::{AppendError, Lsn, Submission, WriterEvent};

use super::Node;

/// How the log's writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    GoingOn,
    /// The disk is full, and what is in hand is tried again.
    Stalled,
    /// The log has failed; nothing is written any more.
    Ended,
}

/// What came of letting the log's writer work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// There was nothing to write.
    Nothing,
    /// So many submissions were written, as one frame.
    Wrote(usize),
    /// There is no space.
    Stalled,
    /// The log has failed.
    Failed,
}

impl Node {
    /// Writes the oldest submission, without telling the engine. Says whether there was one.
    pub fn write(&mut self) -> Result<bool, AppendError> {
        self.release()?;
        Ok(self.append(1)? > 0)
    }

    /// Lets the log's writer do one round of what it does: reserve the next segment, if the frame before has begun one,
    /// delete what is not needed, write up to `most` submissions as one frame. The engine is told by
    /// [`report`](Self::report).
    pub fn work(&mut self, most: usize) -> Worked {
        if self.life().writing == Writing::Ended {
            return Worked::Nothing;
        }
        let done = self.reserve().and_then(|()| self.release());
        let done = done.and_then(|()| self.append(most));
        let life = self.life();
        if life.space_low != life.log.space_low() {
            life.space_low = life.log.space_low();
            let event = WriterEvent::SpaceLow(life.space_low);
            life.to_report.push_back(event);
        }
        match done {
            Ok(0) => Worked::Nothing,
            Ok(count) => Worked::Wrote(count),
            Err(AppendError::NoSpace(reason)) => {
                // The room may be needed for blobs.
                match life.log.discard_kept() {
                    Ok(true) => return self.work(most),
                    Ok(false) => {}
                    Err(AppendError::Failed(failure)) => return self.fail(failure),
                    Err(error) => panic!("{error}"),
                }
                let life = self.life();
                if life.writing == Writing::GoingOn {
                    life.writing = Writing::Stalled;
                    life.to_report.push_back(WriterEvent::Stalled { reason });
                }
                Worked::Stalled
            }
            Err(AppendError::Failed(failure)) => self.fail(failure),
            Err(error) => panic!("{error}"),
        }
    }

    fn fail(&mut self, failure: wal::Failure) -> Worked {
        let life = self.life();
        life.writing = Writing::Ended;
        life.failure = Some(failure.clone());
        life.to_report.push_back(WriterEvent::Failed(failure));
        Worked::Failed
    }

    fn reserve(&mut self) -> Result<(), AppendError> {
        let log = &mut self.life().log;
        if log.wants_reserve() {
            log.reserve()?;
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), AppendError> {
        let Some((Release { below, retention }, as_of_ms)) = self.life().release.take() else {
            return Ok(());
        };
        self.history.allow_release(below);
        let life = self.life.as_mut().expect("the node is alive");
        let released = life.log.release(below, retention)?;
        let retention_ms = self.setup.retention.as_millis() as u64;
        for segment in &released {
            self.history.released(segment);
            let mut ledger = self.world.ledger_mut();
            ledger.check_release(segment, retention_ms, as_of_ms);
        }
        if !released.is_empty() {
            life.to_report.push_back(WriterEvent::Released(released));
        }
        Ok(())
    }

    fn append(&mut self, most: usize) -> Result<usize, AppendError> {
        let life = self.life.as_mut().expect("the node is alive");
        let limit = life.log.payload_limit();
        let mut bytes = 0;
        let fits = |submission: &&Submission| {
            bytes += submission.batch.encoded_bytes();
            bytes <= limit
        };
        let count = life.to_write.iter().take(most).take_while(fits).count();
        if count == 0 {
            assert!(
                life.to_write.is_empty(),
                "a batch is larger than a frame may be"
            );
            return Ok(0);
        }
        let group: Vec<&Submission> = life.to_write.iter().take(count).collect();
        let blobs = group.iter().flat_map(|submission| &submission.blobs);
        life.payloads
            .blobs()
            .put_all(blobs.map(|(id, bytes)| (*id, &bytes[..])))
            .map_err(|error| match error {
                wal::BlobError::NoSpace(failure) => AppendError::NoSpace(failure),
                wal::BlobError::Io(failure) => AppendError::Failed(failure),
                other => panic!("{other}"),
            })?;
        let batches: Vec<_> = group.iter().map(|submission| &submission.batch).collect();
        let records = batches.iter().flat_map(|batch| batch.iter());
        self.history
            .try_frame(records.map(<[u8]>::to_vec).collect());
        let reused = life.log.stats().reused_segments;
        let appended = life.log.append(&batches);
        self.history.reused += life.log.stats().reused_segments - reused;
        let first = match appended {
            Ok(lsns) => lsns.start,
            Err(error) => {
                if !matches!(error, AppendError::Failed(_)) {
                    self.history.withdraw();
                }
                return Err(error);
            }
        };
        if life.writing == Writing::Stalled {
            life.writing = Writing::GoingOn;
            life.to_report.push_back(WriterEvent::Resumed);
        }
        let mut next = first;
        for submission in life.to_write.drain(..count) {
            let Submission {
                token, mut batch, ..
            } = submission;
            let begin = next;
            next = Lsn(begin.0 + batch.len() as u64);
            batch.clear();
            life.to_report.push_back(WriterEvent::Durable {
                token,
                first: begin,
                last: next.prev(),
                batch,
            });
        }
        let news = self.history.acknowledge(first);
        self.enter(&news);
        Ok(count)
    }
}
