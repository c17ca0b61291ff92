//! The table of tasks: a slab of slots, and in it the tree of who spawned whom.
//!
//! The one idea is the blanket implementation of [`Coroutine`]: every future *is* a coroutine whose exit
//! value is boxed when it ends. So a parked task is one slot and one box of exactly the future's size; no
//! wrapper doubles the future, no cell waits for the value, and a task that returns `()` allocates nothing
//! to say so.
//!
//! Invariants: a slot's generation goes up each time it is vacated, so a [`TaskId`] names one task for
//! ever (a slot whose generations are used up is retired); a task is in its parent's list of children, or
//! the list of roots, from its birth to its end and not after; a parent is alive as long as any child of
//! it is, so links need no generation.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::ready::Priority;
use crate::time::Time;

/// "No slot", in links between slots.
pub(crate) const NONE: u32 = u32::MAX;

/// Names one task of one scheduler for ever: its slot, and how many tasks had the slot before it.
///
/// One number and not two, so that it is stored and loaded as one. Aligned as half of it would be, for the sake of the
/// records it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))]
pub struct TaskId(u64);

impl TaskId {
    /// The name of no task: what a scheduler that is gone calls those it refuses.
    pub(crate) const NOBODY: Self = Self::new(NONE, NONE);

    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    #[inline]
    pub(crate) const fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As one number, different for every task of a scheduler.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// `slot.generation`, as in `12.0`.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.index(), self.generation()))
    }
}

/// A task's name in 16 bytes instead of a `Cow`'s 24: names that are made up are the rare ones, and pay
/// for it with one more box.
#[derive(Debug)]
pub(crate) enum Name {
    Fixed(&'static str),
    #[allow(clippy::box_collection, reason = "a thin pointer is the point")]
    Made(Box<String>),
}

impl Name {
    pub(crate) fn to_cow(&self) -> Cow<'static, str> {
        match self {
            Self::Fixed(name) => Cow::Borrowed(name),
            Self::Made(name) => Cow::Owned(String::clone(name)),
        }
    }

    pub(crate) fn into_cow(self) -> Cow<'static, str> {
        match self {
            Self::Fixed(name) => Cow::Borrowed(name),
            Self::Made(name) => Cow::Owned(*name),
        }
    }
}

impl From<Cow<'static, str>> for Name {
    fn from(name: Cow<'static, str>) -> Self {
        match name {
            Cow::Borrowed(name) => Self::Fixed(name),
            Cow::Owned(name) => Self::Made(Box::new(name)),
        }
    }
}

/// A future whose output has lost its type, so that tasks of all kinds fit one table.
pub(crate) trait Coroutine {
    /// Polls the future; what it returns is boxed, which is free for a value without a size.
    fn step(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Box<dyn Any>>;
}

impl<F> Coroutine for F
where
    F: Future,
    F::Output: 'static,
{
    fn step(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Box<dyn Any>> {
        self.poll(context)
            .map(|output| Box::new(output) as Box<dyn Any>)
    }
}

/// A task's code and variables between two polls.
pub(crate) type Frame = Pin<Box<dyn Coroutine>>;

/// How a task ended.
pub(crate) enum Outcome {
    Returned(Box<dyn Any>),
    Cancelled,
    Panicked(Box<str>),
}

/// What a slot holds beside its bookkeeping.
pub(crate) enum Body {
    /// A task between two polls.
    Suspended(Frame),
    /// A task that is being polled or dropped: the frame is on the scheduler's stack.
    Running,
    /// A task that ended and whose exit value nobody has taken yet.
    Ended(Outcome),
    /// No task. `next` is the next slot in the list of vacant ones.
    Vacant { next: u32 },
}

/// One task. There may be a million of them, so a test watches the size.
pub(crate) struct Slot {
    pub(crate) body: Body,
    pub(crate) name: Name,
    /// Since when the task has been in its present state.
    pub(crate) since: Time,
    /// Saturates.
    pub(crate) polls: u32,
    generation: u32,
    pub(crate) parent: u32,
    youngest_child: u32,
    older_sibling: u32,
    younger_sibling: u32,
    /// The waiter through which somebody joins this task. There is one join handle, so at most one.
    pub(crate) joiner: u32,
    pub(crate) priority: Priority,
    /// In the ready queue.
    pub(crate) queued: bool,
    /// To be dropped when the loop reaches it.
    pub(crate) cancelled: bool,
    /// Nobody will ask for the exit value.
    pub(crate) detached: bool,
}

impl Slot {
    /// Whether the slot holds a task that has not ended.
    pub(crate) const fn is_alive(&self) -> bool {
        matches!(self.body, Body::Suspended(_) | Body::Running)
    }

    /// Puts the frame of the running task back.
    #[inline(always)]
    pub(crate) fn suspend(&mut self, frame: Frame) {
        match &mut self.body {
            // Assigned under the match, so that there is no look at what is to be dropped, which is nothing.
            running @ Body::Running => *running = Body::Suspended(frame),
            _ => panic!("only a running task is put back"),
        }
    }

    /// Leaves the outcome of the running task in the place of its frame.
    #[inline(always)]
    fn end(&mut self, outcome: Outcome) {
        assert!(
            matches!(self.body, Body::Running),
            "only a running task ends"
        );
        // There is nothing to drop in what was there, and to say so keeps the code that would look out of the way.
        std::mem::forget(std::mem::replace(&mut self.body, Body::Ended(outcome)));
    }

    /// Marks the task as running and hands out its frame.
    #[inline]
    pub(crate) fn take_frame(&mut self) -> Option<Frame> {
        match std::mem::replace(&mut self.body, Body::Running) {
            Body::Suspended(frame) => Some(frame),
            other => {
                self.body = other;
                None
            }
        }
    }
}

/// What a new task starts with.
pub(crate) struct Birth {
    pub(crate) frame: Frame,
    pub(crate) name: Name,
    pub(crate) priority: Priority,
    /// The slot of the parent, or [`NONE`] for a root.
    pub(crate) parent: u32,
    pub(crate) now: Time,
}

/// The table.
pub(crate) struct Tasks {
    slots: Vec<Slot>,
    vacant: u32,
    youngest_root: u32,
    alive: usize,
}

impl Tasks {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: NONE,
            youngest_root: NONE,
            alive: 0,
        }
    }

    /// Tasks that have not ended.
    pub(crate) const fn alive(&self) -> usize {
        self.alive
    }

    /// Slots that hold a task, ended ones whose exit value is kept included.
    #[cfg(test)]
    pub(crate) fn occupied(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| !matches!(slot.body, Body::Vacant { .. }))
            .count()
    }

    /// Adds a task, which the caller puts in the ready queue.
    #[inline]
    pub(crate) fn insert(&mut self, birth: Birth) -> TaskId {
        let Birth {
            frame,
            name,
            priority,
            parent,
            now,
        } = birth;
        let index = if self.vacant == NONE {
            u32::try_from(self.slots.len())
                .ok()
                .filter(|&index| index != NONE)
                .expect("a free slot, because 2^32 tasks do not fit in memory")
        } else {
            self.vacant
        };
        let older_sibling = std::mem::replace(self.youngest_child_of(parent), index);
        let mut slot = Slot {
            body: Body::Suspended(frame),
            name,
            since: now,
            polls: 0,
            generation: 0,
            parent,
            youngest_child: NONE,
            older_sibling,
            younger_sibling: NONE,
            joiner: NONE,
            priority,
            queued: true,
            cancelled: false,
            detached: false,
        };
        let generation = match self.slots.get_mut(index as usize) {
            None => {
                self.slots.push(slot);
                0
            }
            Some(place) => {
                let Body::Vacant { next } = place.body else {
                    unreachable!("the list of vacant slots holds vacant slots only");
                };
                self.vacant = next;
                slot.generation = place.generation;
                // A vacant slot has nothing to drop.
                std::mem::forget(std::mem::replace(place, slot));
                place.generation
            }
        };
        if older_sibling != NONE {
            self.slots[older_sibling as usize].younger_sibling = index;
        }
        self.alive += 1;
        TaskId::new(index, generation)
    }

    /// The task of that name, unless it is gone. An ended one is there until its exit value is taken.
    #[inline]
    pub(crate) fn get(&self, id: TaskId) -> Option<&Slot> {
        self.slots
            .get(id.index() as usize)
            .filter(|slot| slot.generation == id.generation())
    }

    /// As [`Tasks::get`].
    #[inline]
    pub(crate) fn get_mut(&mut self, id: TaskId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.index() as usize)
            .filter(|slot| slot.generation == id.generation())
    }

    /// The task of that name, if it has not ended.
    #[inline]
    pub(crate) fn get_alive(&mut self, id: TaskId) -> Option<&mut Slot> {
        self.get_mut(id).filter(|slot| slot.is_alive())
    }

    /// The task in the slot, whichever it is: for the loop and the task being polled, which keep the slot from being
    /// vacated. `None` for [`TaskId::NOBODY`]'s.
    #[inline(always)]
    pub(crate) fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    /// The task in a slot that a link points to.
    pub(crate) fn id_at(&self, index: u32) -> Option<TaskId> {
        let slot = self.slots.get(index as usize)?;
        Some(TaskId::new(index, slot.generation))
    }

    /// Takes a task that is ending out of the tree and leaves its outcome for whoever joins it.
    ///
    /// # Panics
    ///
    /// If it still has children: they end first.
    #[inline]
    pub(crate) fn end(&mut self, id: TaskId, outcome: Outcome) -> &mut Slot {
        let slot = &mut self.slots[id.index() as usize];
        assert!(
            slot.youngest_child == NONE,
            "children end before their parent"
        );
        slot.end(outcome);
        let (parent, older, younger) = (slot.parent, slot.older_sibling, slot.younger_sibling);
        if older != NONE {
            self.slots[older as usize].younger_sibling = younger;
        }
        if younger == NONE {
            *self.youngest_child_of(parent) = older;
        } else {
            self.slots[younger as usize].older_sibling = older;
        }
        self.alive -= 1;
        &mut self.slots[id.index() as usize]
    }

    /// Takes the outcome of an ended task, and its name, and vacates its slot.
    #[inline]
    pub(crate) fn reap(&mut self, id: TaskId) -> Option<(Outcome, Name)> {
        let slot = self
            .slots
            .get_mut(id.index() as usize)
            .filter(|slot| slot.generation == id.generation())
            .filter(|slot| matches!(slot.body, Body::Ended(_)))?;
        let body = std::mem::replace(&mut slot.body, Body::Vacant { next: self.vacant });
        let name = std::mem::replace(&mut slot.name, Name::Fixed(""));
        // A slot out of generations is never put back: an id must not name a second task.
        if let Some(generation) = slot.generation.checked_add(1) {
            slot.generation = generation;
            self.vacant = id.index();
        }
        match body {
            Body::Ended(outcome) => Some((outcome, name)),
            _ => unreachable!("the task was found ended above"),
        }
    }

    /// The first task of a subtree to be dropped when all of it is, and its parent: from `id` down, always
    /// the youngest child. That is `id` itself when it has no children.
    pub(crate) fn youngest_leaf(&self, id: TaskId) -> (TaskId, Option<TaskId>) {
        let mut index = id.index();
        loop {
            let slot = &self.slots[index as usize];
            if slot.youngest_child == NONE {
                return (TaskId::new(index, slot.generation), self.id_at(slot.parent));
            }
            index = slot.youngest_child;
        }
    }

    #[inline]
    pub(crate) fn has_children(&self, id: TaskId) -> bool {
        self.slots[id.index() as usize].youngest_child != NONE
    }

    /// The root spawned last among those alive.
    pub(crate) fn youngest_root(&self) -> Option<TaskId> {
        self.id_at(self.youngest_root)
    }

    /// Every task alive with its depth in the tree: parents before their children, siblings oldest first.
    pub(crate) fn walk(&self) -> impl Iterator<Item = (TaskId, usize, &Slot)> {
        let mut stack = Vec::new();
        self.push_siblings(self.youngest_root, 0, &mut stack);
        std::iter::from_fn(move || {
            let (index, depth) = stack.pop()?;
            let slot = &self.slots[index as usize];
            self.push_siblings(slot.youngest_child, depth + 1, &mut stack);
            Some((TaskId::new(index, slot.generation), depth, slot))
        })
    }

    /// Pushes a list of siblings, youngest first, so that they are popped oldest first.
    fn push_siblings(&self, youngest: u32, depth: usize, stack: &mut Vec<(u32, usize)>) {
        let mut index = youngest;
        while index != NONE {
            stack.push((index, depth));
            index = self.slots[index as usize].older_sibling;
        }
    }

    fn youngest_child_of(&mut self, parent: u32) -> &mut u32 {
        if parent == NONE {
            &mut self.youngest_root
        } else {
            &mut self.slots[parent as usize].youngest_child
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(tasks: &mut Tasks, parent: u32) -> TaskId {
        tasks.insert(Birth {
            frame: Box::pin(async {}),
            name: Name::Fixed("task"),
            priority: Priority::Normal,
            parent,
            now: Time::ZERO,
        })
    }

    fn end(tasks: &mut Tasks, id: TaskId) {
        drop(tasks.get_mut(id).and_then(Slot::take_frame));
        tasks.end(id, Outcome::Cancelled);
    }

    #[test]
    fn a_slot_stays_small() {
        assert!(size_of::<Slot>() <= 80, "{}", size_of::<Slot>());
    }

    #[test]
    fn an_id_never_names_a_second_task() {
        let mut tasks = Tasks::new();
        let first = spawn(&mut tasks, NONE);
        end(&mut tasks, first);
        tasks.reap(first);
        let second = spawn(&mut tasks, NONE);
        assert_eq!((first.index(), second.index()), (0, 0));
        assert!(tasks.get(first).is_none() && tasks.get(second).is_some());

        // The last generation of a slot: it is not used again.
        tasks.slots[0].generation = u32::MAX;
        let last = TaskId::new(0, u32::MAX);
        end(&mut tasks, last);
        tasks.reap(last);
        assert_eq!(spawn(&mut tasks, NONE).index(), 1);
    }

    #[test]
    fn the_tree_is_walked_from_the_oldest_and_ended_from_the_youngest() {
        let mut tasks = Tasks::new();
        let root = spawn(&mut tasks, NONE);
        let [a, b, c] = std::array::from_fn(|_| spawn(&mut tasks, root.index()));
        let grandchild = spawn(&mut tasks, c.index());
        let walked: Vec<_> = tasks.walk().map(|(id, depth, _)| (id, depth)).collect();
        assert_eq!(walked, [(root, 0), (a, 1), (b, 1), (c, 1), (grandchild, 2)]);

        end(&mut tasks, b);
        let ended: Vec<_> = std::iter::from_fn(|| {
            let leaf = tasks
                .youngest_root()
                .map(|root| tasks.youngest_leaf(root).0)?;
            end(&mut tasks, leaf);
            Some(leaf)
        })
        .collect();
        assert_eq!(ended, [grandchild, c, a, root]);
        assert_eq!((tasks.alive(), tasks.occupied()), (0, 5));
    }
}
