//! Metrics as text: the Prometheus exposition format 0.0.4 and OpenMetrics 1.0.
//!
//! Written after <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. The two differ in the names of counters and
//! infos (a family has no `_total`, `_info` in OpenMetrics), in units, in what a help text escapes, and in
//! the end mark. Everything else is the same on purpose, the spelling of `le` above all: a series must not
//! become another because a scraper asked in another format.

use std::fmt::Write as _;

use crate::collect::{Desc, Series};
use crate::instrument::{Kind, Number, Reading};
use crate::name;

/// A text format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4. Everything reads it.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format for an `Accept` header (RFC 9110, section 12.5.1): OpenMetrics if the client asks for it
    /// by name, in version 1.0.0 or any, and likes it no less than plain text; else Prometheus, also
    /// when the header accepts neither: a scraper with an odd header gets its metrics.
    ///
    /// ```
    /// use metrics::Format;
    /// let scraper = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    /// assert_eq!(Format::negotiate(scraper), Format::OpenMetrics);
    /// assert_eq!(Format::negotiate("text/html,*/*;q=0.8"), Format::Prometheus);
    /// ```
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let (mut open_metrics, mut plain) = (0.0, 0.0);
        for range in accept.split(',').map(MediaRange::parse) {
            let version = range.version.as_deref();
            match range.media_type.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    open_metrics = range.quality.max(open_metrics);
                }
                "text/plain" if matches!(version, None | Some("0.0.4")) => {
                    plain = range.quality.max(plain);
                }
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= plain {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

/// One element of an `Accept` header.
struct MediaRange {
    media_type: String,
    version: Option<String>,
    /// Between 0 and 1.
    quality: f64,
}

impl MediaRange {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self {
            media_type,
            version: None,
            quality: 1.0,
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.to_owned()),
                // A quality that cannot be read is no wish for the format.
                "q" => range.quality = value.parse().map_or(0.0, |q: f64| q.clamp(0.0, 1.0)),
                _ => {}
            }
        }
        range
    }
}

/// A metric with its numbers at one moment.
pub(crate) struct Metric {
    pub(crate) desc: Desc,
    pub(crate) series: Series,
}

pub(crate) fn write(metrics: &[Metric], format: Format) -> String {
    let mut out = Text {
        out: String::new(),
        format,
    };
    for metric in metrics {
        out.metric(metric);
    }
    if format == Format::OpenMetrics {
        out.out.push_str("# EOF\n");
    }
    out.out
}

struct Text {
    out: String,
    format: Format,
}

impl Text {
    fn metric(&mut self, metric: &Metric) {
        self.head(&metric.desc);
        for (values, reading) in &metric.series {
            let labels: Vec<(&str, &str)> = metric
                .desc
                .label_names
                .iter()
                .map(String::as_str)
                .zip(values.iter().map(String::as_str))
                .collect();
            self.series(&metric.desc.name, &labels, reading);
        }
    }

    fn head(&mut self, desc: &Desc) {
        let (family, kind) = match (self.format, desc.kind) {
            // It knows no infos; a gauge of 1 is the custom.
            (Format::Prometheus, Kind::Info) => (desc.name.as_str(), "gauge"),
            (Format::Prometheus, kind) => (desc.name.as_str(), word(kind)),
            (Format::OpenMetrics, kind) => (name::family(&desc.name, kind), word(kind)),
        };
        self.push(&["# HELP ", family, " "]);
        self.escaped(&desc.help, self.format == Format::OpenMetrics);
        self.push(&["\n# TYPE ", family, " ", kind, "\n"]);
        if self.format == Format::OpenMetrics
            && let Some(unit) = name::unit(family)
        {
            self.push(&["# UNIT ", family, " ", unit, "\n"]);
        }
    }

    fn series(&mut self, name: &str, labels: &[(&str, &str)], reading: &Reading) {
        match reading {
            Reading::Number(number) => self.sample(&[name], labels, None, *number),
            Reading::Histogram(histogram) => {
                for (bound, count) in &histogram.cumulative {
                    let le = show(*bound);
                    self.sample(
                        &[name, "_bucket"],
                        labels,
                        Some(&le),
                        Number::Unsigned(*count),
                    );
                }
                let count = Number::Unsigned(histogram.count);
                self.sample(&[name, "_bucket"], labels, Some("+Inf"), count);
                self.sample(&[name, "_sum"], labels, None, Number::Float(histogram.sum));
                self.sample(&[name, "_count"], labels, None, count);
            }
        }
    }

    fn sample(&mut self, name: &[&str], labels: &[(&str, &str)], le: Option<&str>, value: Number) {
        self.push(name);
        let le = le.map(|bound| ("le", bound));
        for (index, (label, value)) in labels.iter().copied().chain(le).enumerate() {
            self.push(&[if index == 0 { "{" } else { "," }, label, "=\""]);
            self.escaped(value, true);
            self.push(&["\""]);
        }
        self.push(&[if labels.is_empty() && le.is_none() {
            " "
        } else {
            "} "
        }]);
        match value {
            Number::Unsigned(n) => write!(self.out, "{n}"),
            Number::Signed(n) => write!(self.out, "{n}"),
            Number::Float(n) => write!(self.out, "{}", show(n)),
        }
        .expect("writing to a string cannot fail because it only grows");
        self.push(&["\n"]);
    }

    fn push(&mut self, parts: &[&str]) {
        self.out.extend(parts.iter().copied());
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '"' if quotes => self.out.push_str("\\\""),
                _ => self.out.push(c),
            }
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    }
}

/// The shortest text that reads back as this number, always with a point or an exponent: the canonical
/// form that OpenMetrics asks for.
fn show(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{number:?}")
    }
}
