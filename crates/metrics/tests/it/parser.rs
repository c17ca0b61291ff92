//! A small, strict reader of both text formats, written from their specifications and not from the
//! writer: what it refuses a scraper may refuse.

use std::collections::BTreeMap;

use metrics::Format;

/// A metric as the text has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) unit: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    /// As it is written.
    pub(crate) value: String,
}

impl Sample {
    pub(crate) fn number(&self) -> f64 {
        match self.value.as_str() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            value => value.parse().unwrap(),
        }
    }
}

/// Every metric by the name of its family.
///
/// # Panics
///
/// If the text breaks a rule of the format.
pub(crate) fn parse(text: &str, format: Format) -> BTreeMap<String, Parsed> {
    let text = match format {
        Format::Prometheus => text,
        Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("an end mark"),
    };
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line has no end"
    );
    let mut metrics: BTreeMap<String, Parsed> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (word, rest) = rest.split_once(' ').unwrap();
            let (family, rest) = rest.split_once(' ').unwrap();
            if family != current {
                current = family.to_owned();
                let before = metrics.insert(current.clone(), Parsed::default());
                assert_eq!(before, None, "{family} is in two places");
            }
            let metric = metrics.get_mut(&current).unwrap();
            assert!(
                metric.samples.is_empty(),
                "{word} of {family} after its samples"
            );
            match word {
                "HELP" => metric.help = unescape(rest, format == Format::OpenMetrics),
                "TYPE" => metric.kind = rest.to_owned(),
                "UNIT" => metric.unit = Some(rest.to_owned()),
                _ => panic!("{line}"),
            }
        } else {
            let sample = sample(line);
            let metric = metrics
                .get_mut(&current)
                .expect("samples after their family's lines");
            let ending = sample
                .name
                .strip_prefix(&current)
                .expect("samples under their family");
            let endings: &[&str] = match (format, metric.kind.as_str()) {
                (_, "histogram") => &["_bucket", "_sum", "_count"],
                (Format::OpenMetrics, "counter") => &["_total"],
                (Format::OpenMetrics, "info") => &["_info"],
                (_, "gauge") | (Format::Prometheus, "counter") => &[""],
                other => panic!("{other:?}"),
            };
            assert!(endings.contains(&ending), "{line}");
            let twice = |it: &Sample| it.name == sample.name && it.labels == sample.labels;
            assert!(!metric.samples.iter().any(twice), "{line} is there twice");
            metric.samples.push(sample);
        }
    }
    metrics
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            // The closing quote is the first that no odd number of backslashes comes before.
            let mut escaped = false;
            let close = after
                .find(|c| {
                    let is_close = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    is_close
                })
                .unwrap();
            labels.push((label.to_owned(), unescape(&after[..close], true)));
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' ') && !value.is_empty(), "{line}");
    Sample {
        name: name.to_owned(),
        labels,
        value: value.to_owned(),
    }
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => panic!("\\{other:?} in {text}"),
            }),
            '"' if quotes => panic!("a bare quote in {text}"),
            _ => out.push(c),
        }
    }
    out
}
