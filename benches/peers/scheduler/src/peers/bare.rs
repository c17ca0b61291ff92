//! **The limit**: the least that is still an executor. Tasks are counted cells with a future inside, a flag for being
//! queued and a waker that queues them; a join is a waker kept in the joined task. One allocation a task, nothing
//! atomic, nothing checked. No ids, no priorities, no tree, no cancellation, no timers, no catching of panics.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use crate::peer::Executor;

type Queue = RefCell<VecDeque<Rc<dyn Runnable>>>;

/// The way to the executor.
#[derive(Clone)]
pub(crate) struct Bare(Rc<Queue>);

/// A future without its type, as the queue holds it.
trait Runnable {
    fn step(self: Rc<Self>);
}

/// A task without its future's type, as a join handle holds it.
trait Joinable<T> {
    fn join(&self, context: &Context<'_>) -> Poll<T>;
}

struct Task<F: Future> {
    queue: Rc<Queue>,
    queued: Cell<bool>,
    output: Cell<Option<F::Output>>,
    joiner: Cell<Option<Waker>>,
    future: UnsafeCell<Option<F>>,
}

impl<F: Future + 'static> Task<F> {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            // SAFETY: `data` came from `Rc::into_raw` of this type, and the waker it belongs to is alive.
            unsafe { Rc::increment_strong_count(data.cast::<Self>()) };
            RawWaker::new(data, &Self::VTABLE)
        },
        // SAFETY: as above, and this waker's count is given up.
        |data| unsafe { Rc::from_raw(data.cast::<Self>()) }.make_ready(),
        |data| {
            // SAFETY: as above.
            unsafe { Rc::increment_strong_count(data.cast::<Self>()) };
            // SAFETY: the count just taken.
            unsafe { Rc::from_raw(data.cast::<Self>()) }.make_ready();
        },
        // SAFETY: as above, and this waker's count is given up.
        |data| drop(unsafe { Rc::from_raw(data.cast::<Self>()) }),
    );

    #[inline]
    fn make_ready(self: Rc<Self>) {
        if !self.queued.replace(true) {
            let queue = Rc::clone(&self.queue);
            queue.borrow_mut().push_back(self);
        }
    }
}

impl<F: Future + 'static> Runnable for Task<F> {
    fn step(self: Rc<Self>) {
        self.queued.set(false);
        let data = Rc::as_ptr(&self).cast();
        // SAFETY: the data is a task of this type. The waker borrows the count of `self` and is never dropped; the
        // whole program has one thread.
        let waker = std::mem::ManuallyDrop::new(unsafe {
            Waker::from_raw(RawWaker::new(data, &Self::VTABLE))
        });
        // SAFETY: nobody else has a reference: only the loop calls `step`, and it calls it not within itself.
        let slot = unsafe { &mut *self.future.get() };
        let Some(future) = slot else {
            return;
        };
        // SAFETY: the future is in a counted cell that never moves, and is dropped in its place.
        let future = unsafe { Pin::new_unchecked(future) };
        if let Poll::Ready(output) = future.poll(&mut Context::from_waker(&waker)) {
            *slot = None;
            self.output.set(Some(output));
            if let Some(joiner) = self.joiner.take() {
                joiner.wake();
            }
        }
    }
}

impl<F: Future> Joinable<F::Output> for Task<F> {
    fn join(&self, context: &Context<'_>) -> Poll<F::Output> {
        if let Some(output) = self.output.take() {
            return Poll::Ready(output);
        }
        self.joiner.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Bare {
    fn start<F>(&self, future: F) -> Rc<Task<F>>
    where
        F: Future + 'static,
    {
        let task = Rc::new(Task {
            queue: Rc::clone(&self.0),
            queued: Cell::new(false),
            output: Cell::new(None),
            joiner: Cell::new(None),
            future: UnsafeCell::new(Some(future)),
        });
        Rc::clone(&task).make_ready();
        task
    }
}

impl Executor for Bare {
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let bare = Self(Rc::default());
        let main = bare.start(main(bare.clone()));
        loop {
            let next = bare.0.borrow_mut().pop_front();
            match next {
                Some(task) => task.step(),
                None => break,
            }
        }
        main.output.take().expect("a task that ended")
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let task: Rc<dyn Joinable<F::Output>> = self.start(future);
        poll_fn(move |context| task.join(context))
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.start(future);
    }
}
