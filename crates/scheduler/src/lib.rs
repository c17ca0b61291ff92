//! A deterministic, single-threaded coroutine scheduler.
//!
//! Tasks are ordinary `async` blocks. They ask for everything through a [`Handle`]: to yield, to sleep, to
//! spawn and join others, to wait for a key and to signal one. The scheduler knows no I/O, no threads and no
//! clock: a driver tells it the time with [`Scheduler::advance_to`], lets it work with [`Scheduler::run`],
//! and brings in what happened outside by signalling keys in between.
//!
//! ```
//! use std::time::Duration;
//! use scheduler::{Idle, Priority, Scheduler, Time};
//!
//! let mut scheduler = Scheduler::default();
//! let handle = scheduler.handle();
//! let mut answer = scheduler.handle().spawn("parent", Priority::Normal, async move {
//!     let ready = handle.new_key();
//!     let child = handle.spawn("child", Priority::Normal, {
//!         let handle = handle.clone();
//!         async move {
//!             handle.sleep(Duration::from_secs(3600)).await;
//!             handle.signal(ready);
//!             42
//!         }
//!     });
//!     handle.wait(ready).await;
//!     child.await.unwrap_or_default()
//! });
//! assert_eq!(scheduler.run_virtual(), Idle::Finished);
//! assert_eq!(scheduler.handle().now(), Time::ZERO + Duration::from_secs(3600));
//! assert_eq!(answer.try_join(), Some(Ok(42)));
//! ```
//!
//! # What it promises
//!
//! - **Determinism.** What runs when follows from the order of syscalls alone, by the rules written at each
//!   of them: ready tasks in the order in which they became ready, within their [`Priority`]; timers by
//!   deadline, then by age; waiters for a key first come, first served. No address, hash order or wall
//!   clock has a part in it. [`Scheduler::trace_hash`] is a running hash over all of it.
//! - **Fairness.** A ready task runs within a known number of polls: [`Priority::polls_within`].
//! - **Structure.** A task's children end with it; nothing is left behind by a task that ended, returned,
//!   panicked or was cancelled: no timer, no place in line, no lost signal. See [`JoinHandle`] and
//!   [`Handle::cancel`].
//! - **Survival.** A panic ends its task and nothing else. So does one in a destructor.
//! - **Explanation.** [`Scheduler::dump`] says what every task waits for; a run that can never go on says so
//!   ([`Idle::Deadlock`]), and a task that holds the loop is named ([`Report::LongPoll`]).
//!
//! # Where things are
//!
//! `scheduler` is the loop and the driver's side, `handle` and `join` the syscalls, `core` the state both
//! work on. `ready`, [`timer`], `wait` with its `lines`, and `task` are the four structures it is made of, each usable and
//! tested alone. `dump`, `report` and `trace` are for those who look.

mod core;
mod dump;
mod handle;
mod join;
mod lines;
#[cfg(planted)]
pub mod planted;
mod ready;
mod report;
mod scheduler;
mod task;
mod time;
pub mod timer;
mod trace;
mod wait;

pub use crate::dump::{Dump, DumpedTask, Idle, TaskState, Waiting, WaitsFor};
pub use crate::handle::{Either, Elapsed, Handle, Sleep, Wait, YieldNow};
pub use crate::join::{JoinError, JoinHandle};
pub use crate::ready::Priority;
pub use crate::report::{Report, Reports};
pub use crate::scheduler::{LongPoll, Options, RunOutcome, RunState, Scheduler, Stats};
pub use crate::task::TaskId;
pub use crate::time::Time;
pub use crate::trace::TraceHash;
pub use crate::wait::Key;
