//! What the scheduler has to tell its driver beside the outcome of a run: tasks that panicked, and tasks
//! that held the loop too long.
//!
//! Reports wait in a bounded queue for [`Scheduler::take_reports`](crate::Scheduler::take_reports); when
//! it is full the oldest stay, since the first of a series of faults says the most, and the rest are
//! counted.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::task::TaskId;

/// One thing a person should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A task panicked. Whoever joins it learns the same; a detached task is only seen here.
    Panicked {
        /// The task.
        task: TaskId,
        /// Its name.
        name: Cow<'static, str>,
        /// What the panic said.
        message: String,
    },
    /// A destructor of a task that had already ended, or was being cancelled, panicked. The task's
    /// outcome stands.
    DropPanicked {
        /// The task.
        task: TaskId,
        /// Its name.
        name: Cow<'static, str>,
        /// What the panic said.
        message: String,
    },
    /// A combinator's waker panicked when the loop called it. The task that it was called for is ready all
    /// the same.
    WakerPanicked {
        /// What the panic said.
        message: String,
    },
    /// One poll of a task, or the dropping of its frame, took longer than
    /// [`LongPoll::limit`](crate::LongPoll::limit).
    LongPoll {
        /// The task.
        task: TaskId,
        /// Its name.
        name: Cow<'static, str>,
        /// How long it held the loop.
        duration: Duration,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked {
                task,
                name,
                message,
            } => {
                write!(f, "task {task} `{name}` panicked: {message}")
            }
            Self::DropPanicked {
                task,
                name,
                message,
            } => {
                write!(
                    f,
                    "task {task} `{name}` panicked while it was dropped: {message}"
                )
            }
            Self::WakerPanicked { message } => write!(f, "a waker panicked: {message}"),
            Self::LongPoll {
                task,
                name,
                duration,
            } => {
                write!(
                    f,
                    "task {task} `{name}` held the scheduler for {duration:?}"
                )
            }
        }
    }
}

/// The reports since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// In the order in which things happened.
    pub reports: Vec<Report>,
    /// How many came when the queue was full, and are lost.
    pub dropped: u64,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct ReportQueue {
    kept: Reports,
    reports_max: usize,
}

impl ReportQueue {
    pub(crate) fn new(reports_max: usize) -> Self {
        Self {
            kept: Reports::default(),
            reports_max,
        }
    }

    pub(crate) fn push(&mut self, report: Report) {
        if self.kept.reports.len() < self.reports_max {
            self.kept.reports.push(report);
        } else {
            self.kept.dropped += 1;
        }
    }

    pub(crate) fn take(&mut self) -> Reports {
        std::mem::take(&mut self.kept)
    }
}
