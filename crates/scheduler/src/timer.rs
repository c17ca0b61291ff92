//! A queue of things to be had at a time: the earliest first, and of two for the same time the one that
//! was put in first.
//!
//! The one idea: a binary heap that is **never searched**. Cancelling takes the value out of its slot and
//! leaves the heap entry behind as a husk, told apart by its slot's generation. Husks are dropped when they
//! come to the top, and all at once when they outnumber the living, so a program that sets and cancels a
//! timeout around every step pays O(log n) a timer and holds memory for at most twice the timers it has.
//!
//! Invariants: the entry at the top of the heap is alive, so [`TimerQueue::next_deadline`] only looks; a
//! slot's generation goes up with each timer and a slot out of generations is retired, so a token kept too
//! long names nothing instead of another's timer; entries in the heap are at most 64 or twice the living ones, whichever is more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Below this many heap entries husks are not worth a sweep.
const COMPACT_ABOVE: usize = 64;

/// Marks the end of the list of vacant slots.
const NO_SLOT: u32 = u32::MAX;

/// Names one timer of one queue, for [`TimerQueue::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerToken {
    slot: u32,
    generation: u32,
}

/// A heap entry. The derived order is the queue's: by deadline, then by sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: Time,
    sequence: u64,
    slot: u32,
    generation: u32,
}

/// Where a timer's value is kept while its entry moves about in the heap.
#[derive(Debug)]
struct Slot<T> {
    /// How many timers the slot had before this one.
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Vacant { next: u32 },
    Armed(T),
}

impl<T> Slot<T> {
    /// Whether the timer that had the slot at `generation` is still to come.
    const fn is_armed(&self, generation: u32) -> bool {
        self.generation == generation && matches!(self.state, State::Armed(_))
    }
}

/// Values ordered by the time at which they are due.
///
/// ```
/// use scheduler::Time;
/// use scheduler::timer::TimerQueue;
///
/// let mut queue = TimerQueue::new();
/// let token = queue.insert(Time::from_millis(5), "five");
/// queue.insert(Time::from_millis(7), "seven");
/// assert_eq!(queue.cancel(token), Some("five"));
/// assert_eq!(queue.pop_due(Time::from_millis(6)), None);
/// assert_eq!(queue.pop_due(Time::from_millis(7)), Some((Time::from_millis(7), "seven")));
/// ```
#[derive(Debug)]
pub struct TimerQueue<T> {
    heap: BinaryHeap<Reverse<Entry>>,
    slots: Vec<Slot<T>>,
    vacant: u32,
    next_sequence: u64,
    len: usize,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerQueue<T> {
    /// An empty queue, which has allocated nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            vacant: NO_SLOT,
            next_sequence: 0,
            len: 0,
        }
    }

    /// Timers in the queue, cancelled ones not counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is in the queue.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `value` in, to be had from `deadline` on. O(log n), and O(1) for a deadline later than all
    /// others.
    ///
    /// # Panics
    ///
    /// If the queue would hold 2³² timers.
    pub fn insert(&mut self, deadline: Time, value: T) -> TimerToken {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let slot = self.vacant_slot();
        let place = &mut self.slots[slot as usize];
        if let State::Vacant { next } = std::mem::replace(&mut place.state, State::Armed(value)) {
            self.vacant = next;
        }
        let generation = place.generation;
        self.heap.push(Reverse(Entry {
            deadline,
            sequence,
            slot,
            generation,
        }));
        self.len += 1;
        TimerToken { slot, generation }
    }

    /// Takes a timer out and gives its value back; `None` if it was popped or cancelled before.
    /// O(log n) amortised.
    pub fn cancel(&mut self, token: TimerToken) -> Option<T> {
        let value = self.disarm(token.slot, token.generation)?;
        if self.heap.len() > COMPACT_ABOVE && self.heap.len() > 2 * self.len {
            let Self { heap, slots, .. } = self;
            heap.retain(|Reverse(entry)| slots[entry.slot as usize].is_armed(entry.generation));
        }
        self.drop_husks_at_the_top();
        Some(value)
    }

    /// Takes out the first timer that is due at `now`, with its deadline.
    pub fn pop_due(&mut self, now: Time) -> Option<(Time, T)> {
        let &Reverse(entry) = self.heap.peek()?;
        if entry.deadline > now {
            return None;
        }
        self.heap.pop();
        let value = self
            .disarm(entry.slot, entry.generation)
            .expect("an armed timer, because the entry at the top is alive");
        self.drop_husks_at_the_top();
        #[cfg(planted)]
        if crate::planted::is("timer-lost") && self.next_deadline() == Some(entry.deadline) {
            // Of two timers for the same moment the first is lost.
            return self.pop_due(now);
        }
        Some((entry.deadline, value))
    }

    /// When the next timer is due; `None` if there is none.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.deadline)
    }

    /// The deadline and value of every timer, in no useful order: for dumps.
    pub fn iter(&self) -> impl Iterator<Item = (Time, &T)> {
        self.heap.iter().filter_map(|Reverse(entry)| {
            let slot = &self.slots[entry.slot as usize];
            match &slot.state {
                State::Armed(value) if slot.generation == entry.generation => {
                    Some((entry.deadline, value))
                }
                _ => None,
            }
        })
    }

    /// A slot to put a timer in: the one vacated last, or else a new one.
    fn vacant_slot(&mut self) -> u32 {
        if self.vacant == NO_SLOT {
            self.vacant = u32::try_from(self.slots.len())
                .ok()
                .filter(|&slot| slot != NO_SLOT)
                .expect("a free slot, because 2^32 timers do not fit in memory with their tasks");
            self.slots.push(Slot {
                generation: 0,
                state: State::Vacant { next: NO_SLOT },
            });
        }
        self.vacant
    }

    fn disarm(&mut self, slot: u32, generation: u32) -> Option<T> {
        let place = self
            .slots
            .get_mut(slot as usize)
            .filter(|place| place.is_armed(generation))?;
        let vacant = State::Vacant { next: self.vacant };
        let State::Armed(value) = std::mem::replace(&mut place.state, vacant) else {
            unreachable!("the slot was found armed above");
        };
        // A slot out of generations is never put back: a token must not name a second timer.
        if let Some(generation) = place.generation.checked_add(1) {
            place.generation = generation;
            self.vacant = slot;
        }
        self.len -= 1;
        Some(value)
    }

    fn drop_husks_at_the_top(&mut self) {
        while let Some(Reverse(entry)) = self.heap.peek() {
            if self.slots[entry.slot as usize].is_armed(entry.generation) {
                break;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(queue: &mut TimerQueue<u32>, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_due(Time::from_nanos(now)))
            .map(|(_, value)| value)
            .collect()
    }

    #[test]
    fn ties_come_out_in_the_order_they_went_in() {
        let mut queue = TimerQueue::new();
        for value in 0..100 {
            queue.insert(Time::from_nanos(u64::from(value % 3)), value);
        }
        let mut expected: Vec<u32> = (0..100).collect();
        expected.sort_by_key(|value| value % 3);
        assert_eq!(drain(&mut queue, 2), expected);
    }

    #[test]
    fn a_queue_is_empty_once_its_last_timer_is_gone() {
        let mut queue = TimerQueue::new();
        assert_eq!((queue.is_empty(), queue.len()), (true, 0));
        let token = queue.insert(Time::from_nanos(1), 1);
        queue.insert(Time::from_nanos(2), 2);
        assert_eq!((queue.is_empty(), queue.len()), (false, 2));
        assert_eq!(queue.cancel(token), Some(1));
        assert_eq!((queue.is_empty(), queue.len()), (false, 1));
        assert_eq!(drain(&mut queue, 2), [2]);
        assert_eq!((queue.is_empty(), queue.len()), (true, 0));
    }

    #[test]
    fn an_old_token_does_not_cancel_the_slots_next_timer() {
        let mut queue = TimerQueue::new();
        let old = queue.insert(Time::from_nanos(1), 1);
        assert_eq!(queue.cancel(old), Some(1));
        queue.insert(Time::from_nanos(2), 2);
        assert_eq!(queue.cancel(old), None);
        assert_eq!(drain(&mut queue, 2), [2]);

        // The last generation of a slot: it is not used again.
        queue.slots[0].generation = u32::MAX;
        let last = queue.insert(Time::from_nanos(3), 3);
        assert_eq!((last.slot, queue.cancel(last)), (0, Some(3)));
        assert_eq!(queue.insert(Time::from_nanos(4), 4).slot, 1);
        assert_eq!(queue.cancel(last), None);
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let mut queue = TimerQueue::new();
        let far = queue.insert(Time::from_nanos(0), 0);
        for value in 0..100_000_u32 {
            let token = queue.insert(Time::from_nanos(u64::from(value)), value);
            queue.cancel(token);
            assert!(queue.heap.len() <= COMPACT_ABOVE + 1);
        }
        assert_eq!(queue.slots.len(), 2);
        assert_eq!(queue.cancel(far), Some(0));
        assert_eq!((queue.len(), queue.next_deadline()), (0, None));
    }

    proptest! {
        /// Against a list that is searched from end to end for everything.
        #[test]
        fn behaves_as_a_sorted_list(ops in prop::collection::vec((0..4_u8, 0..20_u64), 1..200)) {
            let mut queue = TimerQueue::new();
            let mut model: Vec<(u64, u32)> = Vec::new();
            let mut tokens = Vec::new();
            let mut now = 0;
            for (number, (op, argument)) in (0_u32..).zip(ops) {
                match op {
                    0 | 1 => {
                        tokens.push((queue.insert(Time::from_nanos(now + argument), number), number));
                        model.push((now + argument, number));
                    }
                    2 if !tokens.is_empty() => {
                        let (token, value) = tokens[argument as usize % tokens.len()];
                        let known = model.iter().position(|&(_, kept)| kept == value);
                        prop_assert_eq!(queue.cancel(token), known.map(|at| model.remove(at).1));
                    }
                    _ => {
                        now += argument;
                        let mut due: Vec<_> =
                            model.extract_if(.., |&mut (deadline, _)| deadline <= now).collect();
                        due.sort_unstable();
                        let due: Vec<u32> = due.into_iter().map(|(_, value)| value).collect();
                        prop_assert_eq!(drain(&mut queue, now), due);
                    }
                }
                let first = model.iter().map(|&(deadline, _)| Time::from_nanos(deadline)).min();
                prop_assert_eq!(queue.next_deadline(), first);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.iter().count(), model.len());
            }
        }
    }
}
