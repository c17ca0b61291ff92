//! What happened in a run, in order.

use std::collections::{BTreeMap, VecDeque};

/// How many of the last things that happened are told when a run fails.
const STORY_LENGTH: usize = 40;

/// What happened, in order: all of it as a hash, the end of it in words.
#[derive(Debug, Default)]
pub struct Story {
    pub(crate) hash: u64,
    pub(crate) steps: u64,
    last: VecDeque<(u64, &'static str, u64)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Story {
    pub(crate) fn say(&mut self, what: &'static str, number: u64) {
        let words = what.bytes().map(u64::from).chain([number]);
        self.hash = words.fold(self.hash, mix);
        *self.counts.entry(what).or_default() += 1;
        if self.last.len() == STORY_LENGTH {
            self.last.pop_front();
        }
        self.last.push_back((self.steps, what, number));
    }

    /// The last things that happened.
    #[must_use]
    pub fn end(&self) -> Vec<String> {
        let last = self.last.iter();
        last.map(|(step, what, number)| format!("step {step}: {what} {number}"))
            .collect()
    }

    /// The hash over everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Takes one word into a hash.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
