//! Combinators that, like `FuturesUnordered`, poll a part only after the waker they gave it was called.
//! Under these a future that only makes its task ready, and forgets the waker it was polled with, hangs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One future behind a waker of its own.
pub(crate) struct Foreign<F> {
    future: Pin<Box<F>>,
    woken: Arc<Flag>,
}

impl<F: Future> Foreign<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            woken: Arc::new(Flag(AtomicBool::new(true))),
        }
    }
}

impl<F: Future> Future for Foreign<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<F::Output> {
        if !self.woken.0.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// Many futures, each behind a waker of its own.
pub(crate) struct JoinAll<F: Future>(Vec<Option<Foreign<F>>>);

impl<F: Future> JoinAll<F> {
    pub(crate) fn new(futures: Vec<F>) -> Self {
        Self(
            futures
                .into_iter()
                .map(|future| Some(Foreign::new(future)))
                .collect(),
        )
    }
}

impl<F: Future> Future for JoinAll<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        for place in &mut self.0 {
            if place
                .as_mut()
                .is_some_and(|part| Pin::new(part).poll(context).is_ready())
            {
                *place = None;
            }
        }
        if self.0.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
