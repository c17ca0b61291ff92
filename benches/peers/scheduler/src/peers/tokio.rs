//! tokio, `current_thread`: plain, and with a `LocalSet`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use crate::peer::{AssertSend, Peer};

/// `tokio::spawn`.
#[derive(Clone)]
pub(crate) struct CurrentThread;

/// `tokio::task::spawn_local`.
#[derive(Clone)]
pub(crate) struct Local;

/// A runtime without I/O, and with timers only for those who ask.
fn runtime(paused: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    if paused {
        builder.enable_time().start_paused(true);
    }
    builder.build().expect("a runtime without I/O")
}

async fn park() {
    Notify::new().notified().await;
}

fn run_plain<F>(paused: bool, main: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    runtime(paused).block_on(async { CurrentThread.spawn(main).await })
}

fn run_local<F>(paused: bool, main: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    LocalSet::new().block_on(&runtime(paused), async { Local.spawn(main).await })
}

impl Peer for CurrentThread {
    type Event = Arc<Notify>;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        run_plain(false, main(Self))
    }

    fn run_virtual<F>(main: impl FnOnce(Self) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Some(run_plain(true, main(Self)))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let joined = tokio::spawn(AssertSend(future));
        async move { joined.await.expect("a task that returned").0 }
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        tokio::spawn(AssertSend(future));
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }

    fn event(&self) -> Arc<Notify> {
        Arc::default()
    }

    fn notify(&self, event: &Arc<Notify>) {
        event.notify_one();
    }

    fn wait(&self, event: &Arc<Notify>) -> impl Future<Output = ()> {
        event.notified()
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        park()
    }

    fn sleep(&self, duration: Duration) -> Option<impl Future<Output = ()> + 'static> {
        Some(tokio::time::sleep(duration))
    }
}

impl Peer for Local {
    type Event = Rc<Notify>;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        run_local(false, main(Self))
    }

    fn run_virtual<F>(main: impl FnOnce(Self) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Some(run_local(true, main(Self)))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let joined = tokio::task::spawn_local(future);
        async move { joined.await.expect("a task that returned") }
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(future);
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }

    fn event(&self) -> Rc<Notify> {
        Rc::default()
    }

    fn notify(&self, event: &Rc<Notify>) {
        event.notify_one();
    }

    fn wait(&self, event: &Rc<Notify>) -> impl Future<Output = ()> {
        event.notified()
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        park()
    }

    fn sleep(&self, duration: Duration) -> Option<impl Future<Output = ()> + 'static> {
        Some(tokio::time::sleep(duration))
    }
}
