//! The least possible: boxed futures in a `VecDeque`, polled in turn whether they have anything to do or not, with a
//! waker that does nothing. **Not the limit**, since it is no executor: a thousand parked tasks would be polled for
//! ever. It says what polling and queueing alone cost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::peer::Peer;

type Queue = RefCell<VecDeque<Pin<Box<dyn Future<Output = ()>>>>>;

/// The way to the queue.
#[derive(Clone)]
pub(crate) struct Least(Rc<Queue>);

/// Pending as long as `ready` gives nothing.
fn until<T>(mut ready: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    poll_fn(move |_| ready().map_or(Poll::Pending, Poll::Ready))
}

impl Peer for Least {
    type Event = Rc<Cell<bool>>;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let least = Self(Rc::default());
        let output = Rc::new(Cell::new(None));
        let (place, main) = (Rc::clone(&output), main(least.clone()));
        least.detach(async move { place.set(Some(main.await)) });
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let next = least.0.borrow_mut().pop_front();
            let Some(mut task) = next else { break };
            if task.as_mut().poll(&mut context).is_pending() {
                least.0.borrow_mut().push_back(task);
            }
        }
        output.take().expect("a task that ended")
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let output = Rc::new(Cell::new(None));
        let place = Rc::clone(&output);
        self.detach(async move { place.set(Some(future.await)) });
        until(move || output.take())
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push_back(Box::pin(future));
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        let mut polled = false;
        until(move || std::mem::replace(&mut polled, true).then_some(()))
    }

    fn event(&self) -> Rc<Cell<bool>> {
        Rc::default()
    }

    fn notify(&self, event: &Rc<Cell<bool>>) {
        event.set(true);
    }

    fn wait(&self, event: &Rc<Cell<bool>>) -> impl Future<Output = ()> {
        until(|| event.take().then_some(()))
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        std::future::pending()
    }
}
