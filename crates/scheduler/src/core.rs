//! The state that the loop and the syscalls share, and what each syscall does to it.
//!
//! The one idea is that a syscall changes this state **at once**, while its task is being polled, instead
//! of leaving a request and a waker behind. So a task's waker has nothing to do and costs nothing, and the
//! order of everything is the order of the calls.
//!
//! Invariants: no value of a user (a frame, an exit value, a waker) is run or dropped while this state is
//! borrowed, since its code may make syscalls; those values are handed out to the caller, which lets go of
//! the borrow first. Every method that changes something records it in the trace.

use std::task::Waker;

use crate::ready::{Priority, ReadyQueue};
use crate::report::ReportQueue;
use crate::task::{Birth, Frame, NONE, Name, Outcome, TaskId, Tasks};
use crate::time::Time;
use crate::timer::TimerQueue;
use crate::trace::{Op, TraceHash};
use crate::wait::{Key, Signalled, Stage, Target, Waiters, Wake};

/// What the loop is to do next.
pub(crate) enum Step {
    Poll(TaskId, Frame),
    Cancel(TaskId),
    Idle,
}

/// What is left to do, without a borrow, when a waiter was removed.
#[derive(Default)]
pub(crate) struct Removed {
    /// To be called: the waiter that got the removed one's permit has a waker that is not ours.
    pub(crate) wake: Option<Waker>,
    /// To be dropped.
    pub(crate) stale: Option<Waker>,
}

/// What is left to do, without a borrow, when a task has ended.
#[derive(Default)]
pub(crate) struct Ended {
    /// To be called: the waiter of the join handle has a waker that is not ours.
    pub(crate) wake: Option<Waker>,
    /// To be dropped: the outcome, with the task's name, that nobody will ask for.
    pub(crate) unwanted: Option<(Outcome, Name)>,
}

pub(crate) struct Core {
    pub(crate) now: Time,
    /// The task that is being polled, or [`TaskId::NOBODY`].
    pub(crate) current: TaskId,
    pub(crate) tasks: Tasks,
    pub(crate) ready: ReadyQueue,
    pub(crate) timers: TimerQueue<u32>,
    pub(crate) waiters: Waiters,
    pub(crate) trace: TraceHash,
    pub(crate) reports: ReportQueue,
    pub(crate) polls: u64,
    pub(crate) spawned: u64,
    keys: u64,
    /// The scheduler is gone: there is nobody left to run anything.
    pub(crate) closed: bool,
}

impl Core {
    pub(crate) fn new(reports_max: usize) -> Self {
        Self {
            now: Time::ZERO,
            current: TaskId::NOBODY,
            tasks: Tasks::new(),
            ready: ReadyQueue::new(),
            timers: TimerQueue::new(),
            waiters: Waiters::new(),
            trace: TraceHash::new(),
            reports: ReportQueue::new(reports_max),
            polls: 0,
            spawned: 0,
            keys: 0,
            closed: false,
        }
    }

    /// Records something the current task does, or the driver if there is none.
    #[inline(always)]
    pub(crate) fn record(&mut self, op: Op, operand: u64) {
        self.trace.record(op, self.current.index(), operand);
    }

    // The loop.

    /// Chooses the next task.
    #[inline(always)]
    pub(crate) fn next_step(&mut self) -> Step {
        let Self { ready, tasks, .. } = self;
        let Some(id) = ready.pop(|id| tasks.get(id).is_some_and(|slot| slot.queued)) else {
            return Step::Idle;
        };
        let slot = tasks
            .slot_mut(id.index())
            .expect("a task, because its entry is not one left behind");
        slot.queued = false;
        slot.since = self.now;
        self.polls += 1;
        if slot.cancelled {
            return Step::Cancel(id);
        }
        slot.polls = slot.polls.saturating_add(1);
        let frame = slot
            .take_frame()
            .expect("a frame, because no poll is under way");
        self.trace.record(Op::Poll, id.index(), 0);
        self.current = id;
        Step::Poll(id, frame)
    }

    /// Puts a task's frame back after a poll that did not end it.
    #[inline(always)]
    pub(crate) fn suspend(&mut self, id: TaskId, frame: Frame) {
        self.current = TaskId::NOBODY;
        let slot = self
            .tasks
            .slot_mut(id.index())
            .expect("a task, because only the loop ends tasks");
        slot.suspend(frame);
    }

    /// Ends a task whose frame is gone and wakes whoever joins it.
    pub(crate) fn end(&mut self, id: TaskId, outcome: Outcome) -> Ended {
        let op = match outcome {
            Outcome::Returned(_) => Op::Returned,
            Outcome::Cancelled => Op::Cancelled,
            Outcome::Panicked(_) => Op::Panicked,
        };
        self.trace.record(op, id.index(), 0);
        let slot = self.tasks.end(id, outcome);
        let (joiner, detached) = (slot.joiner, slot.detached);
        if std::mem::take(&mut slot.queued) {
            self.ready.forget(slot.priority);
        }
        if detached {
            return Ended {
                wake: None,
                unwanted: self.tasks.reap(id),
            };
        }
        #[cfg(planted)]
        if crate::planted::is("join-lost") {
            return Ended::default();
        }
        if joiner == NONE {
            return Ended::default();
        }
        let wake = self.waiters.wake(joiner, Stage::Woken);
        Ended {
            wake: self.wake(wake),
            unwanted: None,
        }
    }

    /// Fires the first timer that is due.
    pub(crate) fn fire_due(&mut self) -> Option<Option<Waker>> {
        let (deadline, waiter) = self.timers.pop_due(self.now)?;
        self.record(Op::Fired, deadline.as_nanos());
        let wake = self.waiters.wake(waiter, Stage::Woken);
        Some(self.wake(wake))
    }

    // Tasks.

    /// Appends a task to its level of the ready queue, unless it is there or has ended.
    #[inline(always)]
    pub(crate) fn make_ready(&mut self, id: TaskId) {
        if let Some(slot) = self.tasks.get_alive(id).filter(|slot| !slot.queued) {
            slot.queued = true;
            slot.since = self.now;
            self.ready.push(slot.priority, id);
        }
    }

    /// As [`make_ready`](Self::make_ready) for the task being polled, if any: there is nothing to find out about it.
    #[inline(always)]
    fn make_current_ready(&mut self) {
        let id = self.current;
        if let Some(slot) = self.tasks.slot_mut(id.index()).filter(|slot| !slot.queued) {
            slot.queued = true;
            slot.since = self.now;
            self.ready.push(slot.priority, id);
        }
    }

    /// Makes the woken task ready; what it returns is to be called without a borrow.
    #[inline]
    #[must_use]
    fn wake(&mut self, wake: Wake) -> Option<Waker> {
        self.make_ready(wake.task);
        wake.waker
    }

    /// Spawns a child of the current task, or a root.
    pub(crate) fn spawn(&mut self, name: Name, priority: Priority, frame: Frame) -> TaskId {
        let parent = self.current.index();
        let id = self.tasks.insert(Birth {
            frame,
            name,
            priority,
            parent,
            now: self.now,
        });
        // Born queued.
        self.ready.push(priority, id);
        self.spawned += 1;
        self.record(Op::Spawn, id.as_u64() ^ (priority as u64) << 62);
        id
    }

    /// Marks a task to be cancelled when the loop next reaches it; `false` if it has ended.
    pub(crate) fn cancel(&mut self, id: TaskId) -> bool {
        self.record(Op::Cancel, id.as_u64());
        let Some(slot) = self.tasks.get_alive(id) else {
            return false;
        };
        slot.cancelled = true;
        self.make_ready(id);
        true
    }

    /// Takes the outcome of a task for its join handle, if it has ended, and with it the handle's waiter, if there is
    /// one. The waker is to be dropped without a borrow.
    #[inline]
    pub(crate) fn take_outcome(
        &mut self,
        id: TaskId,
        waiter: Option<u32>,
    ) -> Option<(Outcome, Option<Waker>)> {
        let (outcome, _) = self.tasks.reap(id)?;
        self.record(Op::Joined, id.as_u64());
        let stale = waiter.and_then(|waiter| self.waiters.finish(waiter));
        Some((outcome, stale))
    }

    /// Registers the current task as the one that joins `id`, and takes the waker.
    #[inline]
    pub(crate) fn join(&mut self, id: TaskId, waker: &mut Option<Waker>) -> u32 {
        self.record(Op::Join, id.as_u64());
        let waiter = self.waiters.insert(Target::Join(id), self.current, waker);
        let slot = self
            .tasks
            .get_mut(id)
            .expect("a task, because its join handle holds it");
        slot.joiner = waiter;
        waiter
    }

    /// Notes that nobody will ask for a task's exit value. If it has ended, that is given back to be
    /// dropped without a borrow.
    pub(crate) fn detach(&mut self, id: TaskId) -> Option<Outcome> {
        let slot = self.tasks.get_mut(id)?;
        slot.detached = true;
        self.record(Op::Detach, id.as_u64());
        self.tasks.reap(id).map(|(outcome, _)| outcome)
    }

    // Waiting.

    /// Lets the current task run again after the others that are ready.
    #[inline]
    pub(crate) fn yield_now(&mut self) {
        self.record(Op::Yield, 0);
        self.make_current_ready();
    }

    /// Sets a timer for the current task and takes the waker; `None` if it is due already, in which case
    /// this is a yield and the waker stays where it is.
    pub(crate) fn sleep(&mut self, deadline: Time, waker: &mut Option<Waker>) -> Option<u32> {
        if deadline <= self.now {
            self.record(Op::SleepDue, deadline.as_nanos());
            self.make_current_ready();
            return None;
        }
        self.record(Op::Sleep, deadline.as_nanos());
        let token = self.timers.insert(deadline, self.waiters.next_index());
        let target = Target::Timer(token);
        Some(self.waiters.insert(target, self.current, waker))
    }

    /// Puts the current task in line for `key` and takes the waker; `None` if there was a permit, which is
    /// now taken, while the waker stays where it is.
    #[inline]
    pub(crate) fn wait(
        &mut self,
        key: Key,
        external: bool,
        waker: &mut Option<Waker>,
    ) -> Option<u32> {
        let waiter = self
            .waiters
            .take_permit_or_enqueue(key, external, self.current, waker);
        if waiter.is_some() {
            self.record(Op::Wait, key.as_u64() << 1 | u64::from(external));
        } else {
            self.record(Op::PermitTaken, key.as_u64());
        }
        waiter
    }

    /// Asks how a registered wait stands, on behalf of the current task. The waker given back is to be
    /// dropped without a borrow.
    #[inline]
    pub(crate) fn poll_waiter(
        &mut self,
        waiter: u32,
        waker: Option<Waker>,
    ) -> (bool, Option<Waker>) {
        self.waiters.finish_or_renew(waiter, self.current, waker)
    }

    /// Removes the waiter of a future that is dropped before it was done.
    pub(crate) fn remove_waiter(&mut self, waiter: u32) -> Removed {
        let (target, stage, stale) = self.waiters.remove(waiter);
        let mut wake = None;
        match target {
            Target::Timer(token) => {
                self.record(Op::Unsleep, 0);
                self.timers.cancel(token);
            }
            Target::Key { key, .. } => {
                self.record(Op::Unwait, key.as_u64());
                if stage == Stage::Granted {
                    wake = self.signal(key);
                }
            }
            Target::Join(_) | Target::Vacant { .. } => {}
        }
        Removed { wake, stale }
    }

    pub(crate) fn new_key(&mut self) -> Key {
        let key = Key::new(self.keys);
        self.keys += 1;
        self.record(Op::Key, key.as_u64());
        key
    }

    /// Hands a permit to the first in line, or keeps it. The waker is to be called without a borrow.
    #[inline]
    #[must_use]
    pub(crate) fn signal(&mut self, key: Key) -> Option<Waker> {
        match self.waiters.signal(key) {
            Signalled::Granted(wake) => {
                self.record(Op::Granted, key.as_u64());
                self.wake(wake)
            }
            Signalled::Kept => {
                self.record(Op::PermitKept, key.as_u64());
                None
            }
        }
    }

    /// Wakes everybody in line. The wakers are to be called without a borrow.
    #[must_use]
    pub(crate) fn broadcast(&mut self, key: Key) -> Vec<Waker> {
        self.record(Op::Broadcast, key.as_u64());
        let mut wakers = Vec::new();
        while let Some(wake) = self.waiters.wake_first(key) {
            wakers.extend(self.wake(wake));
        }
        wakers
    }

    pub(crate) fn clear(&mut self, key: Key) -> u32 {
        let cleared = self.waiters.clear(key);
        self.record(Op::Clear, key.as_u64());
        cleared
    }
}
