//! What the log has said is durable, kept by somebody who trusts no disk.
//!
//! The one idea: an acknowledgement is a promise about bytes, so the bytes are kept and compared. After every start the log
//! must hold each acknowledged record byte for byte, and beyond them either nothing or, as a whole, the one frame that was
//! being written when the last life ended.
//!
//! Invariant: nothing is ever taken out, not even what the log released; a record that turns up again is compared too.

use std::collections::BTreeMap;

use wal::{Lsn, Released};

/// The records that were acknowledged, and the frame that may or may not be there.
#[derive(Debug, Default)]
pub struct History {
    acknowledged: BTreeMap<Lsn, Vec<u8>>,
    /// Handed to the log, which has not said yes.
    tried: Vec<Vec<u8>>,
    /// Below this the log was allowed to delete.
    may_go: Lsn,
    /// How many segments it has begun in the room of released ones.
    pub reused: u64,
}

impl History {
    /// The newest record that is known to be durable.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.acknowledged
            .last_key_value()
            .map_or(Lsn::ZERO, |(lsn, _)| *lsn)
    }

    /// All that was ever acknowledged.
    pub fn records(&self) -> impl Iterator<Item = (Lsn, &[u8])> {
        self.acknowledged
            .iter()
            .map(|(lsn, bytes)| (*lsn, &bytes[..]))
    }

    pub(crate) fn try_frame(&mut self, records: Vec<Vec<u8>>) {
        self.tried = records;
    }

    /// The log has said yes to the frame that was tried. Its records are given back, with their places.
    pub(crate) fn acknowledge(&mut self, first: Lsn) -> Vec<(Lsn, Vec<u8>)> {
        assert_eq!(
            first,
            self.last().next(),
            "the log goes on where its records end"
        );
        let records = std::mem::take(&mut self.tried);
        let news: Vec<_> = (first.0..).map(Lsn).zip(records).collect();
        self.acknowledged.extend(news.iter().cloned());
        news
    }

    /// The log has refused the frame without touching the disk.
    pub(crate) fn withdraw(&mut self) {
        self.tried.clear();
    }

    pub(crate) fn allow_release(&mut self, below: Lsn) {
        self.may_go = self.may_go.max(below);
    }

    pub(crate) fn released(&self, released: &Released) {
        assert!(
            released.last_lsn < self.may_go,
            "the log deleted LSN {} to {} and was allowed to below {}",
            released.first_lsn,
            released.last_lsn,
            self.may_go
        );
    }

    /// Holds what a start has found against what was promised. Gives what is new: records that were on their way to the
    /// disk when the last life ended, and have made it.
    pub(crate) fn compare(&mut self, found: &[(Lsn, Vec<u8>)]) -> Vec<(Lsn, Vec<u8>)> {
        let last = self.last();
        if let Some((first, _)) = found.first() {
            assert!(
                *first <= self.may_go.max(Lsn::FIRST),
                "the log begins at LSN {first}, and was allowed to delete below {} only",
                self.may_go
            );
        }
        for (lsn, bytes) in found {
            if let Some(promised) = self.acknowledged.get(lsn) {
                assert!(
                    promised == bytes,
                    "the record at LSN {lsn} is not the one that was acknowledged"
                );
            }
        }
        let end = found.last().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
        assert!(
            end >= last,
            "the log ends at LSN {end}, and LSN {last} was acknowledged"
        );
        let news: Vec<_> = found
            .iter()
            .filter(|(lsn, _)| *lsn > last)
            .cloned()
            .collect();
        let tried = std::mem::take(&mut self.tried);
        // Who knows nothing yet, because the log was written by somebody else, takes over what is there.
        let knows_nothing = self.acknowledged.is_empty() && tried.is_empty();
        assert!(
            knows_nothing
                || news.is_empty()
                || news.iter().map(|(_, bytes)| bytes).eq(tried.iter()),
            "beyond the {last} records that were acknowledged the log has {} of the {} that were handed to it",
            news.len(),
            tried.len()
        );
        self.acknowledged.extend(news.iter().cloned());
        news
    }
}
