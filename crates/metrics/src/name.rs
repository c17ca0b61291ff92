//! How metrics are named.
//!
//! `tinkerbell_<crate>_<what>_<unit>`: so the names of one part stand together, and a number's unit is in
//! its name. The rules are those of Prometheus' [naming practices] and of OpenMetrics 1.0 as far as
//! a program can check them, and those that `promtool check metrics` complains of:
//!
//! - lower-case words of letters and digits, joined by single underscores; `tinkerbell` and at
//!   least two more, or `process` and what every Prometheus client puts after it;
//! - base units and whole words: `seconds`, never `ms`; `bytes`, never `kb`; `ratio`, never `percent`;
//! - counters end in `_total`, info metrics in `_info`, and no others do; no name ends in what the
//!   formats add by themselves (`_count`, `_sum`, `_bucket`, `_created`);
//! - label names are words like these; `le` and `quantile` are the formats' own.
//!
//! [naming practices]: https://prometheus.io/docs/practices/naming/

use crate::instrument::Kind;

/// Words for units that are not base units, or are abbreviated.
const UNITS_REFUSED: [&str; 30] = [
    "s",
    "sec",
    "secs",
    "ms",
    "us",
    "ns",
    "msec",
    "usec",
    "nsec",
    "millis",
    "micros",
    "nanos",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "b",
    "kb",
    "mb",
    "gb",
    "kib",
    "mib",
    "gib",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "percent",
    "percentage",
];

/// Endings that mean something to the text formats.
const ENDINGS: [&str; 6] = ["total", "info", "count", "sum", "bucket", "created"];

/// Units that OpenMetrics is told of in a line of their own.
const UNITS_KNOWN: [&str; 4] = ["seconds", "bytes", "ratio", "celsius"];

/// What is wrong with a metric's name, if something is.
pub(crate) fn check(name: &str, kind: Kind) -> Result<(), String> {
    let words: Vec<&str> = name.split('_').collect();
    if !words.iter().all(|word| is_word(word)) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("it must be lower-case words joined by single underscores".to_owned());
    }
    match words.as_slice() {
        ["tinkerbell", _, _, ..] | ["process", _, ..] => {}
        _ => return Err("it must read tinkerbell_<crate>_<what>_<unit>".to_owned()),
    }
    if let Some(word) = words.iter().find(|word| UNITS_REFUSED.contains(word)) {
        return Err(format!("`{word}` is not a base unit in full"));
    }
    let own_ending = match kind {
        Kind::Counter => Some("total"),
        Kind::Info => Some("info"),
        Kind::Gauge | Kind::Histogram => None,
    };
    let last = words[words.len() - 1];
    match own_ending {
        Some(ending) if last != ending => Err(format!("it must end in `_{ending}`")),
        None if ENDINGS.contains(&last) => {
            Err(format!("`_{last}` at its end means something else"))
        }
        _ => Ok(()),
    }
}

/// What is wrong with a label's name, if something is.
pub(crate) fn check_label(name: &str) -> Result<(), String> {
    if !name.split('_').all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "its label `{name}` must be lower-case words joined by single underscores"
        ));
    }
    if matches!(name, "le" | "quantile") {
        return Err(format!("the label `{name}` belongs to the text formats"));
    }
    Ok(())
}

fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The name OpenMetrics has for the whole of a metric: without the ending that its samples have.
pub(crate) fn family(name: &str, kind: Kind) -> &str {
    match kind {
        Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
        Kind::Info => name.strip_suffix("_info").unwrap_or(name),
        Kind::Gauge | Kind::Histogram => name,
    }
}

/// The unit at the end of a family's name, if it has a known one.
pub(crate) fn unit(family: &str) -> Option<&str> {
    let (_, last) = family.rsplit_once('_')?;
    UNITS_KNOWN.contains(&last).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken() {
        for (name, kind) in [
            ("tinkerbell_wal_appends_total", Kind::Counter),
            ("tinkerbell_wal_fsync_seconds", Kind::Histogram),
            ("tinkerbell_pal_kept_bytes", Kind::Gauge),
            ("tinkerbell_build_info", Kind::Info),
            ("process_open_fds", Kind::Gauge),
            ("tinkerbell_api_http2_streams", Kind::Gauge),
        ] {
            assert_eq!(check(name, kind), Ok(()), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_rule() {
        let cases = [
            ("", Kind::Gauge, "lower-case words"),
            ("tinkerbell_Wal_size", Kind::Gauge, "lower-case words"),
            ("tinkerbell__wal_size", Kind::Gauge, "lower-case words"),
            ("tinkerbell_wal_size_", Kind::Gauge, "lower-case words"),
            ("tinkerbell_größe_bytes", Kind::Gauge, "lower-case words"),
            ("1tinkerbell_wal_size", Kind::Gauge, "lower-case words"),
            ("tinkerbell_wal", Kind::Gauge, "must read tinkerbell_"),
            ("other_wal_size", Kind::Gauge, "must read tinkerbell_"),
            ("tinkerbell_wal_fsync_ms", Kind::Histogram, "`ms`"),
            ("tinkerbell_wal_ms_total", Kind::Counter, "`ms`"),
            ("tinkerbell_wal_used_percent", Kind::Gauge, "`percent`"),
            (
                "tinkerbell_wal_appends",
                Kind::Counter,
                "must end in `_total`",
            ),
            (
                "tinkerbell_wal_appends_info",
                Kind::Counter,
                "must end in `_total`",
            ),
            (
                "tinkerbell_build_version",
                Kind::Info,
                "must end in `_info`",
            ),
            (
                "tinkerbell_wal_size_total",
                Kind::Gauge,
                "means something else",
            ),
            (
                "tinkerbell_wal_turn_count",
                Kind::Histogram,
                "means something else",
            ),
        ];
        for (name, kind, rule) in cases {
            let error = check(name, kind).unwrap_err();
            assert!(error.contains(rule), "{name}: {error}");
        }
    }

    #[test]
    fn label_names_are_checked() {
        assert_eq!(check_label("exit_code"), Ok(()));
        for name in ["", "_x", "__x", "x__y", "X", "9x", "a-b", "le", "quantile"] {
            assert!(check_label(name).is_err(), "{name}");
        }
    }
}
