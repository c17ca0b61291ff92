//! A program's whole world.
//!
//! Whatever a program learns, it learns through its context, and every answer comes from the journal: first written,
//! then given. That is what makes a job recoverable and replayable.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use scheduler::{Handle, JoinHandle, Priority};

pub use scheduler::Either;

use crate::cell::Cell;
use crate::effect::{EffectClass, EffectError};
use crate::ids::{JobId, StepIndex};
use crate::json::Json;
use crate::policy::EffectPolicy;

/// What a program asks for when it asks for an effect.
#[derive(Clone, Debug)]
pub struct EffectRequest {
    kind: String,
    label: String,
    title: Option<String>,
    input: Json,
    policy: EffectPolicy,
}

impl EffectRequest {
    /// An effect of the handler `kind`, tried once, of class `external`.
    #[must_use]
    pub fn new(kind: impl Into<String>, input: Json) -> Self {
        let kind = kind.into();
        Self {
            label: kind.clone(),
            kind,
            title: None,
            input,
            policy: EffectPolicy::default(),
        }
    }

    /// Names the step.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says in words what the step is for.
    #[must_use]
    pub fn title(mut self, title: Option<String>) -> Self {
        self.title = title;
        self
    }

    /// Says what an interruption of it means.
    #[must_use]
    pub fn class(mut self, class: EffectClass) -> Self {
        self.policy.class = class;
        self
    }

    /// Says how it is to be tried.
    #[must_use]
    pub fn policy(mut self, policy: EffectPolicy) -> Self {
        self.policy = policy;
        self
    }
}

/// The time a program allowed for something was over before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time allowed was over")]
pub struct Elapsed;

/// The end of a child task that gave no value.
pub use scheduler::JoinError;

/// A program's access to everything that is not the program. Cheap to clone; every task of a job has one.
#[derive(Clone)]
pub struct Context {
    cell: Rc<Cell>,
    handle: Handle,
    priority: Priority,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("job", &self.cell.job())
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(cell: Rc<Cell>, handle: Handle, priority: Priority) -> Self {
        Self {
            cell,
            handle,
            priority,
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.cell.job()
    }

    /// The job's time in Unix milliseconds: when the last thing it was told happened. It stands still between two
    /// answers, and a replay sees the same.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.cell.now_ms()
    }

    /// A number from a stream that depends on the job's id alone. Not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.cell.random()
    }

    /// Has an effect carried out, and waits for what it comes to. Dropping the future gives the effect up: it is
    /// ended if it runs.
    ///
    /// # Errors
    ///
    /// Why the effect failed for good, after all the tries that its policy allows; or, if the daemon died while it
    /// ran and its class does not allow to run it again, that its outcome is unknown
    /// ([`EffectError::is_interrupted`]).
    pub async fn effect(&self, request: EffectRequest) -> Result<Json, EffectError> {
        let EffectRequest {
            kind,
            label,
            title,
            input,
            policy,
        } = request;
        let opened = self
            .cell
            .open_effect(&self.handle, kind, label, title, policy, input);
        self.answer(opened, Cell::take_effect).await
    }

    /// Waits until `duration` of the job's time has passed.
    pub async fn sleep(&self, duration: Duration) {
        let wait_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let opened = self.cell.open_timer(&self.handle, wait_ms);
        self.answer(opened, Cell::take_time).await;
    }

    /// Waits for a signal from outside. One that came before is kept, and given at once.
    pub async fn signal(&self, name: &str) -> Json {
        if let Some(json) = self.cell.take_letter(name) {
            return json;
        }
        let opened = self.cell.open_signal(&self.handle, name);
        self.answer(opened, Cell::take_signal).await
    }

    async fn answer<T>(
        &self,
        opened: Option<(StepIndex, scheduler::Key)>,
        take: impl Fn(&Cell, StepIndex) -> Option<T>,
    ) -> T {
        let Some((step, key)) = opened else {
            // The program has left its journal, or is being taken down: it stands still from here on.
            loop {
                self.handle.wait_external(self.handle.new_key()).await;
            }
        };
        let _open = OpenStep {
            cell: &self.cell,
            step,
        };
        loop {
            if let Some(answer) = take(&self.cell, step) {
                return answer;
            }
            self.handle.wait_external(key).await;
        }
    }

    /// Runs both until one is over, and drops the other. When both are over at once the left one wins.
    pub async fn select<A: Future, B: Future>(&self, a: A, b: B) -> Either<A::Output, B::Output> {
        self.handle.select(a, b).await
    }

    /// Runs a future for at most `duration` of the job's time, and drops it then.
    ///
    /// # Errors
    ///
    /// If the time was over first.
    pub async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        match self.select(future, self.sleep(duration)).await {
            Either::Left(output) => Ok(output),
            Either::Right(()) => Err(Elapsed),
        }
    }

    /// Starts a task beside this one, within the job. It ends with the task that started it, at the latest.
    pub fn spawn<T, F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let task = self.handle.spawn(name, self.priority, future);
        self.cell.add_child(task.id());
        task
    }

    /// A latch for this job's tasks to wait on each other.
    #[must_use]
    pub fn latch(&self) -> Latch {
        Latch {
            handle: self.handle.clone(),
            key: self.handle.new_key(),
            is_set: std::cell::Cell::new(false),
        }
    }

    /// Tells something to whoever watches. It is journaled, and shown once it is durable; a replay does not show it
    /// again.
    pub fn emit(&self, event: pal::EventKind) {
        self.cell.emit(event);
    }

    /// Which branch of a change of this program to take. A new job takes branch `max`; one that is past this point
    /// already goes on as it began: by the branch its journal names, or by 0 if it began before the change was
    /// made.
    #[must_use]
    pub fn version(&self, change: &str, max: u32) -> u32 {
        self.cell.version(change, max)
    }

    /// Folds the history so far into `state` and begins the program anew, which finds it in
    /// [`checkpointed`](Self::checkpointed). A crash after this goes back to here and no further, so recovery time
    /// follows the live state and not the job's age.
    ///
    /// This never returns. A program that has been begun anew in every life is known to be able to, while one that
    /// were only begun anew after a crash would show then what its state lacks.
    ///
    /// # Panics
    ///
    /// If another task than the program's own asks, or anything of this job is still waited for: its answer would be
    /// lost. The job fails then, saying so.
    pub async fn checkpoint(&self, state: Json) -> Infallible {
        self.cell.checkpoint(self.handle.current(), state);
        std::future::pending().await
    }

    /// The state of the checkpoint that this run of the program starts from; `None` at the very beginning.
    #[must_use]
    pub fn checkpointed(&self) -> Option<Json> {
        self.cell.checkpointed()
    }
}

/// Something that happens once, for the tasks of one job.
pub struct Latch {
    handle: Handle,
    key: scheduler::Key,
    is_set: std::cell::Cell<bool>,
}

impl Latch {
    /// Lets everybody go on who waits for it, now and later.
    pub fn set(&self) {
        if !self.is_set.replace(true) {
            self.handle.broadcast(self.key);
        }
    }

    /// Waits until it is set.
    pub async fn wait(&self) {
        while !self.is_set.get() {
            self.handle.wait(self.key).await;
        }
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch")
            .field("is_set", &self.is_set.get())
            .finish_non_exhaustive()
    }
}

/// What a task waits for. Dropping it lets go of the step.
struct OpenStep<'a> {
    cell: &'a Cell,
    step: StepIndex,
}

impl Drop for OpenStep<'_> {
    fn drop(&mut self) {
        self.cell.let_go(self.step);
    }
}
