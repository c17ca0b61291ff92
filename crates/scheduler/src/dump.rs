//! Looking at the scheduler from outside: every task with what it waits for, and why nothing runs.
//!
//! The tables keep no list of a task's waits; a dump, which is rare, gathers them in one pass over the
//! waiters, so a parked task pays nothing for being explainable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::core::Core;
use crate::ready::Priority;
use crate::task::{Body, TaskId};
use crate::time::Time;
use crate::wait::{Key, Stage, Target};

/// Something a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The clock to reach this.
    Timer(Time),
    /// A signal from another task.
    Key(Key),
    /// A signal that may come from outside the scheduler.
    External(Key),
    /// The end of a task.
    Task {
        /// That task.
        id: TaskId,
        /// Its name.
        name: Cow<'static, str>,
    },
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timer(deadline) => write!(f, "time {deadline}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::External(key) => write!(f, "external key {key}"),
            Self::Task { id, name } => write!(f, "task {id} `{name}`"),
        }
    }
}

/// What a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// In the ready queue.
    Ready,
    /// Being polled, by the code that asked for the dump; or ended, with its children being dropped.
    Running,
    /// In the ready queue to be dropped.
    Cancelling,
    /// Parked until one of these comes true. Empty for a task that awaits something the scheduler knows
    /// nothing of, and that nothing will therefore wake.
    Waiting(Vec<WaitsFor>),
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Running => f.write_str("running"),
            Self::Cancelling => f.write_str("being cancelled"),
            Self::Waiting(waits_for) => {
                f.write_str("waits for ")?;
                write_alternatives(f, waits_for)
            }
        }
    }
}

fn write_alternatives(f: &mut fmt::Formatter<'_>, waits_for: &[WaitsFor]) -> fmt::Result {
    let Some((first, others)) = waits_for.split_first() else {
        return f.write_str("nothing the scheduler knows");
    };
    write!(f, "{first}")?;
    others.iter().try_for_each(|other| write!(f, " or {other}"))
}

/// A task as it was when the dump was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedTask {
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: Cow<'static, str>,
    /// The task that spawned it; `None` for a root.
    pub parent: Option<TaskId>,
    /// How many ancestors it has.
    pub depth: usize,
    /// Its priority.
    pub priority: Priority,
    /// What it is doing.
    pub state: TaskState,
    /// Since when, on the driver's clock.
    pub since: Time,
    /// How often it has been polled, as far as 32 bits count.
    pub polls: u64,
}

/// Every task that has not ended. Prints as an indented tree, one task a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    now: Time,
    tasks: Vec<DumpedTask>,
}

impl Dump {
    /// What the clock said.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The tasks: parents before their children, siblings in the order of their spawning.
    #[must_use]
    pub fn tasks(&self) -> &[DumpedTask] {
        &self.tasks
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.tasks.len();
        write!(
            f,
            "{count} {} at {}",
            if count == 1 { "task" } else { "tasks" },
            self.now
        )?;
        for task in &self.tasks {
            let DumpedTask {
                id,
                name,
                depth,
                priority,
                state,
                since,
                polls,
                ..
            } = task;
            let indent = depth * 2;
            write!(
                f,
                "\n{:indent$}{id} `{name}` {priority}: {state}, since {since}",
                ""
            )?;
            write!(f, ", {polls} polls")?;
        }
        Ok(())
    }
}

/// A task that can never run again, as part of [`Idle::Deadlock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The task.
    pub task: TaskId,
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it waits for.
    pub waits_for: Vec<WaitsFor>,
    /// Whether it is one of a ring of tasks each of which waits for the next one to end, and for nothing
    /// else. A task outside such a ring may only be waiting for one that is in it.
    pub in_join_cycle: bool,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} `{}` waits for ", self.task, self.name)?;
        write_alternatives(f, &self.waits_for)?;
        f.write_str(if self.in_join_cycle {
            ", in a cycle"
        } else {
            ""
        })
    }
}

/// Why no task is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idle {
    /// There are no tasks.
    Finished,
    /// Nothing will run before this, unless something outside signals.
    UntilTimer(Time),
    /// Only something outside can wake a task.
    External,
    /// Nothing can wake any task: these are all there are. Signalling a key from outside still would, so a
    /// driver that does that has its tasks use [`Handle::wait_external`](crate::Handle::wait_external).
    Deadlock(Vec<Waiting>),
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("no tasks are left"),
            Self::UntilTimer(deadline) => write!(f, "idle until {deadline}"),
            Self::External => f.write_str("idle until something outside signals"),
            Self::Deadlock(waiting) => {
                f.write_str("deadlock")?;
                waiting.iter().try_for_each(|task| write!(f, "\n  {task}"))
            }
        }
    }
}

impl Core {
    /// Every task that has not ended.
    pub(crate) fn dump(&self) -> Dump {
        let mut waits = self.waits_by_task();
        let tasks = self
            .tasks
            .walk()
            .map(|(id, depth, slot)| DumpedTask {
                id,
                name: slot.name.to_cow(),
                parent: self.tasks.id_at(slot.parent),
                depth,
                priority: slot.priority,
                state: match slot.body {
                    Body::Running => TaskState::Running,
                    _ if slot.cancelled => TaskState::Cancelling,
                    _ if slot.queued => TaskState::Ready,
                    _ => TaskState::Waiting(waits.remove(&id).unwrap_or_default()),
                },
                since: slot.since,
                polls: slot.polls.into(),
            })
            .collect();
        Dump {
            now: self.now,
            tasks,
        }
    }

    /// Why there is nothing to run, when there is not.
    pub(crate) fn idle(&self) -> Idle {
        if self.tasks.alive() == 0 {
            return Idle::Finished;
        }
        if let Some(deadline) = self.timers.next_deadline() {
            return Idle::UntilTimer(deadline);
        }
        if self.waiters.external() > 0 {
            return Idle::External;
        }
        let mut waiting: Vec<Waiting> = self
            .dump()
            .tasks
            .into_iter()
            .filter_map(|task| match task.state {
                TaskState::Waiting(waits_for) => Some(Waiting {
                    task: task.id,
                    name: task.name,
                    waits_for,
                    in_join_cycle: false,
                }),
                _ => None,
            })
            .collect();
        mark_join_cycles(&mut waiting);
        Idle::Deadlock(waiting)
    }

    fn waits_by_task(&self) -> BTreeMap<TaskId, Vec<WaitsFor>> {
        let deadlines: BTreeMap<u32, Time> = self
            .timers
            .iter()
            .map(|(deadline, &waiter)| (waiter, deadline))
            .collect();
        let mut waits = BTreeMap::<TaskId, Vec<WaitsFor>>::new();
        for (index, waiter) in self.waiters.iter() {
            if waiter.stage != Stage::Pending {
                continue;
            }
            let waits_for = match waiter.target {
                Target::Timer(_) => WaitsFor::Timer(deadlines[&index]),
                Target::Key {
                    key,
                    external: false,
                    ..
                } => WaitsFor::Key(key),
                Target::Key {
                    key,
                    external: true,
                    ..
                } => WaitsFor::External(key),
                Target::Join(id) => WaitsFor::Task {
                    id,
                    name: self
                        .tasks
                        .get(id)
                        .map_or(Cow::Borrowed(""), |slot| slot.name.to_cow()),
                },
                Target::Vacant { .. } => unreachable!("only waiters in use are iterated"),
            };
            waits.entry(waiter.task).or_default().push(waits_for);
        }
        waits
    }
}

/// Marks the tasks from which following "waits only for the end of" leads back to themselves. Each task
/// has at most one such successor, so every walk either ends or runs into a ring; a task is visited by one
/// walk only.
fn mark_join_cycles(waiting: &mut [Waiting]) {
    let places: BTreeMap<TaskId, usize> = waiting
        .iter()
        .enumerate()
        .map(|(place, waiting)| (waiting.task, place))
        .collect();
    let joins: Vec<Option<usize>> = waiting
        .iter()
        .map(|waiting| match waiting.waits_for.as_slice() {
            [WaitsFor::Task { id, .. }] => places.get(id).copied(),
            _ => None,
        })
        .collect();
    let mut visited_by = vec![usize::MAX; waiting.len()];
    for start in 0..waiting.len() {
        let mut next = Some(start);
        while let Some(place) = next.filter(|&place| visited_by[place] == usize::MAX) {
            visited_by[place] = start;
            next = joins[place];
        }
        // This walk came upon its own trail: that place is on a ring.
        let Some(entry) = next.filter(|&place| visited_by[place] == start) else {
            continue;
        };
        let mut place = entry;
        while !waiting[place].in_join_cycle {
            waiting[place].in_join_cycle = true;
            place = joins[place].expect("a successor, because the place is on a ring");
        }
    }
}
