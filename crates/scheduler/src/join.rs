//! The exit value of a task, and the right to it.
//!
//! A task's outcome stays in its slot until its [`JoinHandle`], of which there is exactly one, takes it or
//! is dropped. So a value is never copied, and whether anybody will want it is always known.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::handle::{Handle, Progress, foreign_waker};
use crate::task::{Outcome, TaskId};

/// Why a task has no exit value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// It was cancelled: by name, with an ancestor, because its parent ended, or with the scheduler.
    Cancelled,
    /// It panicked, with this message.
    Panicked(String),
}

impl JoinError {
    /// Whether the task was cancelled.
    #[must_use]
    pub const fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("joining a task: it was cancelled"),
            Self::Panicked(message) => write!(f, "joining a task: it panicked: {message}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// A spawned task, seen from its parent: await it for the task's exit value.
///
/// **Dropping it detaches** the task: it goes on, and its exit value is dropped when it ends. That does not
/// free it from the tree: concurrency is structured, and a task that ends, by returning, by a panic or by
/// being cancelled, first has all its descendants cancelled, and is only then seen as ended by whoever joins
/// it. A task that wants its children's work joins them.
///
/// # Panics
///
/// When polled after it gave the exit value.
#[must_use = "dropping a join handle detaches the task; say so with `detach`"]
pub struct JoinHandle<T> {
    handle: Handle,
    id: TaskId,
    progress: Progress,
    output: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<T> JoinHandle<T> {
    pub(crate) const fn new(handle: Handle, id: TaskId) -> Self {
        Self {
            handle,
            id,
            progress: Progress::Fresh,
            output: PhantomData,
        }
    }

    /// The task. One that a scheduler refused because it was gone has an id that names nothing.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Cancels the task, as [`Handle::cancel`] does.
    pub fn cancel(&self) -> bool {
        self.handle.cancel(self.id)
    }

    /// Lets the task go on alone; its exit value will be dropped. The same as dropping the handle, in words.
    pub fn detach(self) {}
}

impl<T: 'static> JoinHandle<T> {
    /// The exit value, if the task has ended and it was not taken before: for a driver, which has no task
    /// to await it in.
    #[inline]
    pub fn try_join(&mut self) -> Option<Result<T, JoinError>> {
        let waiter = match self.progress {
            Progress::Done => return None,
            Progress::Waiting(waiter) => Some(waiter),
            Progress::Fresh | Progress::Yielded => None,
        };
        if self.id == TaskId::NOBODY {
            self.progress = Progress::Done;
            return Some(Err(JoinError::Cancelled));
        }
        let (outcome, stale) = self.handle.core().take_outcome(self.id, waiter)?;
        drop(stale);
        self.progress = Progress::Done;
        Some(exit_value(outcome))
    }
}

/// Gives an outcome its type back.
#[inline]
fn exit_value<T: 'static>(outcome: Outcome) -> Result<T, JoinError> {
    match outcome {
        Outcome::Returned(output) => Ok(*output.downcast::<T>().expect(
            "a value of the type that the handle was made with, because both come from `spawn`",
        )),
        Outcome::Cancelled => Err(JoinError::Cancelled),
        Outcome::Panicked(message) => Err(JoinError::Panicked(message.into())),
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(result) = this.try_join() {
            return Poll::Ready(result);
        }
        match this.progress {
            Progress::Fresh => {
                let mut waker = foreign_waker(context);
                this.progress = Progress::Waiting(this.handle.core().join(this.id, &mut waker));
                Poll::Pending
            }
            // Polled for another reason than the task's end, or by another task than before.
            Progress::Waiting(waiter) => {
                this.progress.poll(&this.handle, waiter, context).map(|()| {
                    unreachable!(
                        "a waiter for a task is woken by its end, whose outcome was looked for"
                    )
                })
            }
            Progress::Yielded | Progress::Done => panic!("`JoinHandle` polled after it was done"),
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if !matches!(self.progress, Progress::Done) {
            self.progress.abandon(&self.handle);
            detach(&self.handle, self.id);
        }
    }
}

/// Gives up the right to a task's exit value.
fn detach(handle: &Handle, id: TaskId) {
    let unwanted = handle.core().detach(id);
    // Only now, since its destructor may make syscalls.
    drop(unwanted);
}
