//! Sizes and durations as people write them: `64MiB`, `1GB`, `30s`, `1h30m`.
//!
//! Both are whole numbers inside (bytes, milliseconds), so nothing is rounded: what cannot be written exactly is
//! refused. Printing gives the shortest exact form, and reading what was printed gives the same value back.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Binary units first: when both are exact, `64MiB` reads better than `67.108864MB`.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,024 bytes.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1,024² bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many times 1,024³ bytes.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of bytes, as what indexes memory; the largest `usize` where it is larger than that.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let (unit, bytes) = SIZE_UNITS
            .into_iter()
            .find(|(_, bytes)| self.0.is_multiple_of(*bytes))
            .expect("the last unit is one byte, because that divides everything");
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let (number, unit) = split_number(text)?;
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Ok(Self(number));
        }
        let Some((_, bytes)) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::unknown_size(number, unit));
        };
        number
            .checked_mul(bytes)
            .map(Self)
            .ok_or(UnitError::TooLarge)
    }
}

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u64);

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Duration {
    /// So many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(count)
    }

    /// So many seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(count * 1_000)
    }

    /// So many days of 24 hours.
    #[must_use]
    pub const fn days(count: u64) -> Self {
        Self(count * 86_400_000)
    }

    /// The number of milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        Self::from_millis(duration.0)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, millis) in DURATION_UNITS {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(0));
        }
        let mut total = 0_u64;
        let mut unit_before = u64::MAX;
        while !rest.is_empty() {
            let (number, tail) = split_number(rest)?;
            let tail = tail.trim_start();
            let unit_len = tail
                .find(|c: char| !c.is_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            if unit.is_empty() {
                return Err(UnitError::NoUnit { number });
            }
            let Some((_, millis)) = DURATION_UNITS.into_iter().find(|(name, _)| *name == unit)
            else {
                return Err(UnitError::unknown_duration(number, unit));
            };
            // `30m1h` and `1h2h` are far more often a slip than a wish.
            if millis >= unit_before {
                return Err(UnitError::Order);
            }
            unit_before = millis;
            total = number
                .checked_mul(millis)
                .and_then(|part| total.checked_add(part))
                .ok_or(UnitError::TooLarge)?;
            rest = tail.trim_start();
        }
        if unit_before == u64::MAX {
            Err(UnitError::NoNumber)
        } else {
            Ok(Self(total))
        }
    }
}

/// Why a text is not a size or a duration, worded as advice: what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number where one must be.
    #[error("begin with a whole number")]
    NoNumber,
    /// A fraction.
    #[error("use a whole number of a smaller unit in place of a fraction")]
    Fraction,
    /// A negative number.
    #[error("it cannot be negative")]
    Negative,
    /// More than fits 64 bits.
    #[error("the number is too large")]
    TooLarge,
    /// A duration without a unit.
    #[error("add a unit: `{number}ms`, `{number}s`, `{number}m`, `{number}h` or `{number}d`")]
    NoUnit {
        /// The number that stands alone.
        number: u64,
    },
    /// Parts of a duration out of order, or one unit twice.
    #[error("write the larger unit first and each unit once, as in `1h30m`")]
    Order,
    /// A unit that is none.
    #[error("{advice}")]
    UnknownUnit {
        /// Which units there are, or which was probably meant.
        advice: String,
    },
}

impl UnitError {
    fn unknown_size(number: u64, unit: &str) -> Self {
        let advice = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
            Some(first @ ('k' | 'm' | 'g' | 't'))
                if unit.len() <= 3 || unit.to_ascii_lowercase().ends_with("byte") =>
            {
                let binary = first.to_ascii_uppercase();
                let decimal = if first == 'k' { 'k' } else { binary };
                format!(
                    "write `{number}{binary}iB` (powers of 1,024) or `{number}{decimal}B` (powers of 1,000)"
                )
            }
            _ => "the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB".to_owned(),
        };
        Self::UnknownUnit { advice }
    }

    fn unknown_duration(number: u64, unit: &str) -> Self {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "sec" | "secs" | "second" | "seconds" | "s" => Some("s"),
            "min" | "mins" | "minute" | "minutes" | "m" => Some("m"),
            "hr" | "hrs" | "hour" | "hours" | "h" => Some("h"),
            "day" | "days" | "d" => Some("d"),
            "msec" | "msecs" | "milli" | "millis" | "milliseconds" | "ms" => Some("ms"),
            _ => None,
        };
        let advice = meant.map_or_else(
            || "the units are ms, s, m, h and d".to_owned(),
            |unit| format!("write `{number}{unit}`"),
        );
        Self::UnknownUnit { advice }
    }
}

/// Takes a whole number from the front. Underscores may group its digits, as in TOML.
fn split_number(text: &str) -> Result<(u64, &str), UnitError> {
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let len = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(len);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(UnitError::NoNumber);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let number = digits
        .replace('_', "")
        .parse()
        .map_err(|_| UnitError::TooLarge)?;
    Ok((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("16 KiB", 16 << 10),
            ("4096", 4096),
            ("1_000kB", 1_000_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size::bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("0", 0),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(
                text.parse::<Duration>(),
                Ok(Duration::millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn advice_says_what_to_write() {
        let size = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        let duration = |text: &str| text.parse::<Duration>().unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                size("64mb"), size("64Megabyte"), size("64parsec"), size("1.5GiB"), size("-1"), size("big"),
                size("99999999999TiB"), duration("30"), duration("30sec"), duration("5lightyears"),
                duration("30m1h"), duration("1.5h"), duration(""), duration("99999999999999999d"),
            ].join("\n"),
            @r"
        write `64MiB` (powers of 1,024) or `64MB` (powers of 1,000)
        write `64MiB` (powers of 1,024) or `64MB` (powers of 1,000)
        the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB
        use a whole number of a smaller unit in place of a fraction
        it cannot be negative
        begin with a whole number
        the number is too large
        add a unit: `30ms`, `30s`, `30m`, `30h` or `30d`
        write `30s`
        the units are ms, s, m, h and d
        write the larger unit first and each unit once, as in `1h30m`
        use a whole number of a smaller unit in place of a fraction
        begin with a whole number
        the number is too large
        "
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(number: u64) {
            prop_assert_eq!(Size::bytes(number).to_string().parse(), Ok(Size::bytes(number)));
            prop_assert_eq!(Duration::millis(number).to_string().parse(), Ok(Duration::millis(number)));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = text.parse::<Size>();
            let _ = text.parse::<Duration>();
        }
    }
}
