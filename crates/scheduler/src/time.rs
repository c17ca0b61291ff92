//! The scheduler's clock reading: a number of nanoseconds that somebody outside supplies.
//!
//! The scheduler never asks what time it is. A driver tells it, from a monotonic clock in the daemon
//! and from a number it makes up in tests, and so the same run can be had again at any speed.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point on the driver's clock, in nanoseconds since an origin that the driver chose.
///
/// Covers 584 years; sums that would leave that range stop at [`Time::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin, where a new scheduler's clock stands.
    pub const ZERO: Self = Self(0);
    /// The last point there is: a timer set for it is never due in practice.
    pub const MAX: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The point `millis` milliseconds after the origin, or [`Time::MAX`] if that is further away.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// As a duration since the origin, `1.5s`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_moves_by_what_is_added() {
        let mut time = Time::from_nanos(5);
        time += Duration::from_nanos(7);
        assert_eq!(time, Time::from_nanos(12));
    }

    #[test]
    fn sums_stop_at_the_end_of_time() {
        assert_eq!(
            Time::from_nanos(u64::MAX - 1) + Duration::from_secs(1),
            Time::MAX
        );
        assert_eq!(Time::ZERO + Duration::MAX, Time::MAX);
        assert_eq!(Time::from_millis(u64::MAX), Time::MAX);
    }

    #[test]
    fn a_difference_is_never_negative() {
        let (early, late) = (Time::from_millis(1), Time::from_millis(3));
        assert_eq!(late.duration_since(early), Duration::from_millis(2));
        assert_eq!(early.duration_since(late), Duration::ZERO);
    }
}
