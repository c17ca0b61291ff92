//! The map from keys to those in line for them: open addressing, made for keys that come and go.
//!
//! The one idea is that a wait and the signal that ends it are one look each: [`Lines::find`] gives the place where a
//! key is **or would be**, and all that follows is done there. Places are probed one after the other (Knuth, The Art of
//! Computer Programming 3, 6.4, algorithm L) and a vacated one is closed by moving those behind it up (algorithm R),
//! so that nothing is left of keys that are gone. Keys are our own consecutive numbers, which a multiplication by the
//! golden ratio spreads almost evenly (ibid.); nobody can choose them to collide.
//!
//! Invariants: at most three places in four are taken, so every search ends; a place without anybody in line and
//! without a permit is vacant; the order of places is not ours, and nothing iterates over them.

use crate::task::NONE;
use crate::trace;
use crate::wait::Key;

/// Everybody in line for one key: the ends of a linked list, or, when `first` is [`NONE`], the number of
/// permits in place of `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) first: u32,
    pub(crate) last_or_permits: u32,
}

impl Line {
    /// Nobody in line and no permit: the key is not there.
    const VACANT: Self = Self::of_permits(0);

    /// The line of one.
    #[inline]
    pub(crate) const fn of_one(waiter: u32) -> Self {
        Self {
            first: waiter,
            last_or_permits: waiter,
        }
    }

    /// Permits, and nobody to take them.
    #[inline]
    pub(crate) const fn of_permits(permits: u32) -> Self {
        Self {
            first: NONE,
            last_or_permits: permits,
        }
    }

    /// Whether the key is not there.
    #[inline]
    pub(crate) const fn is_vacant(self) -> bool {
        self.first == NONE && self.last_or_permits == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    line: Line,
}

/// Names a place until the next change of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaceIndex(usize);

/// The map.
#[derive(Debug)]
pub(crate) struct Lines {
    /// A power of two.
    places: Vec<Place>,
    /// What brings a hash of 64 bits down to a place.
    shift: u32,
    len: usize,
}

impl Lines {
    const VACANT: Place = Place {
        key: Key::new(0),
        line: Line::VACANT,
    };

    pub(crate) fn new() -> Self {
        Self::with_places(8)
    }

    fn with_places(count: usize) -> Self {
        Self {
            places: vec![Self::VACANT; count],
            shift: u64::BITS - count.ilog2(),
            len: 0,
        }
    }

    /// Keys that are there.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    const fn home(&self, key: Key) -> usize {
        (key.as_u64().wrapping_mul(trace::SPREAD) >> self.shift) as usize
    }

    /// The place where the key is, or where it would be.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> PlaceIndex {
        let mask = self.places.len() - 1;
        let mut index = self.home(key);
        loop {
            let place = &self.places[index];
            if place.key == key || place.line.is_vacant() {
                return PlaceIndex(index);
            }
            index = (index + 1) & mask;
        }
    }

    /// What is at a place.
    #[inline]
    pub(crate) fn at(&self, PlaceIndex(index): PlaceIndex) -> Line {
        self.places[index].line
    }

    /// What is at a taken place, to be changed into anything but [`Line::VACANT`].
    #[inline]
    pub(crate) fn at_mut(&mut self, PlaceIndex(index): PlaceIndex) -> &mut Line {
        &mut self.places[index].line
    }

    /// Takes the vacant place that [`find`](Self::find) gave for the key.
    #[inline]
    pub(crate) fn take(&mut self, PlaceIndex(index): PlaceIndex, key: Key, line: Line) {
        debug_assert!(self.places[index].line.is_vacant() && !line.is_vacant());
        self.places[index] = Place { key, line };
        self.len += 1;
        if self.len > self.places.len() / 4 * 3 {
            self.grow();
        }
    }

    /// Vacates a taken place.
    #[inline]
    pub(crate) fn vacate(&mut self, PlaceIndex(index): PlaceIndex) {
        self.len -= 1;
        self.places[index].line = Line::VACANT;
        let next = (index + 1) & (self.places.len() - 1);
        if !self.places[next].line.is_vacant() {
            self.close(index);
        }
    }

    /// Moves those behind a hole up.
    #[cold]
    fn close(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut next = (hole + 1) & mask;
        while !self.places[next].line.is_vacant() {
            // How far the one there had to go from its home: if that is beyond the hole, the hole suits it better.
            let way = next.wrapping_sub(self.home(self.places[next].key)) & mask;
            if way >= next.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.places[hole].line = Line::VACANT;
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::with_places(self.places.len() * 2);
        for place in self.places.iter().filter(|place| !place.line.is_vacant()) {
            let PlaceIndex(index) = larger.find(place.key);
            larger.places[index] = *place;
        }
        larger.len = self.len;
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Keys whose home is the same place of a map of 8, so that they are in each other's way.
    fn neighbours() -> Vec<Key> {
        let lines = Lines::new();
        let home = lines.home(Key::new(0));
        let all = (0..1000).map(Key::new);
        all.filter(|&key| (lines.home(key) + 1 - home) % 8 < 3)
            .collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(
            ops in prop::collection::vec((0..24_usize, any::<bool>(), 1..9_u32), 1..300),
            crowded in any::<bool>(),
        ) {
            let neighbours = neighbours();
            let mut lines = Lines::new();
            let mut model = BTreeMap::<usize, Line>::new();
            for (number, taken, permits) in ops {
                let key_of = |number: usize| if crowded { neighbours[number] } else { Key::new(number as u64) };
                let (key, line) = (key_of(number), Line::of_permits(permits));
                let place = lines.find(key);
                match (model.contains_key(&number), taken) {
                    (true, true) => *lines.at_mut(place) = line,
                    (false, true) => lines.take(place, key, line),
                    (true, false) => lines.vacate(place),
                    (false, false) => prop_assert!(lines.at(place).is_vacant()),
                }
                if taken {
                    model.insert(number, line);
                } else {
                    model.remove(&number);
                }
                prop_assert_eq!(lines.len(), model.len());
                prop_assert!(lines.len() * 4 <= lines.places.len() * 3);
                for number in 0..24 {
                    let expected = model.get(&number).copied().unwrap_or(Line::VACANT);
                    prop_assert_eq!(lines.at(lines.find(key_of(number))), expected);
                }
            }
        }
    }

    #[test]
    fn consecutive_keys_hardly_collide() {
        let mut lines = Lines::new();
        for number in 0..100_000 {
            let place = lines.find(Key::new(number));
            lines.take(place, Key::new(number), Line::of_one(0));
        }
        let away = |number| {
            let key = Key::new(number);
            lines.find(key).0.abs_diff(lines.home(key))
        };
        assert!((0..100_000).map(away).sum::<usize>() < 100_000);
        assert_eq!(size_of::<Place>(), 16);
    }
}
