//! [`Writer`]: the thread that writes the log, and the way past it.
//!
//! The one idea: submissions that come in while a frame is being made durable become the next frame,
//! all together. So a lone submission costs one sync and waits for nothing, and a thousand at once
//! cost one sync as well. No timer takes part.
//!
//! A thread that has nothing to do until its submission is durable need not wake another one to wait for it: with
//! [`Writer::write`] it writes itself, whenever the writing thread is idle. Waking it and being woken cost two switches
//! of thread, 15 to 40 µs on a virtual machine beside a sync of 100 µs. Whatever is out of the ordinary (a queue, a full
//! disk, a failure, blobs, another policy than one sync a frame) is left to the thread.
//!
//! Invariants:
//! - the log is written by whoever holds the lock on [`Worker`], and what waits in the queue is taken out under that
//!   lock only; so who holds it and finds the queue empty knows that everything before is written;
//! - submissions become durable, and are reported so, in the order in which they were submitted;
//! - the blobs of a submission are durable before the records that name them are written;
//! - after a failure nothing is ever reported durable again;
//! - a full disk holds things up and loses nothing: the submission in hand is tried again until
//!   there is space or the writer is told to stop.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::Lsn;
use crate::batch::Batch;
use crate::blob::{BlobError, BlobId, BlobStore};
use crate::error::{AppendError, Failure};
use crate::log::{Log, Released};
use crate::options::SyncPolicy;
use crate::queue::Queue;
use crate::stats::Stats;
use crate::sync::{Mutex, thread};

/// How long until a full disk is tried again for what cannot be written. Short: intake is held up.
const STALLED_RETRY: Duration = Duration::from_millis(200);
/// How long until a full disk is tried again for the next segment. There is no hurry yet.
const RESERVE_RETRY: Duration = Duration::from_secs(1);

/// Records to be appended together, and the blobs they name.
#[derive(Debug, Default)]
pub struct Submission {
    /// Comes back with [`WriterEvent::Durable`].
    pub token: u64,
    /// The records. None is fine: such a submission reports that all before it are durable.
    pub batch: Batch,
    /// Blobs to be kept before the records are written.
    pub blobs: Vec<(BlobId, Vec<u8>)>,
}

/// What the writing thread has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriterEvent {
    /// A submission is in the log: durable with [`SyncPolicy::Always`](crate::SyncPolicy), written
    /// with the others.
    Durable {
        /// The submission's.
        token: u64,
        /// Its first record.
        first: Lsn,
        /// Its last record. Of a submission without records: the last record before it, which is
        /// `first` less one.
        last: Lsn,
        /// The submission's batch, empty, to be used again.
        batch: Batch,
    },
    /// The disk is full and submissions are held up.
    Stalled {
        /// What could not be done.
        reason: Failure,
    },
    /// There was space again after all.
    Resumed,
    /// The next segment could not be reserved, or now it could. What is left of the current segment
    /// is there in any case.
    SpaceLow(bool),
    /// Segments are no part of the log any more, as asked for.
    Released(Vec<Released>),
    /// The log has failed. This is the last event.
    Failed(Failure),
}

/// Why a submission was not taken in. It comes back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// As many submissions wait as may.
    #[error("the queue of the log writer is full")]
    Full(Submission),
    /// The batch will never fit into a frame.
    #[error("a batch of {} bytes is larger than the limit of {limit} bytes", submission.batch.encoded_bytes())]
    TooLarge {
        /// The submission.
        submission: Submission,
        /// The largest batch, in encoded bytes.
        limit: usize,
    },
    /// The writer is stopping, has stopped or has failed.
    #[error("the log writer takes nothing in any more")]
    Closed(Submission),
}

/// Why stopping did not give the log back. Nothing that was reported durable is touched by it.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StopError {
    /// The log has failed, now or earlier.
    #[error("the log has failed: {0}")]
    Failed(Failure),
    /// Submissions could not be written because the disk is full.
    #[error("the disk is full and submissions are lost: {0}")]
    NoSpace(Failure),
    /// The event handler has panicked.
    #[error("the log writer's event handler has panicked")]
    Panicked,
}

/// What a writer's log has done so far, from any thread, also after the writer has ended.
#[derive(Clone, Debug)]
pub struct StatsHandle(Arc<Mutex<Stats>>);

impl StatsHandle {
    /// Counters and sizes of the log, as of the last frame.
    #[must_use]
    pub fn read(&self) -> Stats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the thread that writes a log. Dropping it is [`Writer::stop`] without an answer.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    stats: Arc<Mutex<Stats>>,
    worker: Arc<Mutex<Worker>>,
    payload_limit: usize,
    syncs_each_frame: bool,
    thread: Thread,
}

/// The writing thread, which ends with this.
#[derive(Debug)]
struct Thread {
    queue: Arc<Queue>,
    handle: Option<thread::JoinHandle<Result<(), StopError>>>,
}

impl Thread {
    /// Asks it to end, and waits until it has.
    fn join(&mut self) -> Result<(), StopError> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        self.queue.request_stop();
        handle.join().unwrap_or(Err(StopError::Panicked))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `Writer::stop`.
        let _ = self.join();
    }
}

impl Writer {
    /// Starts a thread that appends to `log` and keeps blobs in `blobs`. At most `queue_frames`
    /// submissions wait, besides those being written. `on_event` is called in order, on that thread or within
    /// [`Writer::write`]. It must not wait for the writer.
    ///
    /// # Panics
    /// If the system refuses a thread.
    pub fn start(
        log: Log,
        blobs: Arc<BlobStore>,
        queue_frames: usize,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> Writer {
        let queue = Arc::new(Queue::new(queue_frames));
        let stats = Arc::new(Mutex::new(log.stats()));
        let payload_limit = log.payload_limit();
        let syncs_each_frame = log.sync_policy() == SyncPolicy::Always;
        // Opening the log has just tried, and there may be nothing to do until it is tried again.
        let reserve_at = log.wants_reserve().then(|| Instant::now() + RESERVE_RETRY);
        let worker = Arc::new(Mutex::new(Worker {
            log,
            blobs,
            queue: queue.clone(),
            stats: stats.clone(),
            on_event: EventHandler(Box::new(on_event)),
            group: Vec::new(),
            space_low: false,
            reserve_at,
        }));
        let works = Arc::clone(&worker);
        let close = CloseOnDrop(queue.clone());
        let handle = thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || run(&works, &close.0))
            .expect("a thread can be started because the process is just starting up");
        Writer {
            thread: Thread {
                queue: queue.clone(),
                handle: Some(handle),
            },
            queue,
            stats,
            worker,
            payload_limit,
            syncs_each_frame,
        }
    }

    /// Hands a submission over, waiting while the queue is full.
    ///
    /// # Errors
    /// [`SubmitError::TooLarge`] and [`SubmitError::Closed`].
    pub fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        self.push(submission, true)
    }

    /// Hands a submission over if there is room in the queue.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn try_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        self.push(submission, false)
    }

    /// Writes a submission on this thread and makes it durable, if nothing else is being written or waits; hands it over
    /// otherwise, as [`Writer::submit`] does. So a lone submitter is spared the way to the writing thread and back, and
    /// this waits for the disk, or not at all.
    ///
    /// It comes to the same as `submit`: the same events in the same order, before this returns or later. Only a panic of
    /// the event handler is then this thread's, and ends the writer.
    ///
    /// # Errors
    /// [`SubmitError::TooLarge`] and [`SubmitError::Closed`].
    pub fn write(&self, submission: Submission) -> Result<(), SubmitError> {
        let plain = self.syncs_each_frame
            && submission.blobs.is_empty()
            && submission.batch.encoded_bytes() <= self.payload_limit;
        if plain
            && let Ok(mut worker) = self.worker.try_lock()
            && self.queue.is_idle()
        {
            worker.write_through(submission);
            return Ok(());
        }
        self.submit(submission)
    }

    /// Asks for [`Log::release`]; what was deleted is told by [`WriterEvent::Released`]. Served at once,
    /// also while a full disk holds submissions up. Of requests not served yet only the last counts.
    pub fn release(&self, below: Lsn, min_age: Duration) {
        self.queue.request_release(below, min_age);
    }

    /// How many submissions wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Counters and sizes of the log, as of the last frame.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats_handle().read()
    }

    /// A way to [`stats`](Self::stats) for whoever shows them, that does not keep the writer.
    #[must_use]
    pub fn stats_handle(&self) -> StatsHandle {
        StatsHandle(Arc::clone(&self.stats))
    }

    /// Writes everything submitted so far, makes it durable, ends the thread and returns the log.
    ///
    /// # Errors
    /// See [`StopError`].
    pub fn stop(mut self) -> Result<Log, StopError> {
        self.thread.join()?;
        let worker = Arc::into_inner(self.worker)
            .expect("this is the only owner because the thread has ended");
        let worker = worker.into_inner().map_err(|_| StopError::Panicked)?;
        Ok(worker.log)
    }

    fn push(&self, submission: Submission, wait: bool) -> Result<(), SubmitError> {
        if submission.batch.encoded_bytes() > self.payload_limit {
            return Err(SubmitError::TooLarge {
                submission,
                limit: self.payload_limit,
            });
        }
        self.queue.push(submission, wait)
    }
}

/// Who is told.
struct EventHandler(Box<dyn FnMut(WriterEvent) + Send>);

impl fmt::Debug for EventHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventHandler")
    }
}

/// What it takes to write.
#[derive(Debug)]
struct Worker {
    log: Log,
    blobs: Arc<BlobStore>,
    queue: Arc<Queue>,
    stats: Arc<Mutex<Stats>>,
    on_event: EventHandler,
    /// The submissions that become the next frame; empty between frames.
    group: Vec<Submission>,
    /// What was last told about the space for the next segment.
    space_low: bool,
    /// When to try again to reserve it.
    reserve_at: Option<Instant>,
}

/// Closes the queue however the thread ends, so that nobody waits for a writer that is gone.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The life of the writing thread.
fn run(worker: &Mutex<Worker>, queue: &Queue) -> Result<(), StopError> {
    let outcome = work(worker, queue);
    if let Err(StopError::Failed(failure)) = &outcome
        && let Ok(mut worker) = worker.lock()
    {
        // Closed first: what comes now is refused, and not lost without a word.
        queue.close();
        worker.tell(WriterEvent::Failed(failure.clone()));
    }
    outcome
}

fn work(worker: &Mutex<Worker>, queue: &Queue) -> Result<(), StopError> {
    // Poisoned when the event handler has panicked within `Writer::write`.
    let lock = || worker.lock().map_err(|_| StopError::Panicked);
    lock()?.tell_space();
    loop {
        // The lock is not held while waiting, nor is anything taken out of the queue without it.
        let timeout = lock()?.timeout();
        queue.wait_for_work(timeout);
        if lock()?.serve()? == Served::Last {
            return Ok(());
        }
    }
}

/// Whether more is to come.
#[derive(PartialEq, Eq)]
enum Served {
    More,
    Last,
}

impl Worker {
    /// Writes what waits and does what was asked for.
    fn serve(&mut self) -> Result<Served, StopError> {
        let requests = self.queue.take(self.log.payload_limit(), &mut self.group);
        self.release(requests.release)?;
        if !self.group.is_empty() {
            self.write_group()?;
        } else if requests.stop {
            self.log.sync().map_err(only_failure)?;
            return Ok(Served::Last);
        }
        if self.log.sync_due_in() == Some(Duration::ZERO) {
            self.log.sync().map_err(only_failure)?;
        }
        self.reserve()?;
        self.publish_stats();
        Ok(Served::More)
    }

    /// Writes one submission without the writing thread; what does not go smoothly becomes that thread's.
    fn write_through(&mut self, submission: Submission) {
        match self.log.append(&[&submission.batch]) {
            Ok(lsns) => {
                self.tell_durable(lsns.start, submission);
                self.publish_stats();
                if self.log.wants_reserve() && self.reserve_at.is_none() {
                    self.queue.request_upkeep();
                }
            }
            // Nothing was written, or the log has failed for good and says so again without trying anything.
            Err(_) => self.queue.put_back(submission),
        }
    }

    fn publish_stats(&self) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.log.stats();
    }

    fn tell(&mut self, event: WriterEvent) {
        (self.on_event.0)(event);
    }

    /// Reports a submission that begins at `first`; returns where the next one does.
    fn tell_durable(&mut self, first: Lsn, submission: Submission) -> Lsn {
        let Submission {
            token, mut batch, ..
        } = submission;
        let next = Lsn(first.0 + batch.len() as u64);
        batch.clear();
        self.tell(WriterEvent::Durable {
            token,
            first,
            last: next.prev(),
            batch,
        });
        next
    }

    /// How long to wait for submissions: until a sync is due or the disk is to be tried again.
    fn timeout(&self) -> Option<Duration> {
        let reserve = self
            .reserve_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        [self.log.sync_due_in(), reserve]
            .into_iter()
            .flatten()
            .min()
    }

    /// Writes the group as one frame and reports it, however long it takes to get the space.
    fn write_group(&mut self) -> Result<(), StopError> {
        let (mut stalled, mut stopping) = (false, false);
        let first = loop {
            let reason = match self.try_write() {
                Ok(first) => break first,
                Err(AppendError::NoSpace(reason)) => reason,
                Err(error) => return Err(only_failure(error)),
            };
            // Blobs have no room of their own; what was kept for a segment after the next comes after them.
            if self.log.discard_kept().map_err(only_failure)? {
                continue;
            }
            if stopping {
                return Err(StopError::NoSpace(reason));
            }
            if !stalled {
                stalled = true;
                self.tell_space();
                self.tell(WriterEvent::Stalled { reason });
            }
            let requests = self.queue.take_requests(STALLED_RETRY);
            self.release(requests.release)?;
            // One last attempt then.
            stopping = requests.stop;
        };
        if stalled {
            self.tell_space();
            self.tell(WriterEvent::Resumed);
        }
        let mut group = std::mem::take(&mut self.group);
        let mut next = first;
        for submission in group.drain(..) {
            next = self.tell_durable(next, submission);
        }
        // Kept for its room.
        self.group = group;
        Ok(())
    }

    /// One attempt at writing the group; returns its first LSN.
    fn try_write(&mut self) -> Result<Lsn, AppendError> {
        let blobs = self.group.iter().flat_map(|submission| &submission.blobs);
        self.blobs
            .put_all(blobs.map(|(id, content)| (*id, &content[..])))
            .map_err(|error| match error {
                BlobError::NoSpace(failure) => AppendError::NoSpace(failure),
                BlobError::Io(failure) => AppendError::Failed(failure),
                BlobError::Missing { .. } | BlobError::Damaged { .. } => {
                    unreachable!("a blob that is missing or damaged is written when it is put")
                }
            })?;
        let batches: Vec<&Batch> = self
            .group
            .iter()
            .map(|submission| &submission.batch)
            .collect();
        Ok(self.log.append(&batches)?.start)
    }

    /// Serves a request to release.
    fn release(&mut self, request: Option<(Lsn, Duration)>) -> Result<(), StopError> {
        let Some((below, min_age)) = request else {
            return Ok(());
        };
        let released = self.log.release(below, min_age).map_err(only_failure)?;
        if !released.is_empty() {
            self.tell(WriterEvent::Released(released));
            // No need to wait for what there may be room for now.
            self.reserve_at = None;
        }
        Ok(())
    }

    /// Reserves the next segment, now that nobody waits for it.
    fn reserve(&mut self) -> Result<(), StopError> {
        let is_time = self.reserve_at.is_none_or(|at| at <= Instant::now());
        if self.log.wants_reserve() && is_time {
            let reserved = self.log.reserve().map_err(only_failure)?;
            self.reserve_at = (!reserved).then(|| Instant::now() + RESERVE_RETRY);
            self.tell_space();
        }
        Ok(())
    }

    /// Says so when the space for the next segment has run out or come back.
    fn tell_space(&mut self) {
        if self.space_low != self.log.space_low() {
            self.space_low = self.log.space_low();
            self.tell(WriterEvent::SpaceLow(self.space_low));
        }
    }
}

/// The error of an operation that a full disk and a large batch cannot stop.
fn only_failure(error: AppendError) -> StopError {
    match error {
        AppendError::Failed(failure) => StopError::Failed(failure),
        AppendError::NoSpace(failure) => StopError::NoSpace(failure),
        AppendError::TooLarge { .. } => {
            unreachable!("a batch that is too large is refused before it is queued")
        }
    }
}
