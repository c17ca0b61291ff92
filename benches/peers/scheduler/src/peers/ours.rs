//! `scheduler`, with all it always does: priorities, the tree of tasks, cancellation, the trace hash.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use scheduler::{Handle, Idle, Key, LongPoll, Options, Priority, Scheduler};

use crate::peer::Peer;

/// Without the watch on long polls.
pub(crate) type Ours = Handle;

/// With the watch on long polls, as the daemon has it: a coarse clock, read at every poll.
#[derive(Clone)]
pub(crate) struct Watched(Handle);

/// Options as the daemon sets them.
pub(crate) fn watched() -> Options {
    Options {
        long_poll: Some(LongPoll {
            limit: Duration::from_millis(50),
            clock: Box::new(|| {
                let now = clock_gettime(ClockId::MonotonicCoarse);
                now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
            }),
        }),
        ..Options::default()
    }
}

fn run<F>(mut scheduler: Scheduler, main: impl FnOnce(Handle) -> F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    let handle = scheduler.handle();
    let mut joined = handle.spawn("main", Priority::Normal, main(handle.clone()));
    assert!(matches!(scheduler.run_virtual(), Idle::Finished));
    let joined = joined.try_join().expect("a task that ended");
    joined.expect("a task that returned")
}

impl Peer for Ours {
    type Event = Key;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        run(Scheduler::default(), main)
    }

    fn run_virtual<F>(main: impl FnOnce(Self) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Some(Self::run(main))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let joined = self.spawn("task", Priority::Normal, future);
        async move { joined.await.expect("a task that returned") }
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.spawn("task", Priority::Normal, future).detach();
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        self.yield_now()
    }

    fn event(&self) -> Key {
        self.new_key()
    }

    fn notify(&self, &event: &Key) {
        self.signal(event);
    }

    fn wait(&self, &event: &Key) -> impl Future<Output = ()> {
        self.wait(event)
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        self.wait(self.new_key())
    }

    fn sleep(&self, duration: Duration) -> Option<impl Future<Output = ()> + 'static> {
        Some(self.sleep(duration))
    }
}

impl Peer for Watched {
    type Event = Key;

    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        run(Scheduler::new(watched()), |handle| main(Self(handle)))
    }

    fn run_virtual<F>(main: impl FnOnce(Self) -> F + 'static) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Some(Self::run(main))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Peer::spawn(&self.0, future)
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.0.detach(future);
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        self.0.yield_now()
    }

    fn event(&self) -> Key {
        self.0.event()
    }

    fn notify(&self, event: &Key) {
        self.0.notify(event);
    }

    fn wait(&self, &event: &Key) -> impl Future<Output = ()> {
        self.0.wait(event)
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        self.0.park()
    }

    fn sleep(&self, duration: Duration) -> Option<impl Future<Output = ()> + 'static> {
        Some(self.0.sleep(duration))
    }
}
