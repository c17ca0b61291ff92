//! Who waits for what: one small record per waiting future, and a first-in-first-out line per key.
//!
//! The one idea is that a signal is **handed over**, not announced. It goes to the first waiter in line,
//! whose record turns to [`Stage::Granted`], or, with nobody in line, it is kept as a permit for the next.
//! Nothing can slip in between the signal and the poll that receives it, so there is no lost wake-up to
//! guard against and no order of polls that changes who gets what. A waiter dropped after the grant and
//! before its poll passes it on.
//!
//! Invariants: a key is in the map only while somebody waits for it or a permit is kept for it, and never
//! both; a record is owned by the one future that registered it, which is the only one to remove it, so an
//! index needs no generation; the map is never iterated, since its order is not ours.

use std::collections::BTreeMap;
use std::fmt;
use std::task::Waker;

use crate::lines::{Line, Lines, PlaceIndex};
use crate::task::{NONE, TaskId};
use crate::timer::TimerToken;

/// A thing to wait for and to signal. Made by [`Handle::new_key`](crate::Handle::new_key).
///
/// Its number is aligned as half of it would be, which lets a waiter be 32 bytes and not 40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))]
pub struct Key(u64);

impl Key {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of the key: the first of a scheduler is 0, and none is given twice.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_u64().fmt(f)
    }
}

/// How far a wait has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Pending,
    /// Over; the next poll says so.
    Woken,
    /// Over, and holding a permit that must go to somebody.
    Granted,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Timer(TimerToken),
    /// `before` and `behind` are the neighbours in line.
    Key {
        key: Key,
        external: bool,
        before: u32,
        behind: u32,
    },
    Join(TaskId),
    /// No waiter. `next` is the next in the list of vacant records.
    Vacant {
        next: u32,
    },
}

/// One waiting future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) target: Target,
    /// The task that polled the future last; [`TaskId::NOBODY`] when that was not a task.
    pub(crate) task: TaskId,
    pub(crate) stage: Stage,
    has_waker: bool,
}

/// A waiter that was woken: whom to make ready, and whom to call.
pub(crate) struct Wake {
    /// [`TaskId::NOBODY`] if it was no task that waited.
    pub(crate) task: TaskId,
    /// A waker that is not ours, to be called when nothing is borrowed.
    pub(crate) waker: Option<Waker>,
}

/// What became of a signal.
pub(crate) enum Signalled {
    /// It woke the first in line.
    Granted(Wake),
    /// It is kept for the next to come.
    Kept,
}

/// All waiting futures and all kept permits.
pub(crate) struct Waiters {
    records: Vec<Waiter>,
    vacant: u32,
    lines: Lines,
    /// Wakers of combinators that poll their parts with their own. Rare, so not in every record.
    wakers: BTreeMap<u32, Waker>,
    /// Pending waiters that something outside may wake.
    external: usize,
    /// Records in use.
    len: usize,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            records: Vec::new(),
            vacant: NONE,
            lines: Lines::new(),
            wakers: BTreeMap::new(),
            external: 0,
            len: 0,
        }
    }

    /// Pending waiters that something outside may wake.
    pub(crate) const fn external(&self) -> usize {
        self.external
    }

    /// Records in use, pending or not.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Keys that are waited for or hold a permit.
    pub(crate) fn keys(&self) -> usize {
        self.lines.len()
    }

    /// Every waiter with its index, in the order of their records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Waiter)> {
        (0..)
            .zip(&self.records)
            .filter(|(_, waiter)| !matches!(waiter.target, Target::Vacant { .. }))
    }

    /// The index that the next waiter will get.
    ///
    /// # Panics
    ///
    /// If there would be 2³² waiters.
    #[inline]
    pub(crate) fn next_index(&self) -> u32 {
        if self.vacant != NONE {
            return self.vacant;
        }
        u32::try_from(self.records.len())
            .ok()
            .filter(|&index| index != NONE)
            .expect("a free record, because 2^32 waiters do not fit in memory")
    }

    /// Registers a waiter that stands in no line, or is about to, and takes the waker.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        target: Target,
        task: TaskId,
        waker: &mut Option<Waker>,
    ) -> u32 {
        let index = self.next_index();
        let waiter = Waiter {
            target,
            task,
            stage: Stage::Pending,
            has_waker: waker.is_some(),
        };
        match self.records.get_mut(index as usize) {
            Some(place) => {
                let Target::Vacant { next } = place.target else {
                    unreachable!("the list of vacant records holds vacant records only");
                };
                self.vacant = next;
                *place = waiter;
            }
            None => self.records.push(waiter),
        }
        if let Some(waker) = waker.take() {
            self.wakers.insert(index, waker);
        }
        self.len += 1;
        index
    }

    /// Takes one kept permit, or else puts a waiter with the waker at the end of the line for `key`. `None` means that
    /// there was a permit, and the waker stays where it is.
    #[inline]
    pub(crate) fn take_permit_or_enqueue(
        &mut self,
        key: Key,
        external: bool,
        task: TaskId,
        waker: &mut Option<Waker>,
    ) -> Option<u32> {
        let place = self.lines.find(key);
        let line = self.lines.at(place);
        if line.first == NONE && line.last_or_permits > 0 {
            self.set_permits(place, line.last_or_permits - 1);
            return None;
        }
        let before = if line.first == NONE {
            NONE
        } else {
            line.last_or_permits
        };
        let index = self.insert(
            Target::Key {
                key,
                external,
                before,
                behind: NONE,
            },
            task,
            waker,
        );
        if before == NONE {
            self.lines.take(place, key, Line::of_one(index));
        } else {
            self.lines.at_mut(place).last_or_permits = index;
            *self.neighbours(before).1 = index;
        }
        self.external += usize::from(external);
        Some(index)
    }

    /// Writes down that so many permits are left at a place that holds permits.
    fn set_permits(&mut self, place: PlaceIndex, permits: u32) {
        if permits == 0 {
            self.lines.vacate(place);
        } else {
            *self.lines.at_mut(place) = Line::of_permits(permits);
        }
    }

    /// Throws away the kept permits and says how many there were.
    pub(crate) fn clear(&mut self, key: Key) -> u32 {
        let place = self.lines.find(key);
        let line = self.lines.at(place);
        if line.is_vacant() || line.first != NONE {
            return 0;
        }
        self.lines.vacate(place);
        line.last_or_permits
    }

    /// Hands a permit to the first in line, or keeps it.
    #[inline]
    pub(crate) fn signal(&mut self, key: Key) -> Signalled {
        let place = self.lines.find(key);
        let line = self.lines.at(place);
        if line.first != NONE {
            self.leave_line_at(place, line.first);
            return Signalled::Granted(self.wake(line.first, Stage::Granted));
        }
        let kept = Line::of_permits(line.last_or_permits.saturating_add(1));
        if line.is_vacant() {
            self.lines.take(place, key, kept);
        } else {
            *self.lines.at_mut(place) = kept;
        }
        Signalled::Kept
    }

    /// Takes the first in line out and wakes it without a permit; `None` when nobody is in line.
    pub(crate) fn wake_first(&mut self, key: Key) -> Option<Wake> {
        let place = self.lines.find(key);
        let first = self.lines.at(place).first;
        if first == NONE {
            return None;
        }
        self.leave_line_at(place, first);
        Some(self.wake(first, Stage::Woken))
    }

    /// Notes that a waiter's wait is over.
    #[inline(always)]
    pub(crate) fn wake(&mut self, index: u32, stage: Stage) -> Wake {
        let waiter = &mut self.records[index as usize];
        waiter.stage = stage;
        let task = waiter.task;
        let waker = if std::mem::take(&mut waiter.has_waker) {
            self.wakers.remove(&index)
        } else {
            None
        };
        Wake { task, waker }
    }

    /// Whether the wait is over. If so the record is gone, else it is from now on this task and this waker
    /// that will be woken; the waker before is given back, to be dropped when nothing is borrowed.
    #[inline]
    pub(crate) fn finish_or_renew(
        &mut self,
        index: u32,
        task: TaskId,
        waker: Option<Waker>,
    ) -> (bool, Option<Waker>) {
        let waiter = &mut self.records[index as usize];
        if waiter.stage != Stage::Pending {
            self.vacate(index);
            return (true, waker);
        }
        waiter.task = task;
        let had_waker = std::mem::replace(&mut waiter.has_waker, waker.is_some());
        let before = match waker {
            Some(waker) => self.wakers.insert(index, waker),
            None if had_waker => self.wakers.remove(&index),
            None => None,
        };
        (false, before)
    }

    /// Removes a waiter whose future is being dropped, out of its line too if it is in one. Its waker is
    /// given back, to be dropped when nothing is borrowed.
    pub(crate) fn remove(&mut self, index: u32) -> (Target, Stage, Option<Waker>) {
        let Waiter { target, stage, .. } = self.records[index as usize];
        if stage == Stage::Pending {
            self.leave_line(index);
        }
        let Wake { waker, .. } = self.wake(index, stage);
        self.vacate(index);
        (target, stage, waker)
    }

    /// Removes a waiter that stands in no line. Its waker is given back, to be dropped when nothing is borrowed.
    #[inline]
    pub(crate) fn finish(&mut self, index: u32) -> Option<Waker> {
        let Wake { waker, .. } = self.wake(index, Stage::Woken);
        self.vacate(index);
        waker
    }

    #[inline]
    fn vacate(&mut self, index: u32) {
        self.records[index as usize].target = Target::Vacant { next: self.vacant };
        self.vacant = index;
        self.len -= 1;
    }

    /// Takes a waiter out of the line it stands in, if it waits for a key.
    fn leave_line(&mut self, index: u32) {
        if let Target::Key { key, .. } = self.records[index as usize].target {
            self.leave_line_at(self.lines.find(key), index);
        }
    }

    /// Takes a waiter out of its line, which is at that place.
    #[inline(always)]
    fn leave_line_at(&mut self, place: PlaceIndex, index: u32) {
        let Target::Key {
            external,
            before,
            behind,
            ..
        } = self.records[index as usize].target
        else {
            unreachable!("only waiters for a key stand in a line");
        };
        self.external -= usize::from(external);
        if before == NONE && behind == NONE {
            self.lines.vacate(place);
            return;
        }
        if before == NONE {
            self.lines.at_mut(place).first = behind;
        } else {
            *self.neighbours(before).1 = behind;
        }
        if behind == NONE {
            self.lines.at_mut(place).last_or_permits = before;
        } else {
            *self.neighbours(behind).0 = before;
        }
    }

    /// The links of a waiter that stands in a line.
    fn neighbours(&mut self, index: u32) -> (&mut u32, &mut u32) {
        match &mut self.records[index as usize].target {
            Target::Key { before, behind, .. } => (before, behind),
            other => unreachable!("only waiters for a key are linked in a line, not {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Waiter>() <= 32, "{}", size_of::<Waiter>());
    }

    #[test]
    fn whoever_leaves_the_line_leaves_the_others_in_order() {
        let key = Key::new(7);
        for leaver in 0..4 {
            let mut waiters = Waiters::new();
            let line: Vec<u32> = (0..4)
                .map(|task| {
                    let task = TaskId::new(task, 0);
                    let index = waiters.take_permit_or_enqueue(key, true, task, &mut None);
                    index.expect("no permit is kept")
                })
                .collect();
            waiters.remove(line[leaver as usize]);
            let woken: Vec<u32> = std::iter::from_fn(|| waiters.wake_first(key))
                .map(|wake| wake.task.index())
                .collect();
            let others: Vec<u32> = (0..4).filter(|&task| task != leaver).collect();
            assert_eq!(woken, others);
            assert_eq!((waiters.keys(), waiters.external()), (0, 0));
        }
    }
}
