//! What an executor of futures has to have to be measured, and what those get that lack it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A single-threaded executor of futures. A value of it is the way to it from within a task.
pub(crate) trait Peer: Clone + 'static {
    /// Something to wait for, with one who waits.
    type Event: Clone + 'static;

    /// Runs a task to its end, and whatever it spawns for as long as that takes.
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Starts a task; what is given back is awaited for its value.
    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Starts a task that nobody awaits.
    fn detach(&self, future: impl Future<Output = ()> + 'static);

    /// Lets the others run.
    fn yield_now(&self) -> impl Future<Output = ()>;

    /// A new event.
    fn event(&self) -> Self::Event;

    /// Wakes who waits for the event, or lets the next wait pass.
    fn notify(&self, event: &Self::Event);

    /// Waits for the event.
    fn wait(&self, event: &Self::Event) -> impl Future<Output = ()>;

    /// Waits, as the runtime's own users would, for what never comes, and keeps the task alive.
    fn park(&self) -> impl Future<Output = ()> + 'static;

    /// Waits on the runtime's timers; `None` if it has none.
    fn sleep(&self, _: Duration) -> Option<impl Future<Output = ()> + 'static> {
        None::<std::future::Ready<()>>
    }

    /// As [`Peer::run`] on a clock that jumps to the next deadline when nothing is ready; `None` if it has no such
    /// thing.
    fn run_virtual<F>(_: impl FnOnce(Self) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        None
    }
}

/// An executor of futures that is nothing else: its tasks yield by waking themselves and wait on a [`Flag`].
pub(crate) trait Executor: Clone + 'static {
    /// As [`Peer::run`].
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static;

    /// As [`Peer::spawn`].
    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static;

    /// As [`Peer::detach`].
    fn detach(&self, future: impl Future<Output = ()> + 'static);
}

impl<E: Executor> Peer for E {
    type Event = SharedFlag;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        <E as Executor>::run(main)
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Executor::spawn(self, future)
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        Executor::detach(self, future);
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        yield_by_waking()
    }

    fn event(&self) -> SharedFlag {
        SharedFlag::default()
    }

    fn notify(&self, event: &SharedFlag) {
        event.notify();
    }

    fn wait(&self, event: &SharedFlag) -> impl Future<Output = ()> {
        event.wait()
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        park_on_waker()
    }
}

/// The least that a task can wait for: one flag and one waker, for one thread. For runtimes without such a thing of
/// their own, so that their executor is measured and not somebody's channel.
#[derive(Default)]
pub(crate) struct Flag {
    permit: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Flag {
    pub(crate) fn notify(&self) {
        self.permit.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if self.permit.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

/// A [`Flag`] shared by two tasks.
pub(crate) type SharedFlag = Rc<Flag>;

/// Waits for ever with nothing but the waker kept, in the task's own frame.
pub(crate) async fn park_on_waker() {
    Flag::default().wait().await;
}

/// Wakes itself once.
pub(crate) fn yield_by_waking() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Passes for `Send` where a single-threaded runtime asks for it all the same.
pub(crate) struct AssertSend<T>(pub(crate) T);

// SAFETY: only given to runtimes that live on the thread that made it: `current_thread` of tokio, driven by `block_on`
// on this thread, polls and drops tasks nowhere else.
unsafe impl<T> Send for AssertSend<T> {}

impl<F: Future> Future for AssertSend<F> {
    type Output = AssertSend<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the one field is pinned with the whole and never moved out of it.
        let inner = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        inner.poll(context).map(AssertSend)
    }
}
