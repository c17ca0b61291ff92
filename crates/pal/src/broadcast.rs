//! One publisher side, any number of readers, and no reader that can hold up a publisher.
//!
//! All state is one ring (`ring.rs`) behind one mutex. Publishing locks it to number and keep one
//! event, reading locks it to find one; foreign code, which is what wakers are, never runs under it. A
//! reader with nothing to read leaves its waker in its one place in the table of waiting readers and
//! is taken out when an event comes *that its filter wants*. The table is in order of the jobs that are
//! waited for, so readers that are busy, or wait for another job, are not even looked at. That place is
//! also all there is to leak, and it goes with the reader.
//!
//! One mutex is enough. Measured on two shared cores with `cargo bench -p pal`: a publish takes 100 ns,
//! a third of it spent making the event's strings; the same with 1,000 stalled readers, 150 ns with 1,000
//! that wait for other jobs (1.6 µs when it looked at each); and 0.6 µs (median; 0.8 to 1.1 µs mean) when
//! two or four threads do nothing but publish. Looking past a full ring of 4,096 events of others takes a
//! reader 4 µs. Each step of a job waits for a disk at least once and publishes a handful of events:
//! thousands of times longer than all of that.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::event::{Event, EventKind};
use crate::ring::{Cursor, Filter, Next, Ring, StartAt};

/// The activity log of a process. Clones are the same log.
///
/// When the last clone is dropped the log is [closed](Pal::close): readers never wait for a publisher
/// that does not exist.
#[derive(Clone)]
pub struct Pal {
    publisher: Arc<Publisher>,
}

/// Closes the log when the last [`Pal`] is gone. Readers hold the shared state, and not this.
struct Publisher {
    shared: Arc<Shared>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.close();
    }
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    ring: Ring,
    /// Readers with nothing to read. In this order, so that they are woken in one that does not depend on
    /// hashes.
    waiting: BTreeMap<Seat, Waiting>,
    next_reader_id: u64,
    readers: usize,
    missed: u64,
    closed: bool,
}

/// The place of a waiting reader: the job that it waits for, if it is one, and its id.
type Seat = (Option<Uuid>, u64);

struct Waiting {
    filter: Filter,
    waker: Waker,
}

impl State {
    /// Takes out the waiting readers that want this event.
    fn leave(&mut self, event: &Event) -> Vec<Waiting> {
        let mut woken = Vec::new();
        if self.waiting.is_empty() {
            return woken;
        }
        let of_job = event.job.map(|job| Some(job.id));
        for job in [None].into_iter().chain(of_job) {
            let seats = (job, u64::MIN)..=(job, u64::MAX);
            let wanted = |_: &Seat, reader: &mut Waiting| reader.filter.matches(event);
            let leaving = self.waiting.extract_if(seats, wanted);
            woken.extend(leaving.map(|(_, reader)| reader));
        }
        woken
    }
}

impl Shared {
    /// A panic cannot have left the state half changed (nothing under the lock runs foreign code), so
    /// a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        for reader in waiting.into_values() {
            reader.waker.wake();
        }
    }
}

/// What the log holds and has done, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Events published so far; also the number of the latest.
    pub published: u64,
    /// Events kept for readers.
    pub kept_events: usize,
    /// About how much memory they hold.
    pub kept_bytes: usize,
    /// Subscriptions that exist.
    pub readers: usize,
    /// Events that readers were told they missed, added up over all readers.
    pub missed: u64,
}

impl Pal {
    /// A log that keeps the latest `capacity_events` events (at least one), or fewer when they hold more
    /// than about `capacity_bytes` of memory. The latest event is always kept.
    #[must_use]
    pub fn new(capacity_events: usize, capacity_bytes: usize) -> Self {
        let state = State {
            ring: Ring::new(capacity_events, capacity_bytes),
            waiting: BTreeMap::new(),
            next_reader_id: 0,
            readers: 0,
            missed: 0,
            closed: false,
        };
        Self {
            publisher: Arc::new(Publisher {
                shared: Arc::new(Shared {
                    state: Mutex::new(state),
                }),
            }),
        }
    }

    /// Publishes what happened, to `job` or to the node, and gives the event's number.
    ///
    /// `at_ms` is the publisher's clock in milliseconds since the Unix epoch; `lsn` is the log sequence
    /// number of the durable entry that the event shows, if it shows one: publish such an event when
    /// the entry is durable and not before. Strings beyond their limits are cut
    /// ([`EventKind::bounded`]).
    ///
    /// Never waits for a reader, and costs the same however many of them are behind. After
    /// [`Pal::close`] nothing is published and there is no number.
    pub fn publish(
        &self,
        kind: EventKind,
        job: Option<Uuid>,
        at_ms: u64,
        lsn: Option<u64>,
    ) -> Option<u64> {
        let kind = kind.bounded();
        let bytes = kind.bytes();
        let mut state = self.publisher.shared.state();
        if state.closed {
            return None;
        }
        let event = state.ring.push(kind, bytes, job, at_ms, lsn);
        let woken = state.leave(&event);
        // A waker is foreign code: it may be slow, or subscribe.
        drop(state);
        for reader in woken {
            reader.waker.wake();
        }
        Some(event.seq)
    }

    /// Begins to read.
    #[must_use]
    pub fn subscribe(&self, filter: Filter, start: StartAt) -> Subscription {
        let shared = Arc::clone(&self.publisher.shared);
        let mut state = shared.state();
        let id = state.next_reader_id;
        state.next_reader_id += 1;
        state.readers += 1;
        let cursor = state.ring.open(filter, start);
        drop(state);
        Subscription { shared, id, cursor }
    }

    /// Publishes nothing more. Readers get what is still kept for them and then
    /// [`Delivery::Closed`]. Closing again changes nothing.
    pub fn close(&self) {
        self.publisher.shared.close();
    }

    /// What the log holds and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.publisher.shared.state();
        Stats {
            published: state.ring.published(),
            kept_events: state.ring.kept(),
            kept_bytes: state.ring.bytes(),
            readers: state.readers,
            missed: state.missed,
        }
    }
}

impl fmt::Debug for Pal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pal").field(&self.stats()).finish()
    }
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(Arc<Event>),
    /// The reader was too slow: this many events that its filter wants are gone. It comes once, in
    /// the place of those events; the oldest that are still kept follow. The number is exact, but for
    /// one case: a filtered reader that *began* at an event already gone ([`StartAt::Seq`]) may be told
    /// too many, for then it is not known any more which of them it would have got.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The log is closed and everything kept was delivered. Every later delivery is this one too.
    Closed,
}

/// A reader of the log. It keeps a place in the stream, and no events.
pub struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    cursor: Cursor,
}

impl Subscription {
    /// The next delivery; when there is none, `cx`'s task is woken once there may be. Only the task of
    /// the last call is woken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Delivery> {
        // Cloning and dropping wakers is foreign code: a waker may own the task that owns a reader of
        // this log, and dropping that takes the lock. So both are done outside of it. Looking and leaving
        // the waker are done under one lock, or an event between the two would wake nobody.
        let waiting = Waiting {
            filter: *self.cursor.filter(),
            waker: cx.waker().clone(),
        };
        let mut state = self.shared.state();
        if let Some(delivery) = state.deliver(&mut self.cursor) {
            drop(state);
            return Poll::Ready(delivery);
        }
        let replaced = state.waiting.insert(self.seat(), waiting);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Where it waits.
    fn seat(&self) -> Seat {
        (self.cursor.filter().job, self.id)
    }

    /// The next delivery, when it comes. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Delivery {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next delivery if there is one now.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.shared.state().deliver(&mut self.cursor)
    }

    /// The next delivery; waits for it, but no longer than `timeout`, with the thread blocked.
    pub fn recv_blocking(&mut self, timeout: Duration) -> Option<Delivery> {
        if let Some(delivery) = self.try_recv() {
            return Some(delivery);
        }
        let start = Instant::now();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        loop {
            if let Poll::Ready(delivery) = self.poll_recv(&mut Context::from_waker(&waker)) {
                return Some(delivery);
            }
            // A duration and not a deadline: `Instant + Duration::MAX` would overflow.
            let left = timeout
                .checked_sub(start.elapsed())
                .filter(|left| !left.is_zero())?;
            bell.wait(left);
        }
    }
}

impl State {
    fn deliver(&mut self, cursor: &mut Cursor) -> Option<Delivery> {
        match self.ring.next(cursor) {
            Next::Event(event) => Some(Delivery::Event(event)),
            Next::Missed(missed) => {
                self.missed += missed;
                Some(Delivery::Lagged { missed })
            }
            Next::Nothing if self.closed => Some(Delivery::Closed),
            Next::Nothing => None,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.readers -= 1;
        state.ring.close(&self.cursor);
        let waiting = state.waiting.remove(&self.seat());
        // As in `poll_recv`: not under the lock.
        drop(state);
        drop(waiting);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.cursor).finish()
    }
}

/// Wakes a blocked thread. Not [`std::thread::park`]: its token belongs to the thread, and taking it
/// here could lose a wake-up that was meant for an executor on the same thread.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn wait(&self, timeout: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self
            .ring
            .wait_timeout_while(rung, timeout, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring.notify_one();
    }
}
