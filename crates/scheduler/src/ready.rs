//! Who runs next: four first-in-first-out levels, and a budget that keeps a higher one from starving a
//! lower one.
//!
//! The one idea is weighted round robin by **credits**. Each level has as many credits as its
//! [weight](Priority::weight). The highest level that has both a ready task and a credit goes next and
//! pays one; when no level with a ready task has a credit left, a new round begins and all get theirs
//! back. So a higher level runs first and gets the larger share, and nobody waits longer than a number
//! that can be written down: see [`Priority::polls_within`], which a property test holds it to.
//!
//! Invariants: a task is queued at most once; `left_behind` counts the entries of a level whose task has
//! ended, and a level with no others is empty, so such an entry is never chosen, never paid for and never
//! starts a round; the order depends on nothing but the order of pushes and pops.

use std::collections::VecDeque;
use std::fmt;

use crate::task::TaskId;

/// How much of the scheduler's attention a task gets while others are ready too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Housekeeping: one poll in a round of 15.
    Background,
    /// Two polls in a round of 15.
    Low,
    /// Four polls in a round of 15.
    #[default]
    Normal,
    /// Eight polls in a round of 15.
    High,
}

/// Number of levels.
const LEVELS: usize = Priority::ALL.len();

/// Polls in a round in which every level has enough to do.
const ROUND_POLLS: u64 = 1 + 2 + 4 + 8;

impl Priority {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::Background, Self::Low, Self::Normal, Self::High];

    /// Polls that this level gets in a round: 1, 2, 4 or 8.
    #[must_use]
    pub const fn weight(self) -> u64 {
        1 << self as u64
    }

    /// The number of polls, its own included, within which a ready task of this level is run, with
    /// `ahead` tasks of its level in front of it.
    ///
    /// With T = 15 the polls of a whole round, w the level's weight and h the weights of the levels above
    /// it, in the worst case the level has just spent its credits: the others may spend theirs, T − w
    /// polls; then come ⌊ahead ∕ w⌋ whole rounds; then the levels above, h polls, the rest of those in
    /// front, and the task itself. For a task at the head of its level that is 8 polls at
    /// [`High`](Self::High), 20 at [`Normal`](Self::Normal), 26 at [`Low`](Self::Low) and 29 at
    /// [`Background`](Self::Background), however many tasks there are.
    #[must_use]
    pub const fn polls_within(self, ahead: u64) -> u64 {
        let weight = self.weight();
        let above = ROUND_POLLS + 1 - 2 * weight;
        let rounds = ahead / weight;
        (ROUND_POLLS - weight) + rounds * ROUND_POLLS + above + ahead % weight + 1
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Background => "background",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

#[derive(Debug, Default)]
struct Level {
    queue: VecDeque<TaskId>,
    left_behind: usize,
    credits: u64,
}

impl Level {
    /// Tasks still to be run.
    #[inline]
    fn waiting(&self) -> usize {
        self.queue.len() - self.left_behind
    }

    /// Throws away entries left behind when there are no others: they need not wait for their turn to go.
    #[inline]
    fn clear(&mut self) {
        if self.left_behind > 0 {
            self.queue.clear();
            self.left_behind = 0;
        }
    }
}

/// The ready tasks.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    levels: [Level; LEVELS],
    /// Bit set of levels with a ready task.
    occupied: u8,
    /// Bit set of levels with a credit.
    funded: u8,
}

impl ReadyQueue {
    pub(crate) fn new() -> Self {
        let mut queue = Self {
            levels: std::array::from_fn(|_| Level::default()),
            occupied: 0,
            funded: 0,
        };
        queue.begin_round();
        queue
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(Level::waiting).sum()
    }

    /// Appends a task that is not queued.
    #[inline]
    pub(crate) fn push(&mut self, priority: Priority, task: TaskId) {
        let level = &mut self.levels[priority as usize];
        level.queue.push_back(task);
        self.occupied |= priority.bit();
    }

    /// Notes that a queued task ended: its entry is skipped when it comes up.
    pub(crate) fn forget(&mut self, priority: Priority) {
        let level = &mut self.levels[priority as usize];
        level.left_behind += 1;
        if level.waiting() == 0 {
            level.clear();
            self.occupied &= !priority.bit();
        }
    }

    /// Takes out the task to run next. `is_queued` tells an entry from one left behind.
    #[inline]
    pub(crate) fn pop(&mut self, mut is_queued: impl FnMut(TaskId) -> bool) -> Option<TaskId> {
        let mut eligible = self.occupied & self.funded;
        #[cfg(planted)]
        if crate::planted::is("low-priority-starved") {
            eligible = 0;
        }
        if eligible == 0 {
            if self.occupied == 0 {
                return None;
            }
            self.begin_round();
            eligible = self.occupied;
        }
        let index = eligible.ilog2() as usize;
        let level = &mut self.levels[index];
        let task = loop {
            let task = level
                .queue
                .pop_front()
                .expect("an entry, because the level is occupied");
            if level.left_behind == 0 || is_queued(task) {
                break task;
            }
            level.left_behind -= 1;
        };
        if level.waiting() == 0 {
            level.clear();
            self.occupied &= !(1 << index);
        }
        level.credits -= 1;
        if level.credits == 0 {
            self.funded &= !(1 << index);
        }
        Some(task)
    }

    fn begin_round(&mut self) {
        for (level, priority) in self.levels.iter_mut().zip(Priority::ALL) {
            level.credits = priority.weight();
            self.funded |= priority.bit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_for_a_task_at_the_head_of_its_level() {
        let bounds = Priority::ALL.map(|priority| priority.polls_within(0));
        assert_eq!(bounds, [29, 26, 20, 8]);
        assert_eq!(
            Priority::ALL.map(Priority::weight).iter().sum::<u64>(),
            ROUND_POLLS
        );
    }

    #[test]
    fn the_bound_is_reached() {
        let task = |index| TaskId::new(index, 0);
        let mut ready = ReadyQueue::new();
        // Alone, it spends the round's only credit of its level...
        ready.push(Priority::Background, task(0));
        assert_eq!(ready.pop(|_| true), Some(task(0)));
        // ...and comes back together with more than enough of everybody else.
        ready.push(Priority::Background, task(0));
        for index in 1..=3 {
            (0..100).for_each(|_| ready.push(Priority::ALL[index as usize], task(index)));
        }
        let polls = 1 + std::iter::from_fn(|| ready.pop(|_| true))
            .position(|id| id == task(0))
            .unwrap();
        assert_eq!(polls as u64, Priority::Background.polls_within(0));
    }

    #[test]
    fn entries_left_behind_cost_nothing() {
        let task = |index| TaskId::new(index, 0);
        let mut ready = ReadyQueue::new();
        (0..10).for_each(|index| ready.push(Priority::Low, task(index)));
        (0..9).for_each(|_| ready.forget(Priority::Low));
        assert_eq!(ready.pop(|id| id == task(9)), Some(task(9)));
        assert_eq!(
            ready.levels[Priority::Low as usize].credits,
            Priority::Low.weight() - 1
        );
        ready.push(Priority::Low, task(0));
        ready.forget(Priority::Low);
        assert!(ready.is_empty() && ready.levels.iter().all(|level| level.queue.is_empty()));
    }
}
