//! The syscalls: what a task, and between runs the driver, can ask of the scheduler.
//!
//! A [`Handle`] is a counted reference to the scheduler's state; the futures it makes hold one too, so they
//! borrow nothing and can be kept anywhere. Each of them does its syscall when it is first polled, belongs
//! to the task that polled it last, and takes itself back when it is dropped early: a timer is cancelled, a
//! place in line given up, a signal already received passed on to the next in line.
//!
//! Invariant: state is borrowed for the time of one syscall and no code of a user runs meanwhile.

use std::borrow::Cow;
use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core::{Core, Removed};
use crate::dump::Dump;
use crate::join::JoinHandle;
use crate::ready::Priority;
use crate::task::{Name, TaskId};
use crate::time::Time;
use crate::trace::Op;
use crate::wait::Key;

/// The way to a scheduler, for its tasks and for its driver. Cheap to clone.
///
/// A handle may outlive the scheduler: then nothing runs any more, and a task spawned through it is
/// dropped at once and counts as cancelled.
///
/// A task's own waker does nothing, so a task may only wait for what a handle gave it, directly or through
/// combinators: a future woken from elsewhere (a channel of another executor, say) would never be polled
/// again, and is shown by [`Handle::dump`] as waiting for nothing the scheduler knows. Combinators that
/// poll their parts with wakers of their own work: those are called.
#[derive(Clone)]
pub struct Handle {
    core: Rc<RefCell<Core>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// The result of [`Handle::select`]: which of the two was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first future, with its output.
    Left(A),
    /// The second future, with its output.
    Right(B),
}

/// The time of a [`Handle::timeout`] was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("waiting for a future: its time was up")
    }
}

impl std::error::Error for Elapsed {}

impl Handle {
    pub(crate) const fn new(core: Rc<RefCell<Core>>) -> Self {
        Self { core }
    }

    #[inline]
    pub(crate) fn core(&self) -> RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    /// Starts a task. Called by a task, the new one is its child; called by the driver, or by a destructor
    /// of a task that is being dropped, it is a root.
    ///
    /// It is put at the end of its level of the ready queue and not polled yet. A task that ends, however
    /// it ends, takes its children with it: see [`JoinHandle`].
    pub fn spawn<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        priority: Priority,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        // Before the borrow: a conversion is the caller's code.
        let name = Name::from(name.into());
        let frame = Box::pin(future);
        let mut core = self.core();
        if core.closed {
            core.record(Op::Refused, 0);
            drop(core);
            // Only now, since its destructor may make syscalls.
            drop(frame);
            return JoinHandle::new(self.clone(), TaskId::NOBODY);
        }
        let id = core.spawn(name, priority, frame);
        drop(core);
        JoinHandle::new(self.clone(), id)
    }

    /// Lets all tasks that are ready run, those of this task's priority once and the others as the
    /// [weights](Priority::weight) give, before this one goes on.
    #[must_use = "a future does nothing unless it is awaited"]
    pub fn yield_now(&self) -> YieldNow {
        YieldNow {
            handle: self.clone(),
            yielded: false,
        }
    }

    /// Waits for `duration` from now, that is from this call.
    #[must_use = "a future does nothing unless it is awaited"]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Waits until the clock has reached `deadline`. If it has already, this is a [yield](Self::yield_now),
    /// so that a loop around a sleep always lets others run.
    #[must_use = "a future does nothing unless it is awaited"]
    pub fn sleep_until(&self, deadline: Time) -> Sleep {
        Sleep {
            handle: self.clone(),
            deadline,
            progress: Progress::Fresh,
        }
    }

    /// Waits for a [signal](Self::signal) or [broadcast](Self::broadcast) on `key` that comes from another
    /// task. Done at once when a permit is kept for the key. Those who wait are served in the order in
    /// which they began to.
    #[must_use = "a future does nothing unless it is awaited"]
    pub fn wait(&self, key: Key) -> Wait {
        Wait {
            handle: self.clone(),
            key,
            external: false,
            progress: Progress::Fresh,
        }
    }

    /// As [`wait`](Self::wait), for a signal that may come from outside the scheduler: while somebody waits
    /// like this, having nothing to run is no deadlock.
    #[must_use = "a future does nothing unless it is awaited"]
    pub fn wait_external(&self, key: Key) -> Wait {
        Wait {
            handle: self.clone(),
            key,
            external: true,
            progress: Progress::Fresh,
        }
    }

    /// Wakes the first who waits for `key`. If nobody does, one permit is kept for it, which the next wait
    /// takes; permits add up, to at most 2³² − 1.
    ///
    /// A permit for a key that nobody will wait for again takes memory for ever: see
    /// [`clear`](Self::clear).
    pub fn signal(&self, key: Key) {
        let waker = self.core().signal(key);
        call(waker);
    }

    /// Wakes all who wait for `key`, in the order in which they began to. Keeps nothing if nobody does.
    pub fn broadcast(&self, key: Key) {
        let wakers = self.core().broadcast(key);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Throws away the permits kept for `key` and says how many there were: for whoever gives up on a key
    /// that may still have been signalled.
    pub fn clear(&self, key: Key) -> u32 {
        self.core().clear(key)
    }

    /// A key that was never given before. It needs no giving back.
    #[must_use]
    pub fn new_key(&self) -> Key {
        self.core().new_key()
    }

    /// Waits for the first of two futures and drops the other. `a` is polled first, and so wins a tie.
    pub fn select<A, B>(
        &self,
        a: A,
        b: B,
    ) -> impl Future<Output = Either<A::Output, B::Output>> + use<A, B>
    where
        A: Future,
        B: Future,
    {
        let handle = self.clone();
        async move {
            let (mut a, mut b) = (pin!(a), pin!(b));
            poll_fn(|context| {
                if let Poll::Ready(output) = a.as_mut().poll(context) {
                    handle.core().record(Op::SelectLeft, 0);
                    return Poll::Ready(Either::Left(output));
                }
                if let Poll::Ready(output) = b.as_mut().poll(context) {
                    handle.core().record(Op::SelectRight, 0);
                    return Poll::Ready(Either::Right(output));
                }
                Poll::Pending
            })
            .await
        }
    }

    /// Waits for `future`, but no longer than `duration` from this call; then it is dropped. A future that
    /// is done when the time is up has made it.
    pub fn timeout<F>(
        &self,
        duration: Duration,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + use<F>
    where
        F: Future,
    {
        let handle = self.clone();
        let sleep = self.sleep(duration);
        async move {
            match handle.select(future, sleep).await {
                Either::Left(output) => Ok(output),
                Either::Right(()) => Err(Elapsed),
            }
        }
    }

    /// Cancels a task and all its descendants; `false` if it has ended already.
    ///
    /// It takes effect when the loop next reaches the task, which is made ready for that if it is not.
    /// Until then its children may still run, and the calling task, if it is that one itself, runs on to
    /// its next await or its end. Then frames are dropped, descendants before their ancestors and the younger of two siblings
    /// first. Whoever joins one of them gets [`JoinError::Cancelled`](crate::JoinError::Cancelled).
    ///
    /// Destructors may use handles: what they spawn becomes a root, and lives.
    pub fn cancel(&self, task: TaskId) -> bool {
        self.core().cancel(task)
    }

    /// The task that is being polled; `None` for the driver and in destructors of a task being dropped.
    #[must_use]
    pub fn current(&self) -> Option<TaskId> {
        let current = self.core().current;
        (current != TaskId::NOBODY).then_some(current)
    }

    /// What the clock says: the last time given to [`Scheduler::advance_to`](crate::Scheduler::advance_to).
    #[must_use]
    pub fn now(&self) -> Time {
        self.core().now
    }

    /// Every task, what it is doing and since when.
    #[must_use]
    pub fn dump(&self) -> Dump {
        self.core().dump()
    }
}

/// What every task is polled with. A static of our own, so that there is exactly one: what [`Waker::noop`] gives is a
/// constant, of which the compiler may make a copy wherever it is asked for, and two copies are not told to be equal.
pub(crate) static TASK_WAKER: &Waker = Waker::noop();

/// The waker to be called beside making the task ready: the one at hand, unless it is a task's own, which
/// does nothing.
#[inline]
pub(crate) fn foreign_waker(context: &Context<'_>) -> Option<Waker> {
    let waker = context.waker();
    (!waker.will_wake(TASK_WAKER)).then(|| waker.clone())
}

/// Calls a waker, if there is one, with nothing borrowed.
#[inline]
fn call(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// How far the future of a wait is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// Not polled yet.
    Fresh,
    /// Registered, as this waiter.
    Waiting(u32),
    /// Over with its next poll.
    Yielded,
    /// Over.
    Done,
}

impl Progress {
    /// Asks how a registered wait stands.
    #[inline]
    pub(crate) fn poll(&mut self, handle: &Handle, waiter: u32, context: &Context<'_>) -> Poll<()> {
        let waker = foreign_waker(context);
        let (done, stale) = handle.core().poll_waiter(waiter, waker);
        drop(stale);
        if !done {
            return Poll::Pending;
        }
        *self = Self::Done;
        Poll::Ready(())
    }

    /// Takes a wait back whose future is dropped.
    #[inline]
    pub(crate) fn abandon(&mut self, handle: &Handle) {
        if let Self::Waiting(waiter) = *self {
            abandon(handle, waiter);
        }
    }
}

/// Removes a waiter, which few futures still have when they are dropped.
#[cold]
fn abandon(handle: &Handle, waiter: u32) {
    let Removed { wake, stale } = handle.core().remove_waiter(waiter);
    drop(stale);
    call(wake);
}

/// The future of [`Handle::yield_now`].
#[derive(Debug)]
pub struct YieldNow {
    handle: Handle,
    yielded: bool,
}

impl YieldNow {
    #[inline]
    fn begin(&mut self, context: &Context<'_>) {
        self.yielded = true;
        self.handle.core().yield_now();
        if let Some(waker) = foreign_waker(context) {
            waker.wake();
        }
    }
}

impl Future for YieldNow {
    type Output = ();

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.begin(context);
        Poll::Pending
    }
}

/// The future of [`Handle::sleep`] and [`Handle::sleep_until`].
#[derive(Debug)]
pub struct Sleep {
    handle: Handle,
    deadline: Time,
    progress: Progress,
}

impl Sleep {
    /// When it will be over.
    #[must_use]
    pub const fn deadline(&self) -> Time {
        self.deadline
    }
}

impl Sleep {
    fn begin(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut waker = foreign_waker(context);
        let waiter = self.handle.core().sleep(self.deadline, &mut waker);
        self.progress = waiter.map_or(Progress::Yielded, Progress::Waiting);
        // Still here if the deadline has passed.
        call(waker);
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match this.progress {
            Progress::Fresh => this.begin(context),
            Progress::Waiting(waiter) => this.progress.poll(&this.handle, waiter, context),
            Progress::Yielded | Progress::Done => {
                this.progress = Progress::Done;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Sleep {
    #[inline]
    fn drop(&mut self) {
        self.progress.abandon(&self.handle);
    }
}

/// The future of [`Handle::wait`] and [`Handle::wait_external`].
#[derive(Debug)]
pub struct Wait {
    handle: Handle,
    key: Key,
    external: bool,
    progress: Progress,
}

impl Wait {
    /// What it waits for.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }

    fn begin(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut waker = foreign_waker(context);
        let waiter = self.handle.core().wait(self.key, self.external, &mut waker);
        self.progress = waiter.map_or(Progress::Done, Progress::Waiting);
        if waiter.is_some() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

/// # Panics
///
/// When polled after it was done: the signal it got was one.
impl Future for Wait {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        match this.progress {
            Progress::Fresh => this.begin(context),
            Progress::Waiting(waiter) => this.progress.poll(&this.handle, waiter, context),
            Progress::Yielded | Progress::Done => panic!("`Wait` polled after it was done"),
        }
    }
}

impl Drop for Wait {
    #[inline]
    fn drop(&mut self) {
        self.progress.abandon(&self.handle);
    }
}
