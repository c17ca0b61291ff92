//! The loop, and the driver's side of the scheduler.
//!
//! The one idea is that only the loop ends tasks. Syscalls mark and queue; the loop polls, drops and
//! catches, with nothing borrowed, so whatever code of a user runs, and however it panics, it finds the
//! scheduler in a state in which every syscall works.
//!
//! Invariants: no panic leaves [`Scheduler::run`]; frames are dropped descendants first, the younger of two
//! siblings first; a task's end is seen by whoever joins it after all its descendants have ended.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core::{Core, Ended, Step};
use crate::dump::{Dump, Idle};
use crate::handle::{Handle, TASK_WAKER};
use crate::report::{Report, Reports};
use crate::task::{Frame, Outcome, Slot, TaskId};
use crate::time::Time;
use crate::trace::{Op, TraceHash};

/// How a scheduler is set up.
#[derive(Debug)]
pub struct Options {
    /// Whether and how to watch for tasks that hold the loop. Default: not.
    pub long_poll: Option<LongPoll>,
    /// How many reports are kept until they are taken. Default: 1,024.
    pub reports_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            long_poll: None,
            reports_max: 1024,
        }
    }
}

/// The watch on tasks that do not come back.
///
/// The clock only decides what is reported. It has no part in what runs when, so a run under watch has the
/// same trace as one without.
pub struct LongPoll {
    /// What is too long for one poll.
    pub limit: Duration,
    /// A monotonic clock, in nanoseconds. It need not be fine: a coarse one that is quick to read, such as
    /// Linux's `CLOCK_MONOTONIC_COARSE`, serves a limit of many milliseconds at a fraction of the cost. Read once when a run begins, and then once
    /// after each poll and each dropping of a frame.
    pub clock: Box<dyn Fn() -> u64>,
}

impl fmt::Debug for LongPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongPoll")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// Scheduling decisions made: polls, and cancellations of a task with all its descendants.
    pub polls: u64,
    /// How it stands now.
    pub state: RunState,
}

/// Whether there is more to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// The budget is spent and tasks are ready.
    Ready,
    /// No task is ready.
    Idle(Idle),
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Of these, tasks in the ready queue.
    pub ready: usize,
    /// Timers set.
    pub timers: usize,
    /// Futures that wait for something: a timer, a key or a task.
    pub waits: usize,
    /// Of these, waits for something outside.
    pub external_waits: usize,
    /// Keys that somebody waits for or that a permit is kept for. More and more of these without waits are
    /// a sign of signals that nobody takes: see [`Handle::clear`].
    pub keys: usize,
    /// Tasks spawned since the beginning.
    pub spawned_total: u64,
    /// Scheduling decisions since the beginning.
    pub polls_total: u64,
}

/// Why a series of polls is over.
enum Stop {
    /// A task returned this.
    Ended(Box<dyn Any>),
    /// All tasks are suspended, and this one is to be cancelled.
    Cancel(TaskId),
    /// All tasks are suspended, and none is ready or the budget is spent.
    Idle,
}

/// A deterministic, single-threaded coroutine scheduler: see the [crate's](crate) page.
///
/// Dropping it cancels all tasks, as if each root had been, the youngest first.
#[derive(Debug)]
pub struct Scheduler {
    handle: Handle,
    watch: Option<Watch>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Scheduler {
    /// A scheduler without tasks, at [`Time::ZERO`].
    #[must_use]
    pub fn new(options: Options) -> Self {
        let core = Core::new(options.reports_max);
        Self {
            handle: Handle::new(Rc::new(RefCell::new(core))),
            watch: options.long_poll.map(|long_poll| Watch {
                long_poll,
                lap_start: 0,
            }),
        }
    }

    /// A handle, for the driver and for the tasks it spawns.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs ready tasks until none is or `polls_max` have been polled.
    pub fn run(&mut self, polls_max: u64) -> RunOutcome {
        if let Some(watch) = &mut self.watch {
            watch.start();
        }
        let mut budget = polls_max;
        let mut running = None;
        loop {
            let stopped = catch_unwind(AssertUnwindSafe(|| self.poll(&mut running, &mut budget)));
            let outcome = match stopped {
                Ok(Stop::Idle) => break,
                Ok(Stop::Cancel(id)) => {
                    self.cancel_subtree(id);
                    continue;
                }
                Ok(Stop::Ended(output)) => Outcome::Returned(output),
                Err(payload) => Outcome::Panicked(panic_message(payload)),
            };
            let (id, frame) = running.take().expect("the task that was being polled");
            self.end_polled(id, frame, outcome);
        }
        let core = self.handle.core();
        let state = if core.ready.is_empty() {
            RunState::Idle(core.idle())
        } else {
            RunState::Ready
        };
        RunOutcome {
            polls: polls_max - budget,
            state,
        }
    }

    /// Runs until no task is ready. Does not return while tasks keep yielding.
    pub fn run_until_idle(&mut self) -> Idle {
        loop {
            if let RunState::Idle(idle) = self.run(u64::MAX).state {
                return idle;
            }
        }
    }

    /// Runs on a virtual clock: whenever no task is ready, time jumps to the next deadline. Returns when
    /// there is none, so never while tasks keep setting timers. For tests.
    pub fn run_virtual(&mut self) -> Idle {
        loop {
            match self.run_until_idle() {
                Idle::UntilTimer(deadline) => self.advance_to(deadline),
                idle => return idle,
            };
        }
    }

    /// Sets the clock and makes ready whose timers are due, by deadline and, of two with the same, in the
    /// order in which they began to wait. Says how many timers that were.
    ///
    /// The clock never goes back: an earlier time than the present is ignored.
    pub fn advance_to(&mut self, now: Time) -> usize {
        let mut core = self.handle.core();
        if now > core.now {
            core.now = now;
            core.record(Op::Advance, now.as_nanos());
        }
        let mut fired = 0;
        while let Some(waker) = core.fire_due() {
            fired += 1;
            if let Some(waker) = waker {
                drop(core);
                self.call(waker);
                core = self.handle.core();
            }
        }
        fired
    }

    /// When the next timer is due; `None` if none is set.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.handle.core().timers.next_deadline()
    }

    /// The running hash over every syscall and every decision so far: equal for equal runs. Not
    /// cryptographic, see [`TraceHash`].
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace().get()
    }

    /// As [`trace_hash`](Self::trace_hash), with its type.
    #[must_use]
    pub fn trace(&self) -> TraceHash {
        self.handle.core().trace
    }

    /// What there is to report since this was last called: panics and long polls.
    #[must_use]
    pub fn take_reports(&mut self) -> Reports {
        self.handle.core().reports.take()
    }

    /// Every task, what it is doing and since when.
    #[must_use]
    pub fn dump(&self) -> Dump {
        self.handle.dump()
    }

    /// Counts for metrics. Costs next to nothing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = self.handle.core();
        Stats {
            tasks: core.tasks.alive(),
            ready: core.ready.len(),
            timers: core.timers.len(),
            waits: core.waiters.len(),
            external_waits: core.waiters.external(),
            keys: core.waiters.keys(),
            spawned_total: core.spawned,
            polls_total: core.polls,
        }
    }

    /// Polls one task after the other, for as long as none ends or panics. They share one place in which a panic is
    /// caught, and between two of them the state is borrowed once. The task being polled is in `running`.
    #[inline]
    fn poll(&mut self, running: &mut Option<(TaskId, Frame)>, budget: &mut u64) -> Stop {
        let Self { handle, watch } = self;
        let mut context = Context::from_waker(TASK_WAKER);
        loop {
            let mut core = handle.core();
            if let Some((id, frame)) = running.take() {
                core.suspend(id, frame);
            }
            if *budget == 0 {
                return Stop::Idle;
            }
            let (id, frame) = match core.next_step() {
                Step::Poll(id, frame) => (id, frame),
                Step::Cancel(id) => {
                    *budget -= 1;
                    return Stop::Cancel(id);
                }
                Step::Idle => return Stop::Idle,
            };
            drop(core);
            *budget -= 1;
            let (_, frame) = running.insert((id, frame));
            let polled = frame.as_mut().step(&mut context);
            if let Some(watch) = watch {
                watch.lap(id, handle);
            }
            if let Poll::Ready(output) = polled {
                return Stop::Ended(output);
            }
        }
    }

    /// Ends a task that returned or panicked.
    fn end_polled(&mut self, id: TaskId, frame: Frame, outcome: Outcome) {
        if let Outcome::Panicked(message) = &outcome {
            if let Some(watch) = &mut self.watch {
                watch.lap(id, &self.handle);
            }
            self.report(id, |task, name| Report::Panicked {
                task,
                name,
                message: message.to_string(),
            });
        }
        self.end(id, frame, outcome);
    }

    /// Ends a task: its descendants first, then its frame, then its outcome is there to be had.
    fn end(&mut self, id: TaskId, frame: Frame, outcome: Outcome) {
        // Destructors run for no task in particular: what they spawn must not be born into a dying tree.
        let has_children = {
            let mut core = self.handle.core();
            core.current = TaskId::NOBODY;
            core.tasks.has_children(id)
        };
        if has_children {
            self.cancel_descendants(id);
        }
        let dropped = contain(|| drop(frame));
        if let Some(watch) = &mut self.watch {
            watch.lap(id, &self.handle);
        }
        if let Err(message) = dropped {
            self.report(id, |task, name| Report::DropPanicked {
                task,
                name,
                message: message.into(),
            });
        }
        let Ended { wake, unwanted } = self.handle.core().end(id, outcome);
        if let Some(waker) = wake {
            self.call(waker);
        }
        let Some((outcome, name)) = unwanted else {
            return;
        };
        if let Err(message) = contain(|| drop(outcome)) {
            let report = Report::DropPanicked {
                task: id,
                name: name.into_cow(),
                message: message.into(),
            };
            self.handle.core().reports.push(report);
        }
    }

    /// Cancels a task and its descendants.
    fn cancel_subtree(&mut self, id: TaskId) {
        self.cancel_descendants(id);
        self.cancel_leaf(id);
    }

    /// Cancels all descendants of a task, each visited once. Destructors spawn roots only, so there are
    /// ever fewer of them.
    fn cancel_descendants(&mut self, id: TaskId) {
        let mut at = id;
        loop {
            let (leaf, parent) = self.handle.core().tasks.youngest_leaf(at);
            if leaf == id {
                return;
            }
            self.cancel_leaf(leaf);
            at = parent.expect("a parent, because the leaf is a descendant");
        }
    }

    fn cancel_leaf(&mut self, id: TaskId) {
        let frame = self
            .handle
            .core()
            .tasks
            .get_mut(id)
            .and_then(Slot::take_frame)
            .expect("a frame, because no task is being polled when one is cancelled");
        self.end(id, frame, Outcome::Cancelled);
    }

    /// Calls a waker that is not ours.
    fn call(&self, waker: Waker) {
        if let Err(message) = contain(|| waker.wake()) {
            let report = Report::WakerPanicked {
                message: message.into(),
            };
            self.handle.core().reports.push(report);
        }
    }

    fn report(
        &self,
        id: TaskId,
        report: impl FnOnce(TaskId, std::borrow::Cow<'static, str>) -> Report,
    ) {
        let mut core = self.handle.core();
        let name = core
            .tasks
            .get(id)
            .map(|slot| slot.name.to_cow())
            .unwrap_or_default();
        core.reports.push(report(id, name));
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.handle.core().closed = true;
        loop {
            let root = self.handle.core().tasks.youngest_root();
            match root {
                Some(root) => self.cancel_subtree(root),
                None => return,
            }
        }
    }
}

/// The stop watch of [`LongPoll`].
#[derive(Debug)]
struct Watch {
    long_poll: LongPoll,
    /// The clock's last reading.
    lap_start: u64,
}

impl Watch {
    fn start(&mut self) {
        self.lap_start = (self.long_poll.clock)();
    }

    /// Ends the lap of one poll, which begins the next.
    fn lap(&mut self, id: TaskId, handle: &Handle) {
        let now = (self.long_poll.clock)();
        let duration = Duration::from_nanos(now.saturating_sub(self.lap_start));
        self.lap_start = now;
        if duration > self.long_poll.limit {
            let mut core = handle.core();
            let name = core
                .tasks
                .get(id)
                .map(|slot| slot.name.to_cow())
                .unwrap_or_default();
            core.reports.push(Report::LongPoll {
                task: id,
                name,
                duration,
            });
        }
    }
}

/// Runs code of a user and gives the message of its panic, if it panics.
fn contain<R>(code: impl FnOnce() -> R) -> Result<R, Box<str>> {
    catch_unwind(AssertUnwindSafe(code)).map_err(panic_message)
}

/// What a panic says, if it says it in words.
fn panic_message(payload: Box<dyn Any + Send>) -> Box<str> {
    let message = if let Some(message) = payload.downcast_ref::<&'static str>() {
        Box::from(*message)
    } else if let Some(message) = payload.downcast_ref::<String>() {
        Box::from(message.as_str())
    } else {
        Box::from("a value that is not text")
    };
    // A payload is a user's value, and its destructor may panic in turn. That one's payload is leaked: the
    // chain has to end somewhere.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}
