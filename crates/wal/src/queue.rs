//! The queue between those who submit and the thread that writes.
//!
//! The one idea: the writer takes everything that waits in one go, under one lock, and that *is* group
//! commit: while a sync is under way the next group gathers by itself, and a lone submission waits
//! for nothing.
//!
//! Invariants: submissions leave in the order in which they came; no more than the capacity wait, but for one that
//! [`Queue::put_back`] returned; once closed, nothing is taken in and nobody waits for ever. Requests to release old
//! segments do not queue at all: they are what makes room when submissions are stuck.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crate::Lsn;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::writer::{Submission, SubmitError};

/// What the writing thread is asked to do besides writing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Requests {
    /// Delete segments all below the LSN that were full for so long.
    pub(crate) release: Option<(Lsn, Duration)>,
    /// Look after the log: somebody else has written to it.
    pub(crate) upkeep: bool,
    /// Finish what is queued and end.
    pub(crate) stop: bool,
}

#[derive(Debug, Default)]
struct State {
    submissions: VecDeque<Submission>,
    requests: Requests,
    closed: bool,
    /// Whether the writer sleeps, so that a busy one is spared the wake-up call.
    writer_sleeps: bool,
    /// How many submitters wait for room.
    submitters_sleep: usize,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    capacity: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Queue {
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    /// Adds a submission, waiting for room if `wait` says so.
    pub(crate) fn push(&self, submission: Submission, wait: bool) -> Result<(), SubmitError> {
        let mut state = self.lock();
        while !state.closed && state.submissions.len() >= self.capacity {
            if !wait {
                return Err(SubmitError::Full(submission));
            }
            state.submitters_sleep += 1;
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.submitters_sleep -= 1;
        }
        if state.closed || state.requests.stop {
            return Err(SubmitError::Closed(submission));
        }
        state.submissions.push_back(submission);
        self.wake_writer(state);
        Ok(())
    }

    /// Asks for a release. Of several requests not yet served only the last one counts.
    pub(crate) fn request_release(&self, below: Lsn, min_age: Duration) {
        let mut state = self.lock();
        state.requests.release = Some((below, min_age));
        self.wake_writer(state);
    }

    /// Asks the writer to finish; nothing more is taken in.
    pub(crate) fn request_stop(&self) {
        let mut state = self.lock();
        state.requests.stop = true;
        self.room.notify_all();
        self.wake_writer(state);
    }

    /// Takes nothing in any more and drops what is here: the writer is gone.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.submissions.clear();
        self.room.notify_all();
    }

    /// How many submissions wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().submissions.len()
    }

    /// Whether nothing waits and nothing is asked for, so that whoever may write could do so at once.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.submissions.is_empty() && !state.requests.any() && !state.closed
    }

    /// Puts a submission before all others, whether there is room or not.
    pub(crate) fn put_back(&self, submission: Submission) {
        let mut state = self.lock();
        state.submissions.push_front(submission);
        self.wake_writer(state);
    }

    /// Asks the writer to look after the log.
    pub(crate) fn request_upkeep(&self) {
        let mut state = self.lock();
        state.requests.upkeep = true;
        self.wake_writer(state);
    }

    /// Waits for submissions or requests, at most for `timeout`, and leaves them where they are.
    pub(crate) fn wait_for_work(&self, timeout: Option<Duration>) {
        drop(self.wait(timeout, |state| !state.submissions.is_empty()));
    }

    /// Takes the requests, and as many submissions as have batches of no more than `bytes_max` together. They are
    /// appended to `group`.
    pub(crate) fn take(&self, bytes_max: usize, group: &mut Vec<Submission>) -> Requests {
        let mut state = self.lock();
        let mut bytes = 0;
        while let Some(next) = state.submissions.front() {
            bytes += next.batch.encoded_bytes();
            if bytes > bytes_max && !group.is_empty() {
                break;
            }
            group.extend(state.submissions.pop_front());
        }
        if state.submitters_sleep > 0 {
            self.room.notify_all();
        }
        take_requests(&mut state)
    }

    /// Waits for requests only, at most for `timeout`.
    pub(crate) fn take_requests(&self, timeout: Duration) -> Requests {
        take_requests(&mut self.wait(Some(timeout), |_| false))
    }

    /// Waits until `is_work` or a request has come in.
    fn wait(
        &self,
        timeout: Option<Duration>,
        is_work: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let idle = |state: &mut State| {
            let idle = !is_work(state) && !state.requests.any();
            state.writer_sleeps = idle;
            idle
        };
        let state = self.lock();
        let mut state = match timeout {
            None => self
                .work
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.work
                    .wait_timeout_while(state, timeout, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.writer_sleeps = false;
        state
    }

    fn wake_writer(&self, state: MutexGuard<'_, State>) {
        let sleeps = state.writer_sleeps;
        drop(state);
        if sleeps {
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked held the lock for moving values only: the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    fn any(&self) -> bool {
        self.release.is_some() || self.upkeep || self.stop
    }
}

/// All requests are served once, but for the one to stop, which stays.
fn take_requests(state: &mut State) -> Requests {
    let taken = state.requests;
    state.requests = Requests {
        stop: taken.stop,
        ..Requests::default()
    };
    taken
}
