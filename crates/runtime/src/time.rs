//! Times, as values. Clocks stay outside: the driver reads them, the engine is told.

use scheduler::Time;

/// What time it is, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back and does not jump; its zero means nothing.
    pub monotonic: Time,
    /// Unix time in milliseconds, which people and restarts agree on, and which may jump.
    pub unix_ms: u64,
}

impl Now {
    /// When, on the monotonic clock, the Unix time `unix_ms` will be reached if neither clock jumps.
    #[must_use]
    pub fn monotonic_at(self, unix_ms: u64) -> Time {
        let wait_ms = unix_ms.saturating_sub(self.unix_ms);
        Time::from_nanos(
            self.monotonic
                .as_nanos()
                .saturating_add(wait_ms.saturating_mul(1_000_000)),
        )
    }
}

/// A Unix time as RFC 3339 text in UTC, to the millisecond.
///
/// The calendar is Howard Hinnant's `civil_from_days` ("chrono-compatible low-level date algorithms"), which is exact for
/// the proleptic Gregorian calendar.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms_of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Unix time counts from 1970-03-01 minus 60 days less the era's start: 719,468 days after 0000-03-01.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
    let (second, milli) = (ms_of_day / 1_000 % 60, ms_of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
    }

    #[test]
    fn a_time_in_the_past_is_due_at_once() {
        let now = Now {
            monotonic: Time::from_nanos(500),
            unix_ms: 1_000,
        };
        assert_eq!(now.monotonic_at(999), now.monotonic);
        assert_eq!(now.monotonic_at(1_002), Time::from_nanos(2_000_500));
    }
}
