//! [`Lsn`]: the position of a record in the log.
//!
//! The one idea: a record is named by its place in the order of all records, and by nothing else.
//! The numbers are dense, so a missing record is seen by arithmetic alone.

use std::fmt;

/// A log sequence number: the place of one record among all records ever appended.
///
/// The first record has number 1 and each next record one more, across segments and restarts.
/// `Lsn(0)` names no record; it means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);
    /// The first record of a new log.
    pub const FIRST: Lsn = Lsn(1);

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of the record after this one.
    ///
    /// # Panics
    /// In debug builds after 2^64 records, which at a billion a second takes five centuries.
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// The number of the record before this one; [`Lsn::ZERO`] stays where it is.
    #[must_use]
    pub const fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> u64 {
        lsn.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_next_and_but_for_zero_one_before() {
        assert_eq!(Lsn::FIRST.prev(), Lsn::ZERO);
        assert_eq!(Lsn::ZERO.prev(), Lsn::ZERO);
        assert_eq!(Lsn(41).next(), Lsn(42));
        assert_eq!(Lsn(42).prev(), Lsn(41));
        assert_eq!(
            (u64::from(Lsn(42)), Lsn(42).to_string()),
            (42, "42".to_owned())
        );
    }
}
