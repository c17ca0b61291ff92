//! The kept events, and how a reader finds its next one among them: a pure data structure, without
//! locks or wakers.
//!
//! The one idea: **every stream that a [`Filter`] can describe is dense by itself.** Beside the process'
//! own numbering the ring counts what was published per job and how much of it was output, so for any
//! event it can say how many events of a given filter came before it: its *rank* in that filter's
//! stream. A reader keeps the rank it expects next. If the next event that is still kept has a higher
//! one, the difference is exactly what the reader missed: no bookkeeping per reader when events are
//! dropped, so a publisher pays the same with a thousand slow readers as with none.
//!
//! Invariants: kept events have consecutive `seq`; there are at most `capacity_events` of them, and they
//! hold at most `capacity_bytes` unless there is only one; a reader's rank never exceeds the number of
//! events published for its filter.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::event::{Event, EventKind, JobRef};

/// How many jobs' counters are kept after the jobs have finished, so that a straggling event of a
/// finished job does not begin its numbering again. Those of jobs that are followed, or of which an event
/// is still kept, stay beside these.
const FINISHED_JOBS_MAX: usize = 4096;

/// Which events a reader wants. The default is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only the events of this job.
    pub job: Option<Uuid>,
    /// All but [`EventKind::StepOutput`].
    pub without_output: bool,
}

impl Filter {
    /// Every event.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The events of one job.
    #[must_use]
    pub fn job(id: Uuid) -> Self {
        Self {
            job: Some(id),
            ..Self::default()
        }
    }

    /// The same events but for what steps print.
    #[must_use]
    pub fn without_output(self) -> Self {
        Self {
            without_output: true,
            ..self
        }
    }

    /// Whether an event passes.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.job
            .is_none_or(|id| event.job.is_some_and(|job| job.id == id))
            && !(self.without_output && event.kind.is_output())
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With what is published from now on.
    Now,
    /// With the oldest event still kept.
    Oldest,
    /// With the event of this number; a reader that comes back names the one after the last it saw.
    /// If that is no longer kept the reader is told so before anything else. A number not given yet,
    /// as one from an earlier life of the process may be, is the same as [`StartAt::Now`].
    Seq(u64),
}

/// What was published of some stream: all of it, and how much of that was output.
#[derive(Clone, Copy, Default)]
struct Published {
    events: u64,
    outputs: u64,
}

impl Published {
    /// How many of these pass a filter that has already chosen the job.
    fn passing(self, filter: &Filter) -> u64 {
        if filter.without_output {
            self.events - self.outputs
        } else {
            self.events
        }
    }

    fn count(&mut self, kind: &EventKind) {
        self.events += 1;
        self.outputs += u64::from(kind.is_output());
    }
}

/// A kept event with what had been published before it, in the process and of its job.
struct Slot {
    event: Arc<Event>,
    bytes: usize,
    outputs_before: u64,
    job_outputs_before: u64,
}

impl Slot {
    /// How many events that pass `filter` were published before this one, which passes it.
    fn rank(&self, filter: &Filter) -> u64 {
        let before = match (filter.job, self.event.job) {
            (Some(_), Some(job)) => Published {
                events: job.seq - 1,
                outputs: self.job_outputs_before,
            },
            _ => Published {
                events: self.event.seq - 1,
                outputs: self.outputs_before,
            },
        };
        before.passing(filter)
    }
}

/// What is counted of one job.
#[derive(Default)]
struct Job {
    published: Published,
    /// The process' number of its latest event.
    last_seq: u64,
    /// Readers whose filter names this job: their ranks count in its numbers, so these must stay.
    followers: usize,
    /// It finished so long ago that only its followers keep it here.
    retired: bool,
}

/// Where a reader is. Only [`Ring::next`] moves it.
#[derive(Debug)]
pub(crate) struct Cursor {
    filter: Filter,
    /// Events below this number have been looked at.
    seq: u64,
    /// The rank in the filter's stream of the event the reader expects next.
    rank: u64,
}

impl Cursor {
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// What a reader finds.
pub(crate) enum Next {
    Event(Arc<Event>),
    Missed(u64),
    Nothing,
}

pub(crate) struct Ring {
    slots: VecDeque<Slot>,
    bytes: usize,
    capacity_events: usize,
    capacity_bytes: usize,
    published: Published,
    jobs: HashMap<Uuid, Job>,
    /// Finished jobs that still have their counters, in the order in which they finished.
    finished: VecDeque<Uuid>,
}

impl Ring {
    pub(crate) fn new(capacity_events: usize, capacity_bytes: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            bytes: 0,
            capacity_events: capacity_events.max(1),
            capacity_bytes,
            published: Published::default(),
            jobs: HashMap::new(),
            finished: VecDeque::new(),
        }
    }

    /// Numbers the event, keeps it, and drops the oldest ones that no longer fit.
    pub(crate) fn push(
        &mut self,
        kind: EventKind,
        bytes: usize,
        job: Option<Uuid>,
        at_ms: u64,
        lsn: Option<u64>,
    ) -> Arc<Event> {
        let outputs_before = self.published.outputs;
        self.published.count(&kind);
        let (job, job_outputs_before) = match job {
            Some(id) => {
                let (seq, outputs_before) = self.count_job(id, &kind);
                (Some(JobRef { id, seq }), outputs_before)
            }
            None => (None, 0),
        };
        let event = Arc::new(Event {
            seq: self.published.events,
            at_ms,
            lsn,
            job,
            kind,
        });
        self.bytes += bytes;
        self.slots.push_back(Slot {
            event: Arc::clone(&event),
            bytes,
            outputs_before,
            job_outputs_before,
        });
        self.evict();
        self.retire();
        event
    }

    /// Counts an event of a job; gives its number in the job, and the outputs before it.
    fn count_job(&mut self, id: Uuid, kind: &EventKind) -> (u64, u64) {
        let job = self.jobs.entry(id).or_default();
        let outputs_before = job.published.outputs;
        job.published.count(kind);
        let seq = job.published.events;
        job.last_seq = self.published.events;
        if kind.ends_job() {
            self.finished.push_back(id);
        }
        (seq, outputs_before)
    }

    /// Forgets the counters of jobs that finished long ago, of which nothing is kept, and which nobody
    /// follows.
    fn retire(&mut self) {
        let oldest = self.oldest_seq();
        while self.finished.len() > FINISHED_JOBS_MAX
            && let Some(id) = self.finished.front()
        {
            match self.jobs.get_mut(id) {
                Some(job) if job.last_seq >= oldest => return,
                Some(job) if job.followers > 0 => job.retired = true,
                _ => {
                    self.jobs.remove(id);
                }
            }
            self.finished.pop_front();
        }
    }

    fn evict(&mut self) {
        while self.slots.len() > self.capacity_events
            || (self.bytes > self.capacity_bytes && self.slots.len() > 1)
        {
            let Some(slot) = self.slots.pop_front() else {
                return;
            };
            self.bytes -= slot.bytes;
        }
    }

    /// A new reader. Whoever takes one gives it back with [`Ring::close`].
    pub(crate) fn open(&mut self, filter: Filter, start: StartAt) -> Cursor {
        if let Some(id) = filter.job {
            self.jobs.entry(id).or_default().followers += 1;
        }
        let oldest = self.oldest_seq();
        let wanted = match start {
            StartAt::Now => self.next_seq(),
            StartAt::Oldest => oldest,
            StartAt::Seq(seq) => seq.clamp(1, self.next_seq()),
        };
        let seq = wanted.max(oldest);
        let rank = match self.find(&filter, seq) {
            Some(slot) => slot.rank(&filter),
            None => self.passed(&filter),
        };
        // Which of the events already dropped would have passed the filter is not known any more: at
        // most all of them, and at most as many as ever passed it.
        let gone = seq - wanted;
        Cursor {
            filter,
            seq,
            rank: rank.saturating_sub(gone),
        }
    }

    /// Ends a reader.
    pub(crate) fn close(&mut self, cursor: &Cursor) {
        let Some(id) = cursor.filter.job else { return };
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.followers -= 1;
        if job.followers == 0 && (job.retired || job.published.events == 0) {
            self.jobs.remove(&id);
        }
    }

    /// The reader's next event that is still kept, or first how many it missed before that.
    pub(crate) fn next(&self, cursor: &mut Cursor) -> Next {
        let slot = self.find(&cursor.filter, cursor.seq);
        let (seq, rank) = match slot {
            Some(slot) => (slot.event.seq, slot.rank(&cursor.filter)),
            None => (self.next_seq(), self.passed(&cursor.filter)),
        };
        cursor.seq = seq;
        if rank > cursor.rank {
            let missed = rank - cursor.rank;
            cursor.rank = rank;
            return Next::Missed(missed);
        }
        let Some(slot) = slot else {
            return Next::Nothing;
        };
        cursor.seq += 1;
        cursor.rank += 1;
        Next::Event(Arc::clone(&slot.event))
    }

    /// The first kept event from `seq` on that passes.
    fn find(&self, filter: &Filter, seq: u64) -> Option<&Slot> {
        let skip = usize::try_from(seq.saturating_sub(self.oldest_seq())).ok()?;
        self.slots
            .iter()
            .skip(skip)
            .find(|slot| filter.matches(&slot.event))
    }

    /// How many events that pass were published so far.
    fn passed(&self, filter: &Filter) -> u64 {
        let published = match filter.job {
            Some(id) => self
                .jobs
                .get(&id)
                .map(|job| job.published)
                .unwrap_or_default(),
            None => self.published,
        };
        published.passing(filter)
    }

    fn next_seq(&self) -> u64 {
        self.published.events + 1
    }

    fn oldest_seq(&self) -> u64 {
        self.slots
            .front()
            .map_or(self.next_seq(), |slot| slot.event.seq)
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.events
    }

    pub(crate) fn kept(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(ring: &mut Ring, kind: EventKind, job: Uuid) -> u64 {
        ring.push(kind, 1, Some(job), 0, None)
            .job
            .map_or(0, |job| job.seq)
    }

    fn finished() -> EventKind {
        EventKind::JobFinished {
            state: crate::JobState::Completed,
            error: None,
            duration_us: 0,
        }
    }

    fn run_jobs(ring: &mut Ring, ids: std::ops::Range<usize>) {
        for id in ids {
            let job = Uuid::from_u128(id as u128);
            publish(ring, EventKind::JobStarted, job);
            publish(ring, finished(), job);
        }
    }

    #[test]
    fn counters_of_finished_jobs_are_bounded() {
        let mut ring = Ring::new(8, usize::MAX);
        run_jobs(&mut ring, 1..3 * FINISHED_JOBS_MAX);
        assert_eq!(ring.jobs.len(), FINISHED_JOBS_MAX);
        assert_eq!(ring.finished.len(), FINISHED_JOBS_MAX);
    }

    #[test]
    fn a_straggler_of_a_finished_job_goes_on_with_its_numbers() {
        let mut ring = Ring::new(8, usize::MAX);
        run_jobs(&mut ring, 1..2);
        run_jobs(&mut ring, 2..FINISHED_JOBS_MAX);
        assert_eq!(
            publish(&mut ring, EventKind::JobResumed, Uuid::from_u128(1)),
            3
        );
    }

    #[test]
    fn counters_stay_while_an_event_is_kept() {
        let jobs = 2 * FINISHED_JOBS_MAX;
        let mut ring = Ring::new(2 * jobs, usize::MAX);
        run_jobs(&mut ring, 0..jobs);
        assert_eq!(ring.jobs.len(), jobs);
    }

    #[test]
    fn a_follower_keeps_its_jobs_counters_and_learns_what_it_missed() {
        let job = Uuid::from_u128(u128::MAX);
        let mut ring = Ring::new(8, usize::MAX);
        let mut cursor = ring.open(Filter::job(job), StartAt::Now);
        publish(&mut ring, EventKind::JobStarted, job);
        publish(&mut ring, finished(), job);
        run_jobs(&mut ring, 0..2 * FINISHED_JOBS_MAX);
        assert!(matches!(ring.next(&mut cursor), Next::Missed(2)));

        ring.close(&cursor);
        assert!(!ring.jobs.contains_key(&job), "nobody needs them any more");
    }

    #[test]
    fn following_a_job_that_never_comes_leaves_nothing_behind() {
        let mut ring = Ring::new(8, usize::MAX);
        let first = ring.open(Filter::job(Uuid::nil()), StartAt::Now);
        let second = ring.open(Filter::job(Uuid::nil()), StartAt::Now);
        ring.close(&first);
        assert_eq!(ring.jobs.len(), 1);
        ring.close(&second);
        assert!(ring.jobs.is_empty());
    }
}
