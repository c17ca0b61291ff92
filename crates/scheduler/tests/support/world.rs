//! A scheduler with a log, and short ways to start tasks that write to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use scheduler::{Handle, JoinHandle, Options, Priority, Scheduler};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A scheduler and a log that tasks write to.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) handle: Handle,
    pub(crate) log: Log,
}

/// Lines that tasks write.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.borrow_mut().push(line.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.0.take()
    }

    /// Logs `line` when dropped.
    pub(crate) fn on_drop(&self, line: &'static str) -> OnDrop<impl FnMut() + use<>> {
        let log = self.clone();
        OnDrop(move || log.add(line))
    }
}

/// Runs code when dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let scheduler = Scheduler::new(options);
        let handle = scheduler.handle();
        Self {
            scheduler,
            handle,
            log: Log::default(),
        }
    }

    pub(crate) fn spawn<F>(
        &self,
        name: &'static str,
        task: impl FnOnce(Handle, Log) -> F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.handle.spawn(
            name,
            Priority::Normal,
            task(self.handle.clone(), self.log.clone()),
        )
    }

    /// Spawns a task and lets it go.
    pub(crate) fn start<F>(&self, name: &'static str, task: impl FnOnce(Handle, Log) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.spawn(name, task).detach();
    }

    /// Asserts that no task, timer, wait or permit is left.
    pub(crate) fn assert_clean(&self) {
        let stats = self.scheduler.stats();
        let left = (
            stats.tasks,
            stats.ready,
            stats.timers,
            stats.waits,
            stats.keys,
        );
        assert_eq!(left, (0, 0, 0, 0, 0), "{}", self.scheduler.dump());
    }
}
